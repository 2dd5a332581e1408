"""From the model's logits of texts to labels: how texts make a label's score, how scores make probabilities, and which
labels a clip is given. Arithmetic on arrays, nothing else.

A label's score is the mean of its wordings' logits, or a synonym's if that is higher. Where a negative `n` fits better
than the label `s`, the label loses by as much as it was beaten: s - (n - s); otherwise negatives change nothing, so
that labels with and without them stay on one scale. A parent without texts has the highest of its children's scores.
The score of "none of these" is the highest of the background texts'.

Single-label mode: softmax over the labels that have texts and "none of these"; a parent without texts has the sum of
its children's. Multi-label mode: each label alone against the background, sigmoid((score - background) / T + bias).
Neither is calibrated unless T and bias were fitted on labelled clips.
"""

# B clips, K labels, C of them that are a parent's children, Q texts, R kept tags

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.label_sets import Label, LabelSet

Mode = Literal["single", "multi"]
Scores = NDArray[np.float64]
Places = NDArray[np.int64]
# What a label must reach where neither the label set nor a calibration says.
THRESHOLD = 0.5
KINDS = {"single": "softmax", "multi": "sigmoid"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How scores become probabilities, and probabilities tags. Without a calibration, T is 1 and biases are 0.

    In single-label mode `bias` is added to the score of "none of these", in multi-label mode to every label's logit.
    """

    mode: Mode = "single"
    temperature: float = 1.0
    bias: float = 0.0
    thresholds: tuple[float, ...] = ()  # of each label, in multi-label mode
    abstain_below: float = 0.0  # in single-label mode: a best label below it gives way to "none of these"
    is_calibrated: bool = False

    @property
    def basis(self) -> str:
        """What a probability is, in the words that stand beside it everywhere."""
        return f"{KINDS[self.mode]}, {'calibrated' if self.is_calibrated else 'uncalibrated'}"


def thresholds_of(labels: LabelSet) -> tuple[float, ...]:
    """What the label set says its labels must reach."""
    return tuple(THRESHOLD if label.threshold is None else label.threshold for label in labels.labels)


# --- scores


def over_texts(logits_BQ: Tensor, labels: LabelSet) -> Tensor:
    """Scores B x K of labels from the logits B x Q of `labels.texts`; those of the background may be missing."""
    parts = torch.split(logits_BQ[:, : sum(len(label.texts) for label in labels.labels)],
                        [len(label.texts) for label in labels.labels], dim=1)  # fmt: skip
    scores: dict[str, Tensor] = {}
    for label, part in zip(labels.labels, parts, strict=True):
        if not label.is_derived:
            scores[label.name] = _of_label(label, part)
    return torch.stack([_with_children(label, labels, scores) for label in labels.labels], dim=1)


def _of_label(label: Label, logits_BQ: Tensor) -> Tensor:
    """Scores (B,) of a label from the logits B x Q of its own texts."""
    wordings, synonyms, negatives = torch.split(
        logits_BQ, [len(label.prompts), len(label.synonyms), len(label.negatives)], dim=1
    )
    names = [wordings.mean(dim=1, keepdim=True)] if label.prompts else []
    score_B = torch.cat([*names, synonyms], dim=1).amax(dim=1)
    if not label.negatives:
        return score_B
    return score_B - (negatives.amax(dim=1) - score_B).clamp(min=0)


def _with_children(label: Label, labels: LabelSet, scores: dict[str, Tensor]) -> Tensor:
    """Scores (B,) of a label: its own, or the highest of its children's."""
    if label.name not in scores:
        below = [_with_children(labels.labels[place], labels, scores) for place in labels.children(label.name)]
        below_CB = torch.stack(below)
        scores[label.name] = below_CB.amax(dim=0)
    return scores[label.name]


def of_background(logits_BQ: Tensor, labels: LabelSet) -> Tensor | None:
    """Scores (B,) of "none of these" from the logits B x Q of `labels.texts`; None for a set without a background."""
    count = len(labels.background)
    return logits_BQ[:, -count:].amax(dim=1) if count else None


# --- probabilities


def probabilities(score_BK: Scores, none_B: Scores | None, labels: LabelSet, rule: Rule) -> tuple[Scores, Scores]:
    """Probabilities B x K of labels, and (B,) of "none of these", NaN where that has none."""
    if rule.mode == "multi":
        return sigmoid(margins(score_BK, none_B) / rule.temperature + rule.bias), np.full(len(score_BK), np.nan)
    own_K = np.array([not label.is_derived for label in labels.labels])
    last_B = np.full(len(score_BK), -np.inf) if none_B is None else none_B + rule.bias
    exponent_BK = np.column_stack([np.where(own_K, score_BK, -np.inf), last_B]) / rule.temperature
    weight_BK = np.exp(exponent_BK - exponent_BK.max(axis=1, keepdims=True))
    share_BK = weight_BK / weight_BK.sum(axis=1, keepdims=True)
    for place in _bottom_up(labels):
        share_BK[:, place] = share_BK[:, labels.children(labels.labels[place].name)].sum(axis=1)
    return share_BK[:, :-1], np.full(len(score_BK), np.nan) if none_B is None else share_BK[:, -1]


def margins(score_BK: Scores, none_B: Scores | None) -> Scores:
    """How much higher each label scores than "none of these", B x K."""
    assert none_B is not None, "multi-label mode always has a background"
    return score_BK - none_B[:, None]


def sigmoid(x: Scores) -> Scores:
    """1 / (1 + exp(-x)), for x of any size and shape."""
    low = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + low), low / (1 + low))


def _bottom_up(labels: LabelSet) -> list[int]:
    """The places of labels that have no texts, those below before those above."""
    derived = [place for place, label in enumerate(labels.labels) if label.is_derived]

    def depth(place: int) -> int:
        below = [child for child in labels.children(labels.labels[place].name) if child in derived]
        return 1 + max(map(depth, below), default=0)

    return sorted(derived, key=depth)


# --- tags


@dataclass(frozen=True, slots=True)
class Chosen:
    """The tags of B clips, R in all, clip by clip, best first. `place_R` K stands for "none of these"."""

    clip_R: Places
    place_R: Places
    rank_R: Places  # from 1
    probability_R: Scores  # NaN where there is none
    score_R: Scores


def choose(score_BK: Scores, none_B: Scores | None, labels: LabelSet, rule: Rule, top: int) -> Chosen:
    """The `top` best labels of each clip (0: all); in multi-label mode of those that reach their thresholds.

    A clip for which nothing is left gets "none of these", and one on which single-label mode abstains gets it first.
    """
    B, K = score_BK.shape
    share_BK, none_share_B = probabilities(score_BK, none_B, labels, rule)
    last_B = np.full(B, np.nan) if none_B is None else none_B
    all_score, all_share = np.column_stack([score_BK, last_B]), np.column_stack([share_BK, none_share_B])
    # Of equal scores the label comes first that has texts, then in the order of the set; "none of these" is last.
    order_K = np.array([*sorted(range(K), key=lambda place: labels.labels[place].is_derived), K])
    key = _ranking(all_score, share_BK, labels, rule)[:, order_K]
    best = np.argsort(-key, axis=1, kind="stable")[:, : top or K + 1]
    clip_R, rank_R = np.nonzero(np.take_along_axis(key, best, axis=1) > -np.inf)
    place_R = order_K[best[clip_R, rank_R]]
    return Chosen(clip_R, place_R, rank_R + 1, all_share[clip_R, place_R], all_score[clip_R, place_R])


def _ranking(score_BK: Scores, share_BK: Scores, labels: LabelSet, rule: Rule) -> Scores:
    """What the labels of each clip and "none of these" (the last column) are ranked by; -inf for what is not given."""
    label_BK, none_B = score_BK[:, :-1], score_BK[:, -1]
    first_B = np.nanmax(score_BK, axis=1) + abs(rule.bias) + 1  # before all others
    if rule.mode == "multi":
        is_given = share_BK >= np.array(rule.thresholds)
        none_key = np.where(is_given.any(axis=1), -np.inf, first_B)
        return np.column_stack([np.where(is_given, label_BK, -np.inf), none_key])
    own_K = [place for place, label in enumerate(labels.labels) if not label.is_derived]
    abstains = share_BK[:, own_K].max(axis=1) < rule.abstain_below
    none_key = np.where(np.isnan(none_B), -np.inf, none_B + rule.bias)
    return np.column_stack([label_BK, np.where(abstains, first_B, none_key)])
