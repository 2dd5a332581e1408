"""Rows on heaps: all of them once, those of one hash together, and no more in memory than was agreed."""

from __future__ import annotations

import tempfile

import numpy as np
import pyarrow as pa
import pytest

from pipeline import heaps
from pipeline.heaps import HEAPS, Heaps, last_of

SCHEMA = pa.schema([("key", pa.uint64()), ("text", pa.string())])


def rows(count: int, seed: int = 0) -> pa.RecordBatch:
    keys_N = np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)
    return pa.record_batch([pa.array(keys_N), pa.array([f"row {key}" for key in keys_N])], schema=SCHEMA)


@pytest.mark.parametrize("held", [10, 10_000])
def test_every_row_comes_back_once_on_the_heap_of_its_hash(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heaps, "ROWS_HELD", held)
    batches = [rows(7, seed) for seed in range(40)]
    with Heaps(SCHEMA, "key") as made:
        for batch in batches:
            made.add(batch)
        found = list(made)
        assert [heap.num_rows for heap in made] == [heap.num_rows for heap in found], "as often as asked"
    assert len(found) == HEAPS
    for number, heap in enumerate(found):
        assert {key >> 58 for key in heap["key"].to_pylist()} <= {number}
    texts = [text for heap in found for text in heap["text"].to_pylist()]
    assert sorted(texts) == sorted(text for batch in batches for text in batch["text"].to_pylist())


def test_rows_added_after_a_look_are_found_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heaps, "ROWS_HELD", 10)
    with Heaps(SCHEMA, "key") as made:
        for seed in range(3):
            made.add(rows(25, seed))
            assert sum(heap.num_rows for heap in made) == 25 * (seed + 1)


def test_few_rows_need_no_file_and_many_need_one_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: pytest.fail("a file for so few"))
    with Heaps(SCHEMA, "key") as made:
        made.add(rows(100))
    monkeypatch.undo()
    monkeypatch.setattr(heaps, "ROWS_HELD", 100)
    with Heaps(SCHEMA, "key") as made:
        made.add(rows(100))
        file = made._file
        assert made._held == []
        assert isinstance(file.name, int), "a descriptor and no path: a killed process leaves nothing behind"
    assert file.closed


def test_the_last_of_the_rows_of_a_key_is_that_of_the_highest_order() -> None:
    table = pa.table({"key": [2, 1, 2, 1, 3], "first": [1, 1, 2, 1, 0], "then": [9, 1, 0, 2, 0], "name": list("abcde")})
    assert last_of(table, "key", ("first", "then"))["name"].to_pylist() == ["d", "c", "e"]
    assert last_of(table.slice(0, 0), "key", ("first", "then")).num_rows == 0
