"""Whether a segment that is not exact finds what comparing all would: measured when it is made, widened until it does.

Queries are vectors of texts, which lie apart from those of clips, and of clips. What an exact search finds is gathered
while the vectors pass by, so that they are read once.
"""

# N vectors of a lot, Q queries, K results, E joint dimension

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.keys import Numbers
from pipeline.vectors import Segment, Vectors

TENS = (10, 100)  # recall@10 and @100
# As many candidates as a search hands to the model's own score, which is computed from the vectors as they are stored.
CANDIDATES = 200
CLIP_QUERIES = 64
BETWEEN = (0.625, 0.75, 0.875)  # of the lists that are enough, when half of them are not


@dataclass
class Exact:
    """The best of all vectors that have passed, for some queries Q x E."""

    queries_QE: Vectors
    scores_QK: Vectors = field(init=False)
    numbers_QK: Numbers = field(init=False)

    def __post_init__(self) -> None:
        self.scores_QK = np.zeros((len(self.queries_QE), 0), np.float32)
        self.numbers_QK = np.zeros((len(self.queries_QE), 0), np.uint64)

    def see(self, numbers_N: Numbers, vectors_NE: Vectors) -> None:
        """Takes some vectors into account."""
        scores = np.concatenate([self.scores_QK, self.queries_QE @ vectors_NE.T], axis=1)
        numbers = np.concatenate([self.numbers_QK, np.broadcast_to(numbers_N, (len(scores), len(numbers_N)))], axis=1)
        most = min(TENS[-1], scores.shape[1])
        best = np.argpartition(-scores, most - 1, axis=1)[:, :most] if most else np.zeros((len(scores), 0), np.int64)
        self.scores_QK = np.take_along_axis(scores, best, axis=1)
        self.numbers_QK = np.take_along_axis(numbers, best, axis=1)

    def best(self, most: int) -> Numbers:
        """The numbers of the best, Q x K."""
        order = np.argsort(-self.scores_QK, axis=1, kind="stable")[:, :most]
        return np.take_along_axis(self.numbers_QK, order, axis=1)


@dataclass(frozen=True, slots=True)
class Recall:
    """Of what an exact search finds first, the part that is among a segment's candidates, mean over queries."""

    probes: int
    at_10: float
    at_100: float

    def reaches(self, least: float) -> bool:
        """Whether both are high enough."""
        return min(self.at_10, self.at_100) >= least


def measure(segment: Segment, exact: Exact) -> Recall:
    """The recall of a segment as it is searched now."""
    _, found_QM, are_QM = segment.search(exact.queries_QE, CANDIDATES)
    parts = []
    for most in TENS:
        expected_QK = exact.best(most)
        hits = [
            np.isin(expected, found[are]).mean()
            for expected, found, are in zip(expected_QK, found_QM, are_QM, strict=True)
        ]
        parts.append(float(np.mean(hits)))
    return Recall(segment.probes, *parts)


def tuned(segment: Segment, groups: dict[str, Exact], least: float) -> tuple[Segment, dict[str, Recall], bool]:
    """The segment, searched as widely as every group of queries needs, its recalls, and whether they are enough.

    They may not be: what coding blurs no width brings back. More than half of the lists are not looked into: then an
    exact search is as quick.
    """
    found = _measured(segment, groups)
    narrowest = segment.probes
    while not _is_enough(found, least):
        if 4 * segment.probes > segment.kind.lists:
            return segment, found, False
        segment = segment.with_probes(2 * segment.probes)
        found = _measured(segment, groups)
    for part in BETWEEN if segment.probes > narrowest else ():
        narrower = segment.with_probes(round(part * segment.probes))
        tried = _measured(narrower, groups)
        if _is_enough(tried, least):
            return narrower, tried, True
    return segment, found, True


def _measured(segment: Segment, groups: dict[str, Exact]) -> dict[str, Recall]:
    """The recall of every group."""
    return {name: measure(segment, exact) for name, exact in groups.items()}


def _is_enough(found: dict[str, Recall], least: float) -> bool:
    """Whether all recalls are."""
    return all(recall.reaches(least) for recall in found.values())
