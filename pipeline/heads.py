"""Heads of vectors, which a search of millions compares first: FAISS, as `vectors.py` has it.

A head is what is left of a vector in the few directions in which clips differ most, a byte a number. Heads lie in lists
round centres; whole codes, a byte a number too, are compared of those vectors alone whose heads are good enough.
"""

# H numbers of a head, L lists, N vectors, K best heads, E joint dimension, S vectors that all is learnt from

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from numpy.typing import NDArray

from pipeline.vector_kinds import head_of

if TYPE_CHECKING:
    from pipeline.vectors import Places, Vectors

# Lists are taken by the product with their centre, and by what a wide list may have above that: so many times the root
# of its vectors' mean squared distance from their mean. Less than half as many lists are then enough for texts
# (`docs/scale.md`).
SPREADS = 0.3
SPREAD_OF = 4_096  # vectors of a list at most, by which that is measured
EMPTY = 10.0  # what an empty list is behind by: more than products of unit vectors and SPREADS come to
# Heads are bytes without a sign, which FAISS multiplies as integers: MIDDLE stands for nothing. Numbers of a head add
# up to nothing, so that what MIDDLE adds to a product is the same for all. The room above the largest number of the
# sample is for what later vectors have, and for what the last number makes up for.
MIDDLE, HEADROOM = 128.0, 1.25
AT_ONCE = 512  # whole codes: 1 MB of float32 at 512 dimensions, which is used again; larger ones are cleared each time

# Products of a query with the centres of lists, and the lists' numbers, 1 x L each.
Centres = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Stages:
    """The parts of an index that compares heads first: what makes them, their lists, and the codes of whole vectors."""

    turn: Any
    heads: Any
    whole: Any

    @classmethod
    def of(cls, index: Any) -> Stages:
        """Of an `IndexRefine` as `trained` makes one for `pca`."""
        turned: Any = faiss.downcast_index(index.base_index)
        parts = (faiss.downcast_VectorTransform(turned.chain.at(0)), faiss.downcast_index(turned.index))
        return cls(*parts, faiss.downcast_index(index.refine_index))

    @property
    def scale(self) -> float:
        """What numbers of heads are multiplied by to be bytes."""
        return math.sqrt((faiss.vector_to_array(self.turn.A) ** 2).sum() / (self.heads.d - 1))

    def add(self, index: Any, vectors_NE: Vectors) -> None:
        """Adds vectors to the index whose parts these are.

        FAISS would cut off what bytes do not hold, and MIDDLE times all that it cuts off would blur products: here the
        last number of a head makes up for what is cut off of the others.
        """
        heads_NH = np.floor(self.turn.apply(vectors_NE)).clip(0, 255)
        heads_NH[:, -1] += (MIDDLE - 0.5) * self.heads.d - heads_NH.sum(axis=1)
        self.heads.add(heads_NH.clip(0, 255))
        self.whole.add(vectors_NE)
        turned: Any = faiss.downcast_index(index.base_index)
        index.ntotal = turned.ntotal = self.heads.ntotal

    def head(self, query_1E: Vectors) -> Vectors:
        """The head of a query, 1 x H, as centres are compared with."""
        head_1H: Vectors = self.turn.apply(query_1E)
        return head_1H

    def bytes_of(self, query_1H: Vectors) -> Vectors:
        """The head of a query as heads are compared with, by all that bytes hold: products are so many times larger."""
        moved_1H = query_1H - np.float32(MIDDLE)
        scaled_1H: Vectors = moved_1H * ((MIDDLE - 1) / max(1e-9, float(np.abs(moved_1H).max()))) + MIDDLE
        return np.round(scaled_1H).astype(np.float32)

    def best(self, most: int, query_1H: Vectors, centres: Centres, selector: Mapping[str, faiss.IDSelector]) -> Places:
        """Places of the best heads in those lists, at most so many, best first."""
        products_1K, places_1K = np.empty((1, most), np.float32), np.empty((1, most), np.int64)
        into = faiss.swig_ptr(products_1K), faiss.swig_ptr(places_1K), False
        parameters = in_lists(centres[0].shape[1], **selector)
        query = faiss.swig_ptr(query_1H)
        self.heads.search_preassigned_c(1, query, most, *_pointers(centres), *into, parameters)
        return places_1K[places_1K >= 0]

    def better_than(
        self, bound: float, query_1H: Vectors, centres: Centres, lists: int, selector: Mapping[str, faiss.IDSelector]
    ) -> tuple[Vectors, Places]:
        """Products and places of the heads in the first lists that are better than a bound, N, in any order."""
        found = faiss.RangeSearchResult(1)
        first = [np.ascontiguousarray(each_1L[:, :lists]) for each_1L in centres]
        query = faiss.swig_ptr(query_1H)
        self.heads.range_search_preassigned_c(
            1, query, bound, *_pointers(first), found, False, in_lists(lists, **selector)
        )
        count = int(faiss.rev_swig_ptr(found.lims, 2)[1])
        products_N, places_N = (faiss.rev_swig_ptr(each, count).copy() for each in (found.distances, found.labels))
        return products_N, places_N

    def by_whole(self, query_1E: Vectors, places_N: Places) -> Vectors:
        """Products of a query with the whole codes in some places, N."""
        codes_NE = faiss.rev_swig_ptr(self.whole.codes.data(), self.whole.ntotal * self.whole.d)
        low_E, wide_E = faiss.vector_to_array(self.whole.sq.trained).reshape(2, -1)
        step_E = query_1E[0] * wide_E / 255  # a code says how many steps above the least it is, and a half
        least, codes_NE = query_1E[0] @ low_E + step_E.sum() / 2, codes_NE.reshape(-1, self.whole.d)
        scores_N = np.empty(len(places_N), np.float32)
        for first in range(0, len(places_N), AT_ONCE):
            some_N = slice(first, first + AT_ONCE)
            scores_N[some_N] = codes_NE[places_N[some_N]].astype(np.float32) @ step_E + least
        return scores_N


def _pointers(centres: Sequence[NDArray[Any]]) -> tuple[Any, Any]:
    """Numbers of lists and products with their centres, as FAISS is told them."""
    products_1L, numbers_1L = centres
    return faiss.swig_ptr(numbers_1L), faiss.swig_ptr(products_1L)


def in_lists(probes: int, **selector: faiss.IDSelector) -> faiss.SearchParameters:
    """How FAISS is to search so many lists."""
    return faiss.SearchParametersIVF(nprobe=probes, **selector)  # type: ignore[call-arg]  # as its alias has it


def empty_index(lists: int, sample_SE: Vectors) -> faiss.Index:
    """An empty index that compares heads in lists first, then the whole codes of the best, learnt from S x E."""
    width, head = sample_SE.shape[1], head_of(sample_SE.shape[1])
    # Those orthogonal directions in which a sum of products has most of itself: not centred, for products are not.
    turn_EH = np.linalg.eigh(sample_SE.T @ sample_SE)[1][:, ::-1][:, : head - 1] @ _without_sum(head)
    heads_SH = (sample_SE @ turn_EH).astype(np.float32)
    scale = MIDDLE / (HEADROOM * float(np.abs(heads_SH).max()))
    turn: Any = faiss.LinearTransform(width, head, True)  # and adds a vector
    faiss.copy_array_to_vector((scale * turn_EH).T.astype(np.float32).ravel(), turn.A)
    faiss.copy_array_to_vector(np.full(head, MIDDLE, np.float32), turn.b)
    turn.is_trained = True
    learnt: Any = faiss.index_factory(head, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    learnt.train(heads_SH)
    centres = faiss.IndexFlatIP(head)
    centres.add(np.float32(MIDDLE) + np.float32(scale) * learnt.quantizer.reconstruct_n(0, lists))
    codes = faiss.ScalarQuantizer.QT_8bit_direct
    heads: Any = faiss.IndexIVFScalarQuantizer(centres, head, lists, codes, faiss.METRIC_INNER_PRODUCT, False)
    whole = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    empty = faiss.IndexRefine(faiss.IndexPreTransform(turn, heads), whole)
    empty.train(sample_SE)
    return empty


def _without_sum(head: int) -> NDArray[np.float64]:
    """Orthogonal directions H - 1 x H in which what a vector's numbers add up to is nothing; they share it alike."""
    mixed_HH = np.random.default_rng(0).normal(size=(head, head))
    mixed_HH[:, 0] = 1
    return np.linalg.qr(mixed_HH)[0][:, 1:].T


def aim(stages: Stages) -> None:
    """Moves the centres of full lists by what SPREADS adds to products with them."""
    heads, scale = stages.heads, stages.scale
    more_L = np.full(heads.nlist, -EMPTY * scale)
    for number in range(heads.nlist):
        if count := heads.invlists.list_size(number):
            codes = faiss.rev_swig_ptr(heads.invlists.get_codes(number), count * heads.code_size)
            some = codes.reshape(count, -1)[:: math.ceil(count / SPREAD_OF)]
            more_L[number] = SPREADS * math.sqrt(some.var(axis=0).sum())
    centres = faiss.downcast_index(heads.quantizer)
    # All heads add up to the same, so that a product with it is more by the same for every query.
    moved_LH = centres.reconstruct_n(0, heads.nlist) + (more_L * scale / (heads.d * MIDDLE))[:, None]
    centres.reset()
    centres.add(moved_LH.astype(np.float32))
