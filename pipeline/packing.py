"""The packets of a video as a row of the `packets` table, and back, to the bit. Pure.

The columns of packets become one binary. Presentation times are kept as ticks, each as its distance from the one before
(or they would not compress), sizes as they are, flags as bits; a column of numbers takes as many bytes a number as its
largest needs, all low bytes first, which zstd makes 5 % less of than of whole numbers. Times in seconds are made again
by the very operation that made them. Before it all stands a checksum over the whole row and the content it is of, so
that neither a damaged row nor that of another video is ever believed.
"""

# n packets of a stream

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from pipeline import decode_plan
from pipeline.decode_plan import PER_FRAME, CostModel, Flags, Numbers, PacketIndex
from schemas.records import DecodeSteps, PackedPackets, Window

FORMAT = 1  # of the binary: what is of another is not read
WIDTHS = (1, 2, 4, 8)  # bytes of a number
LEVEL = 9
WORD_BYTES = 8  # of the checksum, and of the length of what is compressed


class DamagedPackets(ValueError):
    """A row that is not what was packed, or of another content."""


@dataclass(frozen=True, slots=True)
class Packets:
    """What demuxing tells of a video stream; `is_plannable` says that its packets have times and are all shown.

    A time in seconds is a time in ticks times `tick_s` less `zero_s`.
    """

    index: PacketIndex
    end_s: float
    rotation: int
    is_plannable: bool
    codec: str
    width: int
    height: int
    tick_s: float
    zero_s: float

    def steps(
        self, windows: Sequence[Window], tolerance_s: float | None, model: CostModel = PER_FRAME
    ) -> DecodeSteps | None:
        """How to decode some windows at least cost; None where the packets do not tell."""
        return decode_plan.steps(self.index, windows, tolerance_s, model) if self.is_plannable else None


def index(  # noqa: PLR0913  # four columns and how ticks become seconds
    stamp_n: Numbers, size_n: Numbers, key_n: Flags, reference_n: Flags, *, tick_s: float, zero_s: float
) -> PacketIndex:
    """The index of n packets, their times in seconds made from ticks."""
    time_n = np.asarray(stamp_n * tick_s - zero_s, dtype=np.float64)
    return PacketIndex(stamp_n, time_n, size_n, key_n, reference_n)


def pack(packets: Packets, fingerprint: str) -> PackedPackets:
    """The row of a content's packets, of which there are some."""
    found = packets.index
    columns = [
        found.stamp_n[:1].astype("<i8").tobytes(),
        _narrow(np.diff(found.stamp_n)),
        _narrow(found.size_n),
        np.packbits(found.key_n).tobytes(),
        np.packbits(found.reference_n).tobytes(),
    ]
    unpacked = b"".join(columns)
    packed = PackedPackets(
        codec=packets.codec,
        width=packets.width,
        height=packets.height,
        rotation=packets.rotation,
        tick_s=packets.tick_s,
        zero_s=packets.zero_s,
        end_s=packets.end_s,
        is_plannable=packets.is_plannable,
        packet_count=len(found.stamp_n),
        packets=b"",
    )
    compressed = pa.Codec("zstd", LEVEL).compress(unpacked, asbytes=True)
    content = len(unpacked).to_bytes(WORD_BYTES, "little") + compressed
    return replace(packed, packets=_digest(packed, fingerprint, content) + content)


def unpack(row: PackedPackets, fingerprint: str) -> Packets:
    """The packets of a content that were packed. Raises DamagedPackets where the row is not that."""
    unpacked, n, flag_bytes = _unpacked(row, fingerprint), row.packet_count, -(-row.packet_count // 8)
    first, rest = np.frombuffer(unpacked[:8], "<i8"), unpacked[8:]
    steps, rest = _widened(rest, n - 1)
    size_n, rest = _widened(rest, n)
    if len(rest) != 2 * flag_bytes:
        raise DamagedPackets(f"packets of {fingerprint} are not {n}")
    key_n, reference_n = (_flags(part, n) for part in (rest[:flag_bytes], rest[flag_bytes:]))
    stamp_n = np.cumsum(np.concatenate([first.astype(np.int64), steps]))
    made = index(stamp_n, size_n, key_n, reference_n, tick_s=row.tick_s, zero_s=row.zero_s)
    return Packets(
        made, row.end_s, row.rotation, row.is_plannable, row.codec, row.width, row.height, row.tick_s, row.zero_s
    )


def _unpacked(row: PackedPackets, fingerprint: str) -> bytes:
    """The columns; nothing is decompressed that does not have its checksum."""
    digest, content = row.packets[:WORD_BYTES], row.packets[WORD_BYTES:]
    if digest != _digest(row, fingerprint, content):
        raise DamagedPackets(f"packets of {fingerprint} do not have their checksum")
    size_bytes = int.from_bytes(content[:WORD_BYTES], "little")
    unpacked: bytes = pa.Codec("zstd").decompress(content[WORD_BYTES:], size_bytes, asbytes=True)
    return unpacked


def _digest(row: PackedPackets, fingerprint: str, content: bytes) -> bytes:
    """A checksum over a row, with what `packets` has after it, and whose it is."""
    fields = asdict(replace(row, packets=b""))
    said = "\x1f".join(map(repr, [FORMAT, fingerprint, *fields.values()]))
    return xxhash.xxh3_64_digest(said.encode() + content)


def _narrow(numbers: Numbers) -> bytes:
    """Numbers in as few bytes each as the largest needs, after one that says how many: all low bytes, then the next."""
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    width = next(each for each in WIDTHS if low >= -(1 << 8 * each - 1) and high < 1 << 8 * each - 1)
    planes = numbers.astype(f"<i{width}").view(np.uint8).reshape(-1, width).T
    return bytes([width]) + planes.tobytes()


def _widened(packed: bytes, count: int) -> tuple[Numbers, bytes]:
    """`_narrow` undone: so many numbers, and what comes after them."""
    width = packed[0] if packed else 0
    if width not in WIDTHS or len(packed) < 1 + width * count:
        raise DamagedPackets(f"{len(packed)} bytes for {count} numbers")
    planes = np.frombuffer(packed, np.uint8, width * count, 1).reshape(width, count)
    numbers = np.ascontiguousarray(planes.T).view(f"<i{width}").ravel()
    return numbers.astype(np.int64), packed[1 + width * count :]


def _flags(packed: bytes, count: int) -> NDArray[np.bool_]:
    """So many bits."""
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(np.bool_)
