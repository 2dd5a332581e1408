"""Rows of the tags table: which clips have them, how lots are added, which rows count, and how those that are over go.

A lot is one Parquet file and one transaction. Of the rows of a clip and a label set those of the newest lot count, so
that a set which is tagged again under other settings answers as before, clip by clip, until its new tags are there.
"""

# R rows

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import delta_log, keys, parts
from pipeline.archive import Archive
from pipeline.delta_log import TableFile
from pipeline.heaps import Heaps
from pipeline.keys import Keys, Numbers
from schemas import tables

COLUMNS = ["clip_id", "space", "label_set", "tagging"]  # what decides whether a row stays
Mask = Callable[[pa.RecordBatch], pa.BooleanArray]


def tagged_clips(archive: Archive, space: str, label_set: str, tagging: str) -> Keys:
    """The clips that have rows of a label set made under some settings: eight bytes a clip."""
    return Keys(
        keys.of_ids(pc.unique(batch.filter(_are_of(batch, label_set, tagging))["clip_id"]))
        for batch in archive.tag_batches(space, COLUMNS)
    )


def add(archive: Archive, batches: Iterable[pa.RecordBatch]) -> None:
    """Adds rows to the table in one transaction; a file that is not committed is nobody's, and vacuumed."""
    path = f"part-{uuid.uuid4().hex}.parquet"
    file = archive.folder / "tags" / path
    count = parts.write_batches(file, tables.TAGS, batches)
    new = TableFile(path, file.stat().st_size, count, int(time.time() * 1000))
    delta_log.replace(archive, "tags", [], [new])


def drop_others(archive: Archive, space: str, label_set: str, tagging: str, shown: Keys) -> int:
    """Drops the rows of a label set that were made under other settings or are of clips not `shown`; how many."""

    def stays(rows: pa.RecordBatch) -> pa.BooleanArray:
        is_ours = pc.and_(pc.equal(rows["space"], space), pc.equal(rows["label_set"], label_set))
        is_current = pc.and_(_are_of(rows, label_set, tagging), shown.has(keys.of_ids(rows["clip_id"])))
        return pc.or_(pc.invert(is_ours), is_current)

    return sum(_thin_out(archive, file, stays) for file in delta_log.files(archive, "tags"))


def _are_of(rows: pa.RecordBatch, label_set: str, tagging: str) -> pa.BooleanArray:
    """Which rows are of a label set under some settings; those of earlier versions say no settings."""
    return pc.and_(pc.equal(rows["label_set"], label_set), pc.fill_null(pc.equal(rows["tagging"], tagging), False))


def _thin_out(archive: Archive, file: TableFile, stays: Mask) -> int:
    """Writes a file anew without the rows that do not stay, in one transaction; returns how many they are."""
    dropped: int = sum(
        batch.num_rows - stays(batch).true_count for batch in delta_log.rows(archive, "tags", [file], COLUMNS)
    )
    if not dropped:
        return 0
    path = f"part-{uuid.uuid4().hex}.parquet"
    new = archive.folder / "tags" / path
    kept = (batch.filter(stays(batch)) for batch in delta_log.rows(archive, "tags", [file]))
    count = parts.write_batches(new, tables.TAGS, kept)
    replacement = TableFile(path, new.stat().st_size, count, file.modified_ms)
    delta_log.replace(archive, "tags", [file], [replacement] if count else [])
    return dropped


def that_count(archive: Archive, space: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of all label sets that count: the number of their clip as `clip`, and the columns asked for.

    A batch for each heap by clip, in the order of the heaps' numbers: there may be too many to hold.
    """
    names = list(dict.fromkeys([*columns, "label_set", "tagged_at"]))
    schema = pa.schema([("clip", pa.uint64()), *(tables.TAGS.field(name) for name in names)])
    with Heaps(schema, "clip") as heaps:
        for batch in archive.tag_batches(space, ["clip_id", *names]):
            numbers = pa.array(keys.of_ids(batch["clip_id"]))
            heaps.add(pa.RecordBatch.from_arrays([numbers, *(batch[name] for name in names)], schema=schema))
        for heap in heaps:
            yield counting(heap).select(["clip", *columns])


def counting(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Of rows of any label sets, with the number of their clip as `clip`, those that count."""
    sets = [rows.filter(pc.equal(rows["label_set"], each)) for each in pc.unique(rows["label_set"])]
    return pa.concat_batches([rows.slice(0, 0), *(newest(each, "clip") for each in sets)])


def of_video(archive: Archive, space: str, video_id: str, columns: list[str]) -> pa.RecordBatch:
    """The rows of one video that count."""
    names = list(dict.fromkeys([*columns, "clip_id", "label_set", "tagged_at"]))
    rows = archive.tags_of(space, video_id, names)
    numbers = pa.array(keys.of_ids(rows["clip_id"].combine_chunks()), pa.uint64())
    batch = pa.RecordBatch.from_struct_array(rows.append_column("clip", numbers).to_struct_array().combine_chunks())
    return counting(batch).select(columns)


def newest(rows: Any, key: str) -> Any:
    """Of rows (a batch or a table), in the order of the number `key`, those of each key's newest lot, by `tagged_at`.

    Two runs that tag the same clips at the same time make two lots of them.
    """
    rows = rows.sort_by([(key, "ascending"), ("tagged_at", "descending")])
    key_R: Numbers = np.asarray(rows[key])
    time_R = np.asarray(pc.fill_null(pc.cast(rows["tagged_at"], pa.int64()), 0))
    first_R = np.searchsorted(key_R, key_R, "left")
    return rows.filter(pa.array(time_R == time_R[first_R])) if len(key_R) else rows
