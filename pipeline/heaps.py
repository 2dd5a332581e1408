"""Record batches on heaps by the hash in one column: in memory while they are few, in a temporary file once many.

Two streams that are too large to hold are compared this way: both go on heaps by the same hash, and what belongs
together lies on heaps of one number, a pair of which fits into memory. The file has no name, so that a process which is
killed leaves nothing behind.
"""

# N rows

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

HEAP_BITS = 6
HEAPS = 1 << HEAP_BITS  # of a million rows one holds some 16,000
ROWS_HELD = 50_000  # in memory, of all heaps together


class Heaps(ExitStack):
    """Rows of a schema on heaps by the top bits of the 64-bit hash in the column `key`; closing gives the disk back."""

    def __init__(self, schema: pa.Schema, key: str) -> None:
        super().__init__()
        self._schema = schema
        self._key = key
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._stored: list[list[tuple[int, int]]] = [[] for _ in range(HEAPS)]  # start and length in the file
        self._file: Any = None

    def add(self, rows: pa.RecordBatch) -> None:
        """Puts rows on their heaps."""
        self._held.append(rows)
        self._held_rows += rows.num_rows
        if self._held_rows >= ROWS_HELD:
            self._store()

    def _store(self) -> None:
        """Moves what is held to the file, a stretch for each heap."""
        if self._file is None:
            self._file = self.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # it is closed with us
        self._file.seek(0, 2)
        for places, rows in zip(self._stored, self._split(), strict=True):
            stretch = rows.serialize()
            places.append((self._file.tell(), stretch.size))
            self._file.write(stretch)
        self._held.clear()
        self._held_rows = 0

    def _split(self) -> Iterable[pa.RecordBatch]:
        """What is held, by heap."""
        rows = pa.concat_batches([*self._held, _none(self._schema)])
        heap_N = rows[self._key].to_numpy() >> np.uint64(64 - HEAP_BITS)
        order_N = np.argsort(heap_N, kind="stable")
        rows = rows.take(pa.array(order_N))
        bounds = np.searchsorted(heap_N[order_N], np.arange(HEAPS + 1))
        return [rows.slice(start, end - start) for start, end in pairwise(bounds)]

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The heaps in the order of their numbers, each in one piece; no rows may be added meanwhile."""
        for places, held in zip(self._stored, self._split(), strict=True):
            yield pa.concat_batches([*map(self._load, places), held])

    def _load(self, place: tuple[int, int]) -> pa.RecordBatch:
        """A stretch of the file."""
        start, length = place
        self._file.seek(start)
        return pa.ipc.read_record_batch(pa.py_buffer(self._file.read(length)), self._schema)


def _none(schema: pa.Schema) -> pa.RecordBatch:
    """No rows."""
    return pa.RecordBatch.from_pylist([], schema)


def last_of(rows: Any, key: str, order: Iterable[str]) -> Any:
    """Of rows (a batch or a table) that share a key the last by `order`; in order of the key."""
    rows = rows.sort_by([(key, "ascending"), *((name, "descending") for name in order)])
    keys_N = rows[key].to_numpy(zero_copy_only=False)
    is_first_N = np.concatenate([[True], keys_N[1:] != keys_N[:-1]]) if len(keys_N) else np.zeros(0, np.bool_)
    return rows.filter(pa.array(is_first_N))
