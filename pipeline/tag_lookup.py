"""The tags of named clips, of all label sets, out of a temporary file: an archive may have more than memory holds."""

# N clips, R rows

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import keys, tag_rows
from pipeline.archive import Archive
from pipeline.heaps import HEAP_BITS
from schemas import tables

COLUMNS = ["label_set", "label", "rank", "probability", "score", "basis"]
TAGS_TYPE = pa.list_(pa.struct([tables.TAGS.field(name) for name in COLUMNS]))
_ROWS = pa.schema([("clip", pa.uint64()), *(tables.TAGS.field(name) for name in COLUMNS)])


class TagLookup(ExitStack):
    """The newest tags of every clip of a space, in a temporary file that is mapped into memory."""

    def __init__(self, archive: Archive, space: str) -> None:
        super().__init__()
        self.count = 0  # rows
        self._heaps = self._mapped(self._write(archive, space))

    def _write(self, archive: Archive, space: str) -> Path:
        """Writes a stretch of rows for each heap, in the order of clips, label sets and ranks."""
        file = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="footage-")), "tags.arrow")
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, _ROWS) as writer:
            for heap in tag_rows.that_count(archive, space, COLUMNS):
                self.count += heap.num_rows
                writer.write_batch(heap.sort_by([(name, "ascending") for name in ("clip", "label_set", "rank")]))
        return file

    def _mapped(self, file: Path) -> list[pa.RecordBatch]:
        """The stretches, by the number of their heap; nothing is read until it is looked at."""
        source = self.enter_context(pa.memory_map(str(file)))
        reader = pa.ipc.open_file(source)
        return [reader.get_batch(place) for place in range(reader.num_record_batches)]

    def of(self, clip_ids: Any) -> pa.ListArray:
        """The tags of each clip, N lists; empty ones where there are none."""
        pieces = [self._of(number) for number in keys.of_ids(clip_ids)]
        offsets = np.concatenate([[0], np.cumsum([piece.num_rows for piece in pieces])])
        rows = pa.concat_batches([*pieces, pa.RecordBatch.from_pylist([], _ROWS)])
        values = pa.StructArray.from_arrays([rows[name] for name in COLUMNS], fields=list(TAGS_TYPE.value_type))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, TAGS_TYPE)

    def _of(self, number: np.uint64) -> pa.RecordBatch:
        """The tags of a clip."""
        heap = self._heaps[int(number >> np.uint64(64 - HEAP_BITS))]
        clips_R = heap["clip"].to_numpy()
        first, end = (int(np.searchsorted(clips_R, number, side)) for side in ("left", "right"))
        return heap.slice(first, end - first)
