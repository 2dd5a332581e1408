"""Back to before a bad run: every table becomes what it was when the run started, as a new version of it.

What later runs and tags did goes too. The rows of `runs` stay, and one more says of each run that it was undone. How
far back one can go is decided by `compact`, which deletes what only old versions need once its retention is over.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import delta_log, indexes, lease, parts
from pipeline.archive import Archive
from pipeline.current import SHOWN, current_rows
from schemas import tables
from schemas.errors import ArchiveError, InputError

# Video rows decide what is seen. Unless files were merged since, restoring them alone undoes the run, in one step.
# The dead-letter must go back with them: a letter that the run settled is about a row that failed, and does again.
# What the run learned of packets stays true: they are those of a content, whoever has it.
RESTORED = ("videos", "clips", "tags", "failures")
ROLLED_BACK = "rolled_back"

Run = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class RollbackReport:
    """What was undone, or with `dry_run` would be. Counts are over all spaces."""

    archive: str
    dry_run: bool
    runs: tuple[str, ...]  # the run and all later ones, oldest first
    videos: int  # that are another revision, appear, disappear or change their status
    clips_before: int
    clips_after: int
    versions: dict[str, int]  # of the tables that were restored
    wall_s: float


def rollback(folder: str | Path, run_id: str, *, dry_run: bool = False) -> RollbackReport:
    """Undoes a run and all after it.

    Raises InputError for a run that is not there, and ArchiveError, before anything is changed, when files that the
    archive had before it are deleted; ArchiveBusy while a run is at work.
    """
    began = time.perf_counter()
    archive = Archive.open(folder)
    if dry_run:
        return _roll_back(archive, run_id, dry_run=True, began=began)
    with lease.held(archive.folder, f"rollback of {run_id}") as held:
        return _roll_back(Archive(folder, held.term), run_id, dry_run=False, began=began)


def _roll_back(archive: Archive, run_id: str, *, dry_run: bool, began: float) -> RollbackReport:
    """Undoes a run and all after it, in an archive that nobody else writes."""
    runs = _runs_from(archive, run_id)
    versions = _versions_before(runs[0])
    for name in versions:
        _check_reachable(archive, name, versions[name], run_id)
    now, then = _current(archive, None), _current(archive, versions["videos"])
    if not dry_run:
        _restore(archive, versions, runs)
    return RollbackReport(
        archive=str(archive.folder),
        dry_run=dry_run,
        runs=tuple(run["run_id"] for run in runs),
        videos=sum(now.get(key) != then.get(key) for key in now.keys() | then.keys()),
        clips_before=sum(clips for _, _, clips in now.values()),
        clips_after=sum(clips for _, _, clips in then.values()),
        versions=versions,
        wall_s=time.perf_counter() - began,
    )


def _runs_from(archive: Archive, run_id: str) -> list[Run]:
    """The first row of a run and of every later one that still counts."""
    firsts = list({row["run_id"]: row for row in reversed(archive.runs())}.values())[::-1]
    if run_id in (ids := [row["run_id"] for row in firsts]):
        return firsts[ids.index(run_id) :]
    if any(row["run_id"] == run_id for row in archive.runs(undone=True)):
        raise InputError(f"run {run_id} was rolled back already")
    states = {row["run_id"]: row["state"] for row in archive.runs()}
    known = ", ".join(f"{name} ({state})" for name, state in states.items()) or "none"
    raise InputError(f"there is no run {run_id!r} in {archive.folder}; its runs are {known}")


def _versions_before(run: Run) -> dict[str, int]:
    """The versions that the tables had when a run started."""
    found = run["settings"].get("tables")
    if not found:
        raise ArchiveError(
            f"run {run['run_id']} did not write down the versions of the tables it found; it cannot be rolled back"
        )
    # Where the archive was of schema version 1 there were no failures to go back to.
    return {name: found[name] for name in RESTORED if name in found}


def _check_reachable(archive: Archive, name: str, version: int, run_id: str) -> None:
    """Raises ArchiveError unless all files that a table had at a version are still there."""
    gone = f"the archive of before run {run_id} cannot be had back: footage compact has deleted"
    try:
        files = delta_log.files(archive, name, version)
    except ArchiveError as error:
        raise ArchiveError(f"{gone} the log of the table {name!r} that far back") from error
    missing = [file for file in files if not (archive.folder / name / file.path).is_file()]
    if missing:
        raise ArchiveError(f"{gone} {len(missing)} of {len(files)} files that the table {name!r} had then")


def _current(archive: Archive, version: int | None) -> dict[tuple[str, str], tuple[int, str, int]]:
    """Revision, status and visible clips of every video at a version of `videos`, by space and video_id."""
    paths = [archive.folder / "videos" / file.path for file in delta_log.files(archive, "videos", version)]
    rows = pa.Table.from_batches(parts.read_batches(paths, tables.VIDEOS), tables.VIDEOS)
    current: Iterable[Run] = [
        row
        for space in rows["space"].unique().to_pylist()
        for row in current_rows(rows.filter(pc.equal(rows["space"], space))).to_pylist()
    ]
    return {
        (row["space"], row["video_id"]): (
            row["revision"],
            row["status"],
            row["clip_count"] if row["status"] in SHOWN else 0,
        )
        for row in current
    }


def _restore(archive: Archive, versions: dict[str, int], runs: list[Run]) -> None:
    """Restores the tables and writes down that it was done; killed in between, it can be done again."""
    undone_from = delta_log.versions(archive)
    for name, version in versions.items():
        delta_log.restore(archive, name, version)
    widths = archive.widths()
    for space in set(archive.spaces()) & set(widths):
        indexes.refresh(archive, space, widths[space])
    for run in reversed(runs):  # the one that was named comes last: until then it can be named again
        row = {name: run[name] for name in ("run_id", "space")}
        settings = {**run["settings"], "undone_from": undone_from}
        texts = {"settings": json.dumps(settings), "versions": json.dumps(run["versions"]), "report": None}
        archive.log_run({**row, **texts, "state": ROLLED_BACK, "at": datetime.now(UTC)})
