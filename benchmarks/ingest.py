"""Indexing against what people do without this package, and against the least that the machine must do.

    pip install torchcodec transformers; apt-get install ffmpeg      # the peers; torchcodec loads FFmpeg's libraries
    python benchmarks/ingest.py [--from CLIPS] [--rows h264:720:250,...] [--rounds 3] [FOLDER_OF_VIDEOS]
    python benchmarks/ingest.py --quick                              # one small row, three minutes

A row is footage of one codec, height and distance of key frames (`footage_made.py`; `--from` makes it of real clips),
or the folder given. It is indexed by the two recipes of `recipes.py` and by this package with B/32 (random weights),
10 s windows of 8 frames, each in processes of its own that have the machine to themselves, in turn, for some rounds;
figures are medians, ratios medians of the rounds' ratios. All must make the same number of vectors, or the run ends.

The recipes are timed with libraries and model loaded. This package is timed as users run it, whole commands: with N
copies of the footage and with 3N, told apart by bytes at the end that players skip; the difference is 2N copies without
the start, and the start is what is left of the first, reported apart. `local` is the same with the plain loop, 1 copy
and 3. `CPU` is what all cores did meanwhile, of whatever process, a copy. The floor is that of `floor.py`, same round.
Results are appended to build/bench/ingest.jsonl.
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
from benchmarks.encode_models import _random  # noqa: E402
from benchmarks.floor import CONFIG, moments  # noqa: E402
from benchmarks.footage_made import Kind  # noqa: E402
from benchmarks.recipes import RECIPES, Peer  # noqa: E402
from xclip_core.weights import official_name  # noqa: E402

ROWS = (
    "h264:720:250,h264:720:50,h264:720:12,h264:360:250,h264:1080:250,hevc:720:250,vp9:720:250,av1:720:250,mjpeg:720:1"
)
CHECKPOINT = Path("build/bench/random-b32.safetensors")
TAILS = {  # bytes that may end a file of a kind and mean nothing, with a number in them
    ".mp4": lambda number: b"\0\0\0\x0cfree" + number.to_bytes(4, "big"),
    ".mkv": lambda number: b"\xec\x84" + number.to_bytes(4, "big"),
}
TAILS |= {".mov": TAILS[".mp4"], ".m4v": TAILS[".mp4"], ".webm": TAILS[".mkv"]}
TICKS_HZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Row:
    """Footage to index."""

    name: str
    files: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class Steady:
    """Indexing one copy of the footage, once it runs, and what starting took. Seconds; `cpu_s` of all cores."""

    seconds: float
    start_s: float
    cpu_s: float
    decode_s: float
    embed_s: float
    clips: int
    encoders: list[str]


# --- this package


def index_here(engine: str, checkpoint: str, videos: str, archive: str) -> None:
    """Indexes a folder and prints what the report says. Runs in a process of its own."""
    from pipeline import flows
    from pipeline.settings import IndexSettings

    report = flows.index(videos, archive, IndexSettings(model=checkpoint, engine=engine))  # type: ignore[arg-type]
    if report.failures:
        raise SystemExit(f"not indexed: {report.failures}")
    said = {name: getattr(report, name) for name in ("clips", "decode_s", "embed_s", "encoders", "wall_s")}
    print(json.dumps(said))


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


def steady(engine: str, few: tuple[int, Path], many: tuple[int, Path], folder: Path) -> Steady:
    """From whole runs over two folders, of so many copies each."""
    small, large = _index(engine, few[1], folder / "few"), _index(engine, many[1], folder / "many")
    between = many[0] - few[0]
    seconds, cpu_s, decode_s, embed_s, clips = (
        (large[name] - small[name]) / between for name in ("seconds", "cpu_s", "decode_s", "embed_s", "clips")
    )
    start_s = small["seconds"] - few[0] * seconds
    return Steady(seconds, start_s, cpu_s, decode_s, embed_s, round(clips), large["encoders"])


def _index(engine: str, videos: Path, archive: Path) -> dict[str, Any]:
    """One run in a fresh process: its report, seconds from start to end, CPU seconds of the machine."""
    shutil.rmtree(archive, ignore_errors=True)
    began, busy = time.perf_counter(), _busy_s()
    said = _child("benchmarks.ingest", "--index-here", engine, str(CHECKPOINT), str(videos), str(archive))
    return {**said, "seconds": time.perf_counter() - began, "cpu_s": _busy_s() - busy}


def _child(module: str, *arguments: str) -> dict[str, Any]:
    """What a module of ours prints, in a process of its own."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True, check=True
    )
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def _busy_s() -> float:
    """CPU seconds that the machine has spent since it started, of all processes; 0 where Linux does not tell."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, hard, soft = map(int, fields[1:8])
    return (user + nice + system + hard + soft) / TICKS_HZ


def checkpoint() -> Path:
    """A file of random weights that loads like any other."""
    if not CHECKPOINT.exists():
        from safetensors.torch import save_file

        CHECKPOINT.parent.mkdir(parents=True, exist_ok=True)
        weights = _random(CONFIG).state_dict()
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


def measure(row: Row, recipes: dict[str, Peer], rounds: int, copied: int) -> dict[str, Any]:
    """Everything measured of a row, by round."""
    with tempfile.TemporaryDirectory(dir=CHECKPOINT.parent) as name:
        folder = Path(name)
        todo = list(moments(list(row.files)))
        counts = sorted({1, 3, copied, 3 * copied})
        piles = {count: (count, copies(row.files, count, folder / f"x{count}")) for count in counts}
        ways: dict[str, Callable[[], Any]] = {
            name: partial(_recipe, peer, todo) for name, peer in recipes.items() if peer.missing is None
        }
        ways["ray"] = partial(steady, "ray", piles[copied], piles[3 * copied], folder)
        ways["local"] = partial(steady, "local", piles[1], piles[3], folder)
        ways["floor"] = partial(_child, "benchmarks.floor", *map(str, row.files))
        for peer in ways.values():
            if getattr(peer, "func", None) is _recipe:
                peer()  # the first time, libraries lay their plans
        taken = harness.alternate(ways, rounds)
    clips = {name: _clips(results) for name, results in taken.items()}
    if len(set(clips.values())) > 1:
        raise SystemExit(f"{row.name}: not the same work: {clips} clips")
    return taken


def _recipe(peer: Peer, todo: list[tuple[Path, list[list[float]]]]) -> tuple[float, int]:
    """Seconds and vectors of all files, one after the other."""
    done = [peer(file, moments_s) for file, moments_s in todo]
    return sum(seconds for seconds, _ in done), sum(vectors for _, vectors in done)


def _clips(results: list[Any]) -> int:
    """Vectors made in each round."""
    first = results[0]
    counted: int = first["clips"] if isinstance(first, dict) else first.clips if isinstance(first, Steady) else first[1]
    return counted


def seconds_of(result: Any) -> float:
    """The one figure that is compared."""
    if isinstance(result, Steady):
        return result.seconds
    figure: float = result["floor_s"] if isinstance(result, dict) else result[0]
    return figure


def summary(row: Row, taken: dict[str, list[Any]]) -> dict[str, Any]:
    """Medians and ratios of a row, and the rounds they are of."""
    times = {name: list(map(seconds_of, results)) for name, results in taken.items()}
    ours, plain, floors = taken["ray"], taken["local"], taken["floor"]
    said: dict[str, Any] = {
        "row": row.name,
        "size_bytes": row.size_bytes,
        "clips": _clips(floors),
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "ratios": {name: harness.ratio(times[name], times["ray"]) for name in RECIPES if name in times},
        "local_ratios": {name: harness.ratio(times[name], times["local"]) for name in RECIPES if name in times},
        "fraction_of_floor": harness.ratio(times["floor"], times["ray"]),
        "encoders": ours[0].encoders,
        "rounds": times,
        "floors": floors,
    }
    for name, results in (("ray", ours), ("local", plain)):
        for figure in ("start_s", "cpu_s", "decode_s", "embed_s"):
            said[f"{name}_{figure}"] = statistics.median(getattr(result, figure) for result in results)
    return said


# --- the table

HEADER = (
    *("footage", "Mbit/s", "clips", "copied s", "strong s", "ray s", "x copied", "x strong"),
    *("local s", "floor s", "floor / ray", "CPU s", "decode s", "embed s", "start s"),
)


def cells(said: dict[str, Any]) -> list[str]:
    """A line of the table."""
    seconds, ratios = said["seconds"], said["ratios"]
    return [
        said["row"],
        f"{said['size_bytes'] * 8e-6 / said['footage_s']:.1f}",
        str(said["clips"]),
        *(f"{seconds[name]:.2f}" if name in seconds else harness.MISSING for name in RECIPES),
        f"{seconds['ray']:.2f}",
        *(f"{ratios[name]:.2f}" if name in ratios else harness.MISSING for name in RECIPES),
        *(f"{seconds[name]:.2f}" for name in ("local", "floor")),
        f"{said['fraction_of_floor']:.2f}",
        *(f"{said[f'ray_{figure}']:.2f}" for figure in ("cpu_s", "decode_s", "embed_s")),
        f"{said['ray_start_s']:.1f}",
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
    lines: list[list[str]] = []
    rows = list(rows_of(given))
    with peers() as recipes:
        for name, peer in recipes.items():
            print(f"{name}: {f'missing: {peer.missing}' if peer.missing else f'started in {peer.start_s:.1f} s'}")
        for row in rows:
            load = os.getloadavg()[0]
            said = summary(row, measure(row, recipes, given.rounds, given.copies))
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
    parser.add_argument("--copies", type=int, default=4, help="N; the engine is timed with N and 3N")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(argv)
    if given.quick:
        given.rows, given.seconds, given.rounds, given.copies = "h264:360:250", 30, 1, 2
    return given


if __name__ == "__main__":
    if sys.argv[1:2] == ["--index-here"]:
        index_here(*sys.argv[2:])
    else:
        main(arguments())
