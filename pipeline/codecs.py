"""Which codecs FFmpeg decodes on this machine: asked by decoding, since builds differ in what they leave out.

A few grey frames are encoded in memory and decoded again, as a file of somebody's would be. A codec that this build has
no encoder of is looked up only, and said to be so. (FFmpeg's own `av1` is on the list of every build and decodes on
devices alone: a look at the list is no answer.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from pipeline import demux  # which silences FFmpeg's log, too

SIDE = 64  # pixels; no encoder takes much less
LEVELS = (40, 120, 200)  # grey, a frame each
TOLERANCE = 12  # levels: ProRes in 4:2:2 and MJPEG in full range move grey by some
# Codec, an encoder of it, the pixels that encoder takes, a container that holds it.
ENCODERS = (
    ("h264", "libx264", "yuv420p", "matroska"),
    ("hevc", "libx265", "yuv420p", "matroska"),
    ("vp8", "libvpx", "yuv420p", "matroska"),
    ("vp9", "libvpx-vp9", "yuv420p", "matroska"),
    ("av1", "libsvtav1", "yuv420p", "matroska"),
    ("mpeg2video", "mpeg2video", "yuv420p", "matroska"),
    ("mpeg4", "mpeg4", "yuv420p", "matroska"),
    ("mjpeg", "mjpeg", "yuvj420p", "matroska"),
    ("prores", "prores_ks", "yuv422p10le", "mov"),
    ("ffv1", "ffv1", "yuv420p", "matroska"),
)
# Encoders that talk to the terminal, past FFmpeg's log.
QUIET = {"libx265": {"x265-params": "log-level=none"}}
QUIET_ENVIRONMENT = {"SVT_LOG": "0"}
LOOKED_UP = ("vc1", "wmv3", "dnxhd", "dvvideo", "theora")  # found in old archives; no encoder to try them with
State = Literal["decodes", "listed", "missing"]


@dataclass(frozen=True, slots=True)
class CodecState:
    """What is known of a codec here: frames came out of it, or it is on FFmpeg's list, or neither; and why not."""

    codec: str
    state: State
    why: str = ""


def codec_states() -> tuple[CodecState, ...]:
    """Every codec of the two lists."""
    tried = (_tried(*line) for line in ENCODERS)
    return (*tried, *(CodecState(codec, "listed" if _is_listed(codec) else "missing") for codec in LOOKED_UP))


def device_kinds() -> tuple[str, ...]:
    """The kinds of devices that this build of FFmpeg can decode on, whether there are any or not."""
    from av.codec import hwaccel

    return tuple(hwaccel.hwdevices_available())


@contextmanager
def own_priority() -> Iterator[None]:
    """For encoding AV1: leaves the calling thread the scheduling that it had.

    SVT-AV1, run by root, makes the thread that opens it a real-time one (SCHED_FIFO, 99) and never undoes that: all
    that this thread starts afterwards would be as urgent, and what it waits for would get no core.
    """
    if not hasattr(os, "sched_getscheduler"):  # Linux has it
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def nvdec_refusal(device: str, folder: Path) -> str | None:
    """Why a CUDA device does not decode H.264, None if it does. `folder` takes a small file."""
    from pipeline import nvdec  # with torch

    file = folder / "probe.mkv"
    file.write_bytes(_encoded("libx264", "yuv420p", "matroska", side=4 * SIDE).getvalue())
    try:
        hwaccel = nvdec.on_device(device, "h264").hwaccel
        with demux.opened(str(file), hwaccel) as (container, stream):
            frames = sum(1 for _ in container.decode(stream))
    except nvdec.REFUSALS as error:
        return str(error)
    return None if frames == len(LEVELS) else f"{frames} of {len(LEVELS)} frames came out"


def _tried(codec: str, encoder: str, pixels: str, container: str) -> CodecState:
    """A codec after frames went through it."""
    try:
        file = _encoded(encoder, pixels, container)
    except (av.FFmpegError, ValueError) as error:  # UnknownCodecError is a ValueError: this build cannot encode it
        return CodecState(codec, "listed" if _is_listed(codec) else "missing", f"not tried: no encoder ({error})")
    try:
        levels = _levels(file)
    except (av.FFmpegError, ValueError) as error:
        return CodecState(codec, "missing", str(error))
    is_right = len(levels) == len(LEVELS) and bool(np.allclose(levels, LEVELS, atol=TOLERANCE))
    return CodecState(codec, "decodes") if is_right else CodecState(codec, "missing", f"grey came out as {levels}")


def _encoded(encoder: str, pixels: str, container: str, side: int = SIDE) -> BytesIO:
    """A file of a frame of each of LEVELS, wound back to its beginning."""
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    file = BytesIO()
    with own_priority(), av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(encoder, rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = pixels
        stream.options = QUIET.get(encoder, {})
        for number, level in enumerate(LEVELS):
            frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    file.seek(0)
    return file


def _levels(file: BytesIO) -> list[float]:
    """The mean grey of each frame of a file."""
    with av.open(file) as container:
        return [float(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]


def _is_listed(codec: str) -> bool:
    """Whether FFmpeg knows a decoder of this name."""
    try:
        return av.codec.Codec(codec, "r") is not None
    except ValueError:
        return False
