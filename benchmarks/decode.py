"""What planned decoding saves, and what other decoders take for the same frames; two tables.

    python -m benchmarks.decode [VIDEOS] [--rounds 3] [--no-peers]

The first table is of CPU time by codec: each video is decoded for 10 s windows of 8 frames in three ways, in turn, in
this process: everything from the first frame taken to the last, the plan for the very frames, and the plan with the
default tolerance. Ratios are to the first, medians over rounds; the number of packets is what a decoder was fed.

The second compares decoders (see `decoders.py`) at equal frames, each in a process of its own, in turn, with one thread
and with as many as there are cores. Ratios are to footage, medians over rounds. Every frame is compared with footage's:
one that is nearer to a neighbour of the right frame is another frame, which is reported. Without VIDEOS one is made.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import decoders, harness, videos
from benchmarks.decoders import DECODERS, SIZE, Asked, Taken
from pipeline import decode, sources
from schemas.errors import VideoError
from schemas.records import Unit

OURS = "footage"
MADE_S, MADE_SIZE = 60, (1280, 720)


# --- planned decoding


def ways(file: Path) -> Iterator[tuple[str, str, tuple[Unit, ...]]]:
    """Codec, name and units of each way to decode a video."""
    codec, exact = decoders.units(file)
    yield codec, "everything", tuple(replace(unit, steps=None) for unit in exact)
    yield codec, "exact", exact
    yield codec, "tolerant", decoders.units(file, None)[1]


def cpu_s(todo: tuple[Unit, ...]) -> float:
    """CPU time that decoding units takes."""
    began = time.process_time()
    for unit in todo:
        decode.decode(unit, SIZE)
    return time.process_time() - began


def fed(todo: tuple[Unit, ...]) -> int:
    """Packets that a plan feeds; 0 without one."""
    return sum(len(unit.steps.feed) // 8 for unit in todo if unit.steps is not None)


def plans(files: Sequence[Path], rounds: int) -> list[list[str]]:
    """Rows of the table of planned decoding."""
    taken: dict[str, list[dict[str, float]]] = defaultdict(list)
    packets: dict[tuple[str, str], int] = defaultdict(int)
    for file in files:
        found = list(ways(file))
        times = harness.alternate({name: partial(cpu_s, todo) for _, name, todo in found}, rounds)
        codec = found[0][0]
        taken[codec].append({name: statistics.median(row) for name, row in times.items()})
        for _, name, todo in found:
            packets[codec, name] += fed(todo)
    return [_plan_row(codec, rows, packets) for codec, rows in sorted(taken.items())]


def _plan_row(codec: str, rows: list[dict[str, float]], packets: dict[tuple[str, str], int]) -> list[str]:
    """One codec's line."""
    whole = sum(row["everything"] for row in rows)
    shares = [
        f"{sum(row[name] for row in rows) / whole:.2f} x, {packets[codec, name]}" for name in ("exact", "tolerant")
    ]
    return [codec, str(len(rows)), f"{whole:.2f}", *shares]


# --- other decoders


@dataclass(frozen=True, slots=True)
class Cost:
    """What a decoder took for all files."""

    cpu_s: float
    wall_s: float


class Bench:
    """A process for each decoder that can be used here."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.missing = {name: why for name in DECODERS if (why := decoders.missing(name))}
        self._pools = {name: self._pool() for name in DECODERS if name not in self.missing}
        self.names = list(self._pools)

    def _pool(self) -> ProcessPoolExecutor:
        """A fresh process, which no other decoder's libraries are loaded into."""
        return self._stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))

    def take(self, name: str, what: Asked, threads: int) -> Taken | str:
        """What a decoder makes of a file, or why it makes nothing of it."""
        try:
            return self._pools[name].submit(decoders.take, name, what, threads).result()
        except BrokenProcessPool:
            self._pools[name] = self._pool()
            return "the process died"

    def cost(self, name: str, files: Sequence[Asked], threads: int) -> Cost:
        """What a decoder takes for files that it can decode."""
        found = [self.take(name, what, threads) for what in files]
        failed = [said for said in found if isinstance(said, str)]
        if failed:
            raise RuntimeError(f"{name} with {threads} threads decoded a file before and does not now: {failed[0]}")
        return Cost(sum(taken.cpu_s for taken in found), sum(taken.wall_s for taken in found))


@dataclass(frozen=True, slots=True)
class Checked:
    """What came out of one pass over all files: those that all decoders take, and what was wrong."""

    files: list[Asked]
    others: dict[str, int]  # by decoder, how many frames are not those asked for
    notes: list[str]


def check(bench: Bench, files: Sequence[Asked]) -> Checked:
    """Decodes every file with every decoder once and compares the frames with footage's."""
    common, others, notes = [], dict.fromkeys(bench.names, 0), []
    for what in files:
        near = decoders.neighbours(what)
        found = {name: bench.take(name, what, 1) for name in bench.names}
        failed = {name: said for name, said in found.items() if isinstance(said, str)}
        notes += [f"{Path(what.file).name}: {name}: {said}" for name, said in failed.items()]
        if failed:
            continue
        common.append(what)
        for name, taken in found.items():
            count = decoders.strangers(taken.grey_NSS, found[OURS].grey_NSS, near)
            others[name] += count
            if count:
                notes.append(f"{Path(what.file).name}: {name}: {count} of {len(what.wanted_s)} are other frames")
    return Checked(common, others, notes)


def compare(files: Sequence[Asked], rounds: int) -> tuple[list[list[str]], list[str]]:
    """Rows of the table of decoders, and what was wrong with any."""
    cores = decoders.all_threads()
    with ExitStack() as stack:
        bench = Bench(stack)
        checked = check(bench, files)
        todo: dict[str, Callable[[], Cost]] = {
            f"{name}|{threads}": partial(bench.cost, name, checked.files, threads)
            for name in bench.names
            for threads in sorted({1, cores})
            if threads == 1 or name != OURS
        }
        taken = harness.alternate(todo, rounds) if checked.files else {}
    rows = [_peer_row(key, costs, taken[f"{OURS}|1"], checked) for key, costs in taken.items()]
    rows += [[name, "", why, "", "", "", ""] for name, why in bench.missing.items()]
    frames = sum(len(what.wanted_s) for what in checked.files)
    return rows, [f"{len(checked.files)} of {len(files)} files, {frames} frames", *checked.notes]


def _peer_row(key: str, costs: list[Cost], ours: list[Cost], checked: Checked) -> list[str]:
    """One decoder's line."""
    name, threads = key.split("|")
    cpu, wall = ([getattr(cost, what) for cost in costs] for what in ("cpu_s", "wall_s"))
    our_cpu, our_wall = ([getattr(cost, what) for cost in ours] for what in ("cpu_s", "wall_s"))
    return [
        name,
        threads,
        f"{statistics.median(cpu):.2f}",
        f"{statistics.median(wall):.2f}",
        f"{harness.ratio(cpu, our_cpu):.2f} x",
        f"{harness.ratio(wall, our_wall):.2f} x",
        str(checked.others[name]),
    ]


# --- the script


def decodable(found: Sequence[Path]) -> list[Path]:
    """The files that footage decodes; of the others it says why not."""
    kept = []
    for file in found:
        try:
            for unit in decoders.units(file)[1]:
                decode.decode(unit, SIZE)
        except VideoError as error:
            print(f"left out: {file}: {error}", file=sys.stderr)
        else:
            kept.append(file)
    return kept


def main(folder: Path, rounds: int, *, peers: bool) -> None:
    """Prints the tables and appends them to build/bench/decode.jsonl."""
    files = decodable([Path(file.uri) for file in sources.take_inventory(folder)])
    planned = plans(files, rounds)
    head = ["codec", "videos", "everything (s)", "exact: time, packets", "tolerant: time, packets"]
    print(harness.table(head, planned))
    result: dict[str, object] = {"videos": str(folder), "files": len(files), "rounds": rounds, "plans": planned}
    if peers:
        rows, notes = compare([decoders.asked(file) for file in files], rounds)
        head = ["decoder", "threads", "CPU (s)", "wall (s)", "CPU to footage", "wall to footage", "other frames"]
        print("\n" + harness.table(head, rows) + "\n\n" + "\n".join(notes))
        result |= {"decoders": rows, "notes": notes}
    harness.record("decode", result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = given.videos or videos.filmed(
            Path(scratch, "made.mp4"), seconds=MADE_S, size=MADE_SIZE, options=videos.X264_DEFAULTS
        )
        main(place, given.rounds, peers=not given.no_peers)
