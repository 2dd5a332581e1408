"""Tidying an archive: small files merged, clips that nobody can see dropped, files that no commit names deleted.

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
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import delta_log, lease, parts, scratch, stores, vectors
from pipeline.archive import Archive, Keys, revision_key
from pipeline.delta_log import TableFile
from pipeline.runs import serving_run
from schemas.errors import ArchiveError, InputError, first_line

# Hidden clips that no run took over for so long never will be; until then they stay, whatever the retention.
ABANDONED_DAYS = 7.0
# Rows of `videos` go before their clips: without the one, the other is hidden; the other way round it would be lost.
ORDER = ("videos", "clips", "tags", "runs")

Mask = Callable[[pa.RecordBatch, TableFile], pa.BooleanArray]  # of rows of a file, which stay
Revision = tuple[str, int]  # video_id, revision


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


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactReport:
    """What tidying did, or with `dry_run` would do."""

    archive: str
    dry_run: bool
    tables: dict[str, TableChange]
    resumable_clips: int  # hidden, and kept for the next index run to take over
    deleted_files: int  # that no commit names, or none has for as long as files are retained
    deleted_bytes: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class Holding:
    """How many rows of one revision are in one file."""

    file: TableFile
    revision: Revision
    row_count: int


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
    files = {name: delta_log.files(archive, name) for name in ORDER}
    masks, resumable_clips = _masks(job, files)
    changes = {name: _compact_table(job, name, files[name], masks.get(name)) for name in ORDER}
    deleted_files, deleted_bytes = _sweep(job)
    if not settings.dry_run:
        _refresh_indexes(job)
    return CompactReport(
        archive=str(archive.folder),
        dry_run=settings.dry_run,
        tables=changes,
        resumable_clips=resumable_clips,
        deleted_files=deleted_files,
        deleted_bytes=deleted_bytes,
        wall_s=time.perf_counter() - began,
    )


def _check_spaces(archive: Archive, drop_spaces: Sequence[str]) -> None:
    """Raises InputError for a space that is not there, or that serves."""
    known = archive.spaces()
    if unknown := [space for space in drop_spaces if space not in known]:
        raise InputError(f"there is no space {unknown[0]!r} in {archive.folder}; it has {', '.join(known) or 'none'}")
    if drop_spaces and (serving := serving_run(archive)["space"]) in drop_spaces:
        raise InputError(f"the space {serving} is the one that answers; index into another before dropping it")


# --- which rows stay


def _masks(job: _Job, files: Mapping[str, list[TableFile]]) -> tuple[dict[str, Mask], int]:
    """Per table which rows stay (no mask: all of them), and how many clips stay for an interrupted run's sake."""
    archive, drop_spaces = job.archive, job.settings.drop_spaces
    kept = {space: pa.array([], pa.string()) for space in drop_spaces}
    resumable_clips, abandoned_s = 0, job.began_s - 86400 * max(ABANDONED_DAYS, job.settings.retention_days)
    for space in set(archive.spaces()) - set(drop_spaces):
        shown = archive.shown_revisions(space)
        hidden = _hidden(archive, [file for file in files["clips"] if file.partition["space"] == space], shown)
        pending = resumable(hidden, archive.last_revisions(space), abandoned_s * 1000)
        resumable_clips += sum(pending.values())
        waiting = pa.array([f"{video_id}:{revision}" for video_id, revision in pending], pa.string())
        kept[space] = pa.concat_arrays([shown, waiting])
    masks: dict[str, Mask] = {"clips": lambda rows, file: _kept_clips(rows, kept.get(file.partition["space"] or ""))}
    if files["tags"]:
        seen = _seen_ids(archive, set(kept) - set(drop_spaces))
        masks["tags"] = lambda rows, _: pc.is_in(rows["clip_id"], value_set=seen)
    if drop_spaces:
        dropped = pa.array(drop_spaces, pa.string())
        masks["videos"] = lambda rows, _: pc.invert(pc.is_in(rows["space"], value_set=dropped))
    return masks, resumable_clips


def _kept_clips(rows: pa.RecordBatch, kept: Keys | None) -> Any:
    """Which clips belong to the revisions that are kept; all where the space was made after the list was."""
    keys = revision_key(rows)
    return pc.is_in(keys, value_set=kept) if kept is not None else pc.is_valid(keys)


def _seen_ids(archive: Archive, spaces: Iterable[str]) -> Any:
    """The ids of all clips that can be seen."""
    batches = [batch for space in spaces for batch in archive.visible_batches(space, ["clip_id"])]
    return pa.Table.from_batches(batches, pa.schema([("clip_id", pa.string())]))["clip_id"].combine_chunks()


def _hidden(archive: Archive, files: Iterable[TableFile], shown: Keys) -> list[Holding]:
    """Which files hold how many rows of revisions that cannot be seen."""
    found = []
    for file in files:
        rows = pa.Table.from_batches(
            list(_read(archive, "clips", [file], ["video_id", "revision"])),
            pa.schema([("video_id", pa.string()), ("revision", pa.int32())]),
        )
        rows = rows.filter(pc.invert(pc.is_in(revision_key(rows), value_set=shown)))
        counts = rows.group_by(["video_id", "revision"]).aggregate([([], "count_all")])
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


# What a mask looks at, so that counting reads no vectors.
MASK_COLUMNS = {"videos": ["space"], "clips": ["video_id", "revision"], "tags": ["clip_id"]}


def _count_dropped(archive: Archive, name: str, file: TableFile, keep: Mask) -> int:
    """How many rows of a file a mask drops."""
    batches = _read(archive, name, [file], MASK_COLUMNS[name])
    return sum(batch.num_rows - keep(batch, file).true_count for batch in batches)


def _merge(job: _Job, name: str, group: list[TableFile], keep: Mask | None) -> None:
    """Writes what stays of several files as one, and puts it in their place."""
    folders = [f"{column}={value}" for column, value in group[0].partition.items()]
    path = "/".join([*folders, f"part-{uuid.uuid4().hex}.parquet"])
    file = job.archive.folder / name / path
    job.watch(f"write {name}")
    batches = _read(job.archive, name, group)
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


def _read(
    archive: Archive, name: str, files: list[TableFile], columns: list[str] | None = None
) -> Iterable[pa.RecordBatch]:
    """Rows of a table's files. Raises ArchiveError for damage, which must not be copied into a sound file."""
    paths = [archive.folder / name / file.path for file in files]
    try:
        yield from parts.read_batches(paths, parts.file_schema(name), columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise ArchiveError(
            f"a file of the table {name!r} is damaged ({first_line(error)}); see: footage verify {archive.folder}"
        ) from error


# --- files nobody needs


def _sweep(job: _Job) -> tuple[int, int]:
    """Deletes the files of tables and the folders of dead runs that nobody needs; returns how many, and their bytes."""
    count, size_bytes = 0, 0
    retention_h = math.ceil(job.settings.retention_days * 24)
    for name in ORDER:
        job.watch(f"vacuum {name}")
        sizes = stores.sizes(job.archive.folder / name)
        gone = delta_log.vacuum(job.archive, name, retention_h, dry_run=job.settings.dry_run)
        count, size_bytes = count + len(gone), size_bytes + sum(sizes.get(path, 0) for path in gone)
    for folder in scratch.left(job.archive.folder):
        inside = [file for file in folder.rglob("*") if file.is_file()]
        if max(file.stat().st_mtime for file in [folder, *inside]) < job.began_s - 3600 * retention_h:
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
            vectors.refresh(archive, space, widths[space])
