"""Figures of a labelled test set: arithmetic on scores and truths, nothing else.

Every figure has one definition here and a worked example in its test, so that a number in a report can be checked by
hand. Shares are in 0..1. Of labels with the same score the first is best, as arg-max has it; of videos, those of other
classes stand first.
"""

# B videos, K labels, Q labels that have a video

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Truths = NDArray[np.int64]  # (B,) places of the true labels

BINS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """All figures of a run. `median_rank` counts from 1; the rest are shares."""

    top_1: float
    top_5: float
    mean_class_accuracy: float
    calibration_error: float
    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    median_rank: float


def figures(probability_BK: Scores, logits_BK: Scores, truth_B: Truths) -> Figures:
    """Everything that one number can say about B >= 1 videos with K labels.

    Probabilities decide which label a video gets; logits, which are not relative to the label set, which video a
    label finds.
    """
    predicted_B = probability_BK.argmax(axis=1)
    ranks_Q = retrieval_ranks(logits_BK, truth_B)
    return Figures(
        top_1=top_k(probability_BK, truth_B, 1),
        top_5=top_k(probability_BK, truth_B, 5),
        mean_class_accuracy=float(np.nanmean(class_accuracies(confusion(predicted_B, truth_B, logits_BK.shape[1])))),
        calibration_error=calibration_error(probability_BK, truth_B),
        recall_at_1=recall_at(ranks_Q, 1),
        recall_at_5=recall_at(ranks_Q, 5),
        recall_at_10=recall_at(ranks_Q, 10),
        median_rank=float(np.median(ranks_Q)),
    )


def top_k(scores_BK: Scores, truth_B: Truths, k: int) -> float:
    """The share of videos whose true label is among the k with the highest scores; 1 where K <= k."""
    best_Bk = np.argsort(-scores_BK, axis=1, kind="stable")[:, :k]
    return float((best_Bk == truth_B[:, None]).any(axis=1).mean())


def confusion(predicted_B: Truths, truth_B: Truths, labels: int) -> NDArray[np.int64]:
    """How many videos of each true label (row) were given each label (column), K x K."""
    counts_KK = np.zeros((labels, labels), np.int64)
    np.add.at(counts_KK, (truth_B, predicted_B), 1)
    return counts_KK


def class_accuracies(confusion_KK: NDArray[np.int64]) -> Scores:
    """For each label the share of its videos that were given it, (K,); NaN for a label without videos."""
    videos_K = confusion_KK.sum(axis=1)
    return np.where(videos_K > 0, confusion_KK.diagonal() / np.maximum(videos_K, 1), np.nan)


def worst_pairs(confusion_KK: NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """The most frequent confusions: true label, label given, videos; most first, then in the order of labels."""
    truths, given = np.nonzero(confusion_KK - np.diag(confusion_KK.diagonal()))
    pairs = [(int(t), int(g), int(confusion_KK[t, g])) for t, g in zip(truths, given, strict=True)]
    return sorted(pairs, key=lambda pair: -pair[2])[:most]


def retrieval_ranks(scores_BK: Scores, truth_B: Truths) -> Truths:
    """Text to video: the rank (from 1) at which the text of each label with videos finds the first of them, (Q,)."""
    ranks = []
    for label in np.unique(truth_B):
        scores_B, own_B = scores_BK[:, label], truth_B == label
        # Other videos that score as high stand before it: a model that says the same of all finds nothing.
        ranks.append(1 + int((scores_B[~own_B] >= scores_B[own_B].max()).sum()))
    return np.array(ranks, np.int64)


def recall_at(ranks_Q: Truths, k: int) -> float:
    """The share of texts that find a video of theirs among the first k."""
    return float((ranks_Q <= k).mean())


def calibration_error(probability_BK: Scores, truth_B: Truths, bins: int = BINS) -> float:
    """Expected calibration error: |accuracy - confidence| of the best label, averaged over videos, in even bins.

    A bin holds confidences in (low, high]; with `bins` 1, the distance between mean confidence and accuracy.
    """
    confidence_B, correct_B = probability_BK.max(axis=1), probability_BK.argmax(axis=1) == truth_B
    place_B = np.clip(np.ceil(confidence_B * bins) - 1, 0, bins - 1).astype(np.int64)
    gaps = np.bincount(place_B, weights=correct_B - confidence_B, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth_B))
