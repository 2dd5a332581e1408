"""Indexing against what people do without this package, and against the least that the machine must do.

    pip install torchcodec transformers; apt-get install ffmpeg      # the peers; torchcodec loads FFmpeg's libraries
    python benchmarks/ingest.py [--from CLIPS] [--rows h264:720:250,...] [--rounds 3] [FOLDER_OF_VIDEOS]
    python benchmarks/ingest.py --quick                              # one small row, once

A row is footage of one codec, height and distance of key frames (`footage_made.py`; `--from` makes it of real clips),
or the folder given. It is indexed by the two recipes of `recipes.py` and by this package with B/32 (random weights),
10 s windows of 8 frames, each in processes of its own that have the machine to themselves, in turn, for some rounds;
figures are medians, ratios medians of the rounds' ratios. All must make the same number of vectors, or the run ends.

The recipes are timed with libraries and model loaded. This package is timed as users run it, whole commands: with N
copies of the footage and with 3N, told apart by bytes at the end that players skip. Of each the time counts from the
first file that is read to the last commit, and the difference is 2N copies without what happens once: workers that
start, a model that is loaded. (One run would not tell: while the model loads, decoding runs ahead.) A difference of few
copies is off by what two starts differ: a second or two, over 2N. The start, to the first commit, is reported apart.
`local` is the same with the plain loop, 1 copy and 3. `ray exact` is the package with `--tolerance 0`, which takes the
very frames that the recipes take; else a frame may be a quarter of the time between two samples off. Where the CPU
multiplies bytes, which `ray` then does, `ray float` is it in bfloat16 or float32, whichever is faster, as the floor is.
CPU time is of all threads and processes of each way. On a busy machine it says more than time on the wall, but not all:
torch's threads wait for one another by spinning, so the recipes' grows with the neighbours' load. The floor is that of
`floor.py`, same round. Results are appended to build/bench/ingest.jsonl.

The machine must have no other work: Ray gives its workers a niceness of 15, so that whatever runs beside them goes
first, and this package looks slower than it is while the recipes, at 0, hardly notice.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # as a script, its own folder would be there

from benchmarks import footage_made, harness  # noqa: E402
from benchmarks.encode import random_model  # noqa: E402
from benchmarks.floor import CONFIG, moments  # noqa: E402
from benchmarks.footage_made import Kind  # noqa: E402
from benchmarks.recipes import RECIPES, Peer  # noqa: E402
from xclip_core.fast import faster_dtype  # noqa: E402
from xclip_core.quantised import pays  # noqa: E402
from xclip_core.weights import official_name  # noqa: E402

ROWS = (
    "h264:720:250,h264:720:50,h264:720:12,h264:360:250,h264:1080:250,hevc:720:250,vp9:720:250,av1:720:250,mjpeg:720:1"
)
CHECKPOINT = Path("build/bench/random-b32.safetensors")
Pile = tuple[int, Path]  # so many copies in a folder
Options = tuple[str, str, str]  # engine, tolerance, precision
OURS: dict[str, Options] = {
    "ray": ("ray", "default", "auto"),
    "ray exact": ("ray", "0", "auto"),
    "local": ("local", "default", "auto"),
}
TAILS = {  # bytes that may end a file of a kind and mean nothing, with a number in them
    ".mp4": lambda number: b"\0\0\0\x0cfree" + number.to_bytes(4, "big"),
    ".mkv": lambda number: b"\xec\x84" + number.to_bytes(4, "big"),
}
TAILS |= {".mov": TAILS[".mp4"], ".m4v": TAILS[".mp4"], ".webm": TAILS[".mkv"]}


@dataclass(frozen=True)
class Row:
    """Footage to index."""

    name: str
    files: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)


# --- this package


def index_here(videos: str, archive: str, engine: str, tolerance: str, precision: str) -> None:
    """Indexes a folder and prints its report, when it began to read and when it committed, in its own process."""
    from pipeline import flows
    from pipeline.progress import Progress
    from pipeline.settings import IndexSettings

    family, moments_s, began = harness.Descendants(os.getpid()), [], time.perf_counter()

    def watch(progress: Progress) -> None:
        if progress.phase == "index" or not moments_s:
            moments_s.append((time.perf_counter() - began, family.cpu_s()))

    tolerance_s = None if tolerance == "default" else float(tolerance)
    how: dict[str, Any] = {"engine": engine, "tolerance_s": tolerance_s, "precision": precision}
    settings = IndexSettings(model=str(CHECKPOINT), **how)
    report = flows.index(videos, archive, settings, watch=watch)
    if report.failures:
        raise SystemExit(f"not indexed: {report.failures}")
    said = {name: getattr(report, name) for name in ("clips", "decode_s", "embed_s", "encoders", "footage_s")}
    print(json.dumps(said | {"moments_s": moments_s}))


def copies(files: Sequence[Path], count: int, folder: Path) -> Path:
    """A folder with so many copies of files, no two of the same content."""
    folder.mkdir()
    for number in range(count):
        for place, file in enumerate(files):
            copy = folder / f"{number}-{place}{file.suffix}"
            shutil.copy(file, copy)
            with copy.open("ab") as stream:
                stream.write(TAILS[file.suffix](number))
    return folder


def steady(options: Options, few: Pile, many: Pile, archive: Path) -> dict[str, Any]:
    """One copy's share of what lies between runs over so many copies and over more, and the time to a first commit."""
    small, large = (_index(options, videos, archive) for _, videos in (few, many))
    between = many[0] - few[0]
    names = ("seconds", "cpu_s", "decode_s", "embed_s", "clips")
    share = {name: (large[name] - small[name]) / between for name in names}
    return {**share, "clips": round(share["clips"]), "start_s": small["start_s"], "encoders": large["encoders"]}


def _index(options: Options, videos: Path, archive: Path) -> dict[str, Any]:
    """One run in a fresh process: its report, seconds and CPU seconds from the first file read to the last commit."""
    shutil.rmtree(archive, ignore_errors=True)
    said = child("benchmarks.ingest", "--index-here", str(videos), str(archive), *options)
    first, committed, last = said["moments_s"][0], said["moments_s"][1], said["moments_s"][-1]
    return {**said, "seconds": last[0] - first[0], "cpu_s": last[1] - first[1], "start_s": committed[0]}


def child(module: str, *arguments: str) -> dict[str, Any]:
    """What a module of ours prints, in a process of its own."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", module, *arguments]
    child = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True, check=False
    )
    lines = child.stdout.splitlines()
    if child.returncode or not lines:
        raise SystemExit(f"{module} {arguments[0]} ended with {child.returncode}; what it said is above")
    said: dict[str, Any] = json.loads(lines[-1])
    return said


def checkpoint() -> Path:
    """A file of random weights that loads like any other."""
    if not CHECKPOINT.exists():
        from safetensors.torch import save_file

        CHECKPOINT.parent.mkdir(parents=True, exist_ok=True)
        weights = random_model(CONFIG).state_dict()
        save_file({official_name(name): tensor.contiguous() for name, tensor in weights.items()}, CHECKPOINT)
    return CHECKPOINT


# --- rounds


@contextmanager
def peers() -> Iterator[dict[str, Peer]]:
    """The recipes, started and ready."""
    with ExitStack() as stack:
        found = {name: Peer(name) for name in RECIPES}
        for peer in found.values():
            stack.callback(peer.close)
        yield found


def measure(row: Row, recipes: dict[str, Peer], given: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """What each way says of a row, by round. Ends the run if they do not make the same number of vectors."""
    with tempfile.TemporaryDirectory(dir=CHECKPOINT.parent) as name:
        folder, few = Path(name), given.copies
        todo = list(moments(list(row.files)))
        counts = sorted({1, 3, few, 3 * few})
        piles = {count: (count, copies(row.files, count, folder / f"x{count}")) for count in counts}
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            name: partial(_recipe, peer, todo) for name, peer in recipes.items() if peer.missing is None
        }
        for way in ways.values():
            way()  # the first time, libraries lay their plans
        for way, options in given.ours.items():
            pair = (1, 3) if way == "local" else (few, 3 * few)
            ways[way] = partial(steady, options, *(piles[count] for count in pair), folder / "archive")
        ways["floor"] = partial(_floor, row.files)
        told = {name: partial(_told, row, name, way) for name, way in ways.items() if name not in given.without}
        taken = harness.alternate(told, given.rounds)
    clips = {name: results[0]["clips"] for name, results in taken.items()}
    if len(set(clips.values())) > 1:
        raise SystemExit(f"{row.name}: not the same work: {clips} clips")
    if "ray float" in given.ours:
        _tell_floats(row, taken.get("ray", []))
    return taken


def _tell_floats(row: Row, results: list[dict[str, Any]]) -> None:
    """Says on stderr where `ray` did not multiply bytes, as with few clips: its figures are then those of floats."""
    for result in results:
        if not all(encoder.startswith("int8") for encoder in result["encoders"]):
            print(f"{row.name}: ray: no bytes were multiplied: {', '.join(result['encoders'])}", file=sys.stderr)


def ours() -> dict[str, Options]:
    """This package's ways, without that in floats where the CPU gains nothing from bytes."""
    dtype = faster_dtype("cpu")
    if pays(CONFIG, dtype):
        return OURS | {"ray float": ("ray", "default", str(dtype).removeprefix("torch."))}
    print("ray float: left out: no bytes are multiplied here", file=sys.stderr)
    return OURS


def _told(row: Row, name: str, way: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a way says, said on stderr too: a row takes minutes."""
    taken = way()
    print(f"{row.name}: {name}: {taken['seconds']:.2f} s, CPU {taken['cpu_s']:.2f} s", file=sys.stderr, flush=True)
    return taken


def _recipe(peer: Peer, todo: list[tuple[Path, list[list[float]]]]) -> dict[str, Any]:
    """What a recipe takes for all files, one after the other."""
    done = [peer(file, moments_s) for file, moments_s in todo]
    return {name: sum(answer[name] for answer in done) for name in ("seconds", "cpu_s", "clips")}


def _floor(files: Sequence[Path]) -> dict[str, Any]:
    """The floor, in the words of the other ways."""
    said = child("benchmarks.floor", *map(str, files))
    return {**said, "seconds": said["floor_s"], "cpu_s": said["floor_s"] * said["cores"]}


def summary(row: Row, taken: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians of what was measured of a row, ratios to this package on Ray by wall and by CPU time, and the rounds."""
    said: dict[str, Any] = {"row": row.name, "size_bytes": row.size_bytes, "rounds": taken}
    for figure in ("seconds", "cpu_s"):
        times = {name: [result[figure] for result in results] for name, results in taken.items()}
        said[figure] = {name: statistics.median(values) for name, values in times.items()}
        for way, said_as in (("ray", f"{figure}_ratios"), ("ray float", f"float_{figure}_ratios")):
            if way in times:
                said[said_as] = {name: harness.ratio(values, times[way]) for name, values in times.items()}
    for figure in ("clips", "decode_s", "embed_s", "start_s"):
        said[figure] = statistics.median(result[figure] for result in taken["ray"])
    return said


# --- the table

HEADER = (
    *(
        "footage",
        "Mbit/s",
        "clips",
        "copied s",
        "strong s",
        "ray s",
        "ray exact s",
        "ray float s",
        "local s",
        "floor s",
    ),
    *(
        "copied / ray",
        "strong / ray",
        "floor / ray",
        "copied / float",
        "strong / float",
        "floor / float",
        "CPU: copied s",
        "strong s",
        "ray s",
        "copied / ray",
        "strong / ray",
        "floor / ray",
    ),
    *("decode s", "embed s", "start s"),
)


def cells(said: dict[str, Any]) -> list[str]:
    """A line of the table."""

    def figures(what: str, *names: str) -> list[str]:
        found = said.get(what, {})
        return [f"{found[name]:.2f}" if name in found else harness.MISSING for name in names]

    return [
        said["row"],
        f"{said['size_bytes'] * 8e-6 / said['footage_s']:.1f}",
        str(said["clips"]),
        *figures("seconds", *RECIPES, "ray", "ray exact", "ray float", "local", "floor"),
        *figures("seconds_ratios", *RECIPES, "floor"),
        *figures("float_seconds_ratios", *RECIPES, "floor"),
        *figures("cpu_s", *RECIPES, "ray"),
        *figures("cpu_s_ratios", *RECIPES, "floor"),
        *(f"{said[name]:.2f}" for name in ("decode_s", "embed_s", "start_s")),
    ]


def rows_of(given: argparse.Namespace) -> Iterator[Row]:
    """What is to be measured; footage is made when its turn comes."""
    if given.videos is not None:
        files = sorted(file for file in given.videos.rglob("*") if file.suffix in TAILS)
        left_out = sum(file.is_file() for file in given.videos.rglob("*")) - len(files)
        if left_out:
            print(f"{left_out} files left out: not {', '.join(TAILS)}", file=sys.stderr)
        if not files:
            raise SystemExit(f"{given.videos} has no file that ends in one of {', '.join(TAILS)}")
        yield Row(given.videos.name, tuple(files))
        return
    for kind in map(Kind.named, given.rows.split(",")):
        file = footage_made.made(kind, given.clips, seconds=given.seconds, folder=given.footage)
        yield Row(f"{kind}, {given.seconds} s", (file,))


def main(given: argparse.Namespace) -> None:
    """Prints a line per row as it is measured, and the table."""
    checkpoint()
    given.ours = ours()
    lines: list[list[str]] = []
    rows = list(rows_of(given))
    with peers() as recipes:
        for name, peer in recipes.items():
            print(f"{name}: {f'missing: {peer.missing}' if peer.missing else f'started in {peer.start_s:.1f} s'}")
        for row in rows:
            load = os.getloadavg()[0]
            said = summary(row, measure(row, recipes, given))
            said |= {"footage_s": footage_s(row), "load_before": round(load, 2), "copies": given.copies}
            harness.record("ingest", said)
            lines.append(cells(said))
            print(harness.table(HEADER, [lines[-1]]).splitlines()[-1], flush=True)
    print(f"\n{torch.get_num_threads()} threads, medians of {given.rounds} rounds, seconds per copy of the footage")
    print(harness.table(HEADER, lines))


def footage_s(row: Row) -> float:
    """Length of a row's videos by their windows, the last of which may be short."""
    from benchmarks.floor import units_of

    units = [unit for file in row.files for unit in units_of(file)]
    return sum(window.end_s - window.start_s for unit in units for window in unit.windows)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="?", type=Path, help="measure these instead of footage that is made")
    parser.add_argument("--from", dest="clips", type=Path, help="real clips that footage is made of")
    parser.add_argument("--rows", default=ROWS, help="codec:height:gop, separated by commas")
    parser.add_argument("--seconds", type=int, default=footage_made.SECONDS, help="length of footage that is made")
    parser.add_argument("--footage", type=Path, default=footage_made.FOLDER, help="where footage that is made is kept")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=8, help="N; the package is timed with N and 3N")
    parser.add_argument("--without", default="", help="ways to leave out, separated by commas")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(argv)
    given.without = given.without.split(",")
    if given.quick:
        given.rows, given.seconds, given.rounds, given.copies = "h264:360:250", 30, 1, 2
    return given


if __name__ == "__main__":
    if sys.argv[1:2] == ["--index-here"]:
        index_here(*sys.argv[2:])
    else:
        main(arguments())
