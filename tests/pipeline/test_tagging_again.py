"""Tagging again: only what is new is scored, what is over goes, and an interrupted run has lost nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipeline import delta_log, tag_rows, tagged, tagging
from pipeline.interrupts import Stopped
from pipeline.label_sets import BACKGROUND, NONE, Label, LabelSet
from pipeline.progress import Progress
from pipeline.serving import OpenSpace
from pipeline.tagged import Tag
from pipeline.tagging import TagReport, TagSettings
from schemas import tables
from schemas.errors import InputError
from tests.pipeline.conftest import CLIPS, VIDEOS
from tests.pipeline.factories import NOON, add_tags, drop_tags, tag_table

LABELS = LabelSet((Label("run", ("a person runs", "running")), Label("snow", ("snow",)), Label("rain", ("it rains",))))
SOME, ALL = TagSettings(top=1), TagSettings(top=0)


def tags_of(opened: OpenSpace, labels: LabelSet = LABELS) -> list[Tag]:
    return [each for video in tagged.videos(opened.archive, opened.space, labels.id) for each in video.tags]


def hide(opened: OpenSpace, *numbers: int, status: str = "gone") -> None:
    """Videos that cannot be seen any more, or again."""
    known = opened.archive.known_videos(opened.space)
    rows = [known[f"/videos/{number}.mp4"] for number in numbers]
    later = [
        replace(row, status=status, indexed_at=row.indexed_at.replace(year=row.indexed_at.year + 1)) for row in rows
    ]
    opened.archive.commit_videos(later)


def rows_in(opened: OpenSpace) -> int:
    return opened.archive.tag_count(opened.space)


def test_a_second_run_has_nothing_to_do_and_writes_nothing(own_stock: OpenSpace) -> None:
    first = tagging.tag(own_stock, LABELS, ALL)
    version, before = own_stock.archive.version("tags"), tags_of(own_stock)
    again = tagging.tag(own_stock, LABELS, ALL)
    assert (first.new, again.new, again.dropped) == (VIDEOS * CLIPS, 0, 0)
    assert again.labels == first.labels
    assert own_stock.archive.version("tags") == version
    assert tags_of(own_stock) == before


def test_little_by_little_gives_the_same_answer_as_at_once(own_stock: OpenSpace) -> None:
    hide(own_stock, 1, 3, 4)
    part = tagging.tag(own_stock, LABELS, ALL)
    hide(own_stock, 1, 3, 4, status="ok")
    rest = tagging.tag(own_stock, LABELS, ALL)
    assert (part.new, rest.new) == (3 * CLIPS, 3 * CLIPS)
    bit_by_bit = tags_of(own_stock)
    drop_tags(own_stock.archive, own_stock.space, LABELS.id)
    assert tagging.tag(own_stock, LABELS, ALL).new == VIDEOS * CLIPS
    at_once = tags_of(own_stock)
    assert [(e.clip_id, e.label, e.rank) for e in bit_by_bit] == [(e.clip_id, e.label, e.rank) for e in at_once]
    assert [e.score for e in bit_by_bit] == pytest.approx([e.score for e in at_once], abs=1e-4)
    assert [e.probability for e in bit_by_bit] == pytest.approx([e.probability for e in at_once], abs=1e-5)


def test_tags_of_clips_that_are_seen_no_more_go(own_stock: OpenSpace) -> None:
    tagging.tag(own_stock, LABELS, ALL)
    hide(own_stock, 0, 2)
    report = tagging.tag(own_stock, LABELS, ALL)
    assert (report.clips, report.new, report.dropped) == (4 * CLIPS, 0, 2 * CLIPS * 3)
    assert rows_in(own_stock) == 4 * CLIPS * 3
    assert {each.uri for each in tags_of(own_stock)} == {f"/videos/{number}.mp4" for number in (1, 3, 4, 5)}


def test_other_settings_score_again_and_replace_what_was_there(own_stock: OpenSpace) -> None:
    for settings, rows in ((ALL, 3), (SOME, 1), (TagSettings(top=0, background=True), 4)):
        report = tagging.tag(own_stock, LABELS, settings)
        assert report.new == VIDEOS * CLIPS
        assert rows_in(own_stock) == VIDEOS * CLIPS * rows


def test_one_set_says_nothing_of_another(own_stock: OpenSpace) -> None:
    other = LabelSet((Label("night", ("at night",)),))
    tagging.tag(own_stock, other)
    tagging.tag(own_stock, LABELS, SOME)
    assert rows_in(own_stock) == 2 * VIDEOS * CLIPS
    assert tagged.chosen_set(own_stock.archive, own_stock.space, None) == LABELS.id
    assert {each.label for each in tags_of(own_stock, other)} == {"night"}


def test_rows_of_an_earlier_version_are_found_and_then_replaced(own_stock: OpenSpace) -> None:
    ids = own_stock.archive.visible_clips(own_stock.space, ["clip_id", "video_id"]).to_pylist()
    row = {
        "space": own_stock.space,
        "label_set": LABELS.id,
        "label": "old",
        "rank": 1,
        "probability": 0.5,
        "score": 1.0,
    }
    add_tags(own_stock.archive, [row | each | {"tagged_at": NOON} for each in ids])
    assert {each.basis for each in tags_of(own_stock)} == {"softmax, uncalibrated"}
    report = tagging.tag(own_stock, LABELS, SOME)
    assert (report.new, report.dropped) == (len(ids), len(ids))
    assert "old" not in {each.label for each in tags_of(own_stock)}


def test_a_table_of_an_earlier_version_gets_the_columns_it_lacks(own_stock: OpenSpace) -> None:
    from deltalake import DeltaTable, write_deltalake

    old = pa.schema([field for field in tables.TAGS if field.name not in ("basis", "tagging")])
    place = own_stock.archive.folder / "tags"
    for file in sorted(place.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    row = {
        "clip_id": "0" * 16,
        "video_id": "0" * 16,
        "space": own_stock.space,
        "label_set": "s",
        "label": "x",
        "rank": 1,
    }
    write_deltalake(str(place), pa.Table.from_pylist([row], schema=old))
    assert tag_table(own_stock.archive, own_stock.space)["basis"].to_pylist() == [None], (
        "and reads as nothing until then"
    )
    tagging.tag(own_stock, LABELS, SOME)
    assert [field.name for field in DeltaTable(str(place)).schema().fields] == tables.TAGS.names
    assert rows_in(own_stock) == 1 + VIDEOS * CLIPS


def test_two_runs_at_once_leave_one_answer(own_stock: OpenSpace) -> None:
    tagging.tag(own_stock, LABELS, ALL)
    before = tags_of(own_stock)
    (batch,) = tag_table(own_stock.archive, own_stock.space).to_batches()
    later = pa.array([NOON] * batch.num_rows, tables.TAGS.field("tagged_at").type)
    twin = batch.set_column(tables.TAGS.names.index("tagged_at"), "tagged_at", later)
    tag_rows.add(own_stock.archive, [twin])
    assert rows_in(own_stock) == 2 * VIDEOS * CLIPS * 3
    assert tags_of(own_stock) == before, "the older lot, which NOON is, does not count"


# --- interruptions


def in_lots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit for every few clips."""
    monkeypatch.setattr(tagging, "CLIPS_PER_BATCH", 2)
    monkeypatch.setattr(tagging, "ROWS_PER_LOT", 1)


def test_a_run_that_dies_has_lost_nothing_that_was_committed(own_stock: OpenSpace, monkeypatch) -> None:
    in_lots(monkeypatch)
    monkeypatch.setattr(tagging, "choose", dying(tagging.choose, after=4))
    with pytest.raises(RuntimeError, match="power cut"):
        tagging.tag(own_stock, LABELS, ALL)
    assert rows_in(own_stock) == 4 * 2 * 3
    monkeypatch.undo()
    report = tagging.tag(own_stock, LABELS, ALL)
    assert report.new == VIDEOS * CLIPS - 8
    assert rows_in(own_stock) == VIDEOS * CLIPS * 3


def dying(work, *, after: int):
    calls: Iterator[int] = iter(range(after))

    def call(*arguments):
        if next(calls, None) is None:
            raise RuntimeError("power cut")
        return work(*arguments)

    return call


def test_until_a_run_under_other_settings_is_through_clips_keep_their_old_tags(own_stock, monkeypatch) -> None:
    tagging.tag(own_stock, LABELS, ALL)
    in_lots(monkeypatch)
    monkeypatch.setattr(tagging, "choose", dying(tagging.choose, after=3))
    with pytest.raises(RuntimeError):
        tagging.tag(own_stock, LABELS, SOME)
    counts = np.bincount([len(clip.tags) for video in tagged.videos(own_stock.archive, own_stock.space, LABELS.id)
                          for clip in video.clips])  # fmt: skip
    assert counts.tolist() == [0, 6, 0, VIDEOS * CLIPS - 6]


def test_a_signal_commits_what_is_done_and_says_how_to_go_on(own_stock: OpenSpace, monkeypatch) -> None:
    monkeypatch.setattr(tagging, "CLIPS_PER_BATCH", 2)
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if progress.done == 4:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(Stopped, match="run the same command again to go on"):
            tagging.tag(own_stock, LABELS, ALL, watch=watch)
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert 0 < rows_in(own_stock) < VIDEOS * CLIPS * 3
    done = rows_in(own_stock) // 3
    assert tagging.tag(own_stock, LABELS, ALL).new == VIDEOS * CLIPS - done


def test_progress_ends_where_all_clips_are(own_stock: OpenSpace) -> None:
    for _ in range(2):
        seen: list[Progress] = []
        tagging.tag(own_stock, LABELS, SOME, watch=seen.append)
        assert {progress.phase for progress in seen} == {"tag"}
        assert [p.done for p in seen] == sorted(p.done for p in seen)
        assert (seen[-1].done, seen[-1].total) == (VIDEOS * CLIPS, VIDEOS * CLIPS)


# --- modes


def report_of(opened: OpenSpace, **settings) -> tuple[TagReport, list[Tag]]:
    return tagging.tag(opened, LABELS, TagSettings(**settings)), tags_of(opened)


def test_with_a_background_none_of_these_is_an_answer(own_stock: OpenSpace) -> None:
    report, tags = report_of(own_stock, top=0, background=True)
    assert report.basis == "softmax, uncalibrated"
    for clip in {each.clip_id for each in tags}:
        mine = [each for each in tags if each.clip_id == clip]
        assert {each.label for each in mine} == {*LABELS.names, NONE}
        assert sum(each.probability for each in mine) == pytest.approx(1)


def test_multi_mode_measures_each_label_against_the_background(own_stock: OpenSpace) -> None:
    _, alone = report_of(own_stock, top=0, background=True)
    score = {(each.clip_id, each.label): each.score for each in alone}
    report, tags = report_of(own_stock, mode="multi", top=0)
    assert report.basis == "sigmoid, uncalibrated"
    assert {each.clip_id for each in tags} == {each.clip_id for each in alone}
    for each in tags:
        margins = {name: score[each.clip_id, name] - score[each.clip_id, NONE] for name in LABELS.names}
        if each.label == NONE:
            assert max(margins.values()) < 1e-4
            assert each.probability is None
        else:
            assert each.probability == pytest.approx(1 / (1 + np.exp(-margins[each.label])), abs=1e-4)
            assert each.probability >= 0.5


def test_the_background_is_ours_unless_the_set_has_its_own() -> None:
    asked, _ = tagging.prepared(LABELS, TagSettings(background=True), "s")
    assert asked.background == BACKGROUND
    own = replace(LABELS, background=("a wall",))
    assert tagging.prepared(own, TagSettings(mode="multi"), "s")[0].background == ("a wall",)
    assert tagging.prepared(LABELS, TagSettings(), "s")[0].background == ()


def test_what_comes_first_is_counted_over_old_and_new(own_stock: OpenSpace) -> None:
    hide(own_stock, 1, 2)
    tagging.tag(own_stock, LABELS, ALL)
    hide(own_stock, 1, 2, status="ok")
    report, tags = report_of(own_stock, top=0)
    firsts = [each for each in tags if each.rank == 1]
    assert sum(line.clips for line in report.labels) == len(firsts) == VIDEOS * CLIPS
    for line in report.labels:
        mine = [each.probability for each in firsts if each.label == line.label]
        assert (line.clips, line.mean_probability) == (len(mine), pytest.approx(np.mean(mine)))


def test_bfloat16_changes_scores_by_little(own_stock: OpenSpace) -> None:
    _, exact = report_of(own_stock, top=0)
    drop_tags(own_stock.archive, own_stock.space, LABELS.id)
    _, short = report_of(own_stock, top=0, precision="bfloat16")
    score = {(each.clip_id, each.label): each.score for each in exact}
    assert max(abs(each.score - score[each.clip_id, each.label]) for each in short) < 0.5


def test_there_is_no_set_where_nothing_was_tagged(own_stock: OpenSpace) -> None:
    with pytest.raises(InputError, match="has no tags; tag first"):
        tagged.chosen_set(own_stock.archive, own_stock.space, None)
    tagging.tag(own_stock, LABELS, SOME)
    with pytest.raises(InputError, match=f"no tags of the label set nope; it has those of {LABELS.id}"):
        tagged.chosen_set(own_stock.archive, own_stock.space, "nope")


def test_a_file_of_tags_has_few_row_groups(own_stock: OpenSpace) -> None:
    import pyarrow.parquet as pq

    tagging.tag(own_stock, LABELS, ALL)
    (file,) = delta_log.files(own_stock.archive, "tags")
    assert pq.ParquetFile(own_stock.archive.folder / "tags" / file.path).num_row_groups == 1
