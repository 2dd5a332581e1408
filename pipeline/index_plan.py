"""Which segments of a vector index are kept, merged or made anew, and how those made are kept: arithmetic, no FAISS.

Every run adds what is new as one segment, with which segments that are no more than twice as large are merged, so that
a clip is copied a few times in its life and there are never many segments. What is no longer to be found is hidden at
once; a segment that hides much is made anew without it. Each is learnt from its own vectors: centres cannot grow old.
"""

# N clips, E joint dimension

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.keys import Keys, Numbers
from pipeline.vector_kinds import FLAT, FLAT_CLIPS, Kind, head_of, kind_for, lists_for
from pipeline.vectors import TRAINING_ROUNDS, Segment, Vectors, product_flops
from schemas.errors import InputError

MERGED_UP_TO = 2.0  # times what is to be added
MOST_HIDDEN = 0.2
GB = 1_000_000_000
# Of memory, what the codes of one segment may take: FAISS's arrays grow by doubling, so that they take twice as much.
SEGMENT_PART = 0.42
FINER: dict[str, Kind | None] = {
    "pq": Kind("sq8"),
    "sq8": Kind("fp16"),
    "pca": Kind("sq8"),
    "fp16": FLAT,
    "flat": None,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """How an index is made. `recall` must be reached by segments that are not exact, else they are made finer."""

    memory_bytes: int = 8 * GB
    recall: float = 0.99
    texts: Callable[[], Vectors] | None = None  # vectors of texts Q x E that recall is measured with, beside clips

    def __post_init__(self) -> None:
        if self.memory_bytes < GB // 4:
            raise InputError(f"{self.memory_bytes / GB:g} GB of memory are too little for an index; expected 0.25 GB")
        if not 0 <= self.recall <= 1:
            raise InputError(f"a recall of {self.recall:g} is not usable; expected a part, 0 to 1")


@dataclass(frozen=True, slots=True)
class Making:
    """Segments to make of N clips: their kind, where one ends and the next begins, and what it will take."""

    kind: Kind
    edges: tuple[int, ...]  # from 0 to N
    size_bytes: int
    memory_bytes: int
    operations: float  # of products, to learn centres and to find each vector's

    @property
    def counts(self) -> list[int]:
        """Clips of each segment."""
        return [last - first for first, last in pairwise(self.edges)]

    @property
    def expected_s(self) -> float:
        """Seconds that the products take on this machine, measured now; reading comes on top."""
        return self.operations / product_flops() if self.operations else 0.0

    def why(self) -> str:
        """The choice in a sentence."""
        count = self.edges[-1]
        if self.kind == FLAT:
            return f"{count} clips are compared one by one, as up to {FLAT_CLIPS} are"
        return (
            f"{count} clips in {len(self.counts)} segments of {self.kind.lists} lists, {self.kind.name}: "
            f"{self.size_bytes / GB:.2f} GB, made in at most {self.memory_bytes / GB:.2f} GB of memory, "
            f"about {self.expected_s:.0f} s and the time to read them"
        )


def divide(segments: Iterable[Segment], wanted: Numbers) -> tuple[list[Segment], Numbers]:
    """The segments that are kept for an index of the `wanted` clips, and the clips for which new ones are made."""
    keys, kept = Keys([wanted]), []
    for segment in segments:
        live_N = keys.has(segment.clips_N).to_numpy(zero_copy_only=False)
        if live_N.sum() > (1 - MOST_HIDDEN) * len(live_N):
            kept.append(segment.hiding(live_N))
    kept.sort(key=lambda segment: -segment.count)
    held = Keys(segment.live_clips for segment in kept)
    todo = wanted[~held.has(wanted).to_numpy(zero_copy_only=False)]
    while len(todo) and kept and kept[-1].count <= MERGED_UP_TO * len(todo):
        todo = np.concatenate([todo, kept.pop().live_clips])
    return kept, todo


def making(count: int, width: int, rules: Rules, kind: Kind | None = None) -> Making:
    """How segments of so many clips are made; of a given kind, or of that which fits best."""
    name = (kind or kind_for(count, width, rules.memory_bytes)).name
    each = Kind(name, 1).clip_bytes(width)
    parts = 1 if name == "flat" else max(1, math.ceil(count * each / (SEGMENT_PART * rules.memory_bytes)))
    edges = tuple(round(count * part / parts) for part in range(parts + 1))
    most = max(last - first for first, last in pairwise(edges))
    chosen = Kind(name, lists_for(name, most))
    sample = chosen.sample_size
    numbers = head_of(width) if name == "pca" else width
    products = 2.0 * numbers * chosen.lists * (TRAINING_ROUNDS * sample + count)
    memory_bytes = max(2 * most * each, 2 * sample * 4 * width)  # the sample is gone before the codes come
    return Making(chosen, edges, count * each, memory_bytes, products)


def finer(made: Making, width: int, rules: Rules) -> Making | None:
    """The same clips in the next finer kind; None where there is none."""
    kind = FINER[made.kind.name]
    return None if kind is None else making(made.edges[-1], width, rules, kind)
