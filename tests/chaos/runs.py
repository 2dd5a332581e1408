"""Index runs in processes of their own, which can be killed, and a reader that watches the archive meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import torch
from deltalake import DeltaTable

from pipeline import flows, indexing, lease
from pipeline.archive import Archive
from pipeline.current import SHOWN
from pipeline.settings import EngineName, IndexSettings, Policy
from schemas.errors import FootageError
from tests.chaos.piles import WINDOW_S

Shown = dict[tuple[str, int], int]  # clips by video and revision
LOG_FILES = (".json", ".parquet", "_last_checkpoint", ".crc")
PATIENCE_S = {"local": 120, "ray": 300}  # longer than any run takes on a busy machine of two cores
# Ray's workers give way to everybody: to the reader here too, which never rests, so that next to nothing would be done.
os.environ.setdefault("RAY_worker_niceness", "0")


@dataclass(frozen=True)
class Run:
    """One index run: what it is asked for."""

    pile: Path
    archive: Path
    weights: Path
    engine: EngineName = "local"
    commit_every_s: float = 0.02  # so often that a kill can meet every step of a commit
    wait_s: float = 0.0  # for another run
    expiry_s: float = lease.EXPIRY_S  # of the lease, and with it the pace of its heart
    last_words: Path | None = None  # where to write the error that ends it

    @property
    def settings(self) -> IndexSettings:
        return IndexSettings(model=str(self.weights), window_s=WINDOW_S, engine=self.engine, context="none")

    def __call__(self) -> None:
        """The run, in this process."""
        torch.set_num_threads(1)
        indexing.COMMIT_EVERY_S = self.commit_every_s
        lease.EXPIRY_S, lease.HEARTBEAT_S = self.expiry_s, self.expiry_s / 6
        try:
            flows.index(self.pile, self.archive, self.settings, policy=Policy(wait_s=self.wait_s))
        except FootageError as error:
            if self.last_words is not None:
                self.last_words.write_text(f"{type(error).__name__}: {error}")
            raise


def starter() -> ForkServerContext:
    """Starts processes that have imported everything and done nothing: a run is nearly all there is to kill."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.runs"])
    return context


def start(run: Run) -> BaseProcess:
    """The run in a process of its own."""
    process = starter().Process(target=run)
    process.start()
    return process


def complete(run: Run, reader: Reader | None = None) -> float:
    """Runs to the end; returns the seconds it took. A reader slows it down, as it does the runs that are killed."""
    began = time.monotonic()
    process = start(run)
    if reader is not None:
        reader.watch(process, began + PATIENCE_S[run.engine])
    process.join(PATIENCE_S[run.engine])
    assert process.exitcode == 0
    return time.monotonic() - began


def shown(archive: Path, space: str) -> Shown:
    """What a reader sees in this instant."""
    rows = Archive.open(archive).visible_clips(space, ["video_id", "revision"]).to_pylist()
    return dict(Counter((row["video_id"], row["revision"]) for row in rows))


def vectors_of(archive: Path, space: str) -> list[tuple[str, np.ndarray]]:
    """Every visible clip with its vector, in the order of their ids; one that is there twice comes twice."""
    rows = Archive.open(archive).visible_clips(space, ["clip_id", "embedding"]).to_pylist()
    return [(row["clip_id"], np.array(row["embedding"], np.float32)) for row in rows]


def counted(archive: Path, space: str) -> Shown:
    """What the rows of the videos say must be seen."""
    rows = Archive.open(archive).current_videos(space).to_pylist()
    return {(row["video_id"], row["revision"]): row["clip_count"] for row in rows if row["status"] in SHOWN}


@dataclass
class Reader:
    """Looks at an archive again and again, and keeps what nobody should ever see.

    `before` and `after` are the two states between which a run moves; each video may be seen in either, whole.
    """

    archive: Path
    space: str
    before: Shown
    after: Shown
    looks: int = 0
    wrong: list[str] = field(default_factory=list)

    def look(self) -> None:
        """One look."""
        now = shown(self.archive, self.space)
        self.looks += 1
        whole = self.before | self.after
        self.wrong += [f"{key} with {n} clips of {whole.get(key)}" for key, n in now.items() if whole.get(key) != n]
        ids = Counter(video_id for video_id, _ in now)
        self.wrong += [f"{video_id} in {n} revisions" for video_id, n in ids.items() if n > 1]
        stay = {video_id for video_id, _ in self.before} & {video_id for video_id, _ in self.after}
        self.wrong += [f"{video_id} not at all" for video_id in stay - ids.keys()]

    def watch(self, process: BaseProcess, until: float) -> None:
        """Looks until a moment of the monotonic clock, or until the process ends."""
        while process.is_alive() and time.monotonic() < until:
            self.look()


def parts(archive: Path) -> list[Path]:
    """The Parquet files of clips, committed or not."""
    return list(archive.glob("clips/*/*.parquet"))


def wait_for_parts(run: Run, count: int, is_alive: Callable[[], bool]) -> None:
    """Waits until the run has written so many more parts."""
    there = len(parts(run.archive))
    while len(parts(run.archive)) < there + count:
        assert is_alive(), "it ended by itself"
        time.sleep(0.005)


def leftovers(archive: Path) -> list[str]:
    """Files that no commit of any table names and no index has: what only a killed run can leave behind."""
    return sorted(_leftovers(archive))


def _leftovers(archive: Path) -> Iterator[str]:
    """The same, in no order."""
    tables = [entry for entry in archive.iterdir() if (entry / "_delta_log").is_dir()]
    known = {f"{table.name}/{_inside(path, table)}" for table in tables for path in DeltaTable(table).file_uris()}
    for file in archive.rglob("*"):
        name = str(file.relative_to(archive))
        is_log = (
            file.parent.name == "_delta_log" and file.name.endswith(LOG_FILES) and not file.name.startswith("_commit")
        )
        is_index = name.startswith("indexes/") and not file.parent.name.startswith(".")
        if file.is_file() and name not in known and not is_log and not is_index:
            yield name


def _inside(uri: str, table: Path) -> str:
    """A file's path in its table, from what Delta calls it."""
    return str(Path(unquote(uri.removeprefix("file://"))).relative_to(table))


def descendants(pid: int) -> list[int]:
    """All processes that a process started, and those started."""
    parents = {int(entry.name): _status(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found = [pid]
    for ancestor in found:
        found += [child for child, (parent, _) in parents.items() if parent == ancestor]
    return found[1:]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    return _status(pid)[1] not in "ZX"


def _status(pid: int) -> tuple[int, str]:
    """The parent of a process and the letter of its state; X when there is none."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return 0, "X"
    return int(parent), state


def title(pid: int) -> str:
    """What a process calls itself; "" when there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
