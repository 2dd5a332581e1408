"""Which of the frames that a decoder emits are taken: put in order, then chosen by the time they are on screen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from pipeline import sampling

# Longest run of frames whose times arrive out of order while the pictures do not (AVI with B-frames: 2 were seen).
REORDER_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Shot:
    """One decoded frame with its time."""

    time_s: float
    frame: Any


def in_order(shots: Iterator[Shot]) -> Iterator[Shot]:
    """The same frames in the same order with their times sorted: decoders emit in presentation order, always.

    `times 1 3 2 4 -> 1 2 3 4`. Holds back REORDER_FRAMES frames.
    """
    times_s: list[float] = []
    waiting: list[Shot] = []
    for shot in shots:
        heappush(times_s, shot.time_s)
        waiting.append(shot)
        if len(waiting) > REORDER_FRAMES:
            yield Shot(heappop(times_s), waiting.pop(0).frame)
    for shot in waiting:
        yield Shot(heappop(times_s), shot.frame)


def pick(shots: Iterator[Shot], wanted_s: list[float]) -> Iterator[tuple[float, Shot]]:
    """For each wanted time, ascending, the last frame that starts by then; the first frame if none does."""
    pending = iter(wanted_s)
    wanted = next(pending, None)
    before: Shot | None = None
    for shot in shots:
        while wanted is not None and shot.time_s > wanted + sampling.SAME_TIME_S:
            yield wanted, before or shot
            wanted = next(pending, None)
        if wanted is None:
            return
        before = shot
    while wanted is not None and before is not None:
        yield wanted, before
        wanted = next(pending, None)
