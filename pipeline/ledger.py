"""What the archive knows about each file, as a few numbers: enough to see what changed among a million of them.

A run that finds nothing new must take seconds and little memory, so neither files nor rows become objects unless
something is to be done with them. Files come by one at a time and are compared in lots; of the archive's rows only
forty bytes each are held, and whole rows are read for those few that matter.

A uri is known here by 64 bits of its hash. Two uris of a million share them with a chance of one in 30 million, and
then size and time of both must agree before a file is wrongly left alone.
"""

# N rows, V videos, M files of a lot

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline import plan
from pipeline.sources import is_below
from schemas.records import SourceFile

COLUMNS = [
    "video_id", "revision", "indexed_at", "uri", "size_bytes", "mtime_s", "status", "permanent", "attempts"
]  # fmt: skip
FILES_PER_LOT = 10_000

_ROW = np.dtype(
    [
        ("video", np.uint64),
        ("revision", np.int32),
        ("at_us", np.int64),
        ("uri", np.uint64),
        ("size_bytes", np.int64),
        ("mtime_s", np.float64),
        ("is_live", np.bool_),
        ("is_settled", np.bool_),  # as far as the row goes, the file need not be read again
        ("is_below", np.bool_),  # in one of the folders that are walked
    ]
)


class Ledger:
    """The current rows of one space, and which of them have been seen among the files of a run."""

    def __init__(self, rows_N: NDArray[Any], videos_V: NDArray[np.uint64]) -> None:
        self.rows_N = rows_N  # in order of uri
        self.seen_N = np.zeros(len(rows_N), np.bool_)
        self._videos_V = videos_V  # every id there ever was, in order

    @classmethod
    def of(cls, batches: Iterable[Any], folders: Sequence[str] = ()) -> Ledger:
        """The ledger of batches of rows of the videos table (`COLUMNS`), of which `folders` are walked."""
        lots = [_compact(batch, folders) for batch in batches]
        rows_N = np.concatenate(lots) if lots else np.zeros(0, _ROW)
        lots.clear()
        rows_N = _last(rows_N, "video", ("revision", "at_us"))
        # A live row shadows a gone one at the same place: the video moved away and another took it.
        return cls(_last(rows_N, "uri", ("is_live", "at_us")), rows_N["video"].copy())

    def __len__(self) -> int:
        return len(self.rows_N)

    @property
    def live(self) -> int:
        """How many files the archive accounts for that are not gone."""
        return int(np.count_nonzero(self.rows_N["is_live"]))

    def has_video(self, video_id: str) -> bool:
        """Whether a video of this id is known."""
        number = np.uint64(int(video_id, 16))
        place = int(np.searchsorted(self._videos_V, number))
        return place < len(self._videos_V) and bool(self._videos_V[place] == number)

    def see(self, files: Iterable[SourceFile], *, trust_nothing: bool = False) -> list[SourceFile]:
        """Marks files as seen; those that must be read, in no order. With `trust_nothing` that is all of them."""
        source = iter(files)
        to_read: list[SourceFile] = []
        while lot := list(islice(source, FILES_PER_LOT)):
            place_M, is_known_M = self._find([file.uri for file in lot])
            self.seen_N[place_M[is_known_M]] = True
            found_M = self.rows_N[place_M] if len(self) else np.zeros(len(lot), _ROW)
            is_same_M = is_known_M & found_M["is_settled"] & _looks_same(lot, found_M)
            to_read += lot if trust_nothing else [file for file, same in zip(lot, is_same_M, strict=True) if not same]
        return to_read

    def _find(self, uris: list[str]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where rows of M uris are, and whether there are any."""
        hash_M = _hashes(uris)
        if not len(self):
            return np.zeros(len(uris), np.intp), np.zeros(len(uris), np.bool_)
        place_M = np.minimum(np.searchsorted(self.rows_N["uri"], hash_M), len(self) - 1)
        return place_M, self.rows_N["uri"][place_M] == hash_M

    def mark_seen(self, uris: list[str]) -> None:
        """Marks files as there although nothing is known of them now."""
        place_M, is_known_M = self._find(uris)
        self.seen_N[place_M[is_known_M]] = True

    def missing(self, *, anywhere: bool) -> list[str]:
        """Ids of live videos whose files were not seen: below the folders walked, or `anywhere`."""
        is_missing_N = self.rows_N["is_live"] & ~self.seen_N
        return _ids(self.rows_N[is_missing_N if anywhere else is_missing_N & self.rows_N["is_below"]])

    def of_uris(self, uris: list[str]) -> list[str]:
        """Ids of the videos at these uris."""
        place_M, is_known_M = self._find(uris)
        return _ids(self.rows_N[place_M[is_known_M]])

    def of_sizes(self, sizes_bytes: set[int]) -> list[str]:
        """Ids of live videos whose files are of one of these sizes."""
        wanted = np.fromiter(sizes_bytes, np.int64, len(sizes_bytes))
        return _ids(self.rows_N[np.isin(self.rows_N["size_bytes"], wanted) & self.rows_N["is_live"]])


def _compact(batch: Any, folders: Sequence[str]) -> NDArray[Any]:
    """A batch of rows of the videos table as rows of the ledger."""
    rows_N = np.zeros(batch.num_rows, _ROW)
    uris = batch.column("uri").to_pylist()
    standing = zip(*(batch.column(name).to_pylist() for name in ("status", "permanent", "attempts")), strict=True)
    rows_N["video"] = [int(video_id, 16) for video_id in batch.column("video_id").to_pylist()]
    rows_N["revision"] = batch.column("revision").to_numpy(zero_copy_only=False)
    rows_N["at_us"] = batch.column("indexed_at").to_numpy(zero_copy_only=False).astype("datetime64[us]").view(np.int64)
    rows_N["uri"] = _hashes(uris)
    rows_N["size_bytes"] = batch.column("size_bytes").to_numpy(zero_copy_only=False)
    rows_N["mtime_s"] = batch.column("mtime_s").to_numpy(zero_copy_only=False)
    rows_N["is_settled"] = [plan.is_settled(*each) for each in standing]
    rows_N["is_live"] = [status != "gone" for status in batch.column("status").to_pylist()]
    rows_N["is_below"] = [any(is_below(uri, folder) for folder in folders) for uri in uris]
    return rows_N


def _last(rows_N: NDArray[Any], key: str, order: tuple[str, ...]) -> NDArray[Any]:
    """Of the rows that share a key the last by `order`; in order of the key."""
    sorted_N: NDArray[Any] = rows_N[np.lexsort([rows_N[name] for name in (*reversed(order), key)])]
    keys_N = sorted_N[key]
    is_last_N = np.append(keys_N[1:] != keys_N[:-1], np.ones(min(1, len(keys_N)), np.bool_))
    last_N: NDArray[Any] = sorted_N[is_last_N]
    return last_N


def _looks_same(files: list[SourceFile], rows_M: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether files have the size and the time of their rows."""
    size_M = np.fromiter((file.size_bytes for file in files), np.int64, len(files))
    mtime_M = np.fromiter((file.mtime_s for file in files), np.float64, len(files))
    same_M: NDArray[np.bool_] = (size_M == rows_M["size_bytes"]) & (mtime_M == rows_M["mtime_s"])
    return same_M


def _hashes(uris: list[str]) -> NDArray[np.uint64]:
    """64 bits for each uri."""
    return np.fromiter((xxhash.xxh3_64_intdigest(uri.encode()) for uri in uris), np.uint64, len(uris))


def _ids(rows: NDArray[Any]) -> list[str]:
    """The video ids of rows, as text."""
    return [f"{number:016x}" for number in rows["video"].tolist()]
