"""Test footage of a codec, height and distance of key frames, made with the encoders of PyAV's wheel and kept.

    python benchmarks/footage_made.py [--from FOLDER] [--seconds 111] [--folder build/bench/footage] h264:720:250 ...

From real clips where a folder of them is given: the first four seconds of each, joined and scaled to 16:9 at 25/s; else
from scenes of this package's own generator, a new one every four seconds, under noise. H.264 is by x264's defaults but
for the distance of key frames (`medium`, CRF 23, 3 B-frames); the others by fast presets of their
encoders. All are MP4, whatever the codec.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np

from pipeline.codecs import own_priority
from xclip_core.drawing import frame_times, render
from xclip_core.scenes import random_scene

FOLDER = Path("build/bench/footage")
RATE_HZ = 25
SHOT_FRAMES = 4 * RATE_HZ
SECONDS = 111
WIDTHS = {360: 640, 720: 1280, 1080: 1920}
DRAWN_AT = 2  # scenes are drawn at the size divided by this, then enlarged: drawing is slower than encoding
NOISE = 12  # of 255, standard deviation
NOISES = 16  # pictures of noise that follow one another
MIN_WIDTH = 300  # real clips that are smaller would be mostly blur


@dataclass(frozen=True)
class Kind:
    """What a file is to be: codec, height in pixels, frames from key frame to key frame at most."""

    codec: str
    height: int
    gop: int

    @classmethod
    def named(cls, text: str) -> Kind:
        """From `h264:720:250`."""
        codec, height, gop = text.split(":")
        if codec not in ENCODERS or int(height) not in WIDTHS:
            raise ValueError(f"{text!r}: expected one of {', '.join(ENCODERS)}, of {', '.join(map(str, WIDTHS))}")
        return cls(codec, int(height), int(gop))

    def __str__(self) -> str:
        return f"{self.codec}:{self.height}:{self.gop}"


def _x265(gop: int) -> dict[str, str]:
    return {"preset": "superfast", "crf": "23", "x265-params": f"keyint={gop}:log-level=none"}


def _vp9(gop: int) -> dict[str, str]:
    return {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "crf": "33", "b": "0", "g": str(gop)}


# Name of the encoder, format of pictures, options for a distance of key frames.
ENCODERS: dict[str, tuple[str, str, Callable[[int], dict[str, str]]]] = {
    "h264": ("libx264", "yuv420p", lambda gop: {"g": str(gop)}),
    "hevc": ("libx265", "yuv420p", _x265),
    "vp9": ("libvpx-vp9", "yuv420p", _vp9),
    "av1": ("libsvtav1", "yuv420p", lambda gop: {"preset": "13", "crf": "35", "g": str(gop)}),
    "mjpeg": ("mjpeg", "yuvj420p", lambda _gop: {"qmin": "4", "qmax": "4"}),
}


def made(kind: Kind, clips: Path | None = None, *, seconds: int = SECONDS, folder: Path = FOLDER) -> Path:
    """The file, made now unless it is there."""
    of = "drawn" if clips is None else hashlib.sha256(str(clips.resolve()).encode()).hexdigest()[:8]
    file = folder / f"{str(kind).replace(':', '-')}-{seconds}s-{of}.mp4"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        _write(part, kind, _drawn(kind.height) if clips is None else _real(clips), seconds * RATE_HZ)
        part.rename(file)
    return file


def _write(file: Path, kind: Kind, pictures: Iterator[av.VideoFrame], frames: int) -> None:
    """Encodes so many pictures, each scaled to the height."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only
    encoder, pixels, options = ENCODERS[kind.codec]
    width = WIDTHS[kind.height]
    with own_priority(), av.open(str(file), "w", format="mp4") as container:
        stream = container.add_stream(encoder, rate=RATE_HZ, options=options(kind.gop))
        stream.width, stream.height, stream.pix_fmt = width, kind.height, pixels
        stream.thread_count = os.cpu_count() or 1
        # PyAV's default is threads by slice: x264 would then cut every frame, which its own default does not do, and
        # decoders could split frames between cores.
        stream.thread_type = "FRAME"
        for number, picture in enumerate(islice(pictures, frames)):
            frame = picture.reformat(width=width, height=kind.height, format=pixels)
            frame.pts, frame.time_base = number, Fraction(1, RATE_HZ)
            frame.pict_type = av.video.frame.PictureType.NONE  # the encoder says which frames are key frames
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _real(folder: Path) -> Iterator[av.VideoFrame]:
    """The first seconds of each clip in a folder, over and over."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in {".mp4", ".mkv", ".mov", ".webm"})
    found = False
    for number, file in enumerate(cycle(files)):
        if number == len(files) and not found:
            break
        try:
            with av.open(str(file)) as container:
                if container.streams.video[0].codec_context.width >= MIN_WIDTH:
                    for frame in islice(container.decode(video=0), SHOT_FRAMES):
                        found = True
                        yield frame
        except (av.FFmpegError, IndexError):
            continue  # folders of test files have broken ones among them
    raise ValueError(f"{folder} has no clip that decodes and is {MIN_WIDTH} pixels wide")


def _drawn(height: int) -> Iterator[av.VideoFrame]:
    """Scenes one after the other, without end, under noise that changes from frame to frame."""
    rng = np.random.default_rng(0)
    shape = (height // DRAWN_AT, WIDTHS[height] // DRAWN_AT)
    noises = rng.normal(0, NOISE, (NOISES, *shape, 1)).astype(np.int16)
    while True:
        scene = random_scene(rng)
        for number, moment in enumerate(frame_times(SHOT_FRAMES)):
            picture = render(scene, times=[moment], height=shape[0], width=shape[1])[0]
            noisy = np.clip(picture + noises[number % NOISES], 0, 255).astype(np.uint8)
            yield av.VideoFrame.from_ndarray(noisy, format="rgb24")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="+", type=Kind.named)
    parser.add_argument("--from", dest="clips", type=Path)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    for wanted in given.kinds:
        file = made(wanted, given.clips, seconds=given.seconds, folder=given.folder)
        print(f"{file}: {file.stat().st_size * 8e-6 / given.seconds:.2f} Mbit/s")
