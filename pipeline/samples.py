"""Frames taken for moments, and the clips that can be made of them."""

# N clips, T frames, S pixels, C = 3 channels

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import sampling
from schemas.records import DecodedUnit, Unit, Window

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was taken for a moment: the frame's own time, its picture H x W x 3, and a thumbnail if asked for."""

    time_s: float
    picture: Picture
    thumbnail: bytes
    is_planned: bool = False  # then it is as near as was asked for


@dataclass(frozen=True, slots=True)
class Still:
    """A frame that may become a sample: S x S x 3 for the model, and the whole of it, small, H x W x 3."""

    picture: Picture
    small: Picture


def middle(window: Window) -> float:
    """The time of the window's middle sample, which is the clip's picture."""
    return window.frame_times_s[len(window.frame_times_s) // 2]


def clips(unit: Unit, taken: Mapping[float, Sample], began: float) -> DecodedUnit | None:
    """The unit's clips of which at least one sample is intact, or None when there is none. `began` is its start."""
    counts = [(window, _intact_count(window, taken)) for window in unit.windows]
    kept = [(window, intact) for window, intact in counts if intact]
    if not kept:
        return None
    return DecodedUnit(
        unit=unit,
        windows=tuple(_with_true_times(window, taken) for window, _ in kept),
        frames_NTHWC=np.stack([np.stack([taken[t].picture for t in window.frame_times_s]) for window, _ in kept]),
        thumbnails=tuple(taken[middle(window)].thumbnail for window, _ in kept),
        intact_samples=tuple(intact for _, intact in kept),
        decode_s=time.perf_counter() - began,
    )


def _intact_count(window: Window, taken: Mapping[float, Sample]) -> int:
    """How many of the window's samples were taken close enough to their time."""
    limit_s = sampling.tolerance_s(window)
    found = [(taken[t], t) for t in window.frame_times_s if t in taken]
    return sum(sample.is_planned or abs(sample.time_s - t) <= limit_s for sample, t in found)


def _with_true_times(window: Window, taken: Mapping[float, Sample]) -> Window:
    """The window with the times of the frames that were taken."""
    return Window(window.start_s, window.end_s, tuple(taken[t].time_s for t in window.frame_times_s))
