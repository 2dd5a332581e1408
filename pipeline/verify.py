"""Is an archive sound? Looks at every file that the tables name, and says what is wrong and which command mends it.

Reads files and not tables, so that one damaged file hides nothing of the others. Changes nothing; `pipeline/repair.py`
does. What is half committed while a run is at work is named as unfinished.
"""

# N clips, E joint dimension

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import delta_log, parts, sources, thumbnails, vectors
from pipeline.archive import SHOWN, Archive, current_rows
from pipeline.delta_log import TableFile
from schemas.errors import ArchiveError, UnreadableFile, first_line
from schemas.records import SourceFile

LENGTH_TOLERANCE = 2e-3  # of a unit vector at float16 precision: 512 roundings of 2^-11 each, and room

Kind = Literal[
    "table", "file_missing", "file_size", "file_damaged", "clip_count", "doubled", "vector", "thumbnail", "unfinished",
    "index", "source_missing", "source_changed",
]  # fmt: skip
Revision = tuple[str, int]  # video_id, revision


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong. `subject` is a table, a file (TABLE/PATH), a video's uri or a space."""

    kind: Kind
    subject: str
    what: str
    remedy: str
    space: str | None = None
    video_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What was looked at and what was found. Counts are of what can be seen, in all spaces."""

    archive: str
    deep: bool
    files: int
    videos: int
    clips: int
    problems: tuple[Problem, ...]
    wall_s: float


@dataclass(slots=True)
class _Clips:
    """What one file holds, or all files of a space."""

    ids: list[str] = field(default_factory=list)
    revisions: Counter[Revision] = field(default_factory=Counter)
    bad_vectors: set[Revision] = field(default_factory=set)
    bad_thumbnails: set[Revision] = field(default_factory=set)
    owners: list[Revision] = field(default_factory=list)  # of `ids`

    def add(self, other: _Clips) -> None:
        """Takes in what another file holds."""
        self.ids += other.ids
        self.owners += other.owners
        self.revisions += other.revisions
        self.bad_vectors |= other.bad_vectors
        self.bad_thumbnails |= other.bad_thumbnails


@dataclass(slots=True)
class _Look:
    """One look at an archive, and the problems found on the way."""

    archive: Archive
    deep: bool
    problems: list[Problem] = field(default_factory=list)
    file_count: int = 0
    videos_version: int | None = None  # of the rows that were read, unless a run commits meanwhile

    @property
    def repair(self) -> str:
        """The command that takes out what is broken and has it made again."""
        return f"footage verify {self.archive.folder} --repair, then {self.reindex}"

    @property
    def reindex(self) -> str:
        """The command that brings an archive up to date with its files."""
        return f"footage reindex {self.archive.folder}"


def verify(folder: str | Path, *, deep: bool = False) -> VerifyReport:
    """Looks at tables, files, rows, vectors and indexes; with `deep` also at pictures and video files."""
    began = time.perf_counter()
    look = _Look(Archive.open(folder), deep)
    look.videos_version = _videos_version(look)
    # Videos before clips: what a run commits in between is unfinished to us, and never a clip that is missing.
    videos = _rows(look, "videos")
    clips = _clips(look)
    for name in ("tags", "runs"):
        _rows(look, name)
    shown = 0
    is_readable = not any(problem.kind == "table" for problem in look.problems)
    for space in sorted({*videos["space"].to_pylist(), *clips}) if is_readable else ():
        rows = videos.filter(pc.equal(videos["space"], space))
        shown += _check_space(look, space, rows, clips.get(space, _Clips()))
    return VerifyReport(
        archive=str(look.archive.folder),
        deep=deep,
        files=look.file_count,
        videos=shown,
        clips=sum(len(found.ids) for found in clips.values()),
        problems=tuple(look.problems),
        wall_s=time.perf_counter() - began,
    )


def _videos_version(look: _Look) -> int | None:
    """The last version of the videos table; None where its log cannot be read, which is told elsewhere."""
    try:
        return look.archive.version("videos")
    except ArchiveError:
        return None


# --- files


def _sound_files(look: _Look, name: str) -> Iterator[TableFile]:
    """The files of a table that are there in their full size; the others become problems."""
    try:
        named = delta_log.files(look.archive, name)
    except ArchiveError as error:
        remedy = f"copy {look.archive.folder / name}/_delta_log from a backup; without it index into a new archive"
        look.problems.append(Problem(kind="table", subject=name, what=str(error), remedy=remedy))
        return
    for file in named:
        look.file_count += 1
        path = look.archive.folder / name / file.path
        if not path.is_file():
            _file_problem(look, "file_missing", name, file, f"a file of {file.row_count} rows is not there")
        elif (size_bytes := path.stat().st_size) != file.size_bytes:
            _file_problem(look, "file_size", name, file, f"has {size_bytes} bytes; expected {file.size_bytes}")
        else:
            yield file


def _file_problem(look: _Look, kind: Kind, name: str, file: TableFile, what: str) -> None:
    remedy = {"tags": f"footage verify {look.archive.folder} --repair, then footage tag again"}.get(name, look.repair)
    look.problems.append(Problem(kind=kind, subject=f"{name}/{file.path}", what=what, remedy=remedy))


def _scanned(
    look: _Look, name: str, digest: Callable[[TableFile, Iterator[pa.RecordBatch]], Any]
) -> Iterator[tuple[TableFile, Any]]:
    """Every sound file with what `digest` makes of its rows; one whose pages do not read becomes a problem."""
    for file in _sound_files(look, name):
        path = look.archive.folder / name / file.path
        try:
            yield file, digest(file, parts.read_batches([path], parts.file_schema(name)))
        except (OSError, pa.ArrowInvalid) as error:
            _file_problem(look, "file_damaged", name, file, f"does not read: {first_line(error)}")


def _rows(look: _Look, name: str) -> pa.Table:
    """All rows of the sound files of a small table."""
    batches = [batch for _, found in _scanned(look, name, lambda _, batches: list(batches)) for batch in found]
    return pa.Table.from_batches(batches, parts.file_schema(name))


def _clips(look: _Look) -> dict[str, _Clips]:
    """What the sound files of the clips table hold, by space. Vectors and pictures are looked at as they pass."""
    found: dict[str, _Clips] = defaultdict(_Clips)
    widths = _widths(look)

    def digest(file: TableFile, batches: Iterator[pa.RecordBatch]) -> _Clips:
        clips = _Clips()
        for batch in batches:
            _digest(batch, widths.get(file.partition["space"] or ""), clips, deep=look.deep)
        return clips

    for file, clips in _scanned(look, "clips", digest):
        found[file.partition["space"] or ""].add(clips)
    return found


def _widths(look: _Look) -> dict[str, int]:
    """The width of every space as far as the runs can be read; what they lack is told elsewhere."""
    try:
        return look.archive.widths()
    except (ArchiveError, OSError, pa.ArrowInvalid):
        return {}


def _digest(batch: pa.RecordBatch, width: int | None, clips: _Clips, *, deep: bool) -> None:
    """Enters a batch of clips."""
    owners = list(zip(batch["video_id"].to_pylist(), batch["revision"].to_pylist(), strict=True))
    clips.ids += batch["clip_id"].to_pylist()
    clips.owners += owners
    clips.revisions.update(owners)
    is_unit = _are_unit(batch["embedding"], width)
    clips.bad_vectors |= {owner for owner, sound in zip(owners, is_unit, strict=True) if not sound}
    if deep:
        pictures = zip(owners, batch["thumbnail"], strict=True)
        clips.bad_thumbnails |= {owner for owner, picture in pictures if not thumbnails.decodes(picture.as_py())}


def _are_unit(column: pa.ListArray, width: int | None) -> list[bool]:
    """Of vectors N x E, whether each has unit length and the width of its space (that of the first if not known)."""
    widths_N = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    starts_N = np.concatenate([[0], np.cumsum(widths_N)[:-1]]) if len(widths_N) else widths_N
    lengths_N = np.sqrt(np.add.reduceat(np.append(values**2, 0), starts_N)) if len(widths_N) else widths_N
    expected = width or (widths_N[0] if len(widths_N) else 0)
    is_sound_N = (widths_N == expected) & (np.abs(lengths_N - 1) < LENGTH_TOLERANCE)
    return [bool(is_sound) for is_sound in is_sound_N]


# --- rows


def _check_space(look: _Look, space: str, rows: pa.Table, clips: _Clips) -> int:
    """Holds the videos of a space against its clips, its index and, if asked, its files; how many are shown."""
    current = current_rows(rows).to_pylist()
    shown = {(row["video_id"], row["revision"]): row for row in current if row["status"] in SHOWN}
    found_before = len(look.problems)
    _check_counts(look, shown, clips)
    is_complete = len(look.problems) == found_before
    _check_unfinished(look, space, rows, clips)
    ids = [clip_id for clip_id, owner in zip(clips.ids, clips.owners, strict=True) if owner in shown]
    version = look.archive.version("videos")
    is_known = is_complete and version == look.videos_version  # else a run has committed since, and these are not all
    if (wrong := vectors.check(look.archive, space, version, ids if is_known else None)) is not None:
        remedy = f"footage verify {look.archive.folder} --repair"
        look.problems.append(Problem(kind="index", subject=space, what=wrong, remedy=remedy, space=space))
    if look.deep:
        _check_sources(look, shown.values())
    return len(shown)


def _check_counts(look: _Look, shown: Mapping[Revision, dict[str, Any]], clips: _Clips) -> None:
    """Every shown video has the clips that its row counts, each once, all sound."""
    times = Counter(zip(clips.owners, clips.ids, strict=True))
    doubled = {owner for (owner, _), count in times.items() if count > 1}
    for key, row in shown.items():
        found = clips.revisions[key]
        wrong: list[tuple[Kind, str]] = []
        if key in doubled:
            wrong.append(("doubled", "clips are there more than once"))
        elif found != row["clip_count"]:
            wrong.append(("clip_count", f"{found} clips are there; its row counts {row['clip_count']}"))
        if key in clips.bad_vectors:
            wrong.append(("vector", "vectors are not of unit length, or not as wide as those of their space"))
        if key in clips.bad_thumbnails:
            wrong.append(("thumbnail", "thumbnails are no pictures"))
        for kind, what in wrong:
            _video_problem(look, kind, row, what, look.repair)


def _video_problem(look: _Look, kind: Kind, row: Mapping[str, Any], what: str, remedy: str) -> None:
    look.problems.append(
        Problem(kind=kind, subject=row["uri"], what=what, remedy=remedy, space=row["space"], video_id=row["video_id"])
    )


def _check_unfinished(look: _Look, space: str, rows: pa.Table, clips: _Clips) -> None:
    """Clips of a revision that no row names are what an interrupted run left, or the row was lost."""
    named: Counter[str] = Counter()
    for video_id, revision in zip(rows["video_id"].to_pylist(), rows["revision"].to_pylist(), strict=True):
        named[video_id] = max(named[video_id], revision)
    waiting = {key: count for key, count in clips.revisions.items() if key[1] > named[key[0]]}
    if waiting:
        count = f"{sum(waiting.values())} clips of {len(waiting)} videos"
        what = f"{count} have no video row: a run was cut short, or is at work"
        look.problems.append(Problem(kind="unfinished", subject=space, what=what, remedy=look.reindex, space=space))


def _check_sources(look: _Look, rows: Iterable[Mapping[str, Any]]) -> None:
    """The files of shown videos are where they were and hold what they held."""
    for row in rows:
        if not row["fingerprint"]:
            continue
        try:
            found = sources.fingerprint(SourceFile(row["uri"], row["size_bytes"], row["mtime_s"])).fingerprint
        except UnreadableFile as error:
            _video_problem(look, "source_missing", row, f"its file {error}", look.reindex)
            continue
        if found != row["fingerprint"]:
            what = "its file holds something else than what was indexed"
            _video_problem(look, "source_changed", row, what, f"{look.reindex} --rehash")
