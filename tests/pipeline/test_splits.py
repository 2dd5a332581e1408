"""Figures over splits: the paper's draws, and mean and spread that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.label_sets import Label, LabelSet
from pipeline.labelled import Example, LabelledVideos
from pipeline.metrics import Figures
from pipeline.splits import Draws, drawn, offered, parse_draws, summary
from schemas.errors import InputError

LABELS = tuple(f"label {number}" for number in range(10))
VIDEOS = LabelledVideos(
    tuple(Example(Path(f"{label} {take}.mp4"), label) for label in LABELS for take in range(3)), LABELS
)
HALF = Figures(
    top_1=0.5,
    top_5=0.9,
    mean_class_accuracy=0.5,
    calibration_error=0.1,
    recall_at_1=0.2,
    recall_at_5=0.4,
    recall_at_10=0.6,
    median_rank=3.0,
)


def test_a_draw_holds_all_videos_of_its_labels_and_no_others():
    parts = drawn(VIDEOS, Draws(3, 4))
    for part in parts:
        assert len(part.labels) == len(set(part.labels)) == 4
        assert part.examples == tuple(e for e in VIDEOS.examples if e.label in part.labels)
    assert len({part.labels for part in parts}) == 3


def test_the_seed_decides_the_draws():
    assert drawn(VIDEOS, Draws(2, 4, seed=1)) == drawn(VIDEOS, Draws(2, 4, seed=1))
    assert drawn(VIDEOS, Draws(2, 4, seed=1)) != drawn(VIDEOS, Draws(2, 4, seed=2))


def test_what_was_not_drawn_cannot_be_chosen():
    labels = LabelSet(tuple(Label(name, (f"a video of {name}",)) for name in LABELS))
    (part,) = drawn(VIDEOS, Draws(1, 4))
    assert {label.name for label in offered(labels, part).labels} == set(part.labels)
    assert all(label in labels.labels for label in offered(labels, part).labels)


def test_as_many_labels_as_there_are_is_no_draw():
    with pytest.raises(InputError, match="10 labels are to be drawn of 10"):
        drawn(VIDEOS, Draws(3, 10))


@pytest.mark.parametrize("text", ["3", "x160", "3x", "0x5", "3x0", "3 x 160"])
def test_draws_are_two_numbers(text):
    with pytest.raises(InputError, match="3x160"):
        parse_draws(text, 0)


def test_draws_are_read():
    assert parse_draws("3x160", 7) == Draws(3, 160, 7)


def test_mean_and_spread_over_splits():
    splits = [SimpleNamespace(figures=replace(HALF, top_1=top_1)) for top_1 in (0.4, 0.5, 0.9)]
    found = summary(splits)
    assert found.mean.top_1 == pytest.approx(0.6)
    assert found.spread.top_1 == pytest.approx((0.14 / 2) ** 0.5)  # squares 0.04, 0.01 and 0.09 over n - 1
    assert (found.mean.median_rank, found.spread.median_rank) == (3.0, 0.0)
    assert summary(splits[:1]).spread.top_1 == 0.0


def test_a_split_without_figures_has_no_mean():
    with pytest.raises(InputError, match="1 of 2 splits"):
        summary([SimpleNamespace(figures=HALF), SimpleNamespace(figures=None)])
