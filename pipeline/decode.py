"""Video files to packet time lines and to frames at model size. The only place that knows PyAV.

A media file is hostile input: only files are opened, and only by demuxers on a list (a playlist or a concat script
renamed to .mp4 opens nothing). Time is pts, never a frame count or a header's duration. Frames are resized inside the
decoding loop, so memory does not grow with the length or size of the video. One pass per unit, one thread per worker.

What was seen on real files decides the odd lines here: decoders with threads and a log level set deadlock at teardown,
AVI files with B-frames come out in the right order with swapped times, one bad packet does not end a stream.
"""

# N clips, T frames, H x W pixels of a picture, S model size, C = 3 channels

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from pipeline import sampling, sources, stores
from pipeline.damage import Damage
from pipeline.picking import Shot, in_order, pick
from pipeline.settings import Sampling
from pipeline.stores import AnyPath
from pipeline.thumbnails import thumbnail_shape, to_webp
from schemas.errors import NotAVideo, TooLarge, UndecodableVideo, UnreadableFile, VideoError
from schemas.records import DecodedUnit, HashedFile, InspectedVideo, Unit, VideoProfile, Window
from xclip_core.geometry import crop_offset, resized_shape, scaled_shape, squeezed

Picture = NDArray[np.uint8]

# Demuxers that read their own file and nothing else. Not on it: concat, hls, dash, sdp, image2 and their like.
DEMUXERS = (
    "3g2,3gp,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mj2,mjpeg,mov,mp4,m4a,mpeg,mpegts,mpegvideo,mxf,nut,"
    "obu,ogg,rm,webm,yuv4mpegpipe"
)
OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
READ_BYTES = 1 << 18  # asked of a store at a time
MAX_FRAME_PIXELS = 8192 * 8192
# Time stamps that span more than this are broken, and planning their windows would fill the memory.
MAX_DURATION_S = 366 * 86_400
# Laid over the whole span before those without a frame are left out: half a gigabyte of them, in some seconds.
MAX_WINDOWS = 2_000_000
# A frame comes out of the first few packets of a sound stream; rotation is not worth decoding more.
ROTATION_PACKETS = 32
NOTHING_INTACT = "no intact frame could be decoded where the file says there are some"

# Log callbacks into Python from FFmpeg's threads deadlock at teardown after a decode error (6 of 6 runs on two files).
av.logging.set_level(None)


@contextmanager
def _open(uri: str) -> Iterator[tuple[Any, Any]]:
    """A container and its first real video stream. FFmpeg's errors become ours."""
    path = sources.to_path(uri)
    with ExitStack() as stack:
        try:
            source = f"file:{path}" if isinstance(path, Path) else stack.enter_context(stores.open_binary(path))
            options = {"metadata_errors": "ignore", "options": dict(OPEN_OPTIONS), "buffer_size": READ_BYTES}
            container = stack.enter_context(av.open(source, **options))
        except UnicodeEncodeError as error:
            raise UnreadableFile("the file name is not valid UTF-8; rename it") from error
        except av.FFmpegError as error:
            raise _not_opened(error, path) from error
        except OSError as error:  # a store's
            raise UnreadableFile(f"cannot be read: {sources.said(error)}") from error
        stream = _video_stream(container)
        try:
            yield container, stream
        except MemoryError:
            raise
        except av.FFmpegError as error:
            raise UndecodableVideo(f"decoding failed: {error.strerror}") from error
        except stores.Unreached as error:
            raise UnreadableFile(f"cannot be read on: {sources.said(error)}") from error


def _not_opened(error: av.FFmpegError, path: AnyPath) -> VideoError:
    """Why a file did not open: it cannot be read, or it is no video."""
    try:
        with stores.open_binary(path) as stream:  # asked of the file: demuxers say "I/O error" of broken content too
            stream.read(1)
    except OSError as unread:
        return UnreadableFile(f"cannot be read: {sources.said(unread)}")
    what = "an empty file" if not path.stat().st_size else f"no video container we read ({error.strerror})"
    return NotAVideo(f"this is {what}")


def _video_stream(container: Any) -> Any:
    """The first video stream that has a decoder and is no cover picture."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "a header"
        raise NotAVideo(f"there is no video stream, only {kinds}")
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise UndecodableVideo("the video's codec is unknown")
    stream = decodable[0]
    stream.thread_type = "NONE"
    stream.thread_count = 1
    return stream


def _origin_s(container: Any) -> float:
    """Where the player's time line starts, on the file's clock."""
    return float(Fraction(container.start_time, av.time_base)) if container.start_time else 0.0


def inspect(source: HashedFile, settings: Sampling) -> InspectedVideo:
    """Reads the packet index, without decoding, and cuts the video into windows.

    Raises NotAVideo, UndecodableVideo (no packets, absurd times) or TooLarge.
    """
    with _open(source.file.uri) as (container, stream):
        packets, rotation = _sound_packets(container, stream)
        context = stream.codec_context
        codec, width, height = context.name, context.width, context.height
    times_s, end_s = np.unique(packets[:, 0]), float(packets.sum(axis=1).max())
    span_s = float(times_s[-1] - times_s[0])
    rate_hz = (len(times_s) - 1) / span_s if span_s > 0 else 0.0
    end_s = max(end_s, float(times_s[-1]) + (1 / rate_hz if rate_hz else 0.0))
    if end_s - times_s[0] > MAX_WINDOWS * settings.stride_s:
        raise UndecodableVideo(
            f"time stamps span {end_s - times_s[0]:.0f} s, over {MAX_WINDOWS} windows of {settings.stride_s:g} s"
        )
    profile = VideoProfile(end_s - float(times_s[0]), width, height, rate_hz, codec, rotation, len(packets))
    return InspectedVideo(source, profile, sampling.windows(times_s, end_s, settings))


def frame_times(uri: str) -> sampling.Times:
    """When every frame to be shown starts, ascending, on the video's own clock; told by packets, nothing is decoded.

    Raises as `inspect` does.
    """
    with _open(uri) as (container, stream):
        packets, _ = _sound_packets(container, stream)
    return np.unique(packets[:, 0])


def _sound_packets(container: Any, stream: Any) -> tuple[NDArray[np.float64], int]:
    """`_packet_times`, where frames are not too large, there are some, and their times make sense."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_FRAME_PIXELS:
        raise TooLarge(f"frames of {width} x {height} are over {MAX_FRAME_PIXELS} pixels")
    packets, rotation = _packet_times(container, stream)
    if not len(packets):
        raise UndecodableVideo("the video stream holds no frames")
    span_s = packets.sum(axis=1).max() - packets[:, 0].min()
    if span_s > MAX_DURATION_S:
        raise UndecodableVideo(f"time stamps span {span_s:.0f} s; they are broken")
    return packets, rotation


def _packet_times(container: Any, stream: Any) -> tuple[NDArray[np.float64], int]:
    """Time and duration in seconds of every packet to be shown, n x 2, in file order, and the picture's rotation."""
    origin_s, tick_s = _origin_s(container), float(stream.time_base)
    rows = []
    rotation: int | None = None
    for number, packet in enumerate(_packets(container, stream)):
        if rotation is None and number < ROTATION_PACKETS:
            rotation = _rotation(packet)
        if packet.size and not packet.is_discard and (stamp := _stamp(packet)) is not None:
            rows.append((stamp * tick_s - origin_s, (packet.duration or 0) * tick_s))
    return np.array(rows, dtype=np.float64).reshape(-1, 2), rotation or 0


def _rotation(packet: Any) -> int | None:
    """The rotation of the first frame that comes out with this packet, if one does: PyAV tells it of frames only."""
    try:
        return next((round(frame.rotation) for frame in packet.decode()), None)
    except MemoryError:
        raise
    except av.FFmpegError:
        return None


def _stamp(packet: Any) -> int | None:
    """Presentation time in ticks, or decoding time where the container has no other."""
    stamp: int | None = packet.pts if packet.pts is not None else packet.dts
    return stamp


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Packets until the end of the file or of its readable part."""
    demuxed = container.demux(stream)
    while True:
        try:
            yield next(demuxed)
        except MemoryError:
            raise
        except (StopIteration, av.FFmpegError):
            return
        except IndexError:  # PyAV at the very end, of a stream that began amid the file: it knows those of the start
            return


def _intact_frames(container: Any, stream: Any) -> Iterator[Shot]:
    """Frames in presentation order, without those that damage spoils."""
    origin_s = _origin_s(container)
    damage = Damage()
    for packet in _packets(container, stream):
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.FFmpegError:
            damage.strike(_stamp(packet), float(stream.time_base))
            continue  # later packets may be sound: nothing that follows the next key frame is given up
        for frame in frames:
            # A stream may grow on the way, and the header's size is all that was checked before. Those frames alone are
            # given up: what comes before and after is sound.
            is_too_large = frame.width * frame.height > MAX_FRAME_PIXELS
            if frame.time is not None and not damage.spoils(frame) and not is_too_large:
                yield Shot(frame.time - origin_s, frame)


class _Resizer:
    """Frames to upright RGB pictures; keeps the scaler's tables between frames of the same size."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._whole_shape: tuple[int, int] | None = None

    def upright(self, frame: av.VideoFrame, shape: tuple[int, int]) -> Picture:
        """The frame at height x width `shape` (before turning), turned as its metadata says: H x W x 3 RGB."""
        height, width = shape
        scaled = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=Interpolation.AREA
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

    def thumbnail(self, frame: av.VideoFrame) -> bytes:
        """The whole frame as a small WebP picture."""
        return to_webp(np.ascontiguousarray(self.upright(frame, thumbnail_shape(frame.height, frame.width))))


# How a frame becomes a sample's picture.
_Scale = Callable[[_Resizer, av.VideoFrame], Picture]


def inspect_files(settings: Sampling, files: list[HashedFile]) -> list[InspectedVideo]:
    """`inspect` as a stage."""
    return [inspect(file, settings) for file in files]


def decode_units(image_size: int, units: list[Unit]) -> list[DecodedUnit]:
    """`decode` as a stage."""
    return [decode(unit, image_size) for unit in units]


def decode(unit: Unit, image_size: int) -> DecodedUnit:
    """The unit's clips at model size, in one forward pass. Raises UndecodableVideo when no clip can be had."""
    began = time.perf_counter()
    wanted_s = sorted({moment for window in unit.windows for moment in window.frame_times_s})
    # The middle sample of a clip is its picture; windows that overlap may share it.
    posters_s = {_middle(window) for window in unit.windows}
    taken = _take(unit.uri, wanted_s, lambda resizer, frame: resizer.model_input(frame, image_size), posters_s)
    kept = [(window, true_s) for window in unit.windows if (true_s := _true_times(window, taken)) is not None]
    if not kept:
        raise UndecodableVideo(NOTHING_INTACT)
    return DecodedUnit(
        unit=unit,
        windows=tuple(Window(window.start_s, window.end_s, true_s) for window, true_s in kept),
        frames_NTHWC=np.stack([np.stack([taken[t].picture for t in window.frame_times_s]) for window, _ in kept]),
        thumbnails=tuple(taken[_middle(window)].thumbnail for window, _ in kept),
        intact_samples=tuple(_intact_count(window, taken) for window, _ in kept),
        decode_s=time.perf_counter() - began,
    )


def short_side_frames(uri: str, wanted_s: Sequence[float], short_side: int) -> Picture:
    """The frames on the screen at `wanted_s`, in any order and with repeats: T x H x W x 3, upright RGB, all of each.

    The shorter of H and W is `short_side`. One forward pass; raises UndecodableVideo when no intact frame comes out.
    """
    taken = _take(uri, sorted(set(wanted_s)), lambda resizer, frame: resizer.whole(frame, short_side))
    if not taken:
        raise UndecodableVideo(NOTHING_INTACT)
    return np.stack([taken[moment].picture for moment in wanted_s])


@dataclass(frozen=True, slots=True)
class _Sample:
    """What was taken for a wanted time: the frame's own time, its picture H x W x 3, and a thumbnail if asked for."""

    time_s: float
    picture: Picture
    thumbnail: bytes


def _take(uri: str, wanted_s: list[float], scale: _Scale, posters_s: Collection[float] = ()) -> dict[float, _Sample]:
    """Samples by wanted time. Seeks near the first; if the seek lands behind it, starts again from the front."""
    for seek in (True, False):
        with _open(uri) as (container, stream):
            if seek:
                _seek(container, stream, wanted_s[0])
            taken = _resize_picked(pick(in_order(_intact_frames(container, stream)), wanted_s), scale, posters_s)
        if not seek or (taken and taken[wanted_s[0]].time_s <= wanted_s[0] + sampling.SAME_TIME_S):
            break
    return taken


def _seek(container: Any, stream: Any, moment_s: float) -> None:
    """To the last key frame before `moment_s`, if the container can."""
    if moment_s <= 1.0:
        return  # as good as the front, and files without an index need no second try
    try:
        container.seek(int((moment_s + _origin_s(container)) / stream.time_base), stream=stream, backward=True)
    except av.FFmpegError:
        return


def _resize_picked(
    picked: Iterator[tuple[float, Shot]], scale: _Scale, posters_s: Collection[float]
) -> dict[float, _Sample]:
    """Pictures H x W x 3 of the picked frames, by wanted time; a frame picked twice is scaled once."""
    resizer = _Resizer()
    taken: dict[float, _Sample] = {}
    last: tuple[Shot, Picture] | None = None
    for wanted, shot in picked:
        if last is None or last[0] is not shot:
            last = shot, scale(resizer, shot.frame)
        poster = resizer.thumbnail(shot.frame) if wanted in posters_s else b""
        taken[wanted] = _Sample(shot.time_s, last[1], poster)
    return taken


def _middle(window: Window) -> float:
    """The time of the window's middle sample."""
    return window.frame_times_s[len(window.frame_times_s) // 2]


def _intact_count(window: Window, taken: dict[float, _Sample]) -> int:
    """How many of the window's samples were taken close enough to their time."""
    limit = sampling.tolerance_s(window)
    return sum(t in taken and abs(taken[t].time_s - t) <= limit for t in window.frame_times_s)


def _true_times(window: Window, taken: dict[float, _Sample]) -> tuple[float, ...] | None:
    """The true times of the window's frames, or None when not one of them is intact."""
    if not _intact_count(window, taken):
        return None
    return tuple(taken[t].time_s for t in window.frame_times_s)


def library_versions() -> dict[str, str]:
    """PyAV and the parts of FFmpeg that read and decode files."""
    parts = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
    return {"av": av.__version__, **{name: parts[name] for name in ("libavformat", "libavcodec")}}


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
