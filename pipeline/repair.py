"""Mends what `pipeline/verify.py` found, as far as an archive can be mended without its video files.

Damaged files leave the log, videos that lost clips count as failed so that the next index run makes them again, and
indexes are built anew. What is sound stays visible throughout. Files stay on the disk until `compact` deletes them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pipeline import delta_log, indexes, lease, stores
from pipeline.archive import Archive
from pipeline.verify import Problem, verify
from schemas import tables
from schemas.records import VideoRow

FILE_KINDS = ("file_missing", "file_size", "file_damaged", "packets")
VIDEO_KINDS = ("clip_count", "doubled", "vector", "thumbnail")
ERROR_KIND = "lost_in_archive"


@dataclass(frozen=True, kw_only=True, slots=True)
class Repair:
    """What was found to be wrong, and what of it could not be mended here."""

    found: tuple[Problem, ...]
    left: tuple[Problem, ...]


def repair(archive: Archive, *, deep: bool = False) -> Repair:
    """Looks as `verify` does, and takes out what is broken.

    Raises ArchiveBusy while a run is at work: what was wrong a moment ago may be right now, so nobody writes between
    the look and the mending.
    """
    with lease.held(archive.folder, "repair") as held:
        found = verify(str(archive.folder), deep=deep).problems
        return Repair(found=found, left=_mended(Archive(archive.folder, held.term), found))


def _mended(archive: Archive, problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """Mends what can be mended, in an archive that nobody else writes; returns the rest."""
    broken = {problem.subject for problem in problems if problem.kind in FILE_KINDS}
    for name in tables.TABLES:
        _drop_files(archive, name, broken)
    _fail_videos(archive, [problem for problem in problems if problem.kind in VIDEO_KINDS])
    stale = ("index", *VIDEO_KINDS)
    if any(problem.kind in stale for problem in problems) or any(not path.startswith("packets/") for path in broken):
        stores.remove_tree(archive.folder / "indexes")
        widths = archive.widths()
        for space in set(archive.spaces()) & set(widths):
            indexes.build(archive, space, widths[space])
    return tuple(problem for problem in problems if problem.kind not in (*FILE_KINDS, *VIDEO_KINDS, "index"))


def _drop_files(archive: Archive, name: str, broken: set[str]) -> None:
    """Takes damaged files of a table out of its log."""
    if not any(subject.startswith(f"{name}/") for subject in broken):
        return
    delta_log.replace(archive, name, [f for f in delta_log.files(archive, name) if f"{name}/{f.path}" in broken], [])


def _fail_videos(archive: Archive, problems: Iterable[Problem]) -> None:
    """Commits a row for each video that lost clips: failed, not for good, and never tried."""
    wrong = {(problem.space or "", problem.video_id or ""): problem for problem in problems}
    ids: dict[str, list[str]] = defaultdict(list)
    for space, video_id in wrong:
        ids[space].append(video_id)
    known = {space: archive.rows_of(space, video_ids) for space, video_ids in ids.items()}
    archive.commit_videos(_failed(known[space][video_id], wrong[space, video_id]) for space, video_id in wrong)


def _failed(row: VideoRow, problem: Problem) -> VideoRow:
    """The row of a video whose clips cannot be used any more."""
    return replace(
        row,
        clip_count=0,
        decoded_fraction=0.0,
        status="failed",
        error_kind=ERROR_KIND,
        error=problem.what,
        stage="archive",
        permanent=False,
        attempts=0,
        indexed_at=datetime.now(UTC),
    )
