"""What a run costs that finds nothing to do: time and memory of planning, over archives made by script.

    python benchmarks/noop.py plan 100000 1000000     # real Delta tables; files real up to --files, else made up
    python benchmarks/noop.py clips 2000              # `footage index` three times over that many short videos

`plan` writes a `videos` table of so many rows with pyarrow and Delta, in forty commits as indexing would, and
measures `take_stock` in a fresh process: wall and CPU time, and peak memory beside that of the imports. Up to
`--files` (100,000) the files are real, 4 bytes long, a thousand in a folder, and are walked and looked at; above that
the walk is made up and only the comparison is measured, which the output says. `clips` films one scene, tells its
copies apart by a `free` box at the end of the file, which players skip, and times the whole command in a fresh process.
Each prints a table and appends it to build/bench/noop.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import harness
from pipeline.archive import Archive
from pipeline.settings import Policy
from pipeline.sources import take_inventory
from pipeline.survey import take_stock
from schemas import tables
from schemas.records import SourceFile, VideoRow

SPACE = "benchmark"
COMMITS = 40
PER_FOLDER = 1000
FILES = 100_000
HERE = Path(__file__).parents[1]


def uri(folder: Path, number: int) -> str:
    """Where the n-th file is."""
    return str(folder / f"{number // PER_FOLDER:05}" / f"a video with a name of some length {number:09}.mp4")


def make_files(folder: Path, count: int) -> None:
    """That many files of four bytes."""
    for number in range(count):
        path = Path(uri(folder, number))
        if number % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"clip")
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))


def made_up(folder: Path, count: int) -> Iterator[SourceFile]:
    """The same files as the walk would report them, without a file system."""
    return (SourceFile(uri(folder, number), 4, float(1_700_000_000 + number)) for number in range(count))


def row(file: SourceFile, number: int) -> VideoRow:
    """A sound video."""
    return VideoRow(
        video_id=f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}", uri=file.uri, size_bytes=file.size_bytes,
        mtime_s=file.mtime_s, fingerprint=f"{number:032x}", revision=1, space=SPACE, duration_s=60.0, width=1280,
        height=720, rate_hz=25.0, codec="h264", rotation=0, clip_count=6, decoded_fraction=1.0, status="ok",
        error_kind=None, error=None, stage=None, permanent=False, attempts=1, run_id="run",
        indexed_at=datetime.now(UTC),
    )  # fmt: skip


def make_archive(folder: Path, videos: Path, count: int) -> None:
    """An archive that knows so many files."""
    archive = Archive.create(folder)
    files = made_up(videos, count)
    size = -(-count // COMMITS)
    for start in range(0, count, size):
        rows = [asdict(row(file, start + n)) for n, file in zip(range(min(size, count - start)), files, strict=False)]
        table = pa.Table.from_pylist(rows, schema=tables.VIDEOS)
        write_deltalake(str(archive.folder / "videos"), table, mode="append")


def measure(archive: Path, videos: Path, count: int, *, is_real: bool) -> dict[str, float]:
    """One stocktaking in this process, which has done nothing else."""
    before_mb = _peak_mb()
    began, worked = time.perf_counter(), time.process_time()
    inventory = take_inventory(videos) if is_real else made_up(videos, count)
    stock = take_stock(Archive(archive), SPACE, inventory, (str(videos),), Policy())
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - worked
    assert stock.is_idle, "every file is known"
    assert stock.unchanged == count
    return {"took_s": took_s, "cpu_s": cpu_s, "imports_mb": before_mb, "peak_mb": _peak_mb()}


def _peak_mb() -> float:
    """The most memory this process ever held; rusage would tell that of the parent, if it held more."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def _children_s() -> float:
    """CPU time of processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def plan(counts: list[int], files: int, rounds: int) -> list[dict[str, object]]:
    """What planning takes at each size, the quickest of some rounds."""
    found = []
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            archive, videos, is_real = Path(scratch, "archive"), Path(scratch, "videos"), count <= files
            if is_real:
                make_files(videos, count)
            make_archive(archive, videos, count)
            command = [sys.executable, __file__, "measure", str(archive), str(videos), str(count), str(int(is_real))]
            runs = [subprocess.run(command, capture_output=True, check=True).stdout for _ in range(rounds)]
        best = min(map(json.loads, runs), key=lambda taken: taken["took_s"])
        found.append({"videos": count, "walk": "real files, walked" if is_real else "made up", **best})
    return found


def clips(count: int) -> list[dict[str, object]]:
    """What `footage index` takes and reports the first, the second and the third time."""
    from tests.footage import film

    found = []
    with tempfile.TemporaryDirectory() as scratch:
        content = film(Path(scratch, "scene.mp4"), "left").read_bytes()
        (Path(scratch) / "videos").mkdir()
        for number in range(count):
            box = struct.pack(">I4sQ", 16, b"free", number)
            Path(scratch, "videos", f"{number:05}.mp4").write_bytes(content + box)
        command = [sys.executable, "-m", "jobs", "index", f"{scratch}/videos", f"{scratch}/archive"]
        options = ["--engine", "local", "--json", "--context", "none"]
        for run in ("first", "second", "third"):
            began, worked = time.perf_counter(), _children_s()
            said = json.loads(subprocess.run([*command, *options], capture_output=True, check=True, cwd=HERE).stdout)
            taken = {"took_s": time.perf_counter() - began, "cpu_s": _children_s() - worked}
            found.append({"run": run, **taken, **{name: said[name] for name in ("indexed", "unchanged", "wall_s")}})
    return found


HEADERS = {
    "plan": {
        "videos": "videos",
        "walk": "walk",
        "took_s": "wall (s)",
        "cpu_s": "CPU (s)",
        "peak_mb": "peak (MB)",
        "imports_mb": "of which imports (MB)",
    },
    "clips": {
        "run": "run",
        "took_s": "wall (s)",
        "cpu_s": "CPU (s)",
        "indexed": "indexed",
        "unchanged": "unchanged",
        "wall_s": "in the job (s)",
    },
}


def shown(what: str, rows: list[dict[str, object]]) -> str:
    """The table of what was measured."""
    header = HEADERS[what]
    cells = [[_cell(name, row[name]) for name in header] for row in rows]
    return harness.table(list(header.values()), cells)


def _cell(name: str, value: object) -> str:
    """A figure as it is read: megabytes whole, seconds to hundredths, counts with commas."""
    if isinstance(value, float):
        return f"{value:,.0f}" if name.endswith("_mb") else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    """Parses and runs."""
    if sys.argv[1] == "measure":
        archive, videos, count, is_real = sys.argv[2:]
        print(json.dumps(measure(Path(archive), Path(videos), int(count), is_real=is_real == "1")))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plan", "clips"])
    parser.add_argument("counts", nargs="+", type=int)
    parser.add_argument("--files", type=int, default=FILES, help="up to how many files are real")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rows = plan(given.counts, given.files, given.rounds) if given.what == "plan" else clips(given.counts[0])
    print(shown(given.what, rows))
    harness.record("noop", {"what": given.what, "rows": rows})


if __name__ == "__main__":
    main()
