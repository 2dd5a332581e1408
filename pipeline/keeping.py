"""Which rows tidying keeps: all that can be seen, all that an interrupted run may take over, and the last letters.

Of packets those stay, once each, whose content a video of some space has, and those that no video has had yet.

Sets of what stays are numbers (`pipeline/keys.py`), and rows pass by a few hundred at a time: eight bytes for each
video, content and tagged clip are held, whatever an archive holds of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import delta_log, keys
from pipeline.archive import Archive
from pipeline.delta_log import TableFile
from pipeline.keys import Keys, Numbers
from schemas import tables

# Hidden clips that no run took over for so long never will be; until then they stay, whatever the retention.
ABANDONED_DAYS = 7.0

Mask = Callable[[pa.RecordBatch, TableFile], pa.BooleanArray]  # of rows of a file, which stay
Revision = tuple[str, int]  # video_id, revision
_REVISIONS = pa.schema([tables.CLIPS.field(name) for name in ("video_id", "revision")])
# What a mask looks at, so that counting reads no vectors.
COLUMNS = {
    "videos": ["space"],
    "clips": ["video_id", "revision"],
    "tags": ["clip_id"],
    "failures": ["space", "uri", "start_s", "last_seen"],
    "packets": ["fingerprint", "kept_at"],
}


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays."""

    masks: dict[str, Mask]  # by table; all rows of a table without one
    resumable_clips: int  # hidden, and kept for an interrupted run's sake


@dataclass(frozen=True, slots=True)
class Holding:
    """How many rows of one revision are in one file."""

    file: TableFile
    revision: Revision
    row_count: int


def masks(
    archive: Archive, files: Mapping[str, list[TableFile]], drop_spaces: Sequence[str], abandoned_ms: float
) -> Kept:
    """What stays of some files of each table.

    Hidden clips stay for an interrupted run's sake unless none took them over since `abandoned_ms`.
    """
    kept = {space: Keys(()) for space in drop_spaces}
    resumable_clips = 0
    for space in set(archive.spaces()) - set(drop_spaces):
        shown = archive.shown_revisions(space)
        hidden = _hidden(archive, [file for file in files["clips"] if file.partition["space"] == space], shown)
        last = archive.last_revisions(space, list({holding.revision[0] for holding in hidden}))
        pending = resumable(hidden, last, abandoned_ms)
        resumable_clips += sum(pending.values())
        kept[space] = shown | Keys([keys.of_revisions(_rows_of(pending))])
    found: dict[str, Mask] = {"clips": lambda rows, file: _kept_clips(rows, kept.get(file.partition["space"] or ""))}
    if files["tags"]:
        seen = _seen_ids(archive, set(kept) - set(drop_spaces))
        found["tags"] = lambda rows, _: seen.has(keys.of_ids(rows["clip_id"]))
    if files.get("failures"):
        found["failures"] = _current_letters(archive, files["failures"], drop_spaces)
    if files.get("packets"):
        found["packets"] = _last_packets(archive, files["packets"], set(kept) - set(drop_spaces), abandoned_ms)
    if drop_spaces:
        found["videos"] = lambda rows, _: _in_none_of(rows, drop_spaces)
    return Kept(found, resumable_clips)


def _kept_clips(rows: pa.RecordBatch, kept: Keys | None) -> Any:
    """Which clips belong to the revisions that are kept; all where the space was made after the list was."""
    return kept.has(keys.of_revisions(rows)) if kept is not None else pc.is_valid(rows["video_id"])


def _rows_of(revisions: Iterable[Revision]) -> pa.Table:
    """Revisions as rows."""
    return pa.Table.from_pylist(
        [{"video_id": video_id, "revision": revision} for video_id, revision in revisions], _REVISIONS
    )


def _seen_ids(archive: Archive, spaces: Iterable[str]) -> Keys:
    """The ids of all clips that can be seen."""
    return Keys(
        keys.of_ids(batch["clip_id"]) for space in spaces for batch in archive.visible_batches(space, ["clip_id"])
    )


def _in_none_of(rows: pa.RecordBatch, spaces: Sequence[str]) -> Any:
    """Which rows belong to another space than these."""
    return pc.invert(pc.is_in(rows["space"], value_set=pa.array(spaces, pa.string())))


def _current_letters(archive: Archive, files: list[TableFile], drop_spaces: Sequence[str]) -> Mask:
    """Which rows of the dead-letter are the last about their place, which is what is ever read of it."""
    place = ["space", "uri", "start_s"]
    rows = pa.Table.from_batches(delta_log.rows(archive, "failures", files, COLUMNS["failures"]))
    last = rows.group_by(place).aggregate([("last_seen", "max")]).rename_columns([*place, "last_seen"])
    current = Keys([_letter_numbers(last)])  # should two be of one number, a row stays that could go
    return lambda rows, _: pc.and_(current.has(_letter_numbers(rows)), _in_none_of(rows, drop_spaces))


def _letter_numbers(rows: Any) -> Numbers:
    """A number for each letter that is equal for the same place and time."""
    start = pc.fill_null(pc.cast(rows["start_s"], pa.string()), "")
    last_seen = pc.cast(pc.cast(rows["last_seen"], pa.int64()), pa.string())
    texts = pc.binary_join_element_wise(rows["space"], start, last_seen, rows["uri"], "\x1f")
    return keys.of_texts(texts.to_pylist())


def _last_packets(archive: Archive, files: list[TableFile], spaces: Iterable[str], abandoned_ms: float) -> Mask:
    """Which packets are the last of a content that is there in one of some spaces.

    Those of a content that no row ever named are of a run that is at work, or was cut short: they stay as clips do.
    """
    every, there = _contents(archive, spaces)
    rows = pa.Table.from_batches(delta_log.rows(archive, "packets", files, COLUMNS["packets"]))
    newest = rows.group_by("fingerprint").aggregate([("kept_at", "max")]).rename_columns(COLUMNS["packets"])
    last = Keys([_packet_numbers(newest)])
    cutoff = pa.scalar(int(1000 * abandoned_ms), pa.int64()).cast(rows["kept_at"].type)

    def stays(rows: pa.RecordBatch, _: TableFile) -> Any:
        contents = keys.of_texts(rows["fingerprint"].to_pylist())
        is_waiting = pc.and_not(pc.greater(rows["kept_at"], cutoff), every.has(contents))
        return pc.and_(last.has(_packet_numbers(rows)), pc.or_(there.has(contents), is_waiting))

    return stays


def _contents(archive: Archive, spaces: Iterable[str]) -> tuple[Keys, Keys]:
    """All contents that a row of a video names, and those that are there in one of some spaces."""
    every = Keys(
        keys.of_texts(batch["fingerprint"].to_pylist()) for batch in archive.video_batches(None, ["fingerprint"])
    )
    current = (archive.current_videos(space, ["fingerprint", "status"]) for space in spaces)
    there = Keys(
        keys.of_texts(rows.filter(pc.not_equal(rows["status"], "gone"))["fingerprint"].to_pylist()) for rows in current
    )
    return every, there


def _packet_numbers(rows: Any) -> Numbers:
    """A number for each row of packets that is equal for the same content and time."""
    contents, times_us = keys.of_texts(rows["fingerprint"].to_pylist()), pc.cast(rows["kept_at"], pa.int64())
    return keys.of_pairs(contents, times_us)


def _hidden(archive: Archive, files: Iterable[TableFile], shown: Keys) -> list[Holding]:
    """Which files hold how many rows of revisions that cannot be seen."""
    found = []
    for file in files:
        rows = pa.Table.from_batches(
            (
                batch.filter(pc.invert(shown.has(keys.of_revisions(batch))))
                for batch in delta_log.rows(archive, "clips", [file], _REVISIONS.names)
            ),
            _REVISIONS,
        )
        counts = rows.group_by(_REVISIONS.names).aggregate([([], "count_all")])
        found += [Holding(file, (row["video_id"], row["revision"]), row["count_all"]) for row in counts.to_pylist()]
    return found


def resumable(hidden: Iterable[Holding], last: Mapping[str, int], cutoff_ms: float) -> dict[Revision, int]:
    """Hidden revisions that the next index run can take over, with their clips.

    That is a video's highest one, if it is above the last that a video row names (`last`, by video_id): the planner
    asks for no other. One that nobody took over since `cutoff_ms` never will be.
    """
    clips: dict[Revision, int] = defaultdict(int)
    newest_ms: dict[Revision, int] = defaultdict(int)
    highest: dict[str, int] = {}
    for holding in hidden:
        video_id, revision = holding.revision
        clips[holding.revision] += holding.row_count
        newest_ms[holding.revision] = max(newest_ms[holding.revision], holding.file.modified_ms)
        highest[video_id] = max(revision, highest.get(video_id, 0))
    return {
        (video_id, revision): clips[video_id, revision]
        for video_id, revision in clips
        if revision == highest[video_id] > last.get(video_id, 0) and newest_ms[video_id, revision] > cutoff_ms
    }
