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
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from weakref import WeakValueDictionary

import numpy as np
import torch

from pipeline.index_files import VectorIndex, best_of
from pipeline.indexes import Searchable
from pipeline.vectors import Allowed, Segment, Vectors, cosines

# Products in float16 are rounded, sums of them too: so many more than are asked for are scored again in float32.
KEPT, LEAST_KEPT = 4, 1_024
ROOM_PART = 0.8  # of free memory; scores and what a model needs come on top
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
            scores_N[torch.from_numpy(~mask_N).to(scores_N.device)] = -torch.inf
        left = len(scores_N) if mask_N is None else int(mask_N.sum())
        places_K = scores_N.topk(min(left, max(KEPT * most, LEAST_KEPT))).indices
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
        return best_of(chain.from_iterable(copy.nearest(each, query_E, most, allowed) for each, copy in pairs), most)


class GpuCopies:
    """What a device holds of indexes in use: versions of an archive share the segments that they have in common."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._held: WeakValueDictionary[str, _Copy] = WeakValueDictionary()

    def of(self, index: VectorIndex) -> GpuIndex | None:
        """The index with its segments on the device; None where there is no room for them."""
        held = {segment.name: self._held.get(segment.name) for segment in index.segments}
        missing = [segment for segment in index.segments if held[segment.name] is None]
        if sum(map(_size_bytes, missing)) > ROOM_PART * room_bytes(self.device):
            return None
        with suppress(torch.OutOfMemoryError):  # another process was quicker
            copies = [held[segment.name] or _Copy(segment, self.device) for segment in index.segments]
            self._held.update({segment.name: copy for segment, copy in zip(index.segments, copies, strict=True)})
            return GpuIndex(index, tuple(copies))
        return None

    def quicker(self, index: VectorIndex) -> tuple[Searchable, str]:
        """The index, or its copy on the device where that answers in less time; and what decided, in a sentence."""
        if not index.count:
            return index, "CPUs: no clips"
        on_device = self.of(index)
        if on_device is None:
            size_bytes = sum(map(_size_bytes, index.segments))
            return index, f"CPUs: no room for {size_bytes / GB:.2f} GB of vectors on {self.device}"
        queries_QE = next(max(index.segments, key=lambda segment: segment.count).vectors())[:PROBE_QUERIES]
        cpu_s, device_s = (_search_s(each, queries_QE) for each in (index, on_device))
        figures = f"{1000 * device_s:.2f} ms a query on {self.device}, {1000 * cpu_s:.2f} ms on CPUs"
        return (on_device, f"{self.device}: {figures}") if device_s < cpu_s else (index, f"CPUs: {figures}")


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
    """Bytes that are free on a device; of a CPU, all that could be asked for."""
    if not device.startswith("cuda"):
        return torch.iinfo(torch.int64).max
    return int(torch.cuda.mem_get_info(device)[0])
