"""What the archive knows of each file beside the files there are: enough to see what changed among a million of them.

A run that finds nothing new must take seconds and no more memory for more videos, so neither files nor rows become
objects unless something is to be done with them. Both go on heaps by the hash of their uri (`pipeline/heaps.py`), and
heaps of one number are compared, one pair after the other; whole rows are read for those few that matter.

A uri is known here by 64 bits of its hash. Two uris of a million share them with a chance of one in 30 million, and
then size and time of both must agree before a file is wrongly left alone.
"""

# F files of a run

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import keys, plan
from pipeline.heaps import Heaps, last_of
from pipeline.keys import Keys, Numbers
from pipeline.portions import Portion
from pipeline.sources import is_below
from schemas.records import HashedFile, SourceFile

COLUMNS = [
    "video_id", "revision", "indexed_at", "uri", "size_bytes", "mtime_s", "status", "permanent", "attempts"
]  # fmt: skip
READ_COLUMNS = [*COLUMNS, "space", "fingerprint"]
READ = ("ok", "partial", "duplicate")  # what a row says whose file was read to its end and is still there
FILES_PER_LOT = 10_000

_ROWS = pa.schema(
    [
        ("video", pa.uint64()),
        ("revision", pa.int32()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("place", pa.uint64()),  # the uri's hash
        ("size_bytes", pa.int64()),
        ("mtime_s", pa.float64()),
        ("is_live", pa.bool_()),
        ("is_settled", pa.bool_()),  # as far as the row goes, the file need not be read again
        ("is_below", pa.bool_()),  # in one of the folders that are walked
    ]
)
_FILES = pa.schema(
    [
        ("place", pa.uint64()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),  # null, as the next: something is there that could not be looked at
        ("mtime_s", pa.float64()),
    ]
)
_READ = pa.schema(
    [
        ("video", pa.uint64()),  # and the space
        ("revision", pa.int32()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("place", pa.uint64()),
        ("size_bytes", pa.int64()),
        ("mtime_s", pa.float64()),
        ("fingerprint", pa.string()),
        ("is_trusted", pa.bool_()),
    ]
)


@dataclass(slots=True)
class Difference:
    """What files and rows have to do with each other where they are not the same; all in no order."""

    to_read: list[SourceFile] = field(default_factory=list)
    known: list[str] = field(default_factory=list)  # videos at the uris of these, and of what could not be looked at
    missing: list[str] = field(default_factory=list)  # live videos whose files were not seen
    live: int = 0  # how many files the archive accounts for that are not gone


class Ledger(ExitStack):
    """The current rows of one space, and the files of a run beside them."""

    def __init__(self) -> None:
        super().__init__()
        self._rows = self.enter_context(Heaps(_ROWS, "place"))
        self._files = self.enter_context(Heaps(_FILES, "place"))

    def know(self, batches: Iterable[Any], folders: Sequence[str] = (), portion: Portion | None = None) -> None:
        """Takes in all rows of the space (`COLUMNS` of the videos table), current or not; `folders` are walked.

        Of videos that are not of the `portion` where they are now, nothing is known then.
        """
        # A video's rows may name several places: the last of them is found before places matter.
        with Heaps(_ROWS, "video") as rows:
            for batch in batches:
                rows.add(_compact(batch, folders))
            for heap in rows:
                last = last_of(heap, "video", ("revision", "at"))
                is_ours = None if portion is None else pa.array(portion.has_places(last["place"].to_numpy()))
                self._rows.add(last if is_ours is None else last.filter(is_ours))

    def _current(self) -> Iterator[pa.RecordBatch]:
        """The rows, a heap at a time, one for each place."""
        for heap in self._rows:
            # A live row shadows a gone one at the same place: the video moved away and another took it.
            yield last_of(heap, "place", ("is_live", "at"))

    def see(self, files: Iterable[SourceFile]) -> None:
        """Takes down files that are there."""
        source = iter(files)
        while lot := list(islice(source, FILES_PER_LOT)):
            uris = [file.uri for file in lot]
            self._note(uris, [file.size_bytes for file in lot], [file.mtime_s for file in lot])

    def mark_seen(self, uris: list[str]) -> None:
        """Takes down what is there although nothing is known of it now."""
        self._note(uris, [None] * len(uris), [None] * len(uris))

    def _note(self, uris: list[str], sizes: Sequence[int | None], times: Sequence[float | None]) -> None:
        """Puts files on their heaps."""
        columns = [keys.of_texts(uris), uris, sizes, times]
        self._files.add(pa.RecordBatch.from_arrays(list(map(pa.array, columns, _FILES.types)), schema=_FILES))

    def difference(self, *, trust_nothing: bool = False, anywhere: bool = False) -> Difference:
        """Compares the files with the rows.

        With `trust_nothing` every file is to be read; with `anywhere` all that was not seen is missing, and not only
        what lies below the folders that are walked.
        """
        found = Difference()
        for rows, files in zip(self._current(), self._files, strict=True):
            row = rows.take(pc.index_in(files["place"], value_set=rows["place"]))  # that of each file, or nulls
            is_there = pc.is_valid(files["size_bytes"])
            is_same = pc.and_(
                pc.fill_null(pc.and_(row["is_settled"], _looks_same(files, row)), False), not trust_nothing
            )
            to_read = files.filter(pc.and_not(is_there, is_same))
            found.to_read += map(SourceFile, *(to_read[name].to_pylist() for name in ("uri", "size_bytes", "mtime_s")))
            found.known += _ids(row["video"].filter(pc.invert(pc.and_(is_there, is_same))).drop_null())
            is_missing = pc.and_not(rows["is_live"], pc.is_in(rows["place"], value_set=files["place"]))
            found.missing += _ids(
                rows["video"].filter(is_missing if anywhere else pc.and_(is_missing, rows["is_below"]))
            )
            found.live += rows["is_live"].true_count
        return found

    def of_sizes(self, sizes_bytes: set[int]) -> list[str]:
        """Ids of live videos whose files are of one of these sizes."""
        wanted = pa.array(sizes_bytes, pa.int64())
        return [
            video_id
            for rows in self._current()
            for video_id in _ids(rows["video"].filter(pc.and_(pc.is_in(rows["size_bytes"], wanted), rows["is_live"])))
        ]

    def live_without(self, other: Ledger) -> list[str]:
        """Ids of live videos at places where another ledger has no live one."""
        return [
            video_id
            for mine, theirs in zip(self._current(), other._current(), strict=True)
            for video_id in _ids(
                _live(mine).filter(pc.invert(pc.is_in(_live(mine)["place"], _live(theirs)["place"])))["video"]
            )
        ]


class VideoIds:
    """Every video id that a space ever had, taken from rows that are not read before the first is asked for."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = batches

    @cached_property
    def _keys(self) -> Keys:
        """All of them."""
        return Keys(keys.of_ids(batch["video_id"]) for batch in self._batches)

    def has(self, video_id: str) -> bool:
        """Whether a video of this id is known."""
        return bool(self._keys.has(keys.of_ids(pa.array([video_id])))[0].as_py())


def read_before(batches: Callable[[list[str]], Iterable[Any]], files: Sequence[SourceFile]) -> list[HashedFile]:
    """Those files that some space has read as they are, with the fingerprints that they had then.

    `batches` gives columns of all rows of all spaces. A file is what it was if its size and time are those of the
    current row of a video that need not be read again; where spaces do not agree on its content, it must be.
    """
    looks = _Looks(files)
    places = Keys([looks.place_F])
    videos = Keys(
        _videos(batch.filter(places.has(keys.of_texts(batch["uri"].to_pylist()))))
        for batch in batches(["video_id", "space", "uri"])
    )
    if not len(videos):
        return []
    # All rows of these videos, wherever they were, since one that moved away says nothing of the place it had.
    with Heaps(_READ, "video") as rows:
        for batch in batches(READ_COLUMNS):
            rows.add(_readings(batch.filter(videos.has(_videos(batch)))))
        found = pa.concat_tables(looks.matched(last_of(heap, "video", ("revision", "at"))) for heap in rows)
    contents = found.group_by("file", use_threads=False).aggregate(
        [("fingerprint", "count_distinct"), ("fingerprint", "first")]
    )
    agreed = contents.filter(pc.equal(contents["fingerprint_count_distinct"], 1)).sort_by("file")
    known = zip(agreed["file"].to_pylist(), agreed["fingerprint_first"].to_pylist(), strict=True)
    return [HashedFile(files[number], fingerprint) for number, fingerprint in known]


class _Looks:
    """Places, sizes and times of F files, in the order of the places' numbers."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        place_F = keys.of_texts([file.uri for file in files])
        self._number_F = np.argsort(place_F, kind="stable")
        self.place_F = place_F[self._number_F]
        self._size_F = np.array([file.size_bytes for file in files], np.int64)[self._number_F]
        self._mtime_F = np.array([file.mtime_s for file in files], np.float64)[self._number_F]

    def matched(self, rows: pa.RecordBatch) -> pa.Table:
        """The numbers of the files that look as trusted rows say, and what these say is in them."""
        rows = rows.filter(rows["is_trusted"])
        place, size, mtime = (rows[name].to_numpy() for name in ("place", "size_bytes", "mtime_s"))
        at = np.minimum(np.searchsorted(self.place_F, place), len(self.place_F) - 1)
        is_same = (self.place_F[at] == place) & (self._size_F[at] == size) & (self._mtime_F[at] == mtime)
        numbers = pa.array(self._number_F[at[is_same]], pa.int64())
        return pa.table({"file": numbers, "fingerprint": rows["fingerprint"].filter(pa.array(is_same))})


def _videos(batch: Any) -> Numbers:
    """A number for the video of each row that no video of another space has."""
    return keys.of_ids(batch["video_id"]) ^ keys.of_texts(batch["space"].to_pylist())


def _readings(batch: Any) -> pa.RecordBatch:
    """Rows of the videos table in `_READ`."""
    standing = list(zip(*(batch[name].to_pylist() for name in ("status", "permanent", "attempts")), strict=True))
    columns = [
        pa.array(_videos(batch)),
        batch["revision"],
        batch["indexed_at"],
        pa.array(keys.of_texts(batch["uri"].to_pylist())),
        *(batch[name] for name in ("size_bytes", "mtime_s", "fingerprint")),
        pa.array([each[0] in READ and plan.is_settled(*each) for each in standing], pa.bool_()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_READ)


def _compact(batch: Any, folders: Sequence[str]) -> pa.RecordBatch:
    """A batch of rows of the videos table as rows of the ledger."""
    uris = batch["uri"].to_pylist()
    standing = zip(*(batch[name].to_pylist() for name in ("status", "permanent", "attempts")), strict=True)
    columns = [
        pa.array(keys.of_ids(batch["video_id"])),
        batch["revision"],
        batch["indexed_at"],
        pa.array(keys.of_texts(uris)),
        batch["size_bytes"],
        batch["mtime_s"],
        pc.not_equal(batch["status"], "gone"),
        pa.array([plan.is_settled(*each) for each in standing], pa.bool_()),
        pa.array([any(is_below(uri, folder) for folder in folders) for uri in uris], pa.bool_()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_ROWS)


def _looks_same(files: pa.RecordBatch, rows: pa.RecordBatch) -> Any:
    """Whether files have the size and the time of their rows; null where there is no row."""
    return pc.and_(*(pc.equal(files[name], rows[name]) for name in ("size_bytes", "mtime_s")))


def _live(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Those that are not gone."""
    return rows.filter(rows["is_live"])


def _ids(numbers: Any) -> list[str]:
    """Video ids as text."""
    return [f"{number:016x}" for number in numbers.to_pylist()]
