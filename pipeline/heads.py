"""Heads of vectors, which a search of millions compares first: FAISS, as `vectors.py` has it.

A head is what is left of a vector in the few directions in which clips differ most, a byte a number. Heads lie in lists
round centres; whole codes, a byte a number too, are compared of those vectors alone whose heads are good enough.
"""

# H numbers of a head, L lists, N vectors, K best heads, M results, E joint dimension, S vectors to learn from

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
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

# Products of a query with the centres of lists, and the lists' numbers, 1 x L each.
Centres = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Stages:
    """The parts of an index that compares heads first: what makes them, their lists, and the codes of whole vectors.

    To take an index apart for each query would cost two searches side by side: each call of FAISS lets the other one
    have Python's lock.
    """

    index: Any  # owns the memory of the others
    turn: Any
    heads: Any
    whole: Any

    @classmethod
    def of(cls, index: Any) -> Stages:
        """Of an `IndexRefine` as `trained` makes one for `pca`."""
        turned: Any = faiss.downcast_index(index.base_index)
        parts = (faiss.downcast_VectorTransform(turned.chain.at(0)), faiss.downcast_index(turned.index))
        return cls(index, *parts, faiss.downcast_index(index.refine_index))

    @property
    def scale(self) -> float:
        """What numbers of heads are multiplied by to be bytes."""
        return math.sqrt((faiss.vector_to_array(self.turn.A) ** 2).sum() / (self.heads.d - 1))

    @cached_property
    def _codes(self) -> NDArray[np.uint8]:
        """All whole codes, N x bytes, of an index to which nothing is added any more."""
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(self.whole.codes.data(), self.whole.ntotal * self.whole.code_size)
        return codes.reshape(self.whole.ntotal, -1)

    def add(self, vectors_NE: Vectors) -> None:
        """Adds vectors to the index.

        FAISS would cut off what bytes do not hold, and MIDDLE times all that it cuts off would blur products: here the
        last number of a head makes up for what is cut off of the others.
        """
        heads_NH = np.floor(self.turn.apply(vectors_NE)).clip(0, 255)
        heads_NH[:, -1] += (MIDDLE - 0.5) * self.heads.d - heads_NH.sum(axis=1)
        self.heads.add(heads_NH.clip(0, 255))
        self.whole.add(vectors_NE)
        turned: Any = faiss.downcast_index(self.index.base_index)
        self.index.ntotal = turned.ntotal = self.heads.ntotal

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
        self, bound: float, query_1H: Vectors, centres: Centres, selector: Mapping[str, faiss.IDSelector]
    ) -> tuple[Vectors, Places]:
        """Products and places of the heads in those lists that are better than a bound, N, in any order."""
        found = faiss.RangeSearchResult(1)
        query, parameters = faiss.swig_ptr(query_1H), in_lists(centres[0].shape[1], **selector)
        self.heads.range_search_preassigned_c(1, query, bound, *_pointers(centres), found, False, parameters)
        count = int(faiss.rev_swig_ptr(found.lims, 2)[1])
        products_N, places_N = (faiss.rev_swig_ptr(each, count).copy() for each in (found.distances, found.labels))
        return products_N, places_N

    def by_whole(self, most: int, query_1E: Vectors, places_N: Places) -> tuple[Vectors, Places]:
        """Products of a query with the best whole codes in some places, and these, 1 x M, best first; -1 for no more.

        All codes in one call of FAISS: with one for each few, searches side by side would wait for Python's lock as
        long as they compare. Of equal products that which was added first, if the places are in order.
        """
        codes_N = np.take(self._codes, places_N, axis=0)
        products_1M, labels_1M = np.full((1, most), -np.inf, np.float32), np.full((1, most), -1, np.int64)
        into = faiss.swig_ptr(products_1M), faiss.swig_ptr(labels_1M), most
        labels_N = np.arange(len(places_N))[::-1].copy()  # of equal products the heap lets go of the lowest first
        with _scanner(self.whole.sq) as scanner:
            scanner.set_query(faiss.swig_ptr(query_1E))
            scanner.set_list(0, 0.0)  # codes are of vectors, and not of what they are beside a centre
            scanner.scan_codes(len(places_N), faiss.swig_ptr(codes_N), faiss.swig_ptr(labels_N), *into)
        order_M = np.lexsort((-labels_1M[0], -products_1M[0]))
        places_1M = np.append(places_N, -1)[len(places_N) - 1 - labels_1M]
        return products_1M[:, order_M], places_1M[:, order_M]


@contextmanager
def _scanner(quantizer: Any) -> Iterator[Any]:
    """What compares codes of a quantizer with one query.

    FAISS leaves it to who asks for it, and Python cannot be told so (`thisown`): once that had deleted one, FAISS
    1.15.1 gave out objects without methods.
    """
    made = quantizer.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, False, None, False)
    try:
        yield made
    finally:
        type(made).__swig_destroy__(made)


def part_of(centres: Centres, first: int, last: int) -> Centres:
    """Of lists in the order in which they are looked into, those from one to before another."""
    products_1L, numbers_1L = centres
    return np.ascontiguousarray(products_1L[:, first:last]), np.ascontiguousarray(numbers_1L[:, first:last])


def _pointers(centres: Centres) -> tuple[Any, Any]:
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
