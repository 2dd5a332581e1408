"""Is an archive sound? Looks at every file that the tables name, and says what is wrong and which command mends it.

Reads files and not tables, so that one damaged file hides nothing of the others. Changes nothing; `pipeline/repair.py`
does. What is half committed while a run is at work is named as unfinished. Videos and clips are compared on heaps
(`pipeline/heaps.py`); of each clip that can be seen eight bytes are held, to be compared with the index.
"""

# N clips, E joint dimension

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import delta_log, indexes, keys, packet_cache, packing, parts, sources, thumbnails
from pipeline.archive import LATER, Archive
from pipeline.current import SHOWN
from pipeline.delta_log import TableFile
from pipeline.heaps import Heaps, last_of
from pipeline.keys import Keys, Numbers
from schemas import tables
from schemas.errors import ArchiveError, UnreadableFile, first_line
from schemas.records import SourceFile

NOTHING = {"clip_count": 0, "clip_count_distinct": 0, "is_bad_vector_any": False, "is_bad_thumbnail_any": False}
LENGTH_TOLERANCE = 2e-3  # of a unit vector at float16 precision: 512 roundings of 2^-11 each, and room

Kind = Literal[
    "table", "file_missing", "file_size", "file_damaged", "clip_count", "doubled", "vector", "thumbnail", "unfinished",
    "index", "source_missing", "source_changed", "packets",
]  # fmt: skip
Revision = tuple[int, int]  # a video's number, revision
Digest = Callable[[TableFile, Iterator[pa.RecordBatch]], list[pa.RecordBatch]]  # what is kept of a file's rows

_VIDEO = pa.field("video", pa.uint64())  # the id as a number
_VIDEO_COLUMNS = ("video_id", "revision", "space", "indexed_at", "uri", "status", "clip_count", "fingerprint",
                  "size_bytes", "mtime_s")  # fmt: skip
_VIDEOS = pa.schema([_VIDEO, *(tables.VIDEOS.field(name) for name in _VIDEO_COLUMNS)])
_CLIPS = pa.schema(
    [
        _VIDEO,
        ("revision", pa.int32()),
        ("space", pa.string()),
        ("clip", pa.uint64()),  # as `video`
        ("is_bad_vector", pa.bool_()),
        ("is_bad_thumbnail", pa.bool_()),
    ]
)


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
class _Space:
    """What is found out about a space on the way."""

    shown: int = 0  # videos
    ids: list[Numbers] = field(default_factory=list)  # of the clips of these
    is_complete: bool = True  # as far as the rows of videos say
    waiting_clips: int = 0
    waiting_videos: int = 0


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
    spaces: defaultdict[str, _Space] = defaultdict(_Space)
    clip_count = 0
    with Heaps(_VIDEOS, "video") as videos, Heaps(_CLIPS, "video") as clips:
        # Videos before clips: what a run commits in between is unfinished to us, and never a clip that is missing.
        _fill(videos, _scanned(look, "videos", _video_rows))
        _fill(clips, _scanned(look, "clips", partial(_clip_rows, _widths(look), deep=deep)))
        for name, digest in {**dict.fromkeys(("tags", "runs", "failures"), _no_rows), "packets": _no_packets}.items():
            if name not in LATER or look.archive.has_table(name):
                deque(_scanned(look, name, digest), maxlen=0)
        first = len(look.problems)
        is_readable = not any(problem.kind == "table" for problem in look.problems)
        for rows, held in zip(videos, clips, strict=True):
            clip_count += held.num_rows
            if is_readable:
                _compare(look, rows, held, spaces)
    look.problems[first:] = sorted(look.problems[first:], key=lambda problem: (problem.space or "", problem.subject))
    for space, found in sorted(spaces.items()):
        _conclude(look, space, found)
    return VerifyReport(
        archive=str(look.archive.folder),
        deep=deep,
        files=look.file_count,
        videos=sum(found.shown for found in spaces.values()),
        clips=clip_count,
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
    mend = f"footage verify {look.archive.folder} --repair"
    remedy = {"tags": f"{mend}, then footage tag again", "packets": mend}.get(name, look.repair)
    look.problems.append(Problem(kind=kind, subject=f"{name}/{file.path}", what=what, remedy=remedy))


def _scanned(look: _Look, name: str, digest: Digest) -> Iterator[list[pa.RecordBatch]]:
    """What `digest` keeps of every sound file; one whose pages do not read becomes a problem, and none of it counts."""
    for file in _sound_files(look, name):
        path = look.archive.folder / name / file.path
        try:
            yield digest(file, parts.read_batches([path], parts.file_schema(name)))
        except (OSError, pa.ArrowInvalid) as error:
            _file_problem(look, "file_damaged", name, file, f"does not read: {first_line(error)}")
        except packing.DamagedPackets as error:
            _file_problem(look, "packets", name, file, str(error))


def _fill(heaps: Heaps, files: Iterable[list[pa.RecordBatch]]) -> None:
    """Puts what was kept of files on heaps."""
    for file in files:
        for batch in file:
            heaps.add(batch)


def _no_rows(_: TableFile, batches: Iterator[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Nothing of a table that need only be readable."""
    deque(batches, maxlen=0)
    return []


def _no_packets(_: TableFile, batches: Iterator[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Nothing of packets, which are unpacked. Raises DamagedPackets for those that are not what was kept."""
    for batch in batches:
        deque(packet_cache.unpacked(batch.to_pylist()), maxlen=0)
    return []


def _video_rows(_: TableFile, batches: Iterator[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Rows of videos in `_VIDEOS`."""
    return [
        pa.RecordBatch.from_arrays(
            [pa.array(keys.of_ids(batch["video_id"])), *(batch[name] for name in _VIDEO_COLUMNS)], schema=_VIDEOS
        )
        for batch in batches
    ]


def _clip_rows(
    widths: Mapping[str, int], file: TableFile, batches: Iterator[pa.RecordBatch], *, deep: bool
) -> list[pa.RecordBatch]:
    """Rows of clips in `_CLIPS`. Vectors, and pictures if asked, are looked at as they pass."""
    space = file.partition["space"] or ""
    return [
        pa.RecordBatch.from_arrays(
            [
                pa.array(keys.of_ids(batch["video_id"])),
                batch["revision"],
                pa.array([space] * batch.num_rows, pa.string()),
                pa.array(keys.of_ids(batch["clip_id"])),
                pa.array(~_are_unit(batch["embedding"], widths.get(space))),
                pa.array([deep and not thumbnails.decodes(each.as_py()) for each in batch["thumbnail"]], pa.bool_()),
            ],
            schema=_CLIPS,
        )
        for batch in batches
    ]


def _widths(look: _Look) -> dict[str, int]:
    """The width of every space as far as the runs can be read; what they lack is told elsewhere."""
    try:
        return look.archive.widths()
    except (ArchiveError, OSError, pa.ArrowInvalid):
        return {}


def _are_unit(column: pa.ListArray, width: int | None) -> NDArray[np.bool_]:
    """Of vectors N x E, whether each has unit length and the width of its space (that of the first if not known)."""
    widths_N = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    starts_N = np.concatenate([[0], np.cumsum(widths_N)[:-1]]) if len(widths_N) else widths_N
    lengths_N = np.sqrt(np.add.reduceat(np.append(values**2, 0), starts_N)) if len(widths_N) else widths_N
    expected = width or (widths_N[0] if len(widths_N) else 0)
    is_sound_N: NDArray[np.bool_] = (widths_N == expected) & (np.abs(lengths_N - 1) < LENGTH_TOLERANCE)
    return is_sound_N


# --- rows


def _compare(look: _Look, rows: pa.RecordBatch, clips: pa.RecordBatch, spaces: defaultdict[str, _Space]) -> None:
    """Holds the videos of a heap against their clips, one space after the other."""
    for space in {*pc.unique(rows["space"]).to_pylist(), *pc.unique(clips["space"]).to_pylist()}:
        mine, held = (each.filter(pc.equal(each["space"], space)) for each in (rows, clips))
        current = last_of(mine, "video", ("revision", "indexed_at"))
        shown = current.filter(pc.is_in(current["status"], pa.array(SHOWN)))
        found, counts = spaces[space], _counts(held)
        found.shown += shown.num_rows
        found.is_complete &= _check_counts(look, shown.to_pylist(), counts)
        can_be_seen = Keys([keys.of_revisions(shown)]).has(keys.of_pairs(held["video"], held["revision"]))
        found.ids.append(held["clip"].filter(can_be_seen).to_numpy())
        _count_unfinished(found, current, counts)
        if look.deep:
            _check_sources(look, shown.to_pylist())


def _conclude(look: _Look, space: str, found: _Space) -> None:
    """What can be said of a space when all its rows have passed."""
    # Clips of a revision that no row names are what an interrupted run left, or the row was lost.
    if found.waiting_clips:
        count = f"{found.waiting_clips} clips of {found.waiting_videos} videos"
        what = f"{count} have no video row: a run was cut short, or is at work"
        look.problems.append(Problem(kind="unfinished", subject=space, what=what, remedy=look.reindex, space=space))
    version = look.archive.version("videos")
    is_known = found.is_complete and version == look.videos_version  # else a run has committed since: these are not all
    ids_N = np.concatenate(found.ids) if is_known else None
    if (wrong := indexes.check(look.archive, space, version, ids_N)) is not None:
        remedy = f"footage verify {look.archive.folder} --repair"
        look.problems.append(Problem(kind="index", subject=space, what=wrong, remedy=remedy, space=space))


def _counts(clips: pa.RecordBatch) -> dict[Revision, dict[str, Any]]:
    """What there is of each revision."""
    what = [("clip", "count"), ("clip", "count_distinct"), ("is_bad_vector", "any"), ("is_bad_thumbnail", "any")]
    rows = pa.Table.from_batches([clips]).group_by(["video", "revision"]).aggregate(what)
    return {(row["video"], row["revision"]): row for row in rows.to_pylist()}


def _count_unfinished(found: _Space, current: pa.RecordBatch, counts: Mapping[Revision, dict[str, Any]]) -> None:
    """Counts clips of revisions higher than any that a row names."""
    named = dict(zip(current["video"].to_pylist(), current["revision"].to_pylist(), strict=True))
    waiting = [row["clip_count"] for (video, revision), row in counts.items() if revision > named.get(video, 0)]
    found.waiting_videos += len(waiting)
    found.waiting_clips += sum(waiting)


def _check_counts(look: _Look, shown: Iterable[Mapping[str, Any]], counts: Mapping[Revision, dict[str, Any]]) -> bool:
    """Whether every shown video has the clips that its row counts, each once, all sound."""
    found_before = len(look.problems)
    for row in shown:
        found = counts.get((row["video"], row["revision"]), NOTHING)
        wrong: list[tuple[Kind, str]] = []
        if found["clip_count"] != found["clip_count_distinct"]:
            wrong.append(("doubled", "clips are there more than once"))
        elif found["clip_count"] != row["clip_count"]:
            wrong.append(("clip_count", f"{found['clip_count']} clips are there; its row counts {row['clip_count']}"))
        if found["is_bad_vector_any"]:
            wrong.append(("vector", "vectors are not of unit length, or not as wide as those of their space"))
        if found["is_bad_thumbnail_any"]:
            wrong.append(("thumbnail", "thumbnails are no pictures"))
        for kind, what in wrong:
            _video_problem(look, kind, row, what, look.repair)
    return len(look.problems) == found_before


def _video_problem(look: _Look, kind: Kind, row: Mapping[str, Any], what: str, remedy: str) -> None:
    look.problems.append(
        Problem(kind=kind, subject=row["uri"], what=what, remedy=remedy, space=row["space"], video_id=row["video_id"])
    )


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
