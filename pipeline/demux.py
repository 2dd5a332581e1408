"""Video files to packets: what is opened, what its packets tell, and how it is cut into windows and steps of decoding.

A media file is hostile input: only files are opened, and only by demuxers on a list (a playlist or a concat script
renamed to .mp4 opens nothing). Time is pts, never a frame count or a header's duration. With `decode`, the only place
that knows PyAV.
"""

# n packets

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import av
import numpy as np

from pipeline import packing, plan, references, sampling, sources, stores
from pipeline.costs import Costs
from pipeline.decode_plan import CostModel
from pipeline.packing import Packets
from pipeline.settings import Sampling
from schemas.errors import NotAVideo, TooLarge, UndecodableVideo, UnreadableFile, VideoError
from schemas.records import DecodeSteps, HashedFile, InspectedVideo, VideoProfile, Window

# Demuxers that read their own file and nothing else. Not on it: concat, hls, dash, sdp, image2 and their like.
DEMUXERS = (
    "3g2,3gp,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mj2,mjpeg,mov,mp4,m4a,mpeg,mpegts,mpegvideo,mxf,nut,"
    "obu,ogg,rm,webm,yuv4mpegpipe"
)
OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
READ_BYTES = 1 << 18  # asked of a store at a time
# Titles that are no UTF-8 fail no video. From PyAV 19 (Python 3.12) on none does, and there is no such option.
ANY_METADATA = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
UNTIMED = ("avi",)  # containers without presentation times: what packets have is guessed
MAX_FRAME_PIXELS = 8192 * 8192
# Of a device's, beyond what its decoder itself needs: those that wait to be put in order and to be picked. More than 32
# surfaces in all are refused.
HELD_FRAMES = 8
# Time stamps that span more than this are broken, and planning their windows would fill the memory.
MAX_DURATION_S = 366 * 86_400
# Laid over the whole span before those without a frame are left out: half a gigabyte of them, in some seconds.
MAX_WINDOWS = 2_000_000
# A frame comes out of the first few packets of a sound stream; rotation is not worth decoding more.
ROTATION_PACKETS = 32
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})

# Log callbacks into Python from FFmpeg's threads deadlock at teardown after a decode error (6 of 6 runs on two files).
av.logging.set_level(None)


@contextmanager
def opened(uri: str, hwaccel: Any = None, decoder: Mapping[str, str] = NO_OPTIONS) -> Iterator[tuple[Any, Any]]:
    """A container and its first real video stream, ready to decode. FFmpeg's errors become ours.

    With a `hwaccel` of PyAV's the stream is decoded there or not at all: UndecodableVideo says why not. `decoder` has
    FFmpeg's options of the decoder.
    """
    path = sources.to_path(uri)
    with ExitStack() as stack:
        try:
            source = f"file:{path}" if sources.is_file(uri) else stack.enter_context(sources.opened(uri))
            options = {**ANY_METADATA, "options": dict(OPEN_OPTIONS), "buffer_size": READ_BYTES}
            container = stack.enter_context(av.open(source, hwaccel=hwaccel, **options))
        except UnicodeEncodeError as error:
            raise UnreadableFile("the file name is not valid UTF-8; rename it") from error
        except av.FFmpegError as error:
            if hwaccel is not None:
                raise UndecodableVideo(f"the device cannot be used: {error.strerror}") from error
            raise _not_opened(error, uri) from error
        except OSError as error:  # a store's
            raise UnreadableFile(f"cannot be read: {sources.said(error)}") from error
        stream = _video_stream(container)
        if hwaccel is not None and not stream.codec_context.is_hwaccel:
            raise UndecodableVideo(f"the device has no decoder for {stream.codec_context.name}")
        held = {} if hwaccel is None else {"extra_hw_frames": str(HELD_FRAMES)}
        stream.codec_context.options = {**decoder, **held}
        try:
            # Not left to the first packet: a decoder that did not open then would have no codec for the next.
            stream.codec_context.open(strict=False)
            yield container, stream
        except MemoryError:
            raise
        except av.FFmpegError as error:
            raise UndecodableVideo(f"decoding failed: {error.strerror}") from error
        except stores.Unreached as error:
            raise UnreadableFile(f"cannot be read on: {sources.said(error)}") from error


def _not_opened(error: av.FFmpegError, uri: str) -> VideoError:
    """Why a file did not open: it cannot be read, or it is no video."""
    try:
        with sources.opened(uri) as stream:  # asked of the file: demuxers say "I/O error" of broken content too
            is_empty = not stream.read(1)
    except OSError as unread:
        return UnreadableFile(f"cannot be read: {sources.said(unread)}")
    what = "an empty file" if is_empty else f"no video container we read ({error.strerror})"
    return NotAVideo(f"this is {what}")


def _video_stream(container: Any) -> Any:
    """The first video stream that has a decoder and is no cover picture."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "a header"
        raise NotAVideo(f"there is no video stream, only {kinds}")
    # PyAV 18 has no context where FFmpeg knows no decoder, PyAV 19 one that is none.
    decodable = [each for each in streams if each.codec_context is not None and each.codec_context.is_decoder]
    if not decodable:
        raise UndecodableVideo("the video's codec is unknown")
    stream = decodable[0]
    stream.thread_type = "NONE"
    stream.thread_count = 1
    return stream


def origin_s(container: Any) -> float:
    """Where the player's time line starts, on the file's clock."""
    return float(Fraction(container.start_time, av.time_base)) if container.start_time else 0.0


def inspect(source: HashedFile, settings: Sampling, costs: Costs | None = None) -> InspectedVideo:
    """Reads the packet index, without decoding, cuts the video into windows, and plans how to decode them.

    Raises NotAVideo, UndecodableVideo (no packets, absurd times) or TooLarge.
    """
    return inspected(source, read_packets(source.file.uri), settings, costs or {})


def inspected(source: HashedFile, packets: Packets, settings: Sampling, costs: Costs) -> InspectedVideo:
    """What `inspect` makes of the packets of a video, planned by what decoding costs; no file is opened.

    Raises UndecodableVideo where their times are absurd for such windows.
    """
    times_s, end_s = np.unique(packets.index.time_n), packets.end_s
    span_s = float(times_s[-1] - times_s[0])
    rate_hz = (len(times_s) - 1) / span_s if span_s > 0 else 0.0
    end_s = max(end_s, float(times_s[-1]) + (1 / rate_hz if rate_hz else 0.0))
    if end_s - times_s[0] > MAX_WINDOWS * settings.stride_s:
        raise UndecodableVideo(
            f"time stamps span {end_s - times_s[0]:.0f} s, over {MAX_WINDOWS} windows of {settings.stride_s:g} s"
        )
    duration_s, count = end_s - float(times_s[0]), len(packets.index.stamp_n)
    profile = VideoProfile(duration_s, packets.width, packets.height, rate_hz, packets.codec, packets.rotation, count)
    windows = sampling.windows(times_s, end_s, settings)
    # Where windows follow shots nobody knows yet which frames will be samples, and all are looked at.
    steps = () if settings.shots else tuple(_steps(packets, windows, settings, costs))
    return InspectedVideo(source, profile, windows, steps)


def _steps(
    packets: Packets, windows: Sequence[Window], settings: Sampling, costs: Costs
) -> Iterator[DecodeSteps | None]:
    """How to decode the windows of each unit."""
    model = CostModel.measured(costs.get(packets.codec), packets.width, packets.height)
    for start in range(0, len(windows), plan.CLIPS_PER_UNIT):
        yield packets.steps(windows[start : start + plan.CLIPS_PER_UNIT], settings.tolerance_s, model)


def frame_times(uri: str) -> sampling.Times:
    """When every frame to be shown starts, ascending, on the video's own clock; told by packets, nothing is decoded.

    Raises as `inspect` does.
    """
    return np.unique(read_packets(uri).index.time_n)


def read_packets(uri: str) -> Packets:
    """What one pass over a video's packets tells. Raises as `inspect` does."""
    with opened(uri) as (container, stream):
        return _sound_packets(container, stream)


def _sound_packets(container: Any, stream: Any) -> Packets:
    """`_read_packets`, where frames are not too large, there are some, and their times make sense."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_FRAME_PIXELS:
        raise TooLarge(f"frames of {width} x {height} are over {MAX_FRAME_PIXELS} pixels")
    packets = _read_packets(container, stream)
    if not len(packets.index.time_n):
        raise UndecodableVideo("the video stream holds no frames")
    span_s = packets.end_s - packets.index.time_n.min()
    if span_s > MAX_DURATION_S:
        raise UndecodableVideo(f"time stamps span {span_s:.0f} s; they are broken")
    return packets


def _read_packets(container: Any, stream: Any) -> Packets:
    """All packets to be shown, in file order."""
    zero_s, tick_s = origin_s(container), float(stream.time_base)
    coded_of = references.reader(stream.codec_context.name, stream.codec_context.extradata)
    rows: list[tuple[int, int, int, bool, int, bool]] = []
    rotation: int | None = None
    is_plannable = container.format.name not in UNTIMED
    for number, packet in enumerate(each_packet(container, stream)):
        if rotation is None and number < ROTATION_PACKETS:
            rotation = _rotation(packet)
        if not packet.size:
            continue
        stamp = stamp_of(packet)
        is_plannable = is_plannable and packet.pts is not None and not packet.is_discard
        if stamp is not None and not packet.is_discard:
            coded = coded_of(memoryview(packet))
            rows.append((stamp, packet.duration or 0, packet.size, packet.is_keyframe, *coded))
    stamp_n, duration_n, size_n, key_n, layer_n, reference_n = np.array(rows, np.int64).reshape(-1, 6).T
    # A lower layer's frame may be needed by a higher one, whatever its own layer does with it.
    needed_n = (reference_n > 0) | (layer_n < layer_n.max(initial=0)) | (key_n > 0)
    index = packing.index(stamp_n, size_n, key_n > 0, needed_n, tick_s=tick_s, zero_s=zero_s)
    end_s = float((index.time_n + duration_n * tick_s).max()) if rows else 0.0
    context = stream.codec_context
    return Packets(
        index, end_s, rotation or 0, is_plannable, context.name, context.width, context.height, tick_s, zero_s
    )


def _rotation(packet: Any) -> int | None:
    """The rotation of the first frame that comes out with this packet, if one does: PyAV tells it of frames only."""
    try:
        return next((round(frame.rotation) for frame in packet.decode()), None)
    except MemoryError:
        raise
    except av.FFmpegError:
        return None


def stamp_of(packet: Any) -> int | None:
    """Presentation time in ticks, or decoding time where the container has no other."""
    stamp: int | None = packet.pts if packet.pts is not None else packet.dts
    return stamp


def each_packet(container: Any, stream: Any) -> Iterator[Any]:
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


def inspect_files(settings: Sampling, costs: Costs, files: list[HashedFile]) -> list[InspectedVideo]:
    """`inspect` as a stage; with the packets, to be kept."""
    read = ((file, read_packets(file.file.uri)) for file in files)
    return [
        replace(inspected(file, packets, settings, costs), packets=packing.pack(packets, file.fingerprint))
        for file, packets in read
    ]
