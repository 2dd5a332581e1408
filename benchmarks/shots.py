"""How well shots are told apart, and what it costs: `python benchmarks/shots.py VIDEOS... --without NAMES`.

Clips of one shot each are joined into one video whose cuts are then known: the first seconds of each, at 25 frames a
second, scaled and cropped to one size, encoded twice with x264: as it does by itself (key frames where it sees cuts, at
most 250 frames apart) and with a key frame every 50 frames wherever that is. Clips that hold cuts of their own would be
counted against whoever finds them: `--without` leaves them out by name. A cut is found if it is told within a frame.

Beside PySceneDetect's AdaptiveDetector and ContentDetector, with their defaults (`pip install 'footage[bench]'`). CPU
time of one process, all ways one after the other in each round, medians. "A pass" decodes every frame and does nothing
else; "cuts" finds cuts besides; "shots" is all that `--segment shots` does, "fixed" what is done without it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import scenedetect
from numpy.typing import NDArray

from pipeline import cuts, decode, decode_shots, demux, picking, plan, sources
from pipeline.settings import IndexSettings, Sampling
from schemas.errors import VideoError

SIZE = (480, 270)
RATE_HZ = 25
CLIP_S = 5.0
IMAGE_SIZE = 224
FRAMES = 8
ENCODED = {
    "key frames at cuts": {"preset": "veryfast", "crf": "23", "g": "250"},
    "key frame every 50": {"preset": "veryfast", "crf": "23", "g": "50", "keyint_min": "50", "sc_threshold": "0"},
}

Times = list[float]
Way = Callable[[str], Times]


def filling(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The middle of a frame, as large as the joined video: H x W x 3."""
    scale = max(SIZE[0] / frame.width, SIZE[1] / frame.height)
    width, height = (
        max(2 * round(side * scale / 2), least) for side, least in zip((frame.width, frame.height), SIZE, strict=True)
    )
    picture = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    top, left = (height - SIZE[1]) // 2, (width - SIZE[0]) // 2
    return picture[top : top + SIZE[1], left : left + SIZE[0]]


def clip(uri: str) -> list[NDArray[np.uint8]]:
    """The first seconds of a video at RATE_HZ."""
    with demux.opened(uri) as (container, stream):
        shots = []
        for shot in picking.in_order(decode.intact_frames(container, stream)):
            if shots and shot.time_s - shots[0][0] > CLIP_S:
                break
            shots.append((shot.time_s, filling(shot.frame)))
    times_s = np.array([time_s for time_s, _ in shots]) - shots[0][0]
    count = int(times_s[-1] * RATE_HZ)
    places = np.searchsorted(times_s, np.arange(count) / RATE_HZ + 1e-6, side="right") - 1
    return [shots[place][1] for place in places]


def join(files: list[str], folder: Path) -> tuple[dict[str, str], Times]:
    """Videos of all clips one after the other, by how they are encoded, and the times of the cuts in them."""
    paths = {name: str(folder / f"{number}.mp4") for number, name in enumerate(ENCODED)}
    outputs = [av.open(path, "w") for path in paths.values()]
    streams = [
        output.add_stream("libx264", rate=RATE_HZ, options=ENCODED[name])
        for name, output in zip(paths, outputs, strict=True)
    ]
    for stream in streams:
        (stream.width, stream.height), stream.pix_fmt = SIZE, "yuv420p"
    starts, number = [], 0
    for file in files:
        try:
            pictures = clip(file)
        except VideoError as error:
            print(f"left out: {file}: {error}", file=sys.stderr)
            continue
        if len(pictures) < RATE_HZ:
            print(f"left out: {file}: shorter than a second", file=sys.stderr)
            continue
        starts.append(number)
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE_HZ)
            number += 1
            for output, stream in zip(outputs, streams, strict=True):
                output.mux(stream.encode(frame))
    for output, stream in zip(outputs, streams, strict=True):
        output.mux(stream.encode())
        output.close()
    print(f"{len(starts)} clips, {number} frames, {len(starts) - 1} cuts", flush=True)
    return paths, [start / RATE_HZ for start in starts[1:]]


# --- ways


def frames_of(uri: str) -> Iterator[picking.Shot]:
    """Every frame in order."""
    with demux.opened(uri) as (container, stream):
        yield from picking.in_order(decode.intact_frames(container, stream))


def a_pass(uri: str) -> Times:
    """Decodes and finds nothing."""
    for _ in frames_of(uri):
        pass
    return []


def ours(uri: str) -> Times:
    """Cuts as they are found while decoding."""
    rules = sampling("shots").shots
    assert rules is not None
    luma = decode.Resizer().luma
    seen = (cuts.Seen(s.time_s, luma(s.frame), bool(s.frame.key_frame), None) for s in frames_of(uri))
    return [frame.time_s for frame, is_start in cuts.marked(seen, rules) if is_start][1:]


def sampling(segment: str) -> Sampling:
    """As `footage index --segment` makes it."""
    return IndexSettings(segment=segment).sampling(FRAMES)


def indexed(segment: str, uri: str) -> Times:
    """All that the decode stage does; tells no cuts."""
    settings = sampling(segment)
    video = demux.inspect(sources.fingerprint(next(iter(sources.take_inventory(uri)))), settings)
    per_unit = plan.windows_per_unit(settings)
    for unit in plan.plan_video(video, None, {}, 0, "space", per_unit=per_unit).units:
        if settings.shots is None:
            decode.decode(unit, IMAGE_SIZE)
        else:
            decode_shots.shots_of(unit, IMAGE_SIZE, settings)
    return []


def pyscenedetect(detector: type, uri: str) -> Times:
    """What PySceneDetect finds."""
    found = scenedetect.detect(uri, detector())
    return [start.seconds for start, _ in found][1:]


WAYS: dict[str, Way] = {
    "a pass": a_pass,
    "cuts": ours,
    "shots": partial(indexed, "shots"),
    "fixed": partial(indexed, "fixed"),
    "PySceneDetect adaptive": partial(pyscenedetect, scenedetect.AdaptiveDetector),
    "PySceneDetect content": partial(pyscenedetect, scenedetect.ContentDetector),
}


# --- figures


def hits(found: Times, truth: Times) -> int:
    """How many of the cuts are among what was found, within a frame."""
    return sum(any(abs(cut_s - time_s) < 1.5 / RATE_HZ for time_s in found) for cut_s in truth)


def line(name: str, found: Times, truth: Times, cpu_s: float) -> str:
    """A row of the table."""
    if not found:
        return f"| {name} | | | | {cpu_s:.2f} s |"
    hit = hits(found, truth)
    precision, recall = hit / len(found), hit / len(truth)
    f1 = 2 * precision * recall / (precision + recall) if hit else 0.0
    figures = f"{precision:.3f} ({len(found) - hit} false) | {recall:.3f} ({len(truth) - hit} missed) | {f1:.3f}"
    return f"| {name} | {figures} | {cpu_s:.2f} s |"


def timed(way: Way, uri: str) -> tuple[Times, float]:
    """What a way finds, and its CPU time."""
    began = time.process_time()
    return way(uri), time.process_time() - began


def main() -> None:
    """Joins, measures, prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    files = [file.uri for file in sources.take_inventory(*asked.videos) if Path(file.uri).name not in asked.without]
    order = np.random.default_rng(0).permutation(len(files))  # clips of one source stand beside each other in folders
    with tempfile.TemporaryDirectory() as folder:
        paths, truth = join([files[place] for place in order], Path(folder))
        for name, uri in paths.items():
            rounds = [{way: timed(work, uri) for way, work in WAYS.items()} for _ in range(asked.rounds)]
            print(f"\n{name}\n\n| way | precision | recall | F1 | CPU time |\n| --- | --- | --- | --- | --- |")
            for way in WAYS:
                cpu_s = statistics.median(taken[way][1] for taken in rounds)
                print(line(way, rounds[0][way][0], truth, cpu_s), flush=True)


if __name__ == "__main__":
    main()
