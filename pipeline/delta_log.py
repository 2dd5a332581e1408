"""What the Delta log of a table says, and how it is rewritten: files, versions, replacing, restoring, vacuuming.

The archive adds to its tables; whoever tidies, checks or undoes them works here. Every change is one transaction that
Delta refuses when another process removed the same files meanwhile; files that readers may hold stay on the disk until
`vacuum`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from deltalake import Schema
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from pipeline import parts, stores
from pipeline.archive import Archive
from schemas import tables
from schemas.errors import ArchiveError, first_line

# Delta writes a file under another name and links it into place. Its own listings pass over these names, and with them
# `vacuum`. The first is what every file on a disk gets, the second what commits get in stores that only rename.
DRAFT = re.compile(r".*#\d+|_delta_log/_commit_.*")


@dataclass(frozen=True, slots=True)
class TableFile:
    """A Parquet file that the log of a table names. `path` is relative to the table's folder."""

    path: str
    size_bytes: int
    row_count: int
    modified_ms: int  # when its newest rows were written: a merge keeps it
    partition: dict[str, str | None] = field(default_factory=dict)


def versions(archive: Archive) -> dict[str, int]:
    """The number of the last commit of every table that is there."""
    return {name: archive.version(name) for name in tables.TABLES if archive.has_table(name)}


def files(archive: Archive, name: str, version: int | None = None) -> list[TableFile]:
    """The files that make up a table, in path order."""
    partitions = tables.PARTITIONS.get(name, [])
    rows = pa.table(archive.table(name, version).get_add_actions(flatten=True)).to_pylist()
    found = [
        TableFile(
            path=row["path"],
            size_bytes=row["size_bytes"],
            row_count=row["num_records"],
            modified_ms=row["modification_time"],
            partition={column: row[f"partition.{column}"] for column in partitions},
        )
        for row in rows
    ]
    return sorted(found, key=lambda file: file.path)


def rows(
    archive: Archive, name: str, of: list[TableFile], columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows of a table's files. Raises ArchiveError for damage, which must not be copied into a sound file."""
    paths = [archive.folder / name / file.path for file in of]
    try:
        yield from parts.read_batches(paths, parts.file_schema(name), columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise ArchiveError(
            f"a file of the table {name!r} is damaged ({first_line(error)}); see: footage verify {archive.folder}"
        ) from error


def replace(archive: Archive, name: str, old: Iterable[TableFile], new: Iterable[TableFile]) -> None:
    """Puts files in the place of others in one transaction.

    Raises ArchiveError, and changes nothing, when another process has removed one of the old files meanwhile.
    """
    old, now_ms = list(old), int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [
        RemoveAction(
            file.path,
            data_change=True,
            deletion_timestamp=now_ms,
            size=file.size_bytes,
            partition_values=file.partition,
        )
        for file in old
    ]
    actions += [
        AddAction(
            path=file.path,
            size=file.size_bytes,
            partition_values=file.partition,
            modification_time=file.modified_ms,
            data_change=True,
            stats=json.dumps({"numRecords": file.row_count}),
        )
        for file in new
    ]
    table = archive.table(name)
    # Delta looks at what happens from here on; what happened before is ours to see.
    present = set(table.get_add_actions()["path"].to_pylist())
    overtaken = ArchiveError(
        f"another process changed the table {name!r} meanwhile; nothing of this step was kept, run it again"
    )
    if not present.issuperset(file.path for file in old):
        raise overtaken
    try:
        with archive.as_writer(table) as properties:
            table.create_write_transaction(
                actions, "append", tables.TABLES[name], tables.PARTITIONS.get(name), commit_properties=properties
            )
    except CommitFailedError as error:
        raise overtaken from error


def widen(archive: Archive, name: str) -> None:
    """Gives a table that an earlier version made the columns that it lacks; its rows have nothing in them."""
    table = archive.table(name)
    there = {field.name for field in table.schema().fields}
    if missing := [field for field in tables.TABLES[name] if field.name not in there]:
        fields = Schema.from_arrow(pa.schema(missing)).fields
        with archive.as_writer(table) as properties:
            table.alter.add_columns(list(fields), commit_properties=properties)


def vacuum(archive: Archive, name: str, retention_h: int, *, dry_run: bool) -> list[str]:
    """Deletes files that the log does not name, or has not named for `retention_h`; returns their paths in the table.

    Files that no commit ever named count by the time they were written: a running indexer may be about to commit them.
    """
    table = archive.table(name)

    def sweep(*, only_list: bool) -> list[str]:
        return table.vacuum(retention_h, dry_run=only_list, enforce_retention_duration=False, full=True)

    # Files that an earlier vacuum has deleted stay in the log for a while, and in the list.
    present = stores.sizes(archive.folder / name)
    found = [path for path in sweep(only_list=True) if path in present]
    if found and not dry_run:  # a vacuum is a commit, also one that finds nothing
        sweep(only_list=False)
    return found


def sweep_drafts(archive: Archive, name: str, before_s: float, *, dry_run: bool) -> dict[str, int]:
    """Deletes what writers who were killed left of files half written; returns their bytes by path in the table.

    Only what was last written before `before_s`: a writer at work may be about to put a younger one into place.
    """
    folder = archive.folder / name
    found = {
        path: size_bytes
        for path, size_bytes in stores.sizes(folder, before_s=before_s).items()
        if DRAFT.fullmatch(path)
    }
    if not dry_run:
        for path in found:
            (folder / path).unlink(missing_ok=True)
    return found


def checkpoint(archive: Archive, name: str) -> None:
    """Sums the log up in one file, so that opening the table reads that instead of every commit."""
    archive.table(name).create_checkpoint()


def restore(archive: Archive, name: str, version: int) -> None:
    """Makes a table what it was at a version, in one transaction that is itself a new version."""
    if archive.version(name) != version:
        table = archive.table(name)
        with archive.as_writer(table) as properties:
            table.restore(version, commit_properties=properties)
