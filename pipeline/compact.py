"""Tidying an archive: small files merged, rows that nobody can see dropped, files that no commit names deleted.

What can be seen stays the same to the bit. Every step is one transaction, so that a kill between two loses nothing, and
readers keep the snapshot they opened until its files are vacuumed. What an interrupted run can still take over is kept.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import delta_log, indexes, keeping, lease, parts, scratch, stores
from pipeline.archive import Archive
from pipeline.delta_log import TableFile
from pipeline.keeping import Mask
from pipeline.runs import retired, serving_run
from schemas.errors import ArchiveError, InputError

# Rows of `videos` go before their clips: without the one, the other is hidden; the other way round it would be lost.
ORDER = ("videos", "clips", "tags", "runs", "failures", "packets")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactSettings:
    """How an archive is tidied.

    A retention of 0 deletes at once what is no longer needed: only where nobody else reads or writes.
    """

    target_mb: float = 256.0  # size of a merged file
    retention_days: float = 7.0  # how long files stay that only old snapshots name, or none
    drop_spaces: tuple[str, ...] = ()  # spaces to forget altogether
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not self.target_mb > 0 or not 0 <= self.retention_days < math.inf:
            given = f"--target-mb {self.target_mb:g} --retention {self.retention_days:g}"
            raise InputError(f"{given} is not usable; expected more than 0 MB, and 0 days or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableChange:
    """What became of one table's files. `bytes_after` is None in a dry run."""

    files_before: int
    files_after: int
    rows_dropped: int
    bytes_before: int
    bytes_after: int | None


@dataclass(frozen=True, slots=True)
class RetiredSpace:
    """A space that served once and serves no more; nobody asked that it be kept."""

    space: str
    size_bytes: int  # of its clips and its index


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactReport:
    """What tidying did, or with `dry_run` would do."""

    archive: str
    dry_run: bool
    tables: dict[str, TableChange]
    resumable_clips: int  # hidden, and kept for the next index run to take over
    deleted_files: int  # that no commit names, or none has for as long as files are retained
    deleted_bytes: int
    retired: tuple[RetiredSpace, ...]  # that are still there, for the user to drop
    wall_s: float


@dataclass(frozen=True, slots=True)
class _Job:
    """What all steps share."""

    archive: Archive
    settings: CompactSettings
    began_s: float  # seconds since 1970
    watch: Callable[[str], None]


def compact(
    folder: str | Path, settings: CompactSettings, *, watch: Callable[[str], None] | None = None
) -> CompactReport:
    """Tidies the archive at `folder`; `watch` hears the name of each step before it is taken.

    Raises InputError for a space that cannot be dropped, ArchiveError when another process gets in the way,
    and with a retention of 0 ArchiveBusy while a run is at work.
    """
    began = time.perf_counter()
    archive = Archive.open(folder)
    # What a run has written and not committed yet is deleted by a retention of nothing: only then must it be alone.
    if settings.retention_days > 0 or settings.dry_run:
        return _tidied(archive, settings, watch or (lambda _: None), began)
    with lease.held(archive.folder, "compact") as held:

        def step(name: str) -> None:
            held.check()
            if watch is not None:
                watch(name)

        return _tidied(Archive(folder, held.term), settings, step, began)


def _tidied(archive: Archive, settings: CompactSettings, watch: Callable[[str], None], began: float) -> CompactReport:
    """`compact`, alone or beside a run."""
    _check_spaces(archive, settings.drop_spaces)
    job = _Job(archive, settings, time.time(), watch)
    # Before anything is read: what is committed from here on is in none of these files, and not judged.
    files = {name: delta_log.files(archive, name) for name in ORDER if archive.has_table(name)}
    kept = keeping.masks(archive, files, settings.drop_spaces, _abandoned_ms(job))
    changes = {name: _compact_table(job, name, files[name], kept.masks.get(name)) for name in files}
    deleted_files, deleted_bytes = _sweep(job, files)
    if not settings.dry_run:
        _refresh_indexes(job)
        job.watch("lease")
        lease.tidy(archive.folder)
    return CompactReport(
        archive=str(archive.folder),
        dry_run=settings.dry_run,
        tables=changes,
        resumable_clips=kept.resumable_clips,
        deleted_files=deleted_files,
        deleted_bytes=deleted_bytes,
        retired=_retired(job),
        wall_s=time.perf_counter() - began,
    )


def _check_spaces(archive: Archive, drop_spaces: Sequence[str]) -> None:
    """Raises InputError for a space that is not there, or that serves."""
    known = archive.spaces()
    if unknown := [space for space in drop_spaces if space not in known]:
        raise InputError(f"there is no space {unknown[0]!r} in {archive.folder}; it has {', '.join(known) or 'none'}")
    if drop_spaces and (serving := serving_run(archive)["space"]) in drop_spaces:
        raise InputError(f"the space {serving} is the one that answers; index into another before dropping it")


def _abandoned_ms(job: _Job) -> float:
    """Since when a run must have taken hidden clips over."""
    return 1000 * (job.began_s - 86400 * max(keeping.ABANDONED_DAYS, job.settings.retention_days))


def _retired(job: _Job) -> tuple[RetiredSpace, ...]:
    """The spaces that could be dropped and were not."""
    there = set(job.archive.spaces()) - set(job.settings.drop_spaces)
    clips = delta_log.files(job.archive, "clips")
    return tuple(
        RetiredSpace(
            space,
            sum(file.size_bytes for file in clips if file.partition["space"] == space)
            + sum(stores.sizes(job.archive.index_folder(space)).values()),
        )
        for space in retired(job.archive)
        if space in there
    )


# --- rewriting files


def merges(files: Iterable[TableFile], hidden: Mapping[str, int], target_bytes: float) -> list[list[TableFile]]:
    """Which files become one, oldest first: the small ones (below half the target) and those with hidden rows.

    `hidden` counts the rows to drop by path. A small file that finds no company stays as it is.
    """
    groups: dict[tuple[str | None, ...], list[list[TableFile]]] = defaultdict(lambda: [[]])
    for file in sorted(files, key=lambda file: (file.modified_ms, file.path)):
        if file.size_bytes >= target_bytes / 2 and not hidden.get(file.path):
            continue
        open_groups = groups[tuple(file.partition.values())]
        if sum(member.size_bytes for member in open_groups[-1]) + file.size_bytes > target_bytes:
            open_groups.append([])
        open_groups[-1].append(file)
    found = [group for open_groups in groups.values() for group in open_groups]
    return [group for group in found if len(group) > 1 or any(hidden.get(file.path) for file in group)]


def _compact_table(job: _Job, name: str, files: list[TableFile], keep: Mask | None) -> TableChange:
    """Merges and thins out the files of one table, a transaction per new file."""
    hidden = {file.path: _count_dropped(job.archive, name, file, keep) for file in files} if keep else {}
    groups = merges(files, hidden, job.settings.target_mb * 1e6)
    after = len(files)
    for group in groups:
        dropped, total = (
            sum(counts) for counts in zip(*((hidden.get(f.path, 0), f.row_count) for f in group), strict=True)
        )
        after += (dropped < total) - len(group)
        if not job.settings.dry_run:
            _merge(job, name, group, keep)
    if groups and not job.settings.dry_run:
        job.watch(f"checkpoint {name}")
        delta_log.checkpoint(job.archive, name)
    return TableChange(
        files_before=len(files),
        files_after=after,
        rows_dropped=sum(hidden.values()),
        bytes_before=sum(file.size_bytes for file in files),
        bytes_after=None if job.settings.dry_run else sum(f.size_bytes for f in delta_log.files(job.archive, name)),
    )


def _count_dropped(archive: Archive, name: str, file: TableFile, keep: Mask) -> int:
    """How many rows of a file a mask drops."""
    batches = delta_log.rows(archive, name, [file], keeping.COLUMNS[name])
    return sum(batch.num_rows - keep(batch, file).true_count for batch in batches)


def _merge(job: _Job, name: str, group: list[TableFile], keep: Mask | None) -> None:
    """Writes what stays of several files as one, and puts it in their place."""
    folders = [f"{column}={value}" for column, value in group[0].partition.items()]
    path = "/".join([*folders, f"part-{uuid.uuid4().hex}.parquet"])
    file = job.archive.folder / name / path
    job.watch(f"write {name}")
    batches = delta_log.rows(job.archive, name, group)
    kept = (batch.filter(keep(batch, group[0])) for batch in batches) if keep else batches
    try:
        count = parts.write_batches(file, parts.file_schema(name), kept)
        newest_ms = max(member.modified_ms for member in group)
        new = TableFile(path, file.stat().st_size, count, newest_ms, group[0].partition)
        job.watch(f"commit {name}")
        delta_log.replace(job.archive, name, group, [new] if count else [])
    except (OSError, ArchiveError):
        file.unlink(missing_ok=True)
        raise
    if not count:
        file.unlink()


# --- files nobody needs


def _sweep(job: _Job, names: Iterable[str]) -> tuple[int, int]:
    """Deletes files of tables, drafts and folders of dead runs that nobody needs; returns how many, and their bytes."""
    count, size_bytes = 0, 0
    retention_h = math.ceil(job.settings.retention_days * 24)
    for name in names:
        job.watch(f"vacuum {name}")
        sizes = stores.sizes(job.archive.folder / name)
        gone = delta_log.vacuum(job.archive, name, retention_h, dry_run=job.settings.dry_run)
        count, size_bytes = count + len(gone), size_bytes + sum(sizes.get(path, 0) for path in gone)
    # With no retention: what is older than this compaction is of the dead, or of who sleeps and is shut out.
    before_s = job.began_s - 3600 * retention_h
    for name in (*names, "lease"):
        drafts = delta_log.sweep_drafts(job.archive, name, before_s, dry_run=job.settings.dry_run)
        count, size_bytes = count + len(drafts), size_bytes + sum(drafts.values())
    for folder in scratch.left(job.archive.folder):
        inside = [file for file in folder.rglob("*") if file.is_file()]
        if max(file.stat().st_mtime for file in [folder, *inside]) < before_s:
            count, size_bytes = count + len(inside), size_bytes + sum(file.stat().st_size for file in inside)
            if not job.settings.dry_run:
                scratch.drop(job.archive.folder, folder.name)
    return count, size_bytes


def _refresh_indexes(job: _Job) -> None:
    """Makes the index of every space anew if the table it was made from was rewritten, and drops what is left over."""
    archive, widths = job.archive, job.archive.widths()
    spaces = archive.spaces()
    for space in stores.folders(archive.folder / "indexes"):
        job.watch(f"index {space}")
        if space not in spaces:
            stores.remove_tree(archive.index_folder(space))
        elif space in widths:
            indexes.refresh(archive, space, widths[space])
