"""Mutated videos through the real stages, in a process that may die: `python -m tests.pipeline.fuzzing DIR FIRST END`.

Case n is the same for ever: a base file, and one to four mutations, all drawn from seed n. Prints a line for each case:
its number and what became of it, `ok CLIPS` or the kinds of its failures.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import decode, demux, engine, plan, sources
from pipeline.engine import Stage
from pipeline.settings import Sampling
from schemas.records import DecodedUnit, Failed, InspectedVideo
from tests.media import make_video

DEADLINE_S = 30  # for a file of a few kilobytes, on a machine with other things to do
MEMORY_BYTES = 1 << 30
SAMPLING = Sampling(window_s=0.5, stride_s=0.5, frames=4)
SIZE = 32
HEADER_BYTES = 512
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)

VP8 = {"deadline": "realtime", "cpu-used": "8"}
BASES = {
    "h264.mp4": {"b_frames": 2},
    "fragmented.mp4": {"muxing": {"movflags": "frag_keyframe+empty_moov"}},
    "turned.mov": {"rotation": 90, "sound": True},
    "h264.mkv": {"b_frames": 2},
    "h264.ts": {},
    "h264.flv": {},
    "h264.avi": {},
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "vp8.webm": {"codec": "libvpx", "options": VP8},
    "vp9.mkv": {"codec": "libvpx-vp9", "options": VP8},
    "hevc.mp4": {
        "codec": "libx265",
        "size": (160, 128),
        "options": {"preset": "ultrafast", "x265-params": "log-level=none"},
    },
    "mjpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "ffv1.mkv": {"codec": "ffv1"},
    "gif.gif": {"codec": "gif", "pixels": "gray"},
    "raw.nut": {"codec": "rawvideo", "pixels": "rgb24"},
    "wmv2.asf": {"codec": "wmv2"},
    "h263.3gp": {"codec": "h263", "size": (128, 96)},
    "flv1.flv": {"codec": "flv"},
}


def make_bases(folder: Path) -> Path:
    """The sound files."""
    for name, options in BASES.items():
        make_video(folder / name, **{"frames": 24, "size": (48, 32), "gop": 8, **options})
    return folder


# --- mutations: content and a random generator to content


def _place(content: bytearray, random: np.random.Generator) -> int:
    """Somewhere; half the time in the header."""
    limit = min(HEADER_BYTES, len(content)) if random.random() < 0.5 else len(content)
    return int(random.integers(limit))


def flip_bits(content: bytearray, random: np.random.Generator) -> None:
    """One to thirty-two bits, anywhere."""
    for _ in range(int(random.integers(1, 33))):
        content[_place(content, random)] ^= 1 << int(random.integers(8))


def write_noise(content: bytearray, random: np.random.Generator) -> None:
    """Noise over a stretch."""
    start, count = _place(content, random), int(random.integers(1, 256))
    count = min(count, len(content) - start)
    content[start : start + count] = random.integers(0, 256, count, np.uint8).tobytes()


def write_zeros(content: bytearray, random: np.random.Generator) -> None:
    """Zeros over a stretch."""
    start, count = _place(content, random), int(random.integers(1, 512))
    content[start : start + count] = bytes(len(content[start : start + count]))


def write_extreme(content: bytearray, random: np.random.Generator) -> None:
    """An extreme number where a length, a count or a size may be."""
    start, value = _place(content, random), int(random.choice(EXTREMES))
    field = value.to_bytes(4, "big" if random.random() < 0.5 else "little")
    content[start : start + 4] = field[: len(content[start : start + 4])]


def cut_out(content: bytearray, random: np.random.Generator) -> None:
    """A stretch less."""
    start = _place(content, random)
    del content[start : start + int(random.integers(1, 256))]


def repeat(content: bytearray, random: np.random.Generator) -> None:
    """A stretch twice."""
    start = _place(content, random)
    content[start:start] = content[start : start + int(random.integers(1, 256))]


def cut_off(content: bytearray, random: np.random.Generator) -> None:
    """The end is missing."""
    del content[int(random.integers(len(content) + 1)) :]


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    flip_bits,
    write_noise,
    write_zeros,
    write_extreme,
    cut_out,
    repeat,
    cut_off,
)


def case(folder: Path, number: int) -> tuple[str, bytes]:
    """The name and content of a case; one in eight is the head of one file with the tail of another."""
    random = np.random.default_rng(number)
    names = sorted(BASES)
    name = names[number % len(names)]
    content = bytearray((folder / name).read_bytes())
    if random.random() < 1 / 8:
        other = (folder / names[int(random.integers(len(names)))]).read_bytes()
        content = content[: int(random.integers(len(content)))] + other[int(random.integers(len(other))) :]
    for _ in range(int(random.integers(1, 5))):
        if content:
            MUTATIONS[int(random.integers(len(MUTATIONS)))](content, random)
    return name, bytes(content)


# --- the stages


def outcome(path: Path) -> str:
    """What becomes of a file, by the stages of the index job."""
    inspecting = [
        Stage(name="fingerprint", work=sources.fingerprint_files),
        Stage(name="inspect", work=partial(demux.inspect_files, SAMPLING, {}), memory_bytes=MEMORY_BYTES),
    ]
    decoding = [Stage(name="decode", work=partial(decode.decode_units, SIZE), memory_bytes=MEMORY_BYTES)]
    (found,) = engine.run(inspecting, tuple(sources.take_inventory(path)), engine="local", scratch=path.parent)
    if isinstance(found, Failed):
        return found.kind
    assert isinstance(found, InspectedVideo)
    units = plan.plan_video(found, None, {}, 0, "space").units
    results = list(engine.run(decoding, units, engine="local", scratch=path.parent))
    assert len(results) == len(units), "every unit is accounted for"
    kinds = sorted({result.kind for result in results if isinstance(result, Failed)})
    clips = sum(len(result.windows) for result in results if isinstance(result, DecodedUnit))
    return " ".join([f"ok {clips}"] * bool(clips) + kinds)


def main() -> None:
    """All cases from FIRST to END."""
    folder, first, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(first, end):
            name, content = case(folder, number)
            path = Path(scratch, name)
            path.write_bytes(content)
            faulthandler.dump_traceback_later(DEADLINE_S, exit=True)
            became = outcome(path)
            faulthandler.cancel_dump_traceback_later()
            sys.stdout.write(json.dumps([number, became]) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
