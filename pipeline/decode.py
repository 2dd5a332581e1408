"""Packets to frames at model size. With `demux`, the only place that knows PyAV; `decode_shots` cuts by what is seen.

Frames are resized inside the decoding loop, so memory does not grow with the length or size of the video. One pass per
unit, over what its plan names or over everything; one thread per worker.

What was seen on real files decides the odd lines here: decoders with threads and a log level set deadlock at teardown,
AVI files with B-frames come out in the right order with swapped times, one bad packet does not end a stream.
"""

# N clips, T frames, H x W pixels of a picture, S model size, C = 3 channels

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from pipeline import cuts, demux, plan, samples, sampling
from pipeline.damage import Damage
from pipeline.demux import NO_OPTIONS, each_packet, opened, origin_s, stamp_of
from pipeline.picking import Shot, in_order, pick
from pipeline.samples import Picture, Sample, middle
from pipeline.thumbnails import thumbnail_shape, to_webp
from schemas.errors import UndecodableVideo
from schemas.records import DecodeCost, DecodedUnit, DecodeSteps, HashedFile, SourceFile, Unit
from xclip_core.geometry import crop_offset, resized_shape, scaled_shape, squeezed

# Blocks of frames that nobody predicts from are not smoothed: 3 % less work, and nothing that 224 pixels would show.
LEAVE_UNFILTERED = {"skip_loop_filter": "noref"}
CALIBRATION_S = 0.3
SCALED_OF = 4  # of so many packets one is scaled in a calibration
Frame = av.VideoFrame  # for annotations elsewhere
NOTHING_INTACT = "no intact frame could be decoded where the file says there are some"


def intact_frames(container: Any, stream: Any, *, goes_on: bool = True) -> Iterator[Shot]:
    """Frames in presentation order, without those that damage spoils; FFmpegError ends them unless one `goes_on`."""
    zero_s = origin_s(container)
    damage = Damage()
    for packet in each_packet(container, stream):
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.FFmpegError:
            if not goes_on:
                raise
            damage.strike(stamp_of(packet), float(stream.time_base))
            continue  # later packets may be sound: nothing that follows the next key frame is given up
        yield from _sound(frames, damage, zero_s)


class Resizer:
    """Frames to upright RGB pictures; keeps the scaler's tables between frames of the same size."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._whole_shape: tuple[int, int] | None = None

    def upright(self, frame: av.VideoFrame, shape: tuple[int, int]) -> Picture:
        """The frame at height x width `shape` (before turning), turned as its metadata says: H x W x 3 RGB."""
        height, width = shape
        # One thread, as for decoding: the scaler's default is one for each core, which wait for one another.
        scaled = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=Interpolation.AREA, threads=1
        )
        return np.rot90(scaled.to_ndarray(), k=round(frame.rotation / 90))

    def model_input(self, frame: av.VideoFrame, size: int) -> Picture:
        """The centre S x S x 3 of the frame, its short side scaled as the model's preprocessing says."""
        picture = self.upright(frame, squeezed(resized_shape(frame.height, frame.width, size)))
        top, left = crop_offset(picture.shape[0], size), crop_offset(picture.shape[1], size)
        # A copy: a view would keep the whole picture, 16 times as large at worst, for each of a unit's samples.
        return np.ascontiguousarray(picture[top : top + size, left : left + size])

    def whole(self, frame: av.VideoFrame, short_side: int) -> Picture:
        """All of the frame, H x W x 3, the shorter of H and W `short_side`; every frame in the shape of the first."""
        turned = round(frame.rotation / 90) % 2 == 1
        if self._whole_shape is None:
            height, width = squeezed(scaled_shape(frame.height, frame.width, short_side))
            self._whole_shape = (width, height) if turned else (height, width)
        # A stream may change its size on the way; pictures that make one array may not.
        return self.upright(frame, self._whole_shape[::-1] if turned else self._whole_shape)

    def small(self, frame: av.VideoFrame) -> Picture:
        """The whole frame at the size of a thumbnail, H x W x 3."""
        return np.ascontiguousarray(self.upright(frame, thumbnail_shape(frame.height, frame.width)))

    def thumbnail(self, frame: av.VideoFrame) -> bytes:
        """The whole frame as a small WebP picture."""
        return to_webp(self.small(frame))

    def luma(self, frame: av.VideoFrame) -> Picture:
        """The whole frame as a grey picture of LUMA_SHAPE, not turned."""
        height, width = cuts.LUMA_SHAPE
        scaled = self._reformatter.reformat(
            frame, width=width, height=height, format="gray8", interpolation=Interpolation.AREA, threads=1
        )
        return np.asarray(scaled.to_ndarray())


@dataclass(frozen=True, slots=True)
class Device:
    """What decodes in the CPU's place, in PyAV's terms, and what makes pictures of its frames."""

    hwaccel: Any
    resizer: Resizer


@dataclass(frozen=True, slots=True)
class _Way:
    """How packets become samples."""

    scale: Callable[[av.VideoFrame], Picture]
    resizer: Resizer  # of thumbnails
    hwaccel: Any = None  # None: a CPU decodes


def decode_units(image_size: int, units: list[Unit]) -> list[DecodedUnit]:
    """`decode` as a stage."""
    return [decode(unit, image_size) for unit in units]


def decode(unit: Unit, image_size: int, device: Device | None = None) -> DecodedUnit:
    """The unit's clips at model size. Raises UndecodableVideo when no clip can be had.

    By the unit's steps; where a file does not keep what its packets promised, by one pass over all of it. On a device
    the first error ends it: a CPU knows better how to go on.
    """
    began = time.perf_counter()
    wanted_s = sorted({moment for window in unit.windows for moment in window.frame_times_s})
    # Windows that overlap may share the sample that is their picture.
    posters_s = {middle(window) for window in unit.windows}

    resizer, hwaccel = (Resizer(), None) if device is None else (device.resizer, device.hwaccel)
    way = _Way(lambda frame: resizer.model_input(frame, image_size), resizer, hwaccel)
    taken = _take_planned(unit, wanted_s, way, posters_s) or _take(unit.uri, wanted_s, way, posters_s)
    decoded = samples.clips(unit, taken, began)
    if decoded is None:
        raise UndecodableVideo(NOTHING_INTACT)
    return decoded


def short_side_frames(uri: str, wanted_s: Sequence[float], short_side: int) -> Picture:
    """The frames on the screen at `wanted_s`, in any order and with repeats: T x H x W x 3, upright RGB, all of each.

    The shorter of H and W is `short_side`. One forward pass; raises UndecodableVideo when no intact frame comes out.
    """
    resizer = Resizer()
    taken = _take(uri, sorted(set(wanted_s)), _Way(lambda frame: resizer.whole(frame, short_side), resizer))
    if not taken:
        raise UndecodableVideo(NOTHING_INTACT)
    return np.stack([taken[moment].picture for moment in wanted_s])


def _take_planned(
    unit: Unit, wanted_s: list[float], way: _Way, posters_s: Collection[float]
) -> dict[float, Sample] | None:
    """Samples by wanted time, of the frames that the unit's steps name; None if there are none or one is missing."""
    if unit.steps is None:
        return None
    moments_of: dict[int, list[float]] = {}
    for stamp, moment_s in zip(_stamps(unit.steps.shows), wanted_s, strict=True):
        moments_of.setdefault(stamp, []).append(moment_s)
    try:
        is_unfiltered = not unit.steps.is_exact and way.hwaccel is None
        options = LEAVE_UNFILTERED if is_unfiltered else NO_OPTIONS
        with opened(unit.uri, way.hwaccel, options) as (container, stream):
            shots = _fed_frames(container, stream, unit.steps)
            picked = ((moment_s, shot) for shot in shots for moment_s in moments_of.get(shot.frame.pts, ()))
            taken = _resize_picked(picked, way, posters_s)
    except UndecodableVideo:  # planned packets need each other; a pass over everything knows how to go on
        if way.hwaccel is not None:
            raise
        return None
    is_complete = len(taken) == len(wanted_s)
    return {moment_s: replace(sample, is_planned=True) for moment_s, sample in taken.items()} if is_complete else None


def _stamps(column: bytes) -> list[int]:
    """Presentation times in ticks."""
    found: list[int] = np.frombuffer(column, "<i8").tolist()
    return found


def _fed_packets(container: Any, stream: Any, steps: DecodeSteps) -> Iterator[Any]:
    """The packets that are to be decoded; from the front where a seek lands behind the first of them."""
    feed = _stamps(steps.feed)
    wanted = set(feed)
    seek_to(container, stream, feed[0])
    for _ in ("after the seek", "from the front"):
        found = (packet for packet in each_packet(container, stream) if packet.size and packet.pts in wanted)
        first = next(found, None)
        if first is not None and first.pts == feed[0]:
            yield first
            yield from islice(found, len(feed) - 1)
            return
        container.seek(container.start_time or 0)


def _fed_frames(container: Any, stream: Any, steps: DecodeSteps) -> Iterator[Shot]:
    """The frames that decoding the planned packets gives, without those that damage spoils."""
    zero_s, restarts = origin_s(container), set(_stamps(steps.restarts))
    damage = Damage()
    for packet in _fed_packets(container, stream, steps):
        if packet.pts in restarts:
            yield from _sound(_drained(stream), damage, zero_s)
            stream.codec_context.flush_buffers()
        yield from _sound(packet.decode(), damage, zero_s)
    yield from _sound(_drained(stream), damage, zero_s)


def _drained(stream: Any) -> Iterator[Any]:
    """The frames that a decoder still holds back; PyAV gives them no clock."""
    for frame in stream.decode(None):
        frame.time_base = stream.time_base
        yield frame


def _sound(frames: Iterable[Any], damage: Damage, zero_s: float) -> Iterator[Shot]:
    """Frames that have a time and are not damaged.

    A stream may grow on the way, and the header's size is all that was checked before. Frames over the cap alone are
    given up: what comes before and after is sound.
    """
    for frame in frames:
        is_too_large = frame.width * frame.height > demux.MAX_FRAME_PIXELS
        if frame.time is not None and not damage.spoils(frame) and not is_too_large:
            yield Shot(frame.time - zero_s, frame)


def _take(uri: str, wanted_s: list[float], way: _Way, posters_s: Collection[float] = ()) -> dict[float, Sample]:
    """Samples by wanted time. Seeks near the first; if the seek lands behind it, starts again from the front."""
    for seek in (True, False):
        with opened(uri, way.hwaccel) as (container, stream):
            if seek:
                seek_to(container, stream, int((wanted_s[0] + origin_s(container)) / stream.time_base))
            shots = in_order(intact_frames(container, stream, goes_on=way.hwaccel is None))
            taken = _resize_picked(pick(shots, wanted_s), way, posters_s)
        if not seek or (taken and taken[wanted_s[0]].time_s <= wanted_s[0] + sampling.SAME_TIME_S):
            break
    return taken


def seek_to(container: Any, stream: Any, stamp: int) -> None:
    """To the last key frame up to a presentation time in ticks, if the container can."""
    if stamp * stream.time_base - origin_s(container) <= 1.0:
        return  # as good as the front, and files without an index need no second try
    try:
        container.seek(stamp, stream=stream, backward=True)
    except av.FFmpegError:
        return


def _resize_picked(
    picked: Iterator[tuple[float, Shot]], way: _Way, posters_s: Collection[float]
) -> dict[float, Sample]:
    """Pictures H x W x 3 of the picked frames, by wanted time; a frame picked twice is scaled once."""
    taken: dict[float, Sample] = {}
    last: tuple[Shot, Picture] | None = None
    for wanted, shot in picked:
        if last is None or last[0] is not shot:
            last = shot, way.scale(shot.frame)
        poster = way.resizer.thumbnail(shot.frame) if wanted in posters_s else b""
        taken[wanted] = Sample(shot.time_s, last[1], poster)
    return taken


def calibrate(uri: str, image_size: int) -> DecodeCost:
    """What decoding takes here, by the first frames of a video: a line through the CPU times of its packets.

    Takes CALIBRATION_S or so. Raises UndecodableVideo where no frame comes out.
    """
    sizes: list[int] = []
    times_s: list[float] = []
    scaled_s: list[float] = []
    resizer = Resizer()
    with opened(uri) as (container, stream):
        for packet in each_packet(container, stream):
            began = time.thread_time()
            frames = packet.decode()
            times_s.append(time.thread_time() - began)
            sizes.append(packet.size)
            for frame in frames[: len(times_s) % SCALED_OF == 0]:
                began = time.thread_time()
                resizer.model_input(frame, image_size)
                scaled_s.append(time.thread_time() - began)
            if sum(times_s) + sum(scaled_s) > CALIBRATION_S:
                break
        began = time.thread_time()
        stream.codec_context.flush_buffers()
        restart_s = time.thread_time() - began
        pixels, codec = stream.codec_context.width * stream.codec_context.height, stream.codec_context.name
    if not scaled_s:
        raise UndecodableVideo(NOTHING_INTACT)
    frame_s, byte_s = fitted(np.array(sizes), np.array(times_s))
    return DecodeCost(codec, frame_s / pixels * 1e6, byte_s, restart_s, float(np.median(scaled_s)))


def calibrate_files(image_size: int, files: list[SourceFile | HashedFile]) -> list[DecodeCost]:
    """`calibrate` as a stage."""
    return [calibrate(plan.file_of(file).uri, image_size) for file in files]


def fitted(size_n: NDArray[np.int64], time_n: NDArray[np.float64]) -> tuple[float, float]:
    """Seconds per packet and per byte that explain the times of n packets best; neither is negative."""
    slope, start = np.polyfit(size_n, time_n, 1) if np.ptp(size_n) else (0.0, time_n.mean())
    if slope < 0:
        return float(time_n.mean()), 0.0
    if start < 0:
        return 0.0, float(time_n @ size_n / (size_n @ size_n))
    return float(start), float(slope)


def library_versions() -> dict[str, str]:
    """PyAV and the parts of FFmpeg that read and decode files."""
    parts = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
    return {"av": av.__version__, **{name: parts[name] for name in ("libavformat", "libavcodec")}}


def decoder() -> str:
    """The same in one line, as tables have it."""
    return ", ".join(f"{name} {version}" for name, version in library_versions().items())


def write_video(path: Path, frames: Iterator[Picture], *, shape: tuple[int, int], rate_hz: int) -> None:
    """Pictures H x W x 3 RGB (`shape` is H, W, both even) as H.264 in MP4, a key frame every two seconds.

    For footage that this project makes itself; users' videos are never written.
    """
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate_hz)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast", "g": str(2 * rate_hz)}
        stream.height, stream.width = shape
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
