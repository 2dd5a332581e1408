"""Every figure against cases worked out by hand, and what must hold for all scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import metrics

# Four videos, three labels. Best labels: 0, 1, 0, 2; true labels: 0, 1, 1, 0.
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.4, 0.1], [0.2, 0.3, 0.5]])
TRUTHS = np.array([0, 1, 1, 0])
CONFUSION = [[1, 0, 1], [1, 1, 0], [0, 0, 0]]


def test_top_k_counts_true_labels_among_the_best() -> None:
    assert [metrics.top_k(PROBABILITIES, TRUTHS, k) for k in (1, 2, 3, 5)] == [0.5, 0.75, 1.0, 1.0]


def test_a_tie_goes_to_the_label_that_stands_first() -> None:
    same = np.full((2, 4), 0.25)
    assert metrics.top_k(same, np.array([0, 1]), 1) == 0.5
    assert metrics.top_k(same, np.array([2, 3]), 2) == 0.0


def test_confusion_has_a_row_per_true_label() -> None:
    predicted = PROBABILITIES.argmax(axis=1)
    found = metrics.confusion(predicted, TRUTHS, 3)
    assert found.tolist() == CONFUSION


def test_classes_count_alike_and_those_without_videos_not_at_all() -> None:
    found = metrics.class_accuracies(np.array([[9, 1, 0], [1, 1, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(found, [0.9, 0.5, np.nan])
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.2, 0.8]] * 2)
    truths = np.array([0] * 9 + [1] + [1, 0])
    figures = metrics.figures(probabilities, probabilities, truths)
    assert figures.top_1 == pytest.approx(10 / 12)
    assert figures.mean_class_accuracy == pytest.approx((9 / 10 + 1 / 2) / 2)


def test_worst_pairs_come_most_frequent_first_and_leave_out_what_was_right() -> None:
    counts = np.array([[50, 2, 7], [3, 40, 0], [0, 3, 0]])
    assert metrics.worst_pairs(counts, 9) == [(0, 2, 7), (1, 0, 3), (2, 1, 3), (0, 1, 2)]
    assert metrics.worst_pairs(counts, 2) == [(0, 2, 7), (1, 0, 3)]
    assert metrics.worst_pairs(np.diag([3, 4]), 5) == []


def test_a_text_finds_the_first_video_of_its_class() -> None:
    #             label 0 ranks its videos 0 and 3: 2nd, 4th; label 1 its videos 1 and 2: 3rd, 1st; label 2 has none
    scores = np.array([[8.0, 0.2, 9], [9.0, 0.1, 9], [7.0, 0.9, 9], [1.0, 0.8, 9]])
    ranks = metrics.retrieval_ranks(scores, TRUTHS)
    assert ranks.tolist() == [2, 1]
    assert [metrics.recall_at(ranks, k) for k in (1, 2, 5)] == [0.5, 1.0, 1.0]


def test_a_model_that_says_the_same_of_all_videos_finds_nothing_first() -> None:
    assert metrics.retrieval_ranks(np.zeros((4, 3)), TRUTHS).tolist() == [3, 3]


def test_calibration_error_is_the_distance_of_confidence_and_accuracy_bin_by_bin() -> None:
    # Two bins: (0, .5] holds video 2 (wrong) and video 3 (wrong), (.5, 1] videos 0 and 1 (right, right).
    low, high = abs(0 - 0.5) * 2, abs(2 - 1.3)
    assert metrics.calibration_error(PROBABILITIES, TRUTHS, bins=2) == pytest.approx((low + high) / 4)
    assert metrics.calibration_error(PROBABILITIES, TRUTHS, bins=1) == pytest.approx(abs(0.5 - 0.575))


def test_calibration_is_perfect_where_confidence_is_accuracy_and_worst_where_sure_and_wrong() -> None:
    three_of_four = np.array([[0.75, 0.25]] * 4)
    assert metrics.calibration_error(three_of_four, np.array([0, 0, 0, 1])) == pytest.approx(0)
    assert metrics.calibration_error(np.array([[1.0, 0.0]]), np.array([1])) == 1.0


def test_bins_are_closed_above() -> None:
    confidence = np.array([[0.2, *[0.1] * 8]])  # 3 / 15 exactly, in float too
    sure = np.array([[0.21, *[0.79 / 8] * 8]])
    together = np.concatenate([confidence, sure])
    apart = metrics.calibration_error(together, np.array([0, 1]), bins=15)
    assert apart == pytest.approx((0.8 + 0.21) / 2), "in one bin, right and wrong would make up for each other"


def test_all_figures_at_once() -> None:
    figures = metrics.figures(PROBABILITIES, 100 * PROBABILITIES, TRUTHS)
    assert figures == metrics.Figures(
        top_1=0.5,
        top_5=1.0,
        mean_class_accuracy=0.5,
        calibration_error=pytest.approx(metrics.calibration_error(PROBABILITIES, TRUTHS)),
        recall_at_1=1.0,
        recall_at_5=1.0,
        recall_at_10=1.0,
        median_rank=1.0,
    )


@given(st.data(), st.integers(1, 12), st.integers(1, 9))
def test_figures_keep_their_bounds_and_their_order(data: st.DataObject, B: int, K: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    logits = rng.normal(size=(B, K)).round(1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truths = rng.integers(K, size=B)
    found = metrics.figures(probabilities, logits, truths)
    assert 0 <= found.top_1 <= found.top_5 <= 1
    assert 0 <= found.recall_at_1 <= found.recall_at_5 <= found.recall_at_10 <= 1
    assert 0 <= found.calibration_error <= 1
    assert 1 <= found.median_rank <= B
    counts = metrics.confusion(probabilities.argmax(axis=1), truths, K)
    assert counts.sum() == B
    assert counts.trace() / B == pytest.approx(found.top_1)
