"""Rows of the tags table: which of them count, and which go, whatever else is in it."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from pipeline import heaps, tag_rows
from pipeline.archive import Archive
from pipeline.keys import Keys
from tests.pipeline.factories import NOON, SPACE, add_tags, drop_tags, tag_table

IDS = [f"{number * 0x0123456789ABCDEF % (1 << 64):016x}" for number in range(1, 200)]


def tag_row(clip: str, label_set: str, label: str, space: str = SPACE, **changes) -> dict:
    return {
        "clip_id": clip.zfill(16), "video_id": "0" * 16, "space": space, "label_set": label_set, "label": label,
        "rank": 1, "probability": 0.5, "score": 3.0, "tagged_at": NOON, **changes,
    }  # fmt: skip


def tags(archive: Archive, space: str = SPACE) -> set[tuple[str, str, str]]:
    rows = tag_table(archive, space).to_pylist()
    return {(row["clip_id"].lstrip("0"), row["label_set"], row["label"]) for row in rows}


def counted(archive: Archive, space: str = SPACE) -> set[tuple[str, str]]:
    """Clip and label of the rows that count."""
    found = [row for batch in tag_rows.that_count(archive, space, ["label"]) for row in batch.to_pylist()]
    assert len(found) == len({(row["clip"], row["label"]) for row in found}), "none twice"
    return {(f"{row['clip']:016x}", row["label"]) for row in found}


@pytest.fixture
def archive(tmp_path) -> Archive:
    return Archive.create(tmp_path / "archive")


def test_what_is_made_anew_replaces_the_rows_of_its_own_label_set_only(archive: Archive) -> None:
    add_tags(archive, [tag_row("1", "set1", "run"), tag_row("2", "set1", "walk", tagging="old")])
    add_tags(archive, [tag_row("1", "set2", "indoors")])
    add_tags(archive, [tag_row("1", "set1", "run", "other")])
    add_tags(archive, [tag_row("3", "set1", "jump", tagging="new"), tag_row("4", "set1", "sit", tagging="new")])
    shown = Keys([np.array([1, 2, 3], np.uint64)])
    assert tag_rows.drop_others(archive, SPACE, "set1", "new", shown) == 3
    assert tags(archive) == {("3", "set1", "jump"), ("1", "set2", "indoors")}
    assert tags(archive, "other") == {("1", "set1", "run")}


def test_all_rows_of_a_label_set_can_go(archive: Archive) -> None:
    add_tags(archive, [tag_row("1", "set1", "run"), tag_row("1", "set1", "walk", tagging="new")])
    drop_tags(archive, SPACE, "set1")
    assert tags(archive) == set()


def test_labels_of_any_text_are_kept(archive: Archive) -> None:
    label = 'it\'s a "dog"; DROP TABLE tags -- 🎉'
    add_tags(archive, [tag_row("1", "set1", label)])
    assert tags(archive) == {("1", "set1", label)}
    assert counted(archive) == {("0" * 15 + "1", label)}


@pytest.mark.parametrize("held", [20, 100_000])
def test_of_a_clip_and_a_label_set_the_newest_lot_counts(held: int, archive: Archive, monkeypatch) -> None:
    """Whatever the order in which lots were written, in memory and out of a file."""
    monkeypatch.setattr(heaps, "ROWS_HELD", held)
    later, earlier = NOON + timedelta(minutes=1), NOON - timedelta(minutes=1)
    add_tags(archive, [tag_row(each, "s", "new", tagged_at=later) for each in IDS[:50]])
    add_tags(archive, [tag_row(each, "s", label) for each in IDS for label in ("old", "second")])
    add_tags(archive, [tag_row(each, "s", "older", tagged_at=earlier) for each in IDS])
    add_tags(archive, [tag_row(each, "r", "night", tagged_at=earlier) for each in IDS[:10]])
    add_tags(archive, [tag_row(each, "s", "elsewhere", "other") for each in IDS])
    expected = {(each, "new") for each in IDS[:50]} | {(each, "night") for each in IDS[:10]}
    assert counted(archive) == expected | {(each, label) for each in IDS[50:] for label in ("old", "second")}
    assert counted(archive, "other") == {(each, "elsewhere") for each in IDS}


def test_where_there_are_no_tags_none_count(archive: Archive) -> None:
    assert counted(archive) == set()


def test_the_rows_of_one_video_are_those_that_count(archive: Archive) -> None:
    later, other = NOON + timedelta(minutes=1), "1" * 16
    add_tags(archive, [tag_row(each, "s", "old") for each in IDS[:3]])
    add_tags(archive, [tag_row(IDS[0], "s", "new", tagged_at=later), tag_row(IDS[0], "r", "night")])
    add_tags(archive, [tag_row(IDS[4], "s", "another's", video_id=other)])
    found = tag_rows.of_video(archive, SPACE, "0" * 16, ["clip_id", "label"]).to_pylist()
    expected = {(IDS[0], "new"), (IDS[0], "night"), (IDS[1], "old"), (IDS[2], "old")}
    assert {(row["clip_id"], row["label"]) for row in found} == expected
    assert tag_rows.of_video(archive, SPACE, "2" * 16, ["label"]).num_rows == 0
