"""Parquet files of a table: how they are encoded, written whole, and read back with their checksums verified.

Every page carries a checksum, so that a flipped bit is an error and never a wrong vector. Knows no Delta log.
"""

# E joint dimension

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline import plan, stores
from pipeline.stores import AnyPath
from schemas import tables
from schemas.records import EmbeddedUnit, Part, UnitOutcome

# The columns that compress by splitting floats into byte planes (902 bytes per 512-d vector).
SPLIT_COLUMNS = ["embedding.list.element"]
REPEATED_COLUMNS = ["unit_id", "video_id", *("uri", "fingerprint", "codec", "status")]  # the last four: of exports
REPEATED_WITH_PACKETS = ["decoder", "codec"]
# A search reads the groups that its candidates are in, so that they are small; much smaller ones would take more room.
ROWS_PER_GROUP = 256  # with an int8 context of 25 kB a clip, 6 MB: what a merge and a scan hold at a time
TAGS_PER_GROUP = 1 << 16  # of tags, which are small and read whole
PACKETS_PER_GROUP = 512  # videos: what a worker reads for a lot of them, unless they are long
PACKETS_BYTES_PER_GROUP = 4 << 20
ROWS_PER_BATCH = 512
PER_GROUP = {"packets": PACKETS_PER_GROUP, "tagging": TAGS_PER_GROUP}  # by a column that only these tables have
# How a table is scanned that is too large to hold. With threads Arrow reads on until a gigabyte waits for whoever takes
# the rows, whatever it is told of read-ahead; and it would fetch all that it wants of a file before the first row.
STREAM = {
    "batch_size": 10_000,
    "batch_readahead": 1,
    "fragment_readahead": 1,
    "use_threads": False,
    "fragment_scan_options": ds.ParquetFragmentScanOptions(pre_buffer=False),
}


def file_schema(name: str) -> pa.Schema:
    """The columns of a table's files: all but those that stand in folder names."""
    outside = tables.PARTITIONS.get(name, [])
    return pa.schema([field for field in tables.TABLES[name] if field.name not in outside])


def options(schema: pa.Schema) -> dict[str, Any]:
    """How files of a schema are encoded."""
    has_vectors, has_packets = ("embedding" in schema.names), ("packets" in schema.names)
    repeated = REPEATED_WITH_PACKETS if has_packets else [name for name in REPEATED_COLUMNS if name in schema.names]
    return {
        "compression": "zstd",
        "use_dictionary": repeated if has_vectors or has_packets else True,
        "column_encoding": dict.fromkeys(SPLIT_COLUMNS, "BYTE_STREAM_SPLIT") if has_vectors else None,
        "write_page_checksum": True,
    }


def write_batches(file: AnyPath, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Writes batches as one file, holding one row group at a time; forced to a disk. Returns how many rows it has."""
    count, waiting = 0, 0
    most = next((most for column, most in PER_GROUP.items() if column in schema.names), ROWS_PER_GROUP)
    group: list[pa.RecordBatch] = []
    system, path = stores.arrow(file)
    with pq.ParquetWriter(path, schema, filesystem=system, **options(schema)) as writer:
        for batch in batches:
            group.append(batch)
            count, waiting = count + batch.num_rows, waiting + batch.num_rows
            if waiting >= most:
                table, waiting = pa.Table.from_batches(group, schema), waiting % most
                whole = table.num_rows - waiting
                _write_groups(writer, table[:whole], most)
                group = table[whole:].to_batches()
        if waiting or not count:
            _write_groups(writer, pa.Table.from_batches(group, schema), most)
    if isinstance(file, Path):  # a store has it when it says so
        with file.open("rb") as written:
            os.fsync(written.fileno())
    return count


def _write_groups(writer: pq.ParquetWriter, table: pa.Table, most: int) -> None:
    """Writes rows as row groups of at most `most`; packets as so few that no group is large, as those of a film are a
    thousand times those of a clip.
    """
    if "packets" in table.schema.names and table.num_rows:
        most = min(most, max(1, PACKETS_BYTES_PER_GROUP * table.num_rows // table.nbytes))
    writer.write_table(table, row_group_size=most)


def read_batches(
    files: Iterable[AnyPath], schema: pa.Schema, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows of files in the columns of a schema, in file order, a few hundred at a time; page checksums are verified.

    A column that a file lacks, because it is older than the column, is null. Raises OSError for damage.
    """
    # Checksums are looked at only where the format's own options ask, which the scan's options do not reach.
    checked = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True, pre_buffer=False)
    )
    found = [stores.arrow(file) for file in files]
    system = found[0][0] if found else None
    dataset = ds.dataset([path for _, path in found], schema, checked, filesystem=system)
    stream = {name: value for name, value in STREAM.items() if name != "fragment_scan_options"}
    yield from dataset.to_batches(columns=columns, **(stream | {"batch_size": ROWS_PER_BATCH}))


def pick(file: AnyPath, column: str, values: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a file whose `column` is one of `values`; only row groups that hold one are read, one at a time.

    Page checksums are verified. Raises OSError or ArrowException for damage.
    """
    system, path = stores.arrow(file)
    wanted = pa.array(values, pa.string())
    with pq.ParquetFile(path, filesystem=system, pre_buffer=False, page_checksum_verification=True) as opened:
        for number in range(opened.num_row_groups):
            is_wanted = pc.is_in(opened.read_row_group(number, [column])[column], value_set=wanted)
            if pc.any(is_wanted).as_py():
                yield from opened.read_row_group(number, use_threads=False).filter(is_wanted).to_pylist()


def _clip_table(units: list[EmbeddedUnit]) -> pa.Table:
    """The clips of units of one space as rows of the clips table, without its partition column."""
    rows = [
        {
            "clip_id": plan.clip_id(unit.unit, window.start_s),
            "unit_id": unit.unit.unit_id,
            "video_id": unit.unit.video_id,
            "revision": unit.unit.revision,
            "start_s": window.start_s,
            "end_s": window.end_s,
            "frame_times_s": list(window.frame_times_s),
            "intact_samples": intact,
            "embedding": vector_E,
            "context": context,
            "thumbnail": thumbnail,
        }
        for unit in units
        for window, vector_E, context, thumbnail, intact in zip(
            unit.windows, unit.embedding_NE, unit.contexts, unit.thumbnails, unit.intact_samples, strict=True
        )
    ]
    return pa.Table.from_pylist(rows, schema=file_schema("clips"))


def write_part(units: list[EmbeddedUnit], folder: str | AnyPath) -> list[Part]:
    """Writes the clips of units (all of one space) as one Parquet file in the archive at `folder`; commits nothing."""
    space = units[0].unit.space
    path = f"space={space}/part-{uuid.uuid4().hex}.parquet"
    file = stores.to_place(folder) / "clips" / path
    stores.make_folder(file.parent)
    table = _clip_table(units)
    write_batches(file, table.schema, table.to_batches())
    outcomes = tuple(
        UnitOutcome(
            unit.unit.unit_id,
            unit.unit.video_id,
            len(unit.windows),
            sum(unit.intact_samples),
            sum((w.end_s - w.start_s) * n for w, n in zip(unit.windows, unit.intact_samples, strict=True)),
            unit.decode_s,
            unit.embed_s,
            unit.fallback,
        )
        for unit in units
    )
    return [Part(path, file.stat().st_size, table.num_rows, space, outcomes, units[0].encoder)]
