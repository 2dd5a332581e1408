"""Test videos, made and not stored: frame n carries n in its pixels, so that a test can ask which frame it got.

`grey` paints frame n in the grey level 5 * n, for up to 51 frames of any size. `halves` paints a two-digit number,
one digit above the other, for up to 2601 frames. Both survive scaling, the centre crop and lossy codecs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from io import FileIO
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.codecs import own_priority

Picture = NDArray[np.uint8]  # H x W x 3, RGB
Painter = Callable[[int, tuple[int, int]], Picture]  # frame number, (width, height)

STEP = 5  # grey levels between one digit and the next
DIGITS = 51
MILLISECOND = Fraction(1, 1000)
CONTAINERS = {".mkv": "matroska", ".ts": "mpegts", ".mpg": "mpeg"}


def grey(number: int, size: tuple[int, int]) -> Picture:
    """Frame `number` as one grey level."""
    return np.full((size[1], size[0], 3), STEP * number, np.uint8)


def grey_number(picture: Picture) -> int:
    """The number of a frame that `grey` painted."""
    return round(float(picture.mean()) / STEP)


def halves(number: int, size: tuple[int, int]) -> Picture:
    """Frame `number` as two grey levels, high digit above low digit."""
    picture = np.empty((size[1], size[0], 3), np.uint8)
    high, low = divmod(number, DIGITS)
    picture[: size[1] // 2], picture[size[1] // 2 :] = STEP * high, STEP * low
    return picture


def halves_number(picture: Picture) -> int:
    """The number of a frame that `halves` painted."""
    quarter = len(picture) // 4
    return DIGITS * grey_number(picture[:quarter]) + grey_number(picture[-quarter:])


def quadrants(number: int, size: tuple[int, int]) -> Picture:
    """Red, green, blue and white in reading order, whatever the number: shows how a picture is turned."""
    picture = np.empty((size[1], size[0], 3), np.uint8)
    rows, columns = size[1] // 2, size[0] // 2
    picture[:rows, :columns], picture[:rows, columns:] = (255, 0, 0), (0, 255, 0)
    picture[rows:, :columns], picture[rows:, columns:] = (0, 0, 255), (255, 255, 255)
    return picture


class Pipe(FileIO):
    """A file that can only be written to the end: muxers cannot go back to fill in durations and indexes."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError("a pipe does not seek")

    tell = seek


def make_video(
    path: Path,
    *,
    frames: int = 50,
    rate_hz: int = 25,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    container: str | None = None,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    b_frames: int = 0,
    gop: int = 12,
    pixels: str | None = None,
    rotation: int = 0,
    times_s: Sequence[float] | None = None,
    start_s: float = 0.0,
    sound: bool = False,
    piped: bool = False,
    paint: Painter = grey,
) -> Path:
    """Writes a video and returns its path.

    Frames come at a constant rate, or at `times_s` (to the millisecond); `start_s` delays them all. `sound` adds a
    silent stream from 0 to the end of the video. `rotation` is in degrees counter-clockwise. `piped` writes to a file
    that does not seek.
    """
    tick = Fraction(1, rate_hz) if times_s is None else MILLISECOND
    ticks = [round((start_s + time_s) / tick) for time_s in times_s or [n / rate_hz for n in range(frames)]]
    target = Pipe(path, "w") if piped else str(path)
    kind = container or CONTAINERS.get(path.suffix, path.suffix.removeprefix("."))
    with own_priority(), av.open(target, "w", format=kind, options=muxing or {}) as output:
        stream = output.add_stream(codec, rate=rate_hz)
        stream.width, stream.height = size
        stream.pix_fmt = pixels or ("yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p")
        stream.options = {**({"crf": "12", "preset": "ultrafast"} if codec == "libx264" else {}), **(options or {})}
        stream.codec_context.time_base = tick
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        if rotation:
            stream.set_display_rotation(rotation)
        if sound:
            output.mux(silence(output.add_stream("aac", rate=8000, layout="mono"), float(ticks[-1] * tick)))
        for number, pts in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(paint(number, size), format="rgb24")
            frame.pts, frame.time_base = pts, tick
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    if piped:
        target.close()
    return path


def silence(stream: av.AudioStream, duration_s: float) -> Iterable[av.Packet]:
    """Packets of silence, from 0 on."""
    packets: list[av.Packet] = []
    for start in range(0, max(1, int(8000 * duration_s)), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        packets += stream.encode(frame)
    return [*packets, *stream.encode()]


def make_sound(path: Path) -> Path:
    """A file with two seconds of silence and no picture."""
    with av.open(str(path), "w") as output:
        output.mux(silence(output.add_stream("aac", rate=8000, layout="mono"), 2.0))
    return path


def packet_places(path: Path) -> list[tuple[int, int, bool]]:
    """Where each picture packet lies in the file, in file order: offset and size in bytes, and whether it is a key."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return [(packet.pos, packet.size, packet.is_keyframe) for packet in packets]


def damage_packets(path: Path, numbers: Iterable[int], size_bytes: int | None = None) -> Path:
    """Overwrites the second half of these packets, or `size_bytes` of it, with noise; times stay as they are."""
    content = bytearray(path.read_bytes())
    noise = np.random.default_rng(0)
    places = packet_places(path)
    for number in numbers:
        offset, size, _ = places[number]
        count = size_bytes or size - size // 2
        content[offset + size // 2 : offset + size // 2 + count] = noise.integers(0, 256, count, np.uint8).tobytes()
    path.write_bytes(content)
    return path


def truncate(path: Path, fraction: float) -> Path:
    """Cuts a file off, in place."""
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    return path
