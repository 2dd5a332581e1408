"""Where the clips of a space lie, file and row: what saves a search from reading whole tables.

An index keeps the places of when it was built. They are hints: whoever reads by them looks at the ids of the rows, and
looks for those clips that were not where they should be, because files were merged since. Of each clip the revision is
kept too, so that what can be seen is found without another look at the table.
"""

# N clips

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from pipeline import keys
from pipeline.keys import Numbers

PLACES_FILE = "places.arrow"
VECTORS_PER_BATCH = 16_384  # 32 MB at 512 dimensions
_COLUMNS = pa.schema(
    [
        ("clip", pa.uint64()),
        ("video", pa.uint64()),
        ("file", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int32()),
    ]
)  # in the order of `clip`, the number of a clip's id; `video` is that of its revision, as `keys.of_revisions` has it


@dataclass(frozen=True, slots=True)
class Places:
    """N places in the order of their clips' numbers, and the files they are in, as the table names them."""

    clips_N: Numbers
    videos_N: Numbers  # numbers of revisions
    files_N: NDArray[np.int32]  # which of `files`
    rows_N: NDArray[np.int32]
    files: tuple[str, ...]

    def find(self, numbers: Numbers) -> dict[str, list[int]]:
        """The rows of some clips by file, in order; a clip that is in no place is left out."""
        found: dict[str, list[int]] = {}
        at = np.searchsorted(self.clips_N, numbers)
        inside = at[at < len(self.clips_N)]
        known = np.unique(inside[np.isin(self.clips_N[inside], numbers)])
        for file, row in zip(self.files_N[known].tolist(), self.rows_N[known].tolist(), strict=True):
            found.setdefault(self.files[file], []).append(row)
        return {file: sorted(rows) for file, rows in found.items()}

    def of_clips(self, numbers: Numbers) -> set[str]:
        """The files that hold some clips."""
        return {self.files[file] for file in np.unique(self.files_N[np.isin(self.clips_N, numbers)])}

    def save(self, folder: Path) -> None:
        """Writes a file that `load` maps into memory."""
        files = pa.DictionaryArray.from_arrays(pa.array(self.files_N), pa.array(self.files, pa.string()))
        columns = [pa.array(self.clips_N), pa.array(self.videos_N), files, pa.array(self.rows_N)]
        table = pa.table(columns, schema=_COLUMNS)
        with pa.OSFile(str(folder / PLACES_FILE), "wb") as sink, pa.ipc.new_file(sink, _COLUMNS) as writer:
            writer.write_table(table)


def load(file: Path) -> Places | None:
    """The places in a file, which stays mapped; None where there is none, or none that can be read."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        table.validate(full=True)
    except (OSError, pa.ArrowInvalid):
        return None
    return _of_table(table) if table.schema.equals(_COLUMNS) else None


def _of_table(table: pa.Table) -> Places:
    """Columns as arrays, which stay where they are."""
    table = table.combine_chunks()
    clips, videos, files, rows = (
        table[name].chunk(0) if table.num_rows else pa.array([], table[name].type) for name in _COLUMNS.names
    )
    names = tuple(files.dictionary.to_pylist())
    return Places(clips.to_numpy(), videos.to_numpy(), files.indices.to_numpy(), rows.to_numpy(), names)


def of_dataset(clips: ds.Dataset, space: str, known: Places | None = None) -> Places:
    """The places of all clips of a space, shown or not, by reading the columns that name them.

    Files of places that are `known` are not read again, if they are all there: committed files do not change.
    """
    fragments = {each.path: each for each in clips.get_fragments(filter=pc.field("space") == space)}
    if known is None or not fragments.keys() >= set(known.files):
        known = EMPTY
    lots = [known]
    for path in fragments.keys() - set(known.files):
        rows = fragments[path].to_table(schema=clips.schema, columns=["clip_id", "video_id", "revision"])
        count = rows.num_rows
        clips_N, videos_N = keys.of_ids(rows["clip_id"]), keys.of_revisions(rows)
        lots.append(Places(clips_N, videos_N, np.zeros(count, np.int32), np.arange(count, dtype=np.int32), (path,)))
    return _joined(lots)


EMPTY = Places(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.int32), ())


def _joined(lots: list[Places]) -> Places:
    """Places of different files as one."""
    starts = accumulate((len(lot.files) for lot in lots), initial=0)
    files_N = np.concatenate([lot.files_N + np.int32(start) for lot, start in zip(lots, starts, strict=False)])
    clips_N = np.concatenate([lot.clips_N for lot in lots])
    order = np.argsort(clips_N, kind="stable")
    return Places(
        clips_N[order],
        np.concatenate([lot.videos_N for lot in lots])[order],
        files_N[order],
        np.concatenate([lot.rows_N for lot in lots])[order],
        tuple(file for lot in lots for file in lot.files),
    )


def vector_batches(clips: ds.Dataset, space: str, files: Collection[str], seed: int | None) -> Iterator[pa.RecordBatch]:
    """See `Archive.vector_batches`."""
    pieces = [each for each in clips.get_fragments(filter=pc.field("space") == space) if each.path in files]
    if seed is not None:
        pieces = [group for piece in pieces for group in piece.split_by_row_group()]
        np.random.default_rng(seed).shuffle(pieces)
    columns = ["clip_id", "video_id", "revision", "embedding"]
    for piece in pieces:
        yield from piece.to_batches(schema=clips.schema, columns=columns, batch_size=VECTORS_PER_BATCH)


class ClipReader:
    """Rows of the clips of a space by id, out of one snapshot of the table."""

    def __init__(self, clips: ds.Dataset, space: str, places: Places | None) -> None:
        self._clips = clips
        self._space = space
        self._places = places
        self._fragments = {each.path: each for each in clips.get_fragments(filter=pc.field("space") == space)}

    def rows(self, clip_ids: list[str], columns: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Rows of the named clips by clip_id, in the order asked; one that is not there is left out."""
        found = self._read(clip_ids, columns)
        if len(found) < len(set(clip_ids)):
            # Not all lie where they did: files were merged since, or the index is older than places.
            self._places = of_dataset(self._clips, self._space)
            found |= self._read([clip_id for clip_id in clip_ids if clip_id not in found], columns)
        return {clip_id: found[clip_id] for clip_id in clip_ids if clip_id in found}

    def _read(self, clip_ids: list[str], columns: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Those of the named clips that are where the places say."""
        ids = pa.array(clip_ids, pa.string())
        places = self._places.find(keys.of_ids(ids)) if self._places else {}
        pieces = [_piece(self._fragments[file], rows) for file, rows in places.items() if file in self._fragments]
        if not pieces:
            return {}
        part = ds.FileSystemDataset(pieces, self._clips.schema, self._clips.format, self._clips.filesystem)
        wanted = pc.is_in(pc.field("clip_id"), ids) & (pc.field("space") == self._space)
        needed = list(dict.fromkeys([*columns, "clip_id"]))
        return {row["clip_id"]: row for row in part.to_table(columns=needed, filter=wanted).to_pylist()}


def _piece(fragment: ds.ParquetFileFragment, rows: list[int]) -> ds.ParquetFileFragment:
    """Of a file the row groups that hold some rows; a row beyond its end is in the last."""
    ends = list(accumulate(group.num_rows for group in fragment.row_groups))
    return fragment.subset(row_group_ids=sorted({min(bisect_right(ends, row), len(ends) - 1) for row in rows}))
