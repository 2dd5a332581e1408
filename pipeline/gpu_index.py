"""A vector index copied to a GPU, which compares a query with every vector: for processes that stay and answer many.

FAISS's own indexes on GPUs pass over a selector without a word (facebookresearch/faiss, issues 3114 and 3924), so that
clips that a filter excludes, or that are hidden, would come back. Here the scores of what may not be found are struck
out before the best are taken. No list is left out either: nothing is lost but what codes have lost already.

A copy is used where it fits and where it answers a few queries in less time than the CPUs do, and says so.
"""

# N vectors of a segment, E joint dimension, K that are scored twice

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from itertools import chain
from weakref import WeakValueDictionary

import numpy as np
import torch

from pipeline.index_files import VectorIndex, best_of
from pipeline.indexes import Searchable
from pipeline.vectors import Allowed, Segment, Vectors, cosines
from schemas.errors import first_line

# Products in float16 are rounded, sums of them too: so many more than are asked for are scored again in float32.
KEPT, LEAST_KEPT = 4, 1_024
KEPT_FREE = 0.15  # of a device's memory: for scores, and for what a model needs
NUMBER_BYTES = 2
PROBE_QUERIES, PROBE_CLIPS = 9, 200
GB = 1_000_000_000


class _Copy:
    """The vectors of a segment on a device, N x E in float16: the precision that archives store."""

    def __init__(self, segment: Segment, device: str) -> None:
        shape = (len(segment.clips_N), segment.index.d)
        self.vectors_NE = torch.empty(shape, dtype=torch.float16, device=device)
        first = 0
        for some_NE in segment.vectors():
            self.vectors_NE[first : first + len(some_NE)] = torch.from_numpy(some_NE)
            first += len(some_NE)

    def nearest(
        self, segment: Segment, query_E: Vectors, most: int, allowed: Allowed | None
    ) -> list[tuple[float, int]]:
        """Scores, negated, and numbers of the nearest clips of the segment, best first."""
        mask_N = segment.findable(allowed)
        scores_N = self.vectors_NE @ torch.from_numpy(query_E).to(self.vectors_NE)
        if mask_N is not None:
            scores_N.masked_fill_(~torch.from_numpy(mask_N).to(scores_N.device), -torch.inf)
        best_K, places_K = scores_N.topk(min(len(scores_N), max(KEPT * most, LEAST_KEPT)))
        places_K = places_K[best_K > -torch.inf]
        vectors_KE = self.vectors_NE[places_K].float().cpu().numpy()
        scores_1K = cosines(query_E[None], vectors_KE, np.arange(len(vectors_KE))[None])
        numbers_K = segment.clips_N[places_K.cpu().numpy()]
        return sorted(zip((-scores_1K[0]).tolist(), numbers_K.tolist(), strict=True))[:most]


@dataclass(frozen=True, slots=True)
class GpuIndex:
    """An index and what a device holds of its segments; asked as the index is, with the same cosines where exact."""

    own: VectorIndex
    copies: tuple[_Copy, ...]

    @property
    def count(self) -> int:
        """See `VectorIndex`."""
        return self.own.count

    @property
    def is_exact(self) -> bool:
        """See `VectorIndex`."""
        return self.own.is_exact

    def search(self, query_E: Vectors, most: int, allowed: Allowed | None = None) -> list[tuple[str, float]]:
        """See `VectorIndex.search`."""
        query_E = np.ascontiguousarray(query_E, np.float32)
        pairs = zip(self.own.segments, self.copies, strict=True)
        try:
            found = [copy.nearest(each, query_E, most, allowed) for each, copy in pairs]
        except torch.OutOfMemoryError:  # of scores, beside others who use the device
            return self.own.search(query_E, most, allowed)
        return best_of(chain.from_iterable(found), most)


class GpuCopies:
    """What a device holds of indexes in use: versions of an archive share the segments that they have in common."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._held: WeakValueDictionary[str, _Copy] = WeakValueDictionary()
        self._slower: tuple[frozenset[str], str] | None = None  # segments that CPUs search quicker, and what was said

    def of(self, index: VectorIndex) -> GpuIndex | None:
        """The index with its segments on the device; None where there is no room for them.

        A version that is still asked keeps its copies until it is closed. Raises what CUDA does.
        """
        held = {segment.name: self._held.get(segment.name) for segment in index.segments}
        missing = [segment for segment in index.segments if held[segment.name] is None]
        if missing and sum(map(_size_bytes, missing)) > room_bytes(self.device):
            return None
        copies = [held[segment.name] or _Copy(segment, self.device) for segment in index.segments]
        self._held.update({segment.name: copy for segment, copy in zip(index.segments, copies, strict=True)})
        return GpuIndex(index, tuple(copies))

    def quicker(self, index: VectorIndex) -> tuple[Searchable, str]:
        """The index, or its copy on the device where that answers in less time; and what decided, in a sentence."""
        if not index.count:
            return index, "CPUs: no clips"
        names = frozenset(segment.name for segment in index.segments)
        if self._slower is not None and self._slower[0] == names:  # tags alone are new, say
            return index, self._slower[1]
        try:
            on_device = self.of(index)
            return (index, self._no_room(index)) if on_device is None else self._compared(index, on_device, names)
        except RuntimeError as error:  # CUDA's, and what is short of memory: a copy is no condition of an answer
            return index, f"CPUs: {self.device} failed: {first_line(error)}"

    def _compared(self, index: VectorIndex, on_device: GpuIndex, names: frozenset[str]) -> tuple[Searchable, str]:
        queries_QE = next(max(index.segments, key=lambda segment: segment.count).vectors())[:PROBE_QUERIES]
        cpu_s, device_s = (_search_s(each, queries_QE) for each in (index, on_device))
        figures = f"{1000 * device_s:.2f} ms a query on {self.device}, {1000 * cpu_s:.2f} ms on CPUs"
        if device_s < cpu_s:
            return on_device, f"{self.device}: {figures}"
        self._slower = names, f"CPUs: {figures}"
        return index, self._slower[1]

    def _no_room(self, index: VectorIndex) -> str:
        size_bytes = sum(map(_size_bytes, index.segments))
        return f"CPUs: no room for {size_bytes / GB:.2f} GB of vectors on {self.device}"


def _search_s(index: Searchable, queries_QE: Vectors) -> float:
    """Seconds of a search, the median of some; the first of all, which loads what is needed, does not count."""
    times_s = []
    for query_E in (queries_QE[0], *queries_QE):
        began = time.perf_counter()
        index.search(query_E, PROBE_CLIPS)
        times_s.append(time.perf_counter() - began)
    return statistics.median(times_s[1:])


def _size_bytes(segment: Segment) -> int:
    """What a segment takes on a device."""
    size: int = NUMBER_BYTES * len(segment.clips_N) * segment.index.d
    return size


def room_bytes(device: str) -> int:
    """Bytes that vectors may take of a device now; of a CPU, all that could be asked for."""
    if not device.startswith("cuda"):
        return torch.iinfo(torch.int64).max
    torch.cuda.empty_cache()  # copies that were let go count as taken until then
    free, total = torch.cuda.mem_get_info(device)
    return int(free - KEPT_FREE * total)
