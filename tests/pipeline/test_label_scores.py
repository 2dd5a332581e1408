"""From logits of texts to tags: worked examples that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.label_scores import Rule, choose, of_background, over_texts, probabilities, sigmoid, thresholds_of
from pipeline.label_sets import NONE, Label, LabelSet

NAN = float("nan")


def scores(labels: LabelSet, *logits: float) -> list[float]:
    return over_texts(torch.tensor([logits], dtype=torch.float64), labels)[0].tolist()


def chosen(labels: LabelSet, score: list[float], none: float | None, rule: Rule, top: int = 0) -> list[tuple]:
    """Label, rank, probability and score of each tag of one clip."""
    found = choose(np.array([score]), None if none is None else np.array([none]), labels, rule, top)
    names = [*labels.names, NONE]
    rows = zip(found.place_R.tolist(), found.rank_R.tolist(), found.probability_R, found.score_R, strict=True)
    return [(names[place], rank, probability, score) for place, rank, probability, score in rows]


# --- scores


def test_wordings_are_averaged_and_a_synonym_may_be_better() -> None:
    labels = LabelSet((Label("a", ("1", "2"), ("3",)),))
    assert scores(labels, 4, 8, 5) == [6]
    assert scores(labels, 4, 8, 7) == [7]


def test_a_negative_that_fits_better_costs_what_it_is_better_by() -> None:
    labels = LabelSet((Label("a", ("1",), negatives=("2", "3")),))
    assert scores(labels, 10, 9, 4) == [10], "negatives that fit less change nothing"
    assert scores(labels, 10, 10, 4) == [10]
    assert scores(labels, 10, 13, 4) == [7]


def test_a_parent_has_the_best_of_its_children_at_any_depth_unless_it_has_words() -> None:
    labels = LabelSet(
        (
            Label("top", ()),
            Label("middle", (), parent="top"),
            Label("a", ("1",), parent="middle"),
            Label("b", ("2",), parent="middle"),
            Label("worded", ("3",), parent="top"),
        )
    )
    assert scores(labels, 4, 9, 6) == [9, 9, 4, 9, 6]


def test_the_background_is_its_best_text_and_may_be_missing() -> None:
    labels = LabelSet((Label("a", ("1",)), Label("b", ("2",))), ("3", "4"))
    logits = torch.tensor([[1.0, 2.0, 5.0, 3.0]])
    assert of_background(logits, labels).tolist() == [5.0]
    assert over_texts(logits, labels).tolist() == [[1.0, 2.0]]
    assert of_background(logits[:, :2], LabelSet(labels.labels)) is None


# --- probabilities


TWO = LabelSet((Label("a", ("1",)), Label("b", ("2",))), ("3",))


def test_one_label_is_chosen_among_all_and_none() -> None:
    share, none = probabilities(np.log([[1.0, 2.0]]), np.log([5.0]), TWO, Rule())
    assert share[0] == pytest.approx([1 / 8, 2 / 8])
    assert none == pytest.approx([5 / 8])


def test_without_a_background_none_has_no_probability() -> None:
    share, none = probabilities(np.log([[1.0, 3.0]]), None, TWO, Rule())
    assert share[0] == pytest.approx([1 / 4, 3 / 4])
    assert np.isnan(none).all()


def test_temperature_divides_and_the_bias_is_nones() -> None:
    share, none = probabilities(np.log([[1.0, 4.0]]), np.log([9.0]), TWO, Rule(temperature=2))
    assert [*share[0], none[0]] == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    share, none = probabilities(np.log([[1.0, 2.0]]), np.log([1.0]), TWO, Rule(bias=np.log(5)))
    assert none == pytest.approx([5 / 8])


def test_a_parent_without_words_has_the_sum_of_its_children() -> None:
    labels = LabelSet(
        (Label("p", ()), Label("a", ("1",), parent="p"), Label("b", ("2",), parent="p"), Label("c", ("3",)))
    )
    share, _ = probabilities(np.log([[3.0, 1.0, 3.0, 4.0]]), None, labels, Rule())
    assert share[0] == pytest.approx([4 / 8, 1 / 8, 3 / 8, 4 / 8])


def test_many_labels_stand_alone_against_the_background() -> None:
    share, none = probabilities(
        np.array([[3.0, 1.0]]), np.array([2.0]), TWO, Rule(mode="multi", temperature=0.5, bias=1)
    )
    assert share[0] == pytest.approx([1 / (1 + np.exp(-3)), 1 / (1 + np.exp(1))])
    assert np.isnan(none).all()


def test_a_sigmoid_of_anything_is_finite() -> None:
    assert sigmoid(np.array([-1e6, 0.0, 1e6])).tolist() == [0.0, 0.5, 1.0]


# --- tags


def test_the_best_come_first_and_none_is_one_of_them() -> None:
    assert [row[:2] for row in chosen(TWO, [5.0, 7.0], 6.0, Rule())] == [("b", 1), (NONE, 2), ("a", 3)]
    assert [row[:2] for row in chosen(TWO, [5.0, 7.0], 6.0, Rule(), top=1)] == [("b", 1)]
    assert [row[:2] for row in chosen(TWO, [5.0, 7.0], None, Rule())] == [("b", 1), ("a", 2)]


def test_a_best_label_that_is_not_sure_enough_gives_way() -> None:
    sure, unsure = ([row[0] for row in chosen(TWO, [5.0, 7.0], 1.0, Rule(abstain_below=at))] for at in (0.8, 0.9))
    assert sure == ["b", "a", NONE]
    assert unsure == [NONE, "b", "a"]


def test_where_there_is_no_background_abstaining_has_no_number() -> None:
    rows = chosen(TWO, [5.0, 5.0], None, Rule(abstain_below=0.9), top=1)
    assert rows[0][:2] == (NONE, 1)
    assert np.isnan(rows[0][2:]).all()


def test_many_labels_are_given_that_reach_their_thresholds() -> None:
    rule = Rule(mode="multi", thresholds=(0.5, 0.9))
    assert [row[:2] for row in chosen(TWO, [2.5, 3.0], 2.0, rule)] == [("a", 1)]
    assert [row[:2] for row in chosen(TWO, [2.5, 9.0], 2.0, rule)] == [("b", 1), ("a", 2)]
    assert [row[:2] for row in chosen(TWO, [1.0, 3.0], 2.0, rule)] == [(NONE, 1)]


def test_a_parent_that_ties_with_its_child_comes_behind_it() -> None:
    labels = LabelSet((Label("p", ()), Label("a", ("1",), parent="p"), Label("b", ("2",))))
    assert [row[0] for row in chosen(labels, [7.0, 7.0, 9.0], None, Rule())] == ["b", "a", "p"]


def test_every_clip_gets_something_whatever_is_asked() -> None:
    rng = np.random.default_rng(0)
    score, none = rng.normal(size=(50, 2)), rng.normal(size=50)
    for rule in (Rule(), Rule(abstain_below=0.7), Rule(mode="multi", thresholds=(0.5, 0.8))):
        found = choose(score, none, TWO, rule, 1)
        assert found.clip_R.tolist() == list(range(50))
        assert set(found.rank_R.tolist()) == {1}


def test_no_clips_have_no_tags() -> None:
    found = choose(np.zeros((0, 2)), np.zeros(0), TWO, Rule(), 3)
    assert len(found.clip_R) == 0


def test_what_a_set_says_of_thresholds_is_used() -> None:
    assert thresholds_of(LabelSet((Label("a", ("1",), threshold=0.2), Label("b", ("2",))))) == (0.2, 0.5)


@pytest.mark.parametrize(
    ("rule", "basis"),
    [
        (Rule(), "softmax, uncalibrated"),
        (Rule(is_calibrated=True), "softmax, calibrated"),
        (Rule(mode="multi"), "sigmoid, uncalibrated"),
        (Rule(mode="multi", is_calibrated=True), "sigmoid, calibrated"),
    ],
)
def test_a_probability_says_what_it_is(rule: Rule, basis: str) -> None:
    assert rule.basis == basis
