"""What a page of hits shows: clips that were found, put together as the moments that they are of. Pure.

A window is a stretch that the indexer chose, and what happens may lie across several. Neighbours that score about as
well are one moment; a moment that looks like a better one from another place is folded into that; of one video no more
than so many are shown.
"""

# n moments, E joint dimension

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from schemas.errors import InputError
from schemas.records import ScoredClip


@dataclass(frozen=True, kw_only=True, slots=True)
class Grouping:
    """How clips become moments.

    `gap_s` is how far apart two windows may be and still touch. `margin` is how many logits a neighbour may score less
    than the best clip of its moment: 1 is odds of e to 1. `per_video` is the most moments shown of a video (0: all).
    `same` is the cosine from which two moments show the same (None: nothing is folded).
    """

    gap_s: float = 0.5
    margin: float = 1.0
    per_video: int = 3
    same: float | None = 0.995

    def __post_init__(self) -> None:
        if not (self.gap_s >= 0 and self.margin >= 0 and self.per_video >= 0):
            raise InputError(
                f"a gap of {self.gap_s} s, a margin of {self.margin} and {self.per_video} moments of a video are not "
                "usable together; expected no negative number"
            )
        if self.same is not None and not -1 <= self.same <= 1:
            raise InputError(f"a cosine of {self.same} from which moments are the same is not usable; expected -1 to 1")


@dataclass(frozen=True, slots=True)
class Moment:
    """Clips of one video that touch, in time order, and the best clips of moments that look the same, best first."""

    clips: tuple[ScoredClip, ...]
    folded: tuple[ScoredClip, ...] = ()

    @property
    def best(self) -> ScoredClip:
        """The clip with the highest score; of equals the one with the lowest id."""
        return min(self.clips, key=rank_key)

    @property
    def start_s(self) -> float:
        """Where the first of its windows starts."""
        return min(clip.start_s for clip in self.clips)

    @property
    def end_s(self) -> float:
        """Where the last of its windows ends."""
        return max(clip.end_s for clip in self.clips)


def rank_key(clip: ScoredClip) -> tuple[float, str]:
    """What clips are sorted by: best first, ties by id, so that the same question always has the same answer."""
    return -clip.score, clip.clip_id


def each(clips: Iterable[ScoredClip]) -> list[Moment]:
    """Every clip as a moment of its own, best first."""
    return [Moment((clip,)) for clip in sorted(clips, key=rank_key)]


def merged(clips: Iterable[ScoredClip], *, gap_s: float, margin: float) -> list[Moment]:
    """Neighbouring windows as one moment, best first.

    The best clip of a video takes in its neighbours on both sides, one by one, as long as they touch and score at most
    `margin` less than it; then the best of the rest does.
    """
    of_video: dict[str, list[ScoredClip]] = {}
    for clip in clips:
        of_video.setdefault(clip.video_id, []).append(clip)
    moments = [
        moment
        for rows in of_video.values()
        for moment in _peaks(sorted(rows, key=lambda c: (c.start_s, c.end_s, c.clip_id)), gap_s, margin)
    ]
    return sorted(moments, key=lambda moment: rank_key(moment.best))


def _peaks(rows: list[ScoredClip], gap_s: float, margin: float) -> Iterator[Moment]:
    """Moments of one video, whose clips are in time order."""
    free = dict(enumerate(rows))
    for place in sorted(free, key=lambda place: rank_key(rows[place])):
        if place in free:
            lowest = free[place].score - margin
            run = [place, *(new for step in (-1, 1) for new in _reach(free, place, step, lowest, gap_s))]
            yield Moment(tuple(free.pop(each_place) for each_place in sorted(run)))


def _reach(free: dict[int, ScoredClip], place: int, step: int, lowest: float, gap_s: float) -> Iterator[int]:
    """Places beside one, on the side that `step` says, whose clips score at least `lowest` and touch one another."""
    while (new := free.get(place + step)) is not None and new.score >= lowest and touch(free[place], new, gap_s):
        place += step
        yield place


def touch(one: ScoredClip | Moment, other: ScoredClip | Moment, gap_s: float) -> bool:
    """Whether two spans on one time line overlap or are at most `gap_s` apart."""
    return max(one.start_s, other.start_s) - min(one.end_s, other.end_s) <= gap_s


def folded(
    moments: Sequence[Moment], vectors: Mapping[str, NDArray[np.float32]], *, same: float, gap_s: float
) -> list[Moment]:
    """Moments without those that look like a better one from another place, which lists them.

    `moments` are best first; `vectors` are the unit vectors E of their best clips by id. Windows of one video that
    touch are not other places: a still scene is no copy of itself.
    """
    kept: list[Moment] = []
    stack_nE = np.zeros((len(moments), len(next(iter(vectors.values()), ()))), np.float32)
    for moment in moments:
        vector_E = vectors[moment.best.clip_id]
        cosine_n = stack_nE[: len(kept)] @ vector_E
        alike = (int(place) for place in np.flatnonzero(cosine_n >= same))
        place = next((place for place in alike if _apart(kept[place], moment, gap_s)), None)
        if place is None:
            stack_nE[len(kept)] = vector_E
            kept.append(moment)
        else:
            better = kept[place]
            kept[place] = replace(better, folded=(*better.folded, moment.best, *moment.folded))
    return kept


def _apart(one: Moment, other: Moment, gap_s: float) -> bool:
    """Whether two moments are of different places."""
    return one.best.video_id != other.best.video_id or not touch(one, other, gap_s)


def capped(moments: Iterable[Moment], per_video: int) -> list[Moment]:
    """The first `per_video` moments of each video, in the order given; 0 keeps all."""
    counts: dict[str, int] = {}
    kept = []
    for moment in moments:
        counts[moment.best.video_id] = counts.get(moment.best.video_id, 0) + 1
        if not per_video or counts[moment.best.video_id] <= per_video:
            kept.append(moment)
    return kept


def grouped(
    clips: Iterable[ScoredClip], vectors: Mapping[str, NDArray[np.float32]], grouping: Grouping | None
) -> tuple[list[Moment], int]:
    """Clips as the moments that are shown, best first, and how many more the cap leaves out.

    Without a grouping each clip is its own. `vectors` of the clips are needed where moments are folded.
    """
    if grouping is None:
        return each(clips), 0
    moments = merged(clips, gap_s=grouping.gap_s, margin=grouping.margin)
    # Before any is folded: into a moment that the cap leaves out, others would vanish that it does not concern.
    kept = capped(moments, grouping.per_video)
    left_out = len(moments) - len(kept)
    if grouping.same is not None and kept:
        kept = folded(kept, vectors, same=grouping.same, gap_s=grouping.gap_s)
    return kept, left_out
