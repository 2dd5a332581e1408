"""Which coded frames nobody predicts from, told by a packet's first bytes: no other frame needs them decoded.

Decoders can leave such frames out themselves (`skip_frame`), but do not tell which they are before they meet them. The
bits are those of ITU-T H.264 7.3.1, H.265 7.3.1.2, H.262 6.2.3 and VP9's uncompressed header. Where a codec or a packet
does not tell, a frame counts as one that others need: more is decoded, and nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

START_CODE = b"\x00\x00\x01"
H264_SLICES = range(1, 6)
HEVC_SLICES = range(32)  # VCL units
HEVC_LEADING = range(16)  # of those, the ones that come in pairs: even types are not referred to by their own layer
HEADER_BYTES = 256  # parameter sets and messages before a frame's first slice; beyond it nobody looks


class Coded(NamedTuple):
    """What a packet says of its frame: its temporal layer, and whether its own layer may predict from it."""

    layer: int
    is_reference: bool


REFERENCE = Coded(0, is_reference=True)


def length_size(codec: str, extradata: bytes | None) -> int:
    """Bytes of the length before each NAL unit, or 0 where start codes divide them.

    `extradata` is the stream's: in MP4 and Matroska avcC or hvcC, which begin with 1.
    """
    at = {"h264": 4, "hevc": 21}.get(codec)
    if at is None or not extradata or extradata[0] != 1 or len(extradata) <= at:
        return 0
    return (extradata[at] & 3) + 1


def _units(data: memoryview, size: int) -> Iterator[int]:
    """Where the NAL units of a packet begin, as far as `HEADER_BYTES` and one unit beyond."""
    at = 0
    while size and at + size < len(data):
        yield at + size
        at += size + int.from_bytes(data[at : at + size], "big")
    if not size:
        head = bytes(data[:HEADER_BYTES])
        at = head.find(START_CODE)
        while 0 <= at < len(head) - 4:
            yield at + 3
            at = head.find(START_CODE, at + 3)


def _h264(data: memoryview, size: int) -> Coded:
    """By `nal_ref_idc` of the first slice."""
    for at in _units(data, size):
        if data[at] & 31 in H264_SLICES:
            return Coded(0, is_reference=data[at] >> 5 & 3 != 0)
    return REFERENCE


def _hevc(data: memoryview, size: int) -> Coded:
    """By the type of the first slice's unit, and its temporal layer."""
    for at in _units(data, size):
        kind = data[at] >> 1 & 63
        if kind in HEVC_SLICES and at + 1 < len(data):
            return Coded((data[at + 1] & 7) - 1, is_reference=kind not in HEVC_LEADING or kind % 2 == 1)
    return REFERENCE


def _picture(code: int, byte: int, shift: int, kind: int) -> Callable[[memoryview, int], Coded]:
    """A reader of the picture type after a start code: B pictures of MPEG-2 and MPEG-4 are never predicted from."""

    def read(data: memoryview, _size: int) -> Coded:
        head = bytes(data[:HEADER_BYTES])
        at = head.find(START_CODE + bytes([code]))
        known = 0 <= at < len(head) - 4 - byte
        return Coded(0, is_reference=not known or head[at + 4 + byte] >> shift & (7 if shift == 3 else 3) != kind)

    return read


def _vp9(data: memoryview, _size: int) -> Coded:
    """By `refresh_frame_flags`; a superframe holds a hidden frame, which is there to be predicted from."""
    if len(data) < 3 or data[-1] & 0xE0 == 0xC0:
        return REFERENCE
    bits = int.from_bytes(data[:4].tobytes().ljust(4, b"\0"), "big")

    def take(at: int, count: int) -> int:
        return bits >> (32 - at - count) & ((1 << count) - 1)

    profile = take(2, 1) | take(3, 1) << 1
    at = 5 if profile == 3 else 4
    shows_existing, is_inter, is_shown, is_resilient = (take(at + k, 1) for k in range(4))
    if shows_existing or not is_inter:
        return REFERENCE
    at += 4
    is_intra_only = 0 if is_shown else take(at, 1)
    at += (not is_shown) + (0 if is_resilient else 2)
    return REFERENCE if is_intra_only else Coded(0, is_reference=take(at, 8) != 0)


_READERS: dict[str, Callable[[memoryview, int], Coded]] = {
    "h264": _h264,
    "hevc": _hevc,
    "mpeg2video": _picture(0x00, 1, 3, 3),
    "mpeg4": _picture(0xB6, 0, 6, 2),
    "vp9": _vp9,
}


def reader(codec: str, extradata: bytes | None) -> Callable[[memoryview], Coded]:
    """What tells of a stream's packets, by FFmpeg's name of the codec and the stream's extradata."""
    read, size = _READERS.get(codec), length_size(codec, extradata)
    return (lambda _: REFERENCE) if read is None else (lambda data: read(data, size))
