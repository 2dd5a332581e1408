"""The decoders that `decode.py` compares: each takes the same frames of a file at the same size, in its own best way.

All give centre crops of SIZE pixels of frames whose short side was scaled to 256, upright RGB. What a decoder reads to
find its way in a file (an index, a scan) is part of its time. Frames are asked for by time where a library can do that,
else by their number in presentation order, which it is told for nothing.

torchcodec needs FFmpeg's shared libraries, versions 4 to 8: `apt-get install ffmpeg`. The others bring their own.
"""

# N frames, H x W pixels of a scaled frame, S = SIZE, C = 3 channels

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import decode, demux, plan
from pipeline.settings import Sampling
from schemas.records import HashedFile, SourceFile, Unit
from xclip_core.geometry import crop_offset, resized_shape, resized_side

SIZE = 224
SMALL = 28  # side of the grey pictures by which frames are compared
NEARER = 0.5  # grey levels by which a frame must be nearer to a neighbour to be called another one
SLACK_S = 1e-3  # a moment is asked for just inside the frame that starts there

Pictures = NDArray[np.uint8]  # N x S x S x C


@dataclass(frozen=True, slots=True)
class Asked:
    """Frames of one file. `wanted_s` are starts of frames, ascending, on the video's own clock."""

    file: str
    wanted_s: tuple[float, ...]
    places: tuple[int, ...]  # the same frames by their number in presentation order
    origin_s: float  # what a file's own clock shows at 0
    shape: tuple[int, int]  # H, W


@dataclass(frozen=True, slots=True)
class Taken:
    """What a decoder gave, as N x SMALL x SMALL grey levels, and what that took."""

    grey_NSS: NDArray[np.float32]
    cpu_s: float
    wall_s: float


def units(file: Path, tolerance_s: float | None = 0.0) -> tuple[str, tuple[Unit, ...]]:
    """A video's codec and its units: read and planned, nothing decoded."""
    stat = file.stat()
    source = HashedFile(SourceFile(str(file), stat.st_size, stat.st_mtime), fingerprint="")
    video = demux.inspect(source, Sampling(tolerance_s=tolerance_s))
    return video.profile.codec, plan.plan_video(video, None, {}, 0, "space").units


def asked(file: Path) -> Asked:
    """The frames that footage takes of a file: 8 of each 10 s."""
    wanted_s = tuple(t for unit in units(file)[1] for window in unit.windows for t in window.frame_times_s)
    times_s = demux.frame_times(str(file))
    with demux.opened(str(file)) as (container, stream):
        height, width = stream.codec_context.height, stream.codec_context.width
        origin_s = demux.origin_s(container)
    places = np.searchsorted(times_s, np.array(wanted_s) - SLACK_S)
    return Asked(str(file), wanted_s, tuple(places.tolist()), origin_s, resized_shape(height, width, SIZE))


def footage(what: Asked, _threads: int) -> Pictures:
    """Ours: a plan of packets, one thread; thumbnails, which nobody else makes, are part of it."""
    done = [decode.decode(unit, SIZE).frames_NTHWC for unit in units(Path(what.file))[1]]
    return np.concatenate(done).reshape(-1, SIZE, SIZE, 3)


def pyav(what: Asked, threads: int) -> Pictures:
    """Every frame up to the last, of which those asked for are scaled."""
    import av
    from av.video.reformatter import Interpolation

    height, width = what.shape
    numbers, found = set(what.places), {}
    with av.open(what.file, **demux.ANY_METADATA) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = ("NONE", 1) if threads == 1 else ("AUTO", threads)
        for number, frame in enumerate(container.decode(stream)):
            if number in numbers:
                scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation=Interpolation.AREA)
                found[number] = _cropped(scaled.to_ndarray())
            if number >= what.places[-1]:
                break
    return np.stack([found[number] for number in what.places])


def torchcodec(what: Asked, threads: int) -> Pictures:
    """Frames by time, scaled and cropped by its own transforms."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import CenterCrop, Resize

    steps = [Resize(what.shape), CenterCrop((SIZE, SIZE))]
    reader = VideoDecoder(what.file, dimension_order="NHWC", num_ffmpeg_threads=threads, transforms=steps)
    moments_s = [moment_s + what.origin_s + SLACK_S for moment_s in what.wanted_s]
    return reader.get_frames_played_at(moments_s).data.numpy()


def decord(what: Asked, threads: int) -> Pictures:
    """Frames by number, scaled by the reader."""
    from decord import VideoReader, cpu

    height, width = what.shape
    reader = VideoReader(what.file, ctx=cpu(0), width=width, height=height, num_threads=threads)
    return np.stack([_cropped(picture) for picture in reader.get_batch(list(what.places)).asnumpy()])


def opencv(what: Asked, threads: int) -> Pictures:
    """Every frame grabbed up to the last; those asked for are retrieved and scaled."""
    capture, numbers, found = _capture(what, threads), set(what.places), {}
    for number in range(what.places[-1] + 1):
        if not capture.grab():
            break
        if number in numbers:
            found[number] = _scaled(capture.retrieve()[1], what.shape)
    return np.stack([found[number] for number in what.places])


def opencv_seek(what: Asked, threads: int) -> Pictures:
    """A seek to each frame."""
    import cv2

    capture, found = _capture(what, threads), {}
    for number in sorted(set(what.places)):
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        found[number] = _scaled(capture.read()[1], what.shape)
    return np.stack([found[number] for number in what.places])


def _capture(what: Asked, threads: int) -> object:
    """OpenCV's reader."""
    import cv2

    cv2.setNumThreads(threads)
    return cv2.VideoCapture(what.file, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])


def _scaled(picture_bgr: Pictures | None, shape: tuple[int, int]) -> Pictures:
    """OpenCV's picture as the others have it. Raises ValueError when it has none."""
    import cv2

    if picture_bgr is None:
        raise ValueError("OpenCV read no picture")
    # Upright as read, where `shape` is that of the stored frame.
    height, width = shape if (picture_bgr.shape[0] > picture_bgr.shape[1]) == (shape[0] > shape[1]) else shape[::-1]
    small = cv2.resize(picture_bgr, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(_cropped(small), cv2.COLOR_BGR2RGB)


def _cropped(picture: Pictures) -> Pictures:
    """The centre of H x W x C."""
    top, left = (crop_offset(length, SIZE) for length in picture.shape[:2])
    return np.ascontiguousarray(picture[top : top + SIZE, left : left + SIZE])


DECODERS: dict[str, tuple[str, Callable[[Asked, int], Pictures]]] = {
    "footage": ("av", footage),
    "PyAV, full pass": ("av", pyav),
    "torchcodec": ("torchcodec.decoders", torchcodec),
    "decord": ("decord", decord),
    "OpenCV, in order": ("cv2", opencv),
    "OpenCV, by seeking": ("cv2", opencv_seek),
}


def missing(name: str) -> str:
    """Why a decoder cannot be used here; nothing if it can."""
    try:
        importlib.import_module(DECODERS[name][0])
        if name == "torchcodec":
            needs_ffmpeg()
    except (ImportError, OSError, RuntimeError) as error:
        return f"not importable: {str(error).strip().splitlines()[0][:80]}"
    return ""


def needs_ffmpeg() -> None:
    """Raises ImportError where torchcodec is there and FFmpeg is not; since 0.17 it can be imported nevertheless."""
    import torchcodec as library

    if getattr(library, "ffmpeg_major_version", "unknown") is None:
        raise ImportError("torchcodec finds no libraries of FFmpeg: apt-get install ffmpeg")


def take(name: str, what: Asked, threads: int) -> Taken | str:
    """What a decoder makes of a file, or what it said when it made nothing. For a process of its own."""
    why = missing(name)
    if why:
        return why
    began, worked = time.perf_counter(), time.process_time()
    try:
        pictures = DECODERS[name][1](what, threads)
    except Exception as error:  # noqa: BLE001  # whatever a foreign library raises is its result
        return f"{type(error).__name__}: {error}"[:200]
    return Taken(small_grey(pictures), time.process_time() - worked, time.perf_counter() - began)


def small_grey(pictures_NSSC: Pictures) -> NDArray[np.float32]:
    """Means of squares of the pictures: N x SMALL x SMALL."""
    step = SIZE // SMALL
    blocks = pictures_NSSC.reshape(-1, SMALL, step, SMALL, step, 3)
    return blocks.mean(axis=(2, 4, 5), dtype=np.float32)


def neighbours(what: Asked) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The frames before and after those asked for, by footage's own pass over everything: each N x SMALL x SMALL."""
    times_s = demux.frame_times(what.file)
    places = np.array(what.places)
    around = [np.clip(places + step, 0, len(times_s) - 1) for step in (-1, 1)]
    wanted_s = times_s[np.concatenate(around)].tolist()
    pictures = decode.short_side_frames(what.file, wanted_s, resized_side(SIZE))
    before_NSS, after_NSS = np.split(small_grey(np.stack([_cropped(picture) for picture in pictures])), 2)
    return before_NSS, after_NSS


def strangers(
    given_NSS: NDArray[np.float32],
    right_NSS: NDArray[np.float32],
    near: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> int:
    """How many frames are nearer to a neighbour than to the right one; all if there are not as many as there should be.

    Scalers differ by up to 4 grey levels on sharp pictures, which a bound on the difference itself could not tell from
    a neighbour of a still picture.
    """
    if given_NSS.shape != right_NSS.shape:
        return len(right_NSS)
    off_N, *near_off = (np.abs(given_NSS - other).mean(axis=(1, 2)) for other in (right_NSS, *near))
    return int((off_N > np.minimum(*near_off) + NEARER).sum())


def all_threads() -> int:
    """As many threads as this process has cores."""
    return len(os.sched_getaffinity(0))
