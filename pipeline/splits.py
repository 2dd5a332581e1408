"""Figures over several splits: a data set's own, or random draws of its labels, as mean and spread.

The paper's zero-shot protocol is the mean over HMDB-51's and UCF-101's three splits, and over three random draws of
160 of Kinetics-600's new labels (Ni et al., ECCV 2022); a few-shot figure without its spread says little, since two
videos per label are a matter of luck.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from pipeline.evaluation import Evaluation, EvaluationSettings, evaluate
from pipeline.label_sets import LabelSet
from pipeline.labelled import LabelledVideos
from pipeline.metrics import Figures
from pipeline.progress import Progress
from schemas.errors import InputError

DRAWS = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True, slots=True)
class Draws:
    """So many random draws of so many labels, decided by a seed."""

    draws: int
    labels: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and spread (sample standard deviation, 0 of a single split) of every figure over splits."""

    splits: tuple[Evaluation, ...]
    mean: Figures
    spread: Figures


def evaluate_splits(
    lists: Sequence[LabelledVideos],
    settings: EvaluationSettings,
    *,
    draws: Draws | None = None,
    label_set: LabelSet | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> tuple[Evaluation, ...]:
    """Every list evaluated, or every draw of every list; see `evaluation.evaluate`."""
    if draws is None:
        return tuple(evaluate(each, settings, label_set=label_set, watch=watch) for each in lists)
    parts = [part for each in lists for part in drawn(each, draws)]
    return tuple(
        evaluate(part, settings, label_set=offered(label_set, part) if label_set else None, watch=watch)
        for part in parts
    )


def parse_draws(text: str, seed: int) -> Draws:
    """`3x160`: three draws of 160 labels. Raises InputError for anything else."""
    match = DRAWS.fullmatch(text)
    if match is None or min(int(part) for part in match.groups()) < 1:
        raise InputError(f"--draws {text!r}: expected DRAWSxLABELS, such as 3x160 for three draws of 160 labels")
    return Draws(int(match[1]), int(match[2]), seed)


def drawn(labelled: LabelledVideos, draws: Draws) -> tuple[LabelledVideos, ...]:
    """The videos of randomly drawn labels, once for each draw, in the order of the list.

    Raises InputError when there are not more labels than a draw takes: every draw would be the same.
    """
    if draws.labels >= len(labelled.labels):
        raise InputError(
            f"{draws.labels} labels are to be drawn of {len(labelled.labels)}; expected fewer than there are"
        )
    rng = np.random.default_rng(draws.seed)
    chosen = (set(rng.permutation(labelled.labels)[: draws.labels].tolist()) for _ in range(draws.draws))
    return tuple(_only(labelled, labels) for labels in chosen)


def _only(labelled: LabelledVideos, labels: set[str]) -> LabelledVideos:
    """The videos that have one of some labels."""
    examples = tuple(example for example in labelled.examples if example.label in labels)
    return LabelledVideos(examples, tuple(sorted(labels)))


def offered(label_set: LabelSet, labelled: LabelledVideos) -> LabelSet:
    """The labels of a set that a draw has: what was not drawn must not be there to be chosen."""
    return LabelSet(tuple(label for label in label_set.labels if label.name in labelled.labels))


def summary(splits: Sequence[Evaluation]) -> Summary:
    """Mean and spread over splits. Raises InputError when one of them has no figures."""
    found = [split.figures for split in splits]
    figures = [asdict(each) for each in found if each is not None]
    if len(figures) < len(found) or not figures:
        raise InputError(
            f"{len(found) - len(figures)} of {len(found)} splits have no video that could be scored; expected some in "
            "each"
        )
    values = {field.name: [each[field.name] for each in figures] for field in fields(Figures)}
    spread = {name: float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for name, v in values.items()}
    return Summary(tuple(splits), Figures(**{name: float(np.mean(v)) for name, v in values.items()}), Figures(**spread))
