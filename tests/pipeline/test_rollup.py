"""Clips rolled up to videos: highest, mean, share of time and time ranges, each worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.label_sets import NONE
from pipeline.rollup import Segment, by_label, labels_of, length_s, merged
from tests.pipeline.tagged_videos import SIGMOID, SOFTMAX, video


def test_max_mean_and_share_of_time() -> None:
    found = video([{"run": 0.8}, {"run": 0.6, "jump": 0.5}, {"jump": 0.9}, {NONE: None}])
    run, jump = labels_of(found)
    assert (run.label, jump.label) == ("jump", "run"), "the highest score first where shares of time are the same"
    assert (jump.max_probability, jump.max_score, jump.share_of_time) == (0.8, 8.0, 0.5)
    assert jump.mean_probability == pytest.approx((0.8 + 0.6) / 4)
    assert run.mean_probability == pytest.approx((0.5 + 0.9) / 4)
    assert run.basis == SIGMOID


def test_neighbours_are_one_segment_and_others_are_not() -> None:
    found = video([{"run": 0.8}, {"run": 0.9}, {"jump": 0.5}, {"run": 0.6}])
    run = labels_of(found)[0]
    assert run.segments == (Segment(0, 20, 0.9, 9.0), Segment(30, 40, 0.6, 6.0))


def test_windows_that_overlap_are_counted_once() -> None:
    found = video([{"run": 0.8}, {"run": 0.9}, {"jump": 0.5}], stride_s=5.0)
    run, jump = labels_of(found)
    assert run.segments == (Segment(0, 15, 0.9, 9.0),)
    assert run.share_of_time == pytest.approx(15 / 20)
    assert jump.share_of_time == pytest.approx(10 / 20)


def test_of_labels_that_exclude_each_other_only_the_best_of_a_clip_counts() -> None:
    found = video([{"run": 0.8, "jump": 0.2}, {NONE: 0.6, "run": 0.3}], basis=SOFTMAX)
    (run,) = labels_of(found)
    assert (run.label, run.share_of_time, run.segments) == ("run", 0.5, (Segment(0, 10, 0.8, 8.0),))
    assert [line.label for line in by_label(found)] == ["run", NONE, "jump"]


def test_a_clip_without_tags_was_not_looked_at_and_is_no_part_of_the_time() -> None:
    assert labels_of(video([{"run": 0.8}, {}]))[0].share_of_time == 1


def test_a_video_without_tags_has_no_labels() -> None:
    assert labels_of(video([{}, {}])) == ()


def test_what_has_no_probability_has_none_rolled_up() -> None:
    (line,) = by_label(video([{NONE: None}]))
    assert (line.max_probability, line.mean_probability, line.max_score) == (None, None, None)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=12))
def test_merged_spans_cover_what_they_were_made_of_and_nothing_else(pairs) -> None:
    spans = [(float(start), float(start + length)) for start, length in pairs]
    covered = {second for start, end in spans for second in range(int(start), int(end))}
    found = merged(spans)
    assert {second for start, end in found for second in range(int(start), int(end))} == covered
    assert length_s(found) == len(covered)
    assert all(after[0] > before[1] for before, after in pairwise(found))
