"""What is in an archive: counts, sizes, settings and the last runs, without loading a model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.archive import Archive
from pipeline.current import SHOWN
from pipeline.runs import SpaceLine, run_of_space, spaces

RUNS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run in short. Counts are None while it has not finished, or when it never will."""

    run_id: str
    state: str
    at: str  # ISO 8601, UTC
    indexed: int | None
    failed: int | None
    gone: int | None
    clips: int | None
    wall_s: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """An archive in short. `hours` are of decoded footage, `videos` counts by status."""

    archive: str
    videos: dict[str, int]
    clips: int
    hours: float
    tags: int
    space: str
    model: str
    sampling: dict[str, Any]
    size_bytes: dict[str, int]
    versions: dict[str, str]
    spaces: tuple[SpaceLine, ...]
    runs: tuple[RunLine, ...]


def overview(folder: str | Path, space: str | None = None) -> Overview:
    """Looks at the serving space of an archive, or at the one named. Raises ArchiveError when there is none."""
    archive = Archive.open(folder)
    run = run_of_space(archive, space)
    columns = ["status", "clip_count", "duration_s", "decoded_fraction"]
    videos = archive.current_videos(run["space"], columns).select(columns).to_pylist()
    shown = [video for video in videos if video["status"] in SHOWN]
    return Overview(
        archive=str(archive.folder),
        videos=dict(Counter(video["status"] for video in videos)),
        clips=sum(video["clip_count"] for video in shown),
        hours=sum(video["duration_s"] * video["decoded_fraction"] for video in shown) / 3600,
        tags=archive.tag_count(run["space"]),
        space=run["space"],
        model=run["settings"]["index"]["model"],
        sampling=run["settings"]["space"]["sampling"],
        size_bytes=archive.size_bytes(),
        versions=run["versions"],
        spaces=spaces(archive),
        runs=_last_runs(archive),
    )


def _last_runs(archive: Archive) -> tuple[RunLine, ...]:
    """The newest runs, newest first; a finished one shows its last row."""
    rows = {row["run_id"]: row for row in archive.runs(undone=True)}
    newest = sorted(rows.values(), key=lambda row: row["at"], reverse=True)[:RUNS_SHOWN]
    return tuple(_run_line(row) for row in newest)


def _run_line(row: dict[str, Any]) -> RunLine:
    """A row of the runs table in short."""
    report = row["report"] or {}
    counts = [report.get(name) for name in ("indexed", "failed", "gone", "clips", "wall_s")]
    return RunLine(row["run_id"], row["state"], row["at"].isoformat(timespec="seconds"), *counts)
