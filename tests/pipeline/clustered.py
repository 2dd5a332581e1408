"""Clips' vectors round a hundred centres, as real ones lie, segments of them, and what comparing all finds."""

from __future__ import annotations

import numpy as np

from pipeline import vectors
from pipeline.vector_kinds import Kind
from pipeline.vectors import Segment

WIDTH, COUNT = 64, 10_000
KINDS = [Kind(), Kind("fp16", 32), Kind("pca", 32), Kind("sq8", 32), Kind("pq", 32)]
VIDEOS = 60


def clustered(count: int, *, seed: int, spread: float = 0.5) -> np.ndarray:
    """Unit vectors round a hundred centres, as those of clips are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(100, WIDTH))
    found = centres[rng.integers(0, 100, count)] + spread * rng.normal(size=(count, WIDTH))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float16).astype(np.float32)  # as archives store them


STORED = clustered(COUNT, seed=1)
QUERIES = clustered(20, seed=2)
CLIPS = np.random.default_rng(3).integers(0, 2**64, COUNT, np.uint64)
REVISIONS = np.arange(COUNT, dtype=np.uint64) % VIDEOS


def segment(kind: Kind, part: slice = slice(None)) -> Segment:
    """A segment of all of them or of a part, learnt from all."""
    rows = (CLIPS[part], REVISIONS[part], STORED[part])
    lots = [tuple(each[a : a + 1000] for each in rows) for a in range(0, len(rows[0]), 1000)]
    return vectors.filled("name", kind, vectors.trained(kind, WIDTH, STORED[: kind.sample_size]), lots)


def best(query_E: np.ndarray, most: int, mask_N: np.ndarray | None = None) -> list[int]:
    """The numbers of the nearest clips, by NumPy."""
    scores = STORED @ query_E
    if mask_N is not None:
        scores = np.where(mask_N, scores, -np.inf)
    return CLIPS[np.argsort(-scores, kind="stable")[:most]].tolist()
