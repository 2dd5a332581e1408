"""The clips that can be seen, with their videos' columns and their tags, as files that other tools read.

Rows stream through a few hundred at a time, in no order; a file appears whole or not at all. Prompt contexts and
thumbnails stay in the archive, which any Parquet reader opens.
"""

# N clips, E joint dimension

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.lib import format as npy

from pipeline import parts
from pipeline.archive import Archive
from pipeline.current import shown_keys
from pipeline.runs import serving_run
from pipeline.tag_lookup import TAGS_TYPE, TagLookup
from schemas import tables
from schemas.errors import InputError
from xclip_core.durable import write_whole

Format = Literal["parquet", "csv", "jsonl", "npy"]
CLIP_COLUMNS = ["clip_id", "video_id", "start_s", "end_s"]
VIDEO_COLUMNS = [
    "uri",
    "fingerprint",
    "duration_s",
    "width",
    "height",
    "rate_hz",
    "codec",
    "decoded_fraction",
    "status",
]
NPY_HEADER_BYTES = 128  # whatever the counts: NumPy leaves room for 21 digits and fills up to a multiple of 64
Batches = Iterable[pa.RecordBatch]
Column: TypeAlias = pa.Array | pa.ChunkedArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """What was written."""

    files: tuple[str, ...]
    space: str
    clips: int
    wall_s: float


def export(
    folder: str | Path, out: Path, *, kind: Format | None = None, vectors: bool = True, force: bool = False
) -> ExportReport:
    """Writes the clips of the serving space to `out`; the format is that of its ending unless said.

    `npy` writes N x E float32 vectors, and beside them, in the same order, everything else as Parquet.
    Raises InputError when the file is there already, unless `force`d, or cannot be meant.
    """
    began = time.perf_counter()
    kind = kind or _kind_of(out)
    files = (out.with_suffix(".parquet"), out) if kind == "npy" else (out,)
    _check(files, kind, vectors=vectors, force=force)
    archive = Archive.open(folder)
    space = serving_run(archive)["space"]
    with TagLookup(archive, space) as tags:
        schema, rows = _rows(archive, space, tags, with_vectors=vectors)
        count = WRITERS[kind](files, schema, rows)
    return ExportReport(
        files=tuple(str(file.absolute()) for file in files),
        space=space,
        clips=count,
        wall_s=time.perf_counter() - began,
    )


def _kind_of(out: Path) -> Format:
    """The format that a file's ending names."""
    for kind in get_args(Format):
        if out.suffix.lower() == f".{kind}":
            return kind  # type: ignore[no-any-return]  # one of the literals
    raise InputError(f"{out} has no known ending; say --format {', '.join(get_args(Format))}")


def _check(files: tuple[Path, ...], kind: Format, *, vectors: bool, force: bool) -> None:
    """Raises InputError unless the files can and may be written."""
    if kind == "npy" and not vectors:
        raise InputError("--format npy is nothing but vectors; leave --no-vectors out, or take another format")
    if kind == "npy" and len(set(files)) == 1:
        raise InputError(f"{files[0]} is the name of the ids beside the vectors; expected a name that ends in .npy")
    if not (parent := files[0].absolute().parent).is_dir():
        raise InputError(f"there is no folder {parent} to write {files[0].name} into")
    if (there := [file for file in files if file.exists()]) and not force:
        raise InputError(f"{there[0]} is there already; overwrite it with --force, or name another file")


# --- rows


def _rows(
    archive: Archive, space: str, tags: TagLookup, *, with_vectors: bool
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The columns, and the clips that can be seen in them, all of one snapshot of the videos."""
    videos = archive.current_videos(space)
    columns = [*CLIP_COLUMNS, *(["embedding"] if with_vectors else [])]
    fields = [tables.CLIPS.field(name) for name in columns[: len(CLIP_COLUMNS)]]
    fields += [tables.VIDEOS.field(name) for name in VIDEO_COLUMNS]
    fields += [pa.field("tags", TAGS_TYPE)] if tags.count else []
    fields += [tables.CLIPS.field("embedding")] if with_vectors else []
    schema = pa.schema(fields)

    def joined() -> Iterator[pa.RecordBatch]:
        for clips in archive.visible_batches(space, columns, shown_keys(videos)):
            places = pc.index_in(clips["video_id"], value_set=videos["video_id"])
            found = {name: clips[name] for name in columns}
            found |= {name: videos[name].take(places).combine_chunks() for name in VIDEO_COLUMNS}
            if "tags" in schema.names:
                found["tags"] = tags.of(clips["clip_id"])
            yield pa.RecordBatch.from_arrays([_whole(found[name]) for name in schema.names], schema=schema)

    return schema, joined()


def _whole(column: Column) -> Column:
    """A column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


# --- files


def _write_parquet(files: tuple[Path, ...], schema: pa.Schema, rows: Batches) -> int:
    counts: list[int] = []
    write_whole(files[0], lambda part: counts.append(parts.write_batches(part, schema, rows)))
    return sum(counts)


def _write_csv(files: tuple[Path, ...], schema: pa.Schema, rows: Batches) -> int:
    """Lists become JSON in a cell: CSV has none."""
    flat = pa.schema([pa.field(f.name, pa.string() if pa.types.is_list(f.type) else f.type) for f in schema])
    count = 0

    def write(part: Path) -> None:
        nonlocal count
        with pyarrow.csv.CSVWriter(part, flat) as writer:
            for batch in rows:
                writer.write_batch(
                    pa.RecordBatch.from_arrays([_cells(column) for column in batch.columns], schema=flat)
                )
                count += batch.num_rows

    write_whole(files[0], write)
    return count


def _cells(column: Column) -> Column:
    """A column as CSV can hold it."""
    if not pa.types.is_list(column.type):
        return column
    return pa.array([json.dumps(value, ensure_ascii=False) for value in column.to_pylist()], pa.string())


def _write_jsonl(files: tuple[Path, ...], _: pa.Schema, rows: Batches) -> int:
    count = 0

    def write(part: Path) -> None:
        nonlocal count
        with part.open("w", encoding="utf-8") as stream:
            for batch in rows:
                stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())
                count += batch.num_rows

    write_whole(files[0], write)
    return count


def _write_npy(files: tuple[Path, ...], schema: pa.Schema, rows: Batches) -> int:
    """Vectors into one file while everything else passes on into the other: the two cannot disagree."""
    ids_file, vectors_file = files
    rest = pa.schema([field for field in schema if field.name != "embedding"])
    count = 0

    def write(part: Path) -> None:
        nonlocal count
        with part.open("wb") as stream:
            count = _write_parquet((ids_file,), rest, _split(stream, rest, rows))

    write_whole(vectors_file, write)
    return count


def _split(stream: IO[bytes], rest: pa.Schema, rows: Batches) -> Iterator[pa.RecordBatch]:
    """Writes the vectors of batches to a .npy file, N x E float32, and yields the other columns."""
    count, width = 0, 0
    stream.write(bytes(NPY_HEADER_BYTES))
    for batch in rows:
        vectors = batch["embedding"].flatten().to_numpy(zero_copy_only=False)
        stream.write(np.ascontiguousarray(vectors, "<f4").tobytes())
        count += batch.num_rows
        width = len(vectors) // batch.num_rows if batch.num_rows else width
        yield batch.select(rest.names)
    stream.seek(0)
    npy.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (count, width)})
    assert stream.tell() == NPY_HEADER_BYTES, "the header overran its place"


WRITERS: dict[Format, Callable[[tuple[Path, ...], pa.Schema, Batches], int]] = {
    "parquet": _write_parquet,
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "npy": _write_npy,
}
