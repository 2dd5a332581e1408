"""Sets of ids as numbers: the same answers as sets of texts."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline import keys
from pipeline.keys import Keys

ids = st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}")
some_ids = st.lists(ids | st.sampled_from(["0" * 16, "f" * 16, "0" * 15 + "1"]), max_size=20)


@given(known=some_ids, asked=some_ids)
def test_what_is_in_a_set_is_what_was_put_in(known: list[str], asked: list[str]) -> None:
    made = Keys([keys.of_ids(pa.array(known, pa.string()))])
    assert len(made) == len(set(known))
    assert made.has(keys.of_ids(pa.array(asked, pa.string()))).to_pylist() == [each in known for each in asked]


@given(lots=st.lists(some_ids, max_size=4))
def test_lots_and_unions_are_one_set(lots: list[list[str]]) -> None:
    numbers = [keys.of_ids(pa.array(lot, pa.string())) for lot in lots]
    united = Keys(())
    for each in numbers:
        united |= Keys([each])
    everything = [video_id for lot in lots for video_id in lot]
    assert len(united) == len(Keys(numbers)) == len(set(everything))
    assert all(united.has(keys.of_ids(pa.array(everything, pa.string()))).to_pylist())


@given(st.lists(st.tuples(ids, st.integers(0, 1000)), max_size=30, unique=True))
def test_revisions_of_one_video_and_videos_of_one_revision_are_told_apart(pairs: list[tuple[str, int]]) -> None:
    rows = [{"video_id": video_id, "revision": revision} for video_id, revision in pairs]
    schema = pa.schema([("video_id", pa.string()), ("revision", pa.int32())])
    numbers_N = keys.of_revisions(pa.Table.from_pylist(rows, schema))
    assert len(Keys([numbers_N])) == len(pairs)
