"""Tags as tables: CSV, JSON lines or Parquet, a row for each tag or for each label of a video, streamed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from pipeline import parts
from pipeline.rollup import LabelOfVideo
from pipeline.tagged import Tag
from schemas.errors import InputError
from xclip_core.durable import write_whole

ROWS_AT_ONCE = 10_000
TAGS = pa.schema(
    [
        *((name, pa.string()) for name in ("clip_id", "video_id", "uri")),
        *((name, pa.float64()) for name in ("start_s", "end_s")),
        ("rank", pa.int32()),
        ("label", pa.string()),
        *((name, pa.float64()) for name in ("probability", "score")),
        ("basis", pa.string()),
    ]
)
_SEGMENT = pa.struct([(name, pa.float64()) for name in ("start_s", "end_s", "max_probability", "max_score")])
VIDEOS = pa.schema(
    [
        *((name, pa.string()) for name in ("video_id", "uri", "label")),
        *((name, pa.float64()) for name in ("max_probability", "mean_probability", "max_score", "share_of_time")),
        ("segments", pa.list_(_SEGMENT)),
        ("basis", pa.string()),
    ]
)
Row = Tag | LabelOfVideo


def check(path: Path) -> None:
    """Raises InputError unless tags can be written to a file of this name."""
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"{path} has no known ending; expected one of {', '.join(WRITERS)}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.absolute().parent} to write {path.name} into")


def write(rows: Iterable[Row], path: Path, schema: pa.Schema = TAGS) -> int:
    """Writes rows by the file's ending, whole or not at all; returns how many there were."""
    check(path)
    counts: list[int] = []
    batches = _batches(rows, schema, counts)
    write_whole(path, partial(WRITERS[path.suffix.lower()], schema, batches))
    return sum(counts)


def _batches(rows: Iterable[Row], schema: pa.Schema, counts: list[int]) -> Iterator[pa.RecordBatch]:
    """Rows as batches; `counts` gets the size of each."""
    source = iter(rows)
    while some := list(islice(source, ROWS_AT_ONCE)):
        counts.append(len(some))
        yield pa.RecordBatch.from_pylist([asdict(row) for row in some], schema=schema)


def _write_csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], part: Path) -> None:
    """Lists become JSON in a cell: CSV has none."""
    flat = pa.schema([pa.field(f.name, pa.string() if pa.types.is_list(f.type) else f.type) for f in schema])
    with pyarrow.csv.CSVWriter(part, flat) as writer:
        for batch in batches:
            cells = [_cells(column) for column in batch.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(cells, schema=flat))


def _cells(column: Any) -> Any:
    """A column as CSV can hold it."""
    if not pa.types.is_list(column.type):
        return column
    return pa.array([json.dumps(value, ensure_ascii=False) for value in column.to_pylist()], pa.string())


def _write_jsonl(_: pa.Schema, batches: Iterable[pa.RecordBatch], part: Path) -> None:
    with part.open("w", encoding="utf-8") as stream:
        for batch in batches:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())


def _write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], part: Path) -> None:
    parts.write_batches(part, schema, batches)


WRITERS: dict[str, Callable[[pa.Schema, Iterable[pa.RecordBatch], Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
