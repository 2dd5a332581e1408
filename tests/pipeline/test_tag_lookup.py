"""The tags of named clips: of all label sets, the newest of each, in order, from however many rows."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest

from pipeline import heaps, tag_rows
from pipeline.archive import Archive
from pipeline.tag_lookup import TAGS_TYPE, TagLookup
from schemas import tables
from tests.pipeline.factories import NOON, SPACE

IDS = [f"{number * 0x0123456789ABCDEF % (1 << 64):016x}" for number in range(1, 200)]


def rows(label: str, ids=IDS, *, minutes: int = 0, label_set: str = "s", rank: int = 1) -> pa.RecordBatch:
    """A tag for each clip."""
    shared = {"space": SPACE, "label_set": label_set, "label": label, "rank": rank, "video_id": "0" * 16}
    at = NOON + timedelta(minutes=minutes)
    found = [{**shared, "clip_id": clip_id, "tagged_at": at, "basis": "softmax, uncalibrated"} for clip_id in ids]
    return pa.RecordBatch.from_pylist(found, tables.TAGS)


@pytest.fixture
def archive(tmp_path) -> Archive:
    return Archive.create(tmp_path / "archive")


@pytest.mark.parametrize("held", [20, 100_000])
def test_every_clip_gets_its_own_in_the_order_asked(held: int, archive: Archive, monkeypatch) -> None:
    monkeypatch.setattr(heaps, "ROWS_HELD", held)
    tag_rows.add(archive, [rows("second", rank=2), rows("first"), rows("night", IDS[:50], label_set="r")])
    with TagLookup(archive, SPACE) as tags:
        asked = ["f" * 16, *reversed(IDS), IDS[0]]
        found = tags.of(pa.array(asked))
        assert tags.count == 2 * len(IDS) + 50
    assert found.type == TAGS_TYPE
    expected = {each: ["night", "first", "second"] if each in IDS[:50] else ["first", "second"] for each in IDS}
    assert [[tag["label"] for tag in each] for each in found.to_pylist()] == [expected.get(each, []) for each in asked]


def test_of_a_clip_and_a_set_the_newest_lot_counts(archive: Archive) -> None:
    tag_rows.add(archive, [rows("new", IDS[:3], minutes=5)])
    tag_rows.add(archive, [rows("old"), rows("older", minutes=-5), rows("other", label_set="r")])
    with TagLookup(archive, SPACE) as tags:
        found = tags.of(pa.array(IDS[:5])).to_pylist()
    assert [[tag["label"] for tag in each] for each in found] == [["other", "new"]] * 3 + [["other", "old"]] * 2


def test_where_there_are_no_tags_there_are_none(archive: Archive) -> None:
    with TagLookup(archive, SPACE) as tags:
        assert tags.count == 0
        assert tags.of(pa.array(IDS[:2])).to_pylist() == [[], []]


def test_tags_of_another_space_are_anothers(archive: Archive) -> None:
    tag_rows.add(archive, [rows("first")])
    with TagLookup(archive, "other") as tags:
        assert tags.count == 0
