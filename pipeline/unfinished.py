"""What committed clips say of videos that their rows do not: of a run that died, and of what came out whole of a part.

`survey` goes on from the first, `deadletter` says what is missing by the second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow.compute as pc

from pipeline import keys
from pipeline.archive import Archive
from pipeline.keys import Keys
from schemas.records import UnitOutcome


def pending_units(archive: Archive, space: str) -> tuple[dict[str, UnitOutcome], dict[str, int]]:
    """Units that are committed although no video row shows them, and the highest such revision by video_id."""
    columns = ["unit_id", "video_id", "revision", "intact_samples", "start_s", "end_s"]
    # A revision that any row ever named, shown or superseded, belongs to a finished run and is nothing to resume.
    named = Keys(map(keys.of_revisions, archive.video_batches(space, ["video_id", "revision"])))
    clips = archive.clip_batches(space, columns)
    hidden = (
        row for batch in clips for row in batch.filter(pc.invert(named.has(keys.of_revisions(batch)))).to_pylist()
    )
    outcomes: dict[str, UnitOutcome] = {}
    revisions: dict[str, int] = {}
    for (unit_id, video_id, revision), rows in _grouped(hidden):
        intact = sum(row["intact_samples"] for row in rows)
        sample_s = sum((row["end_s"] - row["start_s"]) * row["intact_samples"] for row in rows)
        outcomes[unit_id] = UnitOutcome(unit_id, video_id, len(rows), intact, sample_s)
        revisions[video_id] = max(revision, revisions.get(video_id, 0))
    return outcomes, revisions


def intact_spans(archive: Archive, video_id: str, revision: int, space: str) -> list[tuple[float, float]]:
    """Start and end of the clips of a revision whose samples are all intact, ascending; shown or not."""
    columns = ["start_s", "end_s", "frame_times_s", "intact_samples", "revision"]
    rows = archive.read("clips", columns, space=space, video_id=video_id).to_pylist()
    whole = [r for r in rows if r["revision"] == revision and r["intact_samples"] == len(r["frame_times_s"])]
    return sorted((row["start_s"], row["end_s"]) for row in whole)


def intact_samples(archive: Archive, video_id: str, revision: int, space: str) -> dict[float, int]:
    """How many samples of each clip of a revision are intact, by where it starts; shown or not."""
    rows = archive.read("clips", ["start_s", "intact_samples", "revision"], space=space, video_id=video_id).to_pylist()
    return {row["start_s"]: row["intact_samples"] for row in rows if row["revision"] == revision}


def _grouped(rows: Iterable[dict[str, Any]]) -> Iterable[tuple[tuple[str, str, int], list[dict[str, Any]]]]:
    """Rows by (unit_id, video_id, revision)."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["unit_id"], row["video_id"], row["revision"]), []).append(row)
    return groups.items()
