"""Fits two numbers and some thresholds to the scores of clips whose labels are known. The only place that knows
scikit-learn, and SciPy, which comes with it.

Multi-label mode: one temperature and one bias for all labels, by logistic regression of "the clip has the label" on the
label's margin over the background; then a threshold for each label. Single-label mode: a temperature and a bias of
"none of these", by the log loss of the softmax; then the probability below which nothing is said.
"""

# B clips, K labels

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.calibration_file import Fitted
from pipeline.label_scores import Rule, Scores, margins, probabilities, sigmoid
from pipeline.label_sets import LabelSet
from schemas.errors import InputError

Truths = NDArray[np.bool_]
CLIP = 1e-12  # probabilities are held this far from 0 and 1 before their logarithm is taken


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateSettings:
    """How a calibration is fitted."""

    holdout: float = 0.3  # share of the videos that nothing is fitted on
    seed: int = 0
    min_precision: float = 0.0  # that a threshold must reach on the clips it is chosen by, where any does

    def __post_init__(self) -> None:
        if not 0 < self.holdout < 1 or not 0 <= self.min_precision <= 1:
            given = f"--holdout {self.holdout:g} --min-precision {self.min_precision:g}"
            raise InputError(f"{given} is not usable; expected a share between 0 and 1, and a precision of 0 to 1")


@dataclass(frozen=True, slots=True)
class LabelledScores:
    """Scores of B clips whose labels are known: B x K, and (B,) of the background."""

    score_BK: Scores
    none_B: Scores
    truth_BK: Truths
    video_B: NDArray[np.int64]  # number of each clip's video, to split by

    def at(self, places: Any) -> LabelledScores:
        """Some of the clips."""
        return LabelledScores(self.score_BK[places], self.none_B[places], self.truth_BK[places], self.video_B[places])

    def __len__(self) -> int:
        return len(self.none_B)


def require() -> None:
    """Raises InputError unless scikit-learn is there."""
    try:
        importlib.import_module("sklearn")
    except ImportError as error:
        raise InputError("calibrating needs scikit-learn; run: pip install 'footage[calibrate]'") from error


# --- fitting


def fit_multi(fit: LabelledScores, labels: LabelSet, settings: CalibrateSettings) -> Fitted:
    """Temperature and bias over all labels, and a threshold for each that has clips."""
    from sklearn.linear_model import LogisticRegression

    margin_BK = margins(fit.score_BK, fit.none_B)
    truth = fit.truth_BK.ravel()
    if truth.all() or not truth.any():
        raise InputError("the labelled clips have all labels or none; expected some that have a label and some not")
    # Each pair counts as both, by as much: few clips that scores tell apart would make a probability of 1 out of them.
    target = np.where(truth, smoothed(int(truth.sum())), 1 - smoothed(int((~truth).sum())))
    both, said = np.tile(margin_BK.reshape(-1, 1), (2, 1)), np.repeat([True, False], len(truth))
    # Next to no regularisation beyond that: two numbers are fitted.
    found = LogisticRegression(C=1e6, max_iter=1000).fit(both, said, np.concatenate([target, 1 - target]))
    slope, bias = float(found.coef_[0, 0]), float(found.intercept_[0])
    _check_slope(slope)
    share_BK = sigmoid(margin_BK * slope + bias)
    chosen = {
        label.name: threshold(share_BK[:, place], fit.truth_BK[:, place], settings.min_precision)
        for place, label in enumerate(labels.labels)
    }
    return Fitted(
        temperature=1 / slope,
        bias=bias,
        thresholds={name: value for name, value in chosen.items() if value is not None},
    )


def smoothed(count: int) -> float:
    """What is asked of `count` things that all are so: not 1, but what one more of the other kind would leave.

    Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    return (count + 1) / (count + 2)


def _check_slope(slope: float) -> None:
    """Raises InputError unless higher scores mean that the label is likelier."""
    if not slope > 1e-9:
        raise InputError(
            "on the labelled clips higher scores do not mean that a label is likelier; the model does not know these "
            "labels, or the list is not of this archive"
        )


def threshold(share_B: Scores, truth_B: Truths, min_precision: float) -> float | None:
    """The probability from which on a label is given: the best F1 among those that are precise enough, or the most
    precise one where none is; None without a clip that has the label.

    Of all that divide the clips in the same way it is the middle one: others will not score just as these do.
    """
    from sklearn.metrics import precision_recall_curve

    if not truth_B.any():
        return None
    precision, recall, at = precision_recall_curve(truth_B, share_B)
    precision, recall = precision[:-1], recall[:-1]  # the last pair stands for no threshold
    f1 = 2 * precision * recall / np.maximum(precision + recall, CLIP)
    is_precise = precision >= min_precision
    best = np.argmax(np.where(is_precise, f1, -1)) if is_precise.any() else np.argmax(precision)
    below = share_B[share_B < at[best]]
    return float((at[best] + below.max()) / 2 if len(below) else at[best])


def fit_single(fit: LabelledScores, labels: LabelSet, settings: CalibrateSettings) -> Fitted:
    """Temperature and bias of "none of these" by the log loss of the softmax, and when to say nothing."""
    from scipy.optimize import minimize

    truth_B = single_truth(fit, labels)
    target_BK = _single_targets(truth_B, len(own(labels)) + 1)

    def loss(values: NDArray[np.float64]) -> float:
        rule = Rule(temperature=float(np.exp(values[0])), bias=float(values[1]), is_calibrated=True)
        log_share_BK = np.log(np.clip(shares(fit, labels, rule), CLIP, 1))
        return -float((target_BK * log_share_BK).sum(axis=1).mean())

    has_none = bool((truth_B == len(own(labels))).any())
    # A bias that no clip speaks for would run away: then only the temperature is fitted.
    best = minimize(loss if has_none else lambda x: loss(np.array([x[0], 0.0])), np.zeros(2), method="Nelder-Mead")
    temperature, bias = float(np.exp(best.x[0])), float(best.x[1]) if has_none else 0.0
    rule = Rule(temperature=temperature, bias=bias, is_calibrated=True)
    return Fitted(
        temperature=temperature,
        bias=bias,
        abstain_below=abstention(*_best(fit, labels, rule), truth_B, len(own(labels)), settings.min_precision),
    )


def abstention(
    share_B: Scores, place_B: NDArray[np.int64], truth_B: NDArray[np.int64], none: int, min_precision: float
) -> float:
    """The probability of the best label below which nothing is said.

    With a precision asked for, the lowest at which the answers are that often right; else that at which most clips end
    right, where saying nothing is right for a clip that has no label. `none` is the place that stands for no label.
    """
    order_B = np.argsort(share_B, kind="stable")
    candidates = np.concatenate([[0.0], np.unique(share_B)])
    silent = np.searchsorted(share_B[order_B], candidates, "left")  # how many clips a candidate says nothing of
    right, unlabelled = (
        np.concatenate([[0], np.cumsum(each[order_B])]) for each in (place_B == truth_B, truth_B == none)
    )
    answers_right = right[-1] - right[silent]
    if min_precision > 0:
        precision = answers_right / np.maximum(len(share_B) - silent, 1)
        enough = np.flatnonzero(precision >= min_precision)
        return float(candidates[enough[0] if len(enough) else -1])
    return float(candidates[int(np.argmax(answers_right + unlabelled[silent]))])


# --- single-label mode: one answer a clip


def own(labels: LabelSet) -> list[int]:
    """The places of labels that have texts: what single-label mode chooses from."""
    return [place for place, label in enumerate(labels.labels) if not label.is_derived]


def single_truth(found: LabelledScores, labels: LabelSet) -> NDArray[np.int64]:
    """The place among the labels with texts of each clip's label (B,); their number for none."""
    own_BK = found.truth_BK[:, own(labels)]
    place_B: NDArray[np.int64] = np.where(own_BK.any(axis=1), own_BK.argmax(axis=1), own_BK.shape[1])
    return place_B


def shares(found: LabelledScores, labels: LabelSet, rule: Rule) -> Scores:
    """Probabilities B x (K + 1) of the labels with texts, and of none."""
    share_BK, none_B = probabilities(found.score_BK, found.none_B, labels, rule)
    return np.column_stack([share_BK[:, own(labels)], none_B])


def _single_targets(truth_B: NDArray[np.int64], answers: int) -> Scores:
    """What is asked of the probabilities B x answers: nearly 1 for the truth, the rest for the others alike."""
    true = smoothed(len(truth_B))
    target_BK = np.full((len(truth_B), answers), (1 - true) / (answers - 1))
    target_BK[np.arange(len(truth_B)), truth_B] = true
    return target_BK


def _best(found: LabelledScores, labels: LabelSet, rule: Rule) -> tuple[Scores, NDArray[np.int64]]:
    """The probability and the place of each clip's best label, none apart."""
    share_BK = shares(found, labels, rule)[:, :-1]
    return share_BK.max(axis=1), share_BK.argmax(axis=1)
