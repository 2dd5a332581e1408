"""What planned decoding saves: `python benchmarks/decode.py VIDEOS [ROUNDS]`, a table of CPU time by codec.

Each video is decoded for 10 s windows of 8 frames in three ways, one after the other, in this process: everything from
the first frame taken to the last, the plan for the very frames, and the plan with the default tolerance. Ratios are to
the first, medians over rounds; the number of packets is what a decoder was fed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline import decode, demux, plan, sources
from pipeline.settings import Sampling
from schemas.errors import VideoError
from schemas.records import Unit

IMAGE_SIZE = 224


def units(file: Path, tolerance_s: float | None) -> tuple[str, tuple[Unit, ...]]:
    """A video's codec and its units."""
    source = sources.fingerprint(next(iter(sources.take_inventory(file))))
    video = demux.inspect(source, Sampling(tolerance_s=tolerance_s))
    return video.profile.codec, plan.plan_video(video, None, {}, 0, "space").units


def ways(file: Path) -> Iterator[tuple[str, str, tuple[Unit, ...]]]:
    """Codec, name and units of each way to decode a video."""
    codec, exact = units(file, 0.0)
    yield codec, "everything", tuple(replace(unit, steps=None) for unit in exact)
    yield codec, "exact", exact
    yield codec, "tolerant", units(file, None)[1]


def cpu_s(todo: tuple[Unit, ...]) -> float:
    """CPU time that decoding units takes."""
    began = time.process_time()
    for unit in todo:
        decode.decode(unit, IMAGE_SIZE)
    return time.process_time() - began


def fed(todo: tuple[Unit, ...]) -> int:
    """Packets that a plan feeds; 0 without one."""
    return sum(len(unit.steps.feed) // 8 for unit in todo if unit.steps is not None)


def main(folder: Path, rounds: int) -> None:
    """Prints the table."""
    taken: dict[str, list[dict[str, float]]] = defaultdict(list)
    packets: dict[tuple[str, str], int] = defaultdict(int)
    for file in sources.take_inventory(folder):
        try:
            found = list(ways(Path(file.uri)))
            times = [{name: cpu_s(todo) for _, name, todo in found} for _ in range(rounds)]
        except VideoError as error:
            print(f"left out: {file.uri}: {error}", file=sys.stderr)
            continue
        codec = found[0][0]
        taken[codec].append({name: statistics.median(row[name] for row in times) for name in times[0]})
        for _, name, todo in found:
            packets[codec, name] += fed(todo)
    print("| codec | videos | everything (s) | exact: time, packets | tolerant: time, packets |")
    print("| --- | --- | --- | --- | --- |")
    for codec, rows in sorted(taken.items()):
        whole = sum(row["everything"] for row in rows)
        cells = [
            f"{sum(row[name] for row in rows) / whole:.2f} x, {packets[codec, name]}" for name in ("exact", "tolerant")
        ]
        print(f"| {codec} | {len(rows)} | {whole:.2f} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
