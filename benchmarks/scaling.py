"""Time and memory as footage grows: of many videos, of a long one, on one core and on all.

    python -m benchmarks.scaling [--videos 8] [--seconds 60] [--times 1 2 4 8] [--cores] [--minutes 10 120]

Videos are made (320 x 180, H.264, at least a key frame every ten seconds) and indexed by `pipeline.flows.index` on Ray
with the embedded model, each run in a process of its own with a cluster of its own and an archive that is new.

Memory is that of the whole tree of processes, Ray's among them, looked at twice a second: PSS, which shares out among
processes what they share, so that their sum counts Ray's object store and libraries once. CPU time is that of the same
processes. Columns of single processes are of the largest of its kind; Ray's workers tell in their titles what they do.

The first run is once again done with one core (`taskset`), and the long video in 10 minutes and in two hours, made in
seconds by writing the same packets again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import harness, videos
from benchmarks.decoders import all_threads

EVERY_S = 0.5
SIZE = (320, 180)
OPTIONS = {"preset": "veryfast", "bf": "3", "g": "250"}
DRIVER = "driver"
STAGES = {"decode": "decoder", "embed": "embedder", "write": "writer", "inspect": "inspector"}
TIMEOUT_S = 900
ROOT = Path(__file__).parent.parent


# --- memory of a tree of processes


def pss_mb(pid: int) -> float:
    """A process's share of memory; 0 when it has just ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in text.splitlines() if line.startswith("Pss:")), 0.0)


def tree(root: int) -> Iterator[tuple[int, str]]:
    """The processes that descend from one, itself first: pid and title."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(entry)) is not None:
            children[parent].append(int(entry.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid, DRIVER if pid == root else _title(pid)
        waiting += children[pid]


def _parent(entry: Path) -> int | None:
    """The pid of a process's parent."""
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _title(pid: int) -> str:
    """What a process calls itself, by its first word: Ray's workers tell what they are at."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def kind_of(title: str) -> str:
    """What a process is for, from its title: the driver, a stage's worker, or Ray's own."""
    if title == DRIVER or not title.startswith("ray::"):
        return title if title == DRIVER else "Ray's own"
    return next((name for stage, name in STAGES.items() if f"({stage})" in title), "other worker")


def cpu_s(pid: int) -> float:
    """CPU time that a process has used; 0 when it has just ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Watch:
    """What was seen of some processes: memory of all at one time, of the largest of each kind, and CPU time of each."""

    total_mb: float = 0.0
    by_kind: dict[str, float] = field(default_factory=dict)
    cpu_by_pid: dict[int, float] = field(default_factory=dict)

    def look(self, root: int) -> None:
        """Counts in what there is now."""
        seen = [(pid, kind_of(title), pss_mb(pid)) for pid, title in tree(root)]
        self.total_mb = max(self.total_mb, sum(mb for *_, mb in seen))
        for pid, kind, mb in seen:
            self.by_kind[kind] = max(mb, self.by_kind.get(kind, 0.0))
            self.cpu_by_pid[pid] = max(cpu_s(pid), self.cpu_by_pid.get(pid, 0.0))


def watched(command: Sequence[str]) -> tuple[str, Watch]:
    """Runs a command; what it printed, and what was seen of everything it started. Raises RuntimeError if it fails."""
    watch, until = Watch(), time.monotonic() + TIMEOUT_S
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # A session of its own: a signal to this script must not end Ray's processes before the job that uses them.
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT, start_new_session=True)
        try:
            while process.poll() is None and time.monotonic() < until:
                watch.look(process.pid)
                time.sleep(EVERY_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        for stream in (out, err):
            stream.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command} ended with {process.returncode}: {err.read()[-2000:]}")
        return out.read(), watch


# --- runs


@dataclass(frozen=True, slots=True)
class Run:
    """What indexing some footage took."""

    name: str
    videos: int
    footage_s: float
    cores: int
    wall_s: float  # of the job, Ray's start and the model's among it
    steady: float  # seconds of footage per second, between the first commit and the last
    cpu_s: float  # of all processes
    total_mb: float
    by_kind: dict[str, float]


def index(place: Path, archive: Path) -> dict[str, float]:
    """Indexes a folder in this process; what it took, as `measure` wants it."""
    from pipeline import flows
    from pipeline.progress import Progress
    from pipeline.settings import IndexSettings

    seen: list[tuple[float, float]] = []

    def watch(progress: Progress) -> None:
        if progress.phase == "index":
            seen.append((time.perf_counter(), progress.done))

    report = flows.index(place, archive, IndexSettings(), watch=watch)
    if report.failed or not report.clips:
        raise RuntimeError(f"made footage failed: {report.failures}")
    return {
        "videos": report.indexed,
        "footage_s": report.footage_s,
        "wall_s": report.wall_s,
        "steady": steady(seen) or report.footage_s / report.wall_s,
    }


def steady(seen: Sequence[tuple[float, float]]) -> float:
    """How fast the second figure grew between the first and the last look at it; 0 if there were not two."""
    (began, first), (ended, last) = seen[0] if seen else (0.0, 0.0), seen[-1] if seen else (0.0, 0.0)
    return (last - first) / (ended - began) if ended > began else 0.0


def measure(name: str, place: Path, cores: int) -> Run:
    """Indexes a folder in a fresh process, held to some cores."""
    pinned = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))]
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "benchmarks.scaling", "--index", str(place), f"{scratch}/archive"]
        said, seen = watched([*pinned, *command])
    return Run(
        name=name,
        cores=cores,
        cpu_s=sum(seen.cpu_by_pid.values()),
        total_mb=seen.total_mb,
        by_kind=seen.by_kind,
        **json.loads(said.splitlines()[-1]),
    )


def pile(folder: Path, made: Path, first: int, count: int) -> Path:
    """A folder of links to a video, each with a content of its own: a few bytes at the end that no player reads."""
    folder.mkdir(exist_ok=True)
    for number in range(first, count):
        content = made.read_bytes() + b"\x00\x00\x00\x10free" + number.to_bytes(8, "big")
        (folder / f"{number:05}.mp4").write_bytes(content)
    return folder


def runs(given: argparse.Namespace, scratch: Path) -> Iterator[Run]:
    """Every run that was asked for, smallest first."""
    made = videos.filmed(scratch / "made.mp4", seconds=given.seconds, size=SIZE, options=OPTIONS)
    done, cores = 0, all_threads()
    for times in given.times:
        count = times * given.videos
        folder = pile(scratch / "pile", made, done, count)
        done = count
        if times == given.times[0] and given.cores and cores > 1:
            yield measure(f"{count} videos, one core", folder, 1)
        yield measure(f"{count} videos", folder, cores)
    for minutes in given.minutes:
        (scratch / "long").mkdir()
        videos.repeated(made, scratch / "long" / "long.mp4", max(1, round(60 * minutes / given.seconds)))
        yield measure(f"1 video of {minutes:g} min", scratch / "long", cores)
        shutil.rmtree(scratch / "long")


def row(run: Run) -> list[str]:
    """A run in the table."""
    return [
        run.name,
        str(run.cores),
        f"{run.footage_s / 60:.0f}",
        f"{run.wall_s:.1f}",
        f"{run.steady:.3g}",
        f"{run.cpu_s:.0f}",
        f"{run.total_mb:.0f}",
        *(f"{run.by_kind.get(kind, 0.0):.0f}" for kind in ("decoder", "embedder", DRIVER)),
    ]


def told(run: Run) -> Run:
    """The same run, said on stderr: the table is printed after the last, minutes later."""
    print(" | ".join(row(run)), file=sys.stderr, flush=True)
    return run


def main(given: argparse.Namespace) -> None:
    """Prints the table and appends it to build/bench/scaling.jsonl."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    with tempfile.TemporaryDirectory() as scratch:
        found = [told(run) for run in runs(given, Path(scratch))]
    head = ["footage", "cores", "minutes", "wall (s)", "s of footage/s, steady", "CPU (s)"]
    memory = ["all (MB)", "decoder (MB)", "embedder (MB)", "driver (MB)"]
    print(harness.table([*head, *memory], list(map(row, found))))
    harness.record("scaling", {"seconds": given.seconds, "runs": list(map(asdict, found))})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=8, help="how many are once the footage")
    parser.add_argument("--seconds", type=float, default=60, help="of each video")
    parser.add_argument("--times", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--minutes", type=float, nargs="*", default=[10, 120], help="lengths of the long video")
    parser.add_argument("--cores", action="store_true", help="the first run on one core too")
    parser.add_argument("--index", type=Path, nargs=2, metavar=("VIDEOS", "ARCHIVE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.index:
        print(json.dumps(index(*asked.index)))
    else:
        main(asked)
