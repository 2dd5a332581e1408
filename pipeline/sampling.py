"""Which moments of a video become clips and which frames become samples: arithmetic on time stamps, no video needed.

X-CLIP samples sparsely: T frames at the centres of T equal parts (spec §1). The reference does it by frame number
over a file; here it is by time over a window, which is the same for constant frame rates and right for variable ones.
Training and evaluation, which must be comparable with the reference's, go by frame number as it does.
"""

# n frames of a file, T samples of a clip

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.settings import Sampling
from schemas.records import Window

Times = NDArray[np.float64]  # (n,) seconds, ascending
Numbers = NDArray[np.int64]  # (T,) frame numbers, from 0

# A last piece shorter than this part of a window joins the window before it.
SHORTEST_PIECE = 0.5
STEP_PART = 0.25  # of the sampling step: how far a sample may be from its moment
# Frames whose times differ by less are one frame: time stamps are exact to the tick, floats to 1e-12 or so.
SAME_TIME_S = 1e-6


def spans(start_s: float, end_s: float, sampling: Sampling) -> list[tuple[float, float]]:
    """Start and end of every window over [start_s, end_s], in time order; at least one.

    A video shorter than a window is one window of its true length. `0..23 s, window 10 -> (0, 10), (10, 23)`;
    `0..26 s, window 10 -> (0, 10), (10, 20), (20, 26)`.
    """
    window_s, stride_s = sampling.window_s, sampling.stride_s
    count = 1 + max(0, int(np.ceil((end_s - start_s - SHORTEST_PIECE * window_s) / stride_s - SAME_TIME_S)))
    starts = [start_s + k * stride_s for k in range(count)]
    found = [(start, min(start + window_s, end_s)) for start in starts if end_s - start >= SHORTEST_PIECE * window_s]
    if not found:
        return [(start_s, end_s)]
    complete = next((k + 1 for k, (_, end) in enumerate(found) if end >= end_s), len(found))
    found = found[:complete]
    last_start, last_end = found[-1]
    if end_s - last_end < SHORTEST_PIECE * window_s:
        found[-1] = (last_start, end_s)
    return found


def centres(start_s: float, end_s: float, frames: int) -> Times:
    """Times of the centres of `frames` equal parts of [start_s, end_s]."""
    return start_s + (np.arange(frames) + 0.5) * (end_s - start_s) / frames


def shown_at(frame_times_s: Times, wanted_s: Times) -> Times:
    """For each wanted time the time of the frame on the screen then: the last one that started, or the first of all."""
    places = np.searchsorted(frame_times_s, wanted_s + SAME_TIME_S, side="right") - 1
    return frame_times_s[np.maximum(places, 0)]


def windows(frame_times_s: Times, end_s: float, sampling: Sampling) -> tuple[Window, ...]:
    """All windows of a video with frames at `frame_times_s` (ascending) that ends at `end_s`.

    A window in which no frame starts is left out: time stamps may jump by hours, and nothing new was shown.
    """
    if not len(frame_times_s):
        return ()
    made = []
    for start_s, stop_s in _inhabited(frame_times_s, spans(float(frame_times_s[0]), end_s, sampling)):
        chosen = shown_at(frame_times_s, centres(start_s, stop_s, sampling.frames))
        made.append(Window(start_s, stop_s, tuple(map(float, chosen))))
    return tuple(made)


def _inhabited(frame_times_s: Times, found: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The spans in which at least one frame starts."""
    edges = np.array(found)
    first = np.searchsorted(frame_times_s, edges[:, 0] - SAME_TIME_S)
    # A single frame without a duration makes a span of no length, and is in it.
    last = np.searchsorted(frame_times_s, np.maximum(edges[:, 1], edges[:, 0] + SAME_TIME_S))
    return [span for span, inside in zip(found, last > first, strict=True) if inside]


def step_s(window: Window) -> float:
    """The time between two samples of a window."""
    return (window.end_s - window.start_s) / len(window.frame_times_s)


def tolerance_s(window: Window) -> float:
    """How far a sample may be from its time and still count as intact: a quarter of the sampling step."""
    return max(0.1, STEP_PART * step_s(window))


def moments(windows: Sequence[Window], tolerance_s: float | None) -> tuple[Times, Times]:
    """The distinct moments that windows show, m ascending, and how far from each its frame may be, in seconds.

    `tolerance_s` None is a quarter of the sampling step, the smallest where windows share a moment.
    """
    found: dict[float, float] = {}
    for window in windows:
        limit_s = STEP_PART * step_s(window) if tolerance_s is None else tolerance_s
        for moment_s in window.frame_times_s:
            found[moment_s] = min(limit_s, found.get(moment_s, limit_s))
    ordered = sorted(found)
    return np.array(ordered), np.array([found[moment_s] for moment_s in ordered])


def test_indices(n: int, T: int) -> Numbers:
    """The reference's samples of a single view: frame floor(i n / T + n / 2T) for i in 0..T-1, repeated where n < T.

    `n 300, T 8 -> 18 56 93 131 168 206 243 281`; `n 3, T 8 -> 0 0 0 1 1 2 2 2`.
    """
    return (2 * np.arange(T) + 1) * n // (2 * T)


def train_indices(n: int, T: int, rng: np.random.Generator) -> Numbers:
    """The reference's samples of training and of multi-view tests: a random frame of each of T parts of n // T frames.

    The last n mod T frames are never drawn. With n < T nothing is random, and the last samples may come round to
    frame 0, as they do in the reference: `n 3, T 8 -> 0 0 1 1 2 2 2 0`.
    """
    part = n // T
    if part:
        return np.arange(T) * part + rng.integers(part, size=T)
    return np.round(np.arange(T) * n / T).astype(np.int64) % n
