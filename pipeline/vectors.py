"""Segments of a vector index: FAISS. The only place that knows it.

A segment holds some clips of a space as one FAISS index in a file that is mapped into memory, with the numbers of its
clips and of their revisions beside it, in the same order. Few vectors are kept as they are and compared one by one;
many are sorted into lists round centres and coded shorter, and a search looks into some of the lists. Of millions it
compares the heads first: what is left of a vector in the few directions in which clips differ most (`heads.py`).
Segments are never changed: what is no longer to be found is left out by a mask.
"""

# N vectors of a segment, E joint dimension, Q queries, M results, S vectors that centres are learnt from

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from pipeline import heads
from pipeline.keys import Numbers
from pipeline.vector_kinds import CODE_BYTES, FLAT, Kind

Vectors = NDArray[np.float32]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]  # of vectors in a segment, in the order in which they were added
Lot = tuple[Numbers, Numbers, Vectors]  # clips, their revisions, and vectors N x E
Allowed = Callable[[Numbers, Numbers], Mask]  # of clips' and revisions' numbers, which clips may be found

TRAINING_ROUNDS = 10  # FAISS's own number for lists
# Of the heads in the first lists the best so many say how good one must be for its whole vector to be compared. FAISS
# can keep the best of all lists by itself, but its heap of thousands takes as long as comparing what is put into it.
# More of them where more lists are looked into: else a wider search would find no more than a narrow one. The first
# lists are those that hold FIRST_TIMES as many vectors.
NEAR, NEAR_PER_LIST, FIRST_TIMES = 2_400, 2.5, 4
MOST_TIMES = 16  # of NEAR, whole vectors at most; one query in twenty has ten times as many better than the bound
LOOKED_AT = 6_000  # whole vectors where the first lists hold too few
# Where no more vectors may be found, or no greater part, they are picked out of their lists and compared one by one:
# that takes 1 us each, and to look at whether one may be found some 25 ns.
PICKED, PICKED_PART = 20_000, 1 / 40
NOWHERE = np.zeros(0, np.int64)
PICKED_AT_ONCE = 16_384  # 32 MB at 512 dimensions
FIRST_PROBES = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """An opened segment. `live_N` says which of its N clips can be found, None that all can."""

    name: str
    kind: Kind
    index: faiss.Index
    clips_N: Numbers
    videos_N: Numbers  # numbers of revisions, see `keys.of_revisions`
    probes: int = 0  # lists that a search looks into
    live_N: Mask | None = None
    stages: heads.Stages | None = None  # of `pca`

    @property
    def count(self) -> int:
        """How many of its clips can be found."""
        return len(self.clips_N) if self.live_N is None else int(self.live_N.sum())

    @property
    def live_clips(self) -> Numbers:
        """The numbers of those clips."""
        return self.clips_N if self.live_N is None else self.clips_N[self.live_N]

    def findable(self, allowed: Allowed | None) -> Mask | None:
        """Which of its clips may be found, N; None where all may."""
        if allowed is None:
            return self.live_N
        passes_N = allowed(self.clips_N, self.videos_N)
        return passes_N if self.live_N is None else self.live_N & passes_N

    def vectors(self) -> Iterator[Vectors]:
        """All of its vectors in order, as codes keep them, some thousands at a time."""
        for first in range(0, len(self.clips_N), PICKED_AT_ONCE):
            yield self.index.reconstruct_batch(np.arange(first, min(first + PICKED_AT_ONCE, len(self.clips_N))))

    def search(self, queries_QE: Vectors, most: int, allowed: Allowed | None = None) -> tuple[Vectors, Numbers, Mask]:
        """Scores, clips' numbers and whether there is such a result, Q x M each, best first."""
        mask_N = self.findable(allowed)
        left = len(self.clips_N) if mask_N is None else int(mask_N.sum())
        most, queries_QE = min(most, left), np.ascontiguousarray(queries_QE, np.float32)
        if not most or not len(queries_QE):
            shape = (len(queries_QE), 0)
            return np.zeros(shape, np.float32), np.zeros(shape, np.uint64), np.zeros(shape, np.bool_)
        if mask_N is not None and self.kind.lists and left <= max(PICKED, PICKED_PART * len(self.clips_N)):
            scores_QM, places_QM = self._picked(queries_QE, most, np.flatnonzero(mask_N))
        else:
            # More lists where fewer of their vectors may be found.
            probes = min(self.kind.lists, math.ceil(self.probes * len(self.clips_N) / left))
            scores_QM, places_QM = self._found(queries_QE, most, mask_N, probes)
            short_Q = (places_QM < 0).any(axis=1)
            if self.kind.lists and short_Q.any():  # those lists hold too few
                found = self._found(queries_QE[short_Q], most, mask_N, self.kind.lists)
                scores_QM[short_Q], places_QM[short_Q] = found
        return scores_QM, self.clips_N[np.maximum(places_QM, 0)], places_QM >= 0

    def _found(self, queries_QE: Vectors, most: int, mask_N: Mask | None, probes: int) -> tuple[Vectors, Places]:
        """Scores and places of the best, Q x M, best first; place -1 where there are no more."""
        # A bit for each vector; the array must live as long as FAISS looks at it.
        bits = None if mask_N is None else np.packbits(mask_N, bitorder="little")
        selector = {} if bits is None else {"sel": faiss.IDSelectorBitmap(len(bits) * 8, faiss.swig_ptr(bits))}
        if self.stages is not None:
            found = [self._by_heads(self.stages, query_E[None], most, probes, selector) for query_E in queries_QE]
            scores, places = zip(*found, strict=True)
            return np.concatenate(scores), np.concatenate(places)
        parameters = search_parameters(self.kind, probes, **selector)
        scores_QM, places_QM = self.index.search(queries_QE, most, params=parameters)
        if self.kind.name == "fp16":  # FAISS adds up products of such codes in another order
            return self._scored(queries_QE, places_QM)
        return scores_QM, places_QM

    def _by_heads(
        self,
        stages: heads.Stages,
        query_1E: Vectors,
        most: int,
        probes: int,
        selector: Mapping[str, faiss.IDSelector],
    ) -> tuple[Vectors, Places]:
        """As `_found`, for one query: the best by whole codes, of the vectors whose heads are good enough."""
        query_1H = stages.head(query_1E)
        centres = stages.heads.quantizer.search(query_1H, probes)  # once for all searches
        query_1H = stages.bytes_of(query_1H)
        places_N = self._good(stages, query_1H, centres, selector) if most <= self._near else NOWHERE
        if len(places_N) < most:
            places_N = stages.best(max(LOOKED_AT, most), query_1H, centres, selector)
        return stages.by_whole(most, query_1E, np.sort(places_N))  # threads find them in any order

    @property
    def _near(self) -> int:
        """How many of the best heads of the first lists are as good as a head must be."""
        return max(NEAR, round(NEAR_PER_LIST * self.probes))

    def _good(
        self, stages: heads.Stages, query_1H: Vectors, centres: heads.Centres, selector: Mapping[str, faiss.IDSelector]
    ) -> Places:
        """Places of the vectors whose heads are good enough; none where the first lists hold too few to tell."""
        probes = centres[0].shape[1]
        first = FIRST_TIMES * self._near * self.kind.lists / len(self.clips_N)
        # More lists where fewer of their vectors may be found, as of all that are looked into.
        lists = min(probes, math.ceil(first * probes / self.probes))
        # All of them at once: a heap of so many takes longer than what it saves.
        products_N, places_N = stages.better_than(-np.inf, query_1H, heads.part_of(centres, 0, lists), selector)
        if len(products_N) < self._near:
            return NOWHERE
        bound = float(np.partition(products_N, -self._near)[-self._near])
        is_good_N = products_N > bound
        products_N, places_N = products_N[is_good_N], places_N[is_good_N]
        if lists < probes:
            others = stages.better_than(bound, query_1H, heads.part_of(centres, lists, probes), selector)
            products_N, places_N = np.append(products_N, others[0]), np.append(places_N, others[1])
        most = MOST_TIMES * self._near
        return places_N if len(places_N) <= most else places_N[np.argpartition(-products_N, most)[:most]]

    def _scored(self, queries_QE: Vectors, places_QM: Places) -> tuple[Vectors, Places]:
        """Cosines of queries with the vectors in some places, as codes keep these, and the places, best first."""
        keys_N, which_QM = np.unique(np.maximum(places_QM, 0), return_inverse=True)
        vectors_NE = self.index.reconstruct_batch(keys_N)
        scores_QM = cosines(queries_QE, vectors_NE, which_QM.reshape(places_QM.shape))
        return _best(np.where(places_QM < 0, -np.inf, scores_QM), places_QM, places_QM.shape[1])

    def _picked(self, queries_QE: Vectors, most: int, places_N: Places) -> tuple[Vectors, Places]:
        """The best of the vectors in some places, Q x M, all of which are compared."""
        scores, shape = [], (len(queries_QE), len(places_N))
        for first in range(0, len(places_N), PICKED_AT_ONCE):
            vectors_NE = self.index.reconstruct_batch(places_N[first : first + PICKED_AT_ONCE])
            which_QN = np.broadcast_to(np.arange(len(vectors_NE)), (len(queries_QE), len(vectors_NE)))
            scores.append(cosines(queries_QE, vectors_NE, which_QN))
        return _best(np.concatenate(scores, axis=1), np.broadcast_to(places_N, shape), most)

    def with_probes(self, probes: int) -> Segment:
        """The same, searched more widely or less."""
        return replace(self, probes=probes)

    def hiding(self, live_N: Mask) -> Segment:
        """The same with other clips to be found."""
        return replace(self, live_N=None if live_N.all() else live_N)


Found = tuple[Vectors, Numbers, Mask]  # see `Segment.search`


def search_all(
    segments: Sequence[Segment], queries_QE: Vectors, most: int, allowed: Allowed | None = None
) -> Iterator[Found]:
    """What each segment finds, in order: side by side, each on its share of the cores.

    Parts of a search run on one core whatever there is, so that one segment after the other would leave the rest idle.
    """
    if len(segments) == 1:
        return iter([segments[0].search(queries_QE, most, allowed)])
    cores, total = os.cpu_count() or 1, max(1, sum(len(segment.clips_N) for segment in segments))

    def on_share(segment: Segment) -> Found:
        faiss.omp_set_num_threads(max(1, round(cores * len(segment.clips_N) / total)))  # of this thread alone
        return segment.search(queries_QE, most, allowed)

    return _workers().map(on_share, segments)


@cache
def _workers() -> ThreadPoolExecutor:
    """Threads that search segments, as many as cores; of each process its own, and kept."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="segments")


def search_parameters(kind: Kind, probes: int, **selector: faiss.IDSelector) -> faiss.SearchParameters | None:
    """How FAISS is to search a segment of any kind but `pca` in so many lists, and which of its vectors (`sel`)."""
    if kind == FLAT:
        return faiss.SearchParameters(**selector) if selector else None
    return heads.in_lists(probes, **selector)


def _best(scores_QM: Vectors, places_QM: Places, most: int) -> tuple[Vectors, Places]:
    """The best scores with their places, best first; of equal ones that which was added first."""
    if most < scores_QM.shape[1]:
        worst_Q1 = -np.partition(-scores_QM, most - 1, axis=1)[:, most - 1 : most]
        is_better, is_worst = scores_QM > worst_Q1, scores_QM == worst_Q1
        room_Q1 = most - is_better.sum(axis=1, keepdims=True)
        is_chosen = is_better | (is_worst & (np.cumsum(is_worst, axis=1) <= room_Q1))
        chosen_QM = np.nonzero(is_chosen)[1].reshape(-1, most)
        scores_QM = np.take_along_axis(scores_QM, chosen_QM, 1)
        places_QM = np.take_along_axis(places_QM, chosen_QM, 1)
    order_QM = np.argsort(-scores_QM, axis=1, kind="stable")
    return np.take_along_axis(scores_QM, order_QM, 1), np.take_along_axis(places_QM, order_QM, 1)


def cosines(queries_QE: Vectors, vectors_NE: Vectors, which_QM: Places) -> Vectors:
    """Cosines of each query with some of N vectors, Q x M: to the bit those that a flat segment has for one query."""
    (Q, M), E = which_QM.shape, vectors_NE.shape[1]
    found_QM = np.empty((Q, M), np.float32)
    arrays = [found_QM, *(np.ascontiguousarray(each) for each in (queries_QE, vectors_NE, which_QM))]
    faiss.fvec_inner_products_by_idx(*map(faiss.swig_ptr, arrays), E, Q, M)  # type: ignore[attr-defined]  # from C++
    return found_QM


def trained(kind: Kind, width: int, sample_SE: Vectors) -> faiss.Index:
    """An empty index of a kind, its centres and codes learnt from a sample S x E, which a flat one does not need."""
    sample_SE = np.ascontiguousarray(sample_SE, np.float32)
    if kind.name == "pca":
        return heads.empty_index(kind.lists, sample_SE)
    index: Any = faiss.index_factory(width, _factory(kind, width), faiss.METRIC_INNER_PRODUCT)
    if kind.name == "fp16":
        index.by_residual = False  # what remains beside a centre would be rounded; the vectors themselves are not
    if kind.name == "pq":
        index.do_polysemous_training = False  # takes a minute, for a kind of search that is not used here
    if kind.lists:
        index.make_direct_map()  # where each vector lies
        index.train(sample_SE)
    empty: faiss.Index = index
    return empty


def _factory(kind: Kind, width: int) -> str:
    """A kind as FAISS's index_factory wants it; for all but `pca`."""
    codes = min(CODE_BYTES, width)
    return {
        "flat": "Flat",
        "fp16": f"IVF{kind.lists},SQfp16",
        "sq8": f"IVF{kind.lists},SQ8",
        "pq": f"IVF{kind.lists},PQ{codes}",
    }[kind.name]


def filled(name: str, kind: Kind, empty: faiss.Index, lots: Iterable[Lot]) -> Segment:
    """A segment of lots of clips, in a copy of an empty index."""
    index = faiss.clone_index(empty)
    clips, videos = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    stages = heads.Stages.of(index) if kind.name == "pca" else None
    add = index.add if stages is None else stages.add
    for clips_N, videos_N, vectors_NE in lots:
        add(np.ascontiguousarray(vectors_NE, np.float32))
        clips.append(clips_N)
        videos.append(videos_N)
    if stages is not None:
        heads.aim(stages)
    _search_on_all_cores(index, kind)
    numbers, probes = (np.concatenate(clips), np.concatenate(videos)), min(FIRST_PROBES, kind.lists)
    return Segment(name, kind, index, *numbers, probes, stages=stages)


def _search_on_all_cores(index: faiss.Index, kind: Kind) -> None:
    """Divides the lists of a single query among threads; by default FAISS divides queries."""
    if kind.lists:
        faiss.extract_index_ivf(index).parallel_mode = 1


def file_names(name: str) -> tuple[str, str]:
    """The files of a segment: its index, and the numbers of its clips and their revisions, 2 x N."""
    return f"{name}.faiss", f"{name}.clips.npy"


def save(segment: Segment, folder: Path) -> None:
    """Writes the files of a segment."""
    index_file, clips_file = file_names(segment.name)
    faiss.write_index(segment.index, str(folder / index_file))
    np.save(folder / clips_file, np.stack([segment.clips_N, segment.videos_N]))


def load(name: str, kind: Kind, probes: int, index_file: Path, clips_file: Path) -> Segment:
    """Opens a segment. Raises OSError, ValueError, or FAISS's RuntimeError for files that are cut short.

    Vectors stay in the file, which is mapped into memory: nobody changes a segment, and one that is swept lives on
    until it is closed, as does the copy of one in a store.
    """
    is_plain = kind.name in ("flat", "pca")  # each of FAISS's two ways to map takes some kinds
    index = faiss.read_index(str(index_file), faiss.IO_FLAG_MMAP_IFC if is_plain else faiss.IO_FLAG_MMAP)
    clips_N, videos_N = np.load(clips_file, mmap_mode="r")
    if len(clips_N) != index.ntotal:
        raise ValueError(f"a segment of {index.ntotal} vectors and {len(clips_N)} clips")
    _search_on_all_cores(index, kind)
    stages = heads.Stages.of(index) if kind.name == "pca" else None
    return Segment(name, kind, index, clips_N, videos_N, probes, stages=stages)


def product_flops() -> float:
    """Floating-point operations per second of a product as learning centres takes them; 50 ms."""
    x, y = np.ones((1024, 512), np.float32), np.ones((2048, 512), np.float32)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        x @ y.T
        times.append(time.perf_counter() - began)
    return 2.0 * x.size * len(y) / min(times)
