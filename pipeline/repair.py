"""Mends what `pipeline/verify.py` found, as far as an archive can be mended without its video files.

Damaged files leave the log, videos that lost clips count as failed so that the next index run makes them again, and
indexes are built anew. What is sound stays visible throughout. Files stay on the disk until `compact` deletes them.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from pipeline import delta_log, lease, vectors
from pipeline.archive import Archive
from pipeline.verify import Problem
from schemas import tables
from schemas.records import VideoRow

FILE_KINDS = ("file_missing", "file_size", "file_damaged")
VIDEO_KINDS = ("clip_count", "doubled", "vector", "thumbnail")
ERROR_KIND = "lost_in_archive"


def repair(archive: Archive, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Takes out what is broken; returns the problems that it could do nothing about.

    Raises ArchiveBusy while a run is at work.
    """
    with lease.held(archive.folder, "repair"):
        return _mended(archive, tuple(problems))


def _mended(archive: Archive, problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """`repair` in an archive that nobody else writes."""
    broken = {problem.subject for problem in problems if problem.kind in FILE_KINDS}
    for name in tables.TABLES:
        _drop_files(archive, name, broken)
    _fail_videos(archive, [problem for problem in problems if problem.kind in VIDEO_KINDS])
    if broken or any(problem.kind in ("index", *VIDEO_KINDS) for problem in problems):
        shutil.rmtree(archive.folder / "indexes", ignore_errors=True)
        widths = archive.widths()
        for space in set(archive.spaces()) & set(widths):
            vectors.build(archive, space, widths[space])
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
