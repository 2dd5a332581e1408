"""How long commands take from nothing: fresh processes over an archive of 100,000 clips.

    python benchmarks/start.py FOLDER [--clips 100000] [--videos 2000] [--rounds 5] [--imports]

Makes FOLDER/archive unless it is there: clips of the embedded model's space with vectors in clusters (a video's clips
lie together, and videos near one of 200 subjects), contexts and pictures of noise in their true sizes, written by
`write_part` and committed a few videos at a time as indexing would, its index built by `vectors`; and FOLDER/compacted,
a copy that `footage compact` has merged. For each command: medians of wall and CPU time, peak memory, and what went
through read calls (pages of mapped files do not). The system's file cache is warm: the first round is not counted.
`--imports` adds which imports of a search take longest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

# The measuring process imports nothing heavy: a child begins with its parent's peak memory.
if TYPE_CHECKING:
    from pipeline.settings import Space
    from schemas.records import EmbeddedUnit, VideoRow

HERE = Path(__file__).parents[1]
TEXT = "the camera pans to the left over a red circle"
SUBJECTS = 200
THUMBNAIL_BYTES = 3000
VIDEOS_PER_COMMIT = 8
WINDOW_S = 10.0


# --- the archive


def make(folder: Path, clips: int, videos: int) -> None:
    """The archive as indexing leaves it."""
    from pipeline import indexes
    from pipeline.archive import Archive
    from pipeline.parts import write_part
    from pipeline.settings import IndexSettings, space_of
    from xclip_core import load_encoder

    settings = IndexSettings(engine="local")
    space = space_of(load_encoder(settings.model), settings)
    archive = Archive.create(folder)
    made = list(_videos(space, clips, videos))
    for start in range(0, videos, VIDEOS_PER_COMMIT):
        lot = [(row, unit) for row, unit in _embedded(space, made[start : start + VIDEOS_PER_COMMIT], start)]
        archive.commit_parts(part for _, unit in lot for part in write_part([unit], folder))
        archive.commit_videos(row for row, _ in lot)
    run = {"index": asdict(settings), "space": asdict(space), "places": ["/videos"]}
    archive.log_run(
        {"run_id": "benchmark", "state": "finished", "space": space.id, "at": datetime.now(UTC),
         "settings": json.dumps(run), "versions": "{}", "report": "{}"}
    )  # fmt: skip
    indexes.build(archive, space.id, space.model.embed_dim)


def _videos(space: Space, clips: int, videos: int) -> Iterator[VideoRow]:
    """The rows of so many sound videos that share the clips."""
    from pipeline import plan
    from schemas.records import HashedFile, SourceFile, VideoRow

    for number in range(videos):
        count = clips * (number + 1) // videos - clips * number // videos
        uri = f"/videos/{number // 100:03}/a video with a name of some length {number:06}.mp4"
        source = HashedFile(SourceFile(uri, 10_000_000, 1.7e9), f"{number:032x}")
        yield VideoRow(
            video_id=plan.new_video_id(source), uri=uri, size_bytes=10_000_000, mtime_s=1.7e9,
            fingerprint=source.fingerprint, revision=1, space=space.id, duration_s=WINDOW_S * count, width=1280,
            height=720, rate_hz=25.0, codec="h264", rotation=0, clip_count=count, decoded_fraction=1.0, status="ok",
            error_kind=None, error=None, stage=None, permanent=False, attempts=1, run_id="benchmark",
            indexed_at=datetime.now(UTC),
        )  # fmt: skip


def _embedded(space: Space, rows: list[VideoRow], first: int) -> Iterator[tuple[VideoRow, EmbeddedUnit]]:
    """Each video with its clips as one unit; `first` is the number of the first video."""
    import numpy as np

    from pipeline.contexts import PACKERS
    from schemas.records import EmbeddedUnit, Unit, Window

    P, E, T = space.model.patches, space.model.embed_dim, space.model.frames
    subject_SE = np.random.default_rng(0).normal(size=(SUBJECTS, E))
    for number, row in enumerate(rows, start=first):
        draw = np.random.default_rng(1 + number)
        starts = [WINDOW_S * place for place in range(row.clip_count)]
        windows = tuple(Window(s, s + WINDOW_S, tuple(s + WINDOW_S * (t + 0.5) / T for t in range(T))) for s in starts)
        vector_NE = subject_SE[number % SUBJECTS] + draw.normal(size=E) + 0.7 * draw.normal(size=(len(starts), E))
        vector_NE /= np.linalg.norm(vector_NE, axis=1, keepdims=True)
        yield (
            row,
            EmbeddedUnit(
                unit=Unit(f"{row.video_id}-1", row.video_id, 1, space.id, row.uri, windows, 60.0),
                windows=windows,
                thumbnails=tuple(b"RIFF" + draw.bytes(THUMBNAIL_BYTES - 4) for _ in starts),
                embedding_NE=vector_NE.astype(np.float16).astype(np.float32),
                contexts=tuple(PACKERS["int8"](draw.normal(size=(P, E)).astype(np.float32)) for _ in starts),
                intact_samples=(T,) * len(starts),
                decode_s=1.0,
                embed_s=1.0,
            ),
        )


def compacted(source: Path, target: Path) -> None:
    """A copy of an archive, merged."""
    from pipeline.compact import CompactSettings, compact

    shutil.copytree(source, target)
    compact(target, CompactSettings(retention_days=0.0))


# --- measuring


@dataclass(frozen=True, slots=True)
class Run:
    """One process."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    read_mb: float  # by read calls, those of the interpreter included


def measure(command: list[str]) -> Run:
    """Runs a command of ours to its end."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, cwd=HERE)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and its counters still there
    wall_s = time.perf_counter() - began
    counters = Path(f"/proc/{process.pid}/io").read_text(encoding="ascii")
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    read_bytes = int(counters.split("rchar: ")[1].split()[0])
    return Run(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000, read_bytes / 1e6)


def show(name: str, command: list[str], rounds: int) -> None:
    """Prints the medians of a command."""
    runs = [measure(command) for _ in range(rounds + 1)][1:]
    wall_s, cpu_s, peak_mb, read_mb = (
        statistics.median(getattr(run, field) for run in runs) for field in ("wall_s", "cpu_s", "peak_mb", "read_mb")
    )
    slowest_s = max(run.wall_s for run in runs)
    print(
        f"{name:<34} {wall_s:6.2f} s (slowest {slowest_s:.2f})  {cpu_s:6.2f} s of CPU  {peak_mb:5.0f} MB peak  "
        f"{read_mb:6.1f} MB read",
        flush=True,
    )


def show_imports(command: list[str], most: int = 25) -> None:
    """Prints the imports of a command that take longest with all that they import, as `-X importtime` has it."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True, cwd=HERE
    )
    lines = [line.removeprefix("import time:").split("|") for line in run.stderr.splitlines() if "|" in line]
    found = [(int(total), name.strip()) for _, total, name in lines if total.strip().isdigit()]
    for total_us, name in sorted(found, reverse=True)[:most]:
        print(f"{total_us / 1e6:7.3f} s  {name}")


def main() -> None:
    """Parses and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--imports", action="store_true", help="also print the longest imports of a search")
    parser.add_argument("--only-make", action="store_true", help="make the archives and stop")
    given = parser.parse_args()
    archive, merged = given.folder.absolute() / "archive", given.folder.absolute() / "compacted"
    if given.only_make:
        sys.path.insert(0, str(HERE))  # of a script only its own folder is on it
        if not archive.exists():
            make(archive, given.clips, given.videos)
        if not merged.exists():
            compacted(archive, merged)
        return
    subprocess.run([sys.executable, *sys.argv, "--only-make"], check=True)
    jobs = ["-m", "jobs"]
    show("footage --help", [*jobs, "--help"], given.rounds)
    show("footage search --help", [*jobs, "search", "--help"], given.rounds)
    for name, place in (("", archive), (", compacted", merged)):
        show(f"footage search{name}", [*jobs, "search", str(place), TEXT], given.rounds)
        show(f"footage search --no-rerank{name}", [*jobs, "search", str(place), TEXT, "--no-rerank"], given.rounds)
        show(f"footage info{name}", [*jobs, "info", str(place)], given.rounds)
    if given.imports:
        show_imports([*jobs, "search", str(archive), TEXT])


if __name__ == "__main__":
    main()
