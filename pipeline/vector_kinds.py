"""How segments of a vector index keep their vectors, by how many there are and what memory holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

KindName = Literal["flat", "fp16", "pca", "sq8", "pq"]

FLAT_CLIPS = 200_000  # up to so many comparing all is quick: 0.1 s on a core at 512 dimensions
LISTED_CLIPS = 2_000_000  # up to so many a search of whole vectors in lists takes some 10 ms on two cores
LISTS_PER_ROOT = 4  # lists are about so many times the root of N, as FAISS advises
SAMPLE_PER_LIST = 40  # vectors that a centre is learnt from; FAISS warns below 39
SAMPLE_OF_CODES = 39 * 256  # likewise for the codes of product quantisation
CODE_BYTES = 64  # of a vector in product quantisation
ID_BYTES, PLACE_BYTES = 8, 8
HEAD_PART = 1 / 4  # of the numbers of a vector, how many its head has
HEADS_PER_ROOT = 8  # heads are compared so quickly that shorter lists pay
FITTING = 7 / 8  # of memory, what codes may take: numbers of clips and where they lie come on top, 40 bytes each


@dataclass(frozen=True, slots=True)
class Kind:
    """How a segment keeps its vectors: `flat` as float32, others in `lists` and coded.

    `fp16` has two bytes a number, which is the precision that archives store, so that nothing is lost; `sq8` one; `pca`
    one too, and heads of as many bytes a number, which are what lies in lists; `pq` CODE_BYTES a vector by product
    quantisation. (A learnt rotation before it, OPQ, takes a hundred times as long to learn as all the rest.)
    """

    name: KindName = "flat"
    lists: int = 0

    def clip_bytes(self, width: int) -> int:
        """What a clip takes."""
        codes = {"flat": 4 * width, "fp16": 2 * width, "sq8": width, "pca": width + head_of(width), "pq": CODE_BYTES}
        return codes[self.name] + (0 if self.name == "flat" else ID_BYTES + PLACE_BYTES)

    @property
    def is_exact(self) -> bool:
        """Whether a search gives the cosines of the vectors as they are stored."""
        return self.name in ("flat", "fp16")

    @property
    def sample_size(self) -> int:
        """How many vectors it is learnt from."""
        return max(SAMPLE_PER_LIST * self.lists, SAMPLE_OF_CODES * (self.name == "pq"))


FLAT = Kind()


def kind_for(count: int, width: int, memory_bytes: int) -> Kind:
    """How to keep so many vectors: as they are if they are few, else as well as memory holds."""
    if count <= FLAT_CLIPS:
        return FLAT
    names: tuple[KindName, ...] = ("pca", "sq8", "pq")
    kinds = [Kind(name, lists_for(name, count)) for name in (("fp16", *names) if count <= LISTED_CLIPS else names)]
    fitting = (kind for kind in kinds if count * kind.clip_bytes(width) <= FITTING * memory_bytes)
    return next(fitting, kinds[-1])


def lists_for(name: KindName, count: int) -> int:
    """Into how many lists a kind sorts so many vectors."""
    per_root = HEADS_PER_ROOT if name == "pca" else LISTS_PER_ROOT
    return 0 if name == "flat" else 2 ** round(math.log2(per_root * math.sqrt(max(count, 1))))


def head_of(width: int) -> int:
    """How many numbers the head of a vector has."""
    return max(2, round(HEAD_PART * width))
