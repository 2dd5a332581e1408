"""Where shots begin, and which frames of a shot are kept while nobody knows yet how long it is: no video needed.

Cuts are found in the one pass that decodes the frames anyway. Each frame leaves a grey picture of 18 x 32 pixels; a cut
is a frame that differs from the one before by much more than frames around it do. Frames to sample are kept in a
reservoir that is thinned as its shot grows, so memory does not grow with it, and samples are still near their moments.
"""

# h x w pixels of a small grey picture (18 x 32), T samples of a clip

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline import sampling
from pipeline.sampling import SAME_TIME_S, Times
from pipeline.settings import Sampling, ShotRules
from schemas.records import Window

Luma = NDArray[np.uint8]  # h x w

LUMA_SHAPE = (18, 32)
GREY_LEVELS = 16  # of a histogram
# What is usual around a frame: the third strongest difference of so many frames before it, and the mean of those after.
# The strongest two may be a flash that comes and goes; and where each picture is stored several times most are nothing.
STRONGEST = 3
FRAMES_BEFORE, FRAMES_AFTER = 25, 2
# A shot's reservoir holds so many frames for each of T samples, which puts one within a quarter of the sampling step.
ROOM_PER_SAMPLE = 6
FINEST = 12  # halvings of the widest spacing at which a reservoir starts: every frame is kept
MOST_PER_WINDOW = 64  # shots: a long window has no use for more, and the clips of a unit stay bounded

Picture = TypeVar("Picture")


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame as the detector sees it; `frame` is whatever becomes of it."""

    time_s: float
    luma: Luma
    is_key: bool
    frame: Any


def difference(before: Luma, after: Luma, histogram: float) -> tuple[float, float]:
    """By how much two pictures differ: their mean absolute difference, and the same with the shift of grey levels."""
    apart = float(np.abs(after.astype(np.int16) - before).mean())
    shift = float(np.abs(_levels(after) - _levels(before)).sum()) / (2 * after.size)
    return apart, apart + histogram * shift


def _levels(luma: Luma) -> NDArray[np.int64]:
    """How many pixels have each of GREY_LEVELS."""
    counts: NDArray[np.int64] = np.bincount(luma.ravel() // (256 // GREY_LEVELS), minlength=GREY_LEVELS)
    return counts


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A frame with how much it differs from the one before: alone, and with the shift of grey levels."""

    seen: Seen
    apart: float
    strength: float


def _weighed(frames: Iterable[Seen], rules: ShotRules) -> Iterator[_Weighed]:
    """Each frame against the one before; the first against nothing."""
    before: Seen | None = None
    for seen in frames:
        apart = difference(before.luma, seen.luma, rules.histogram) if before is not None else (0.0, 0.0)
        yield _Weighed(seen, *apart)
        before = seen


def marked(frames: Iterable[Seen], rules: ShotRules) -> Iterator[tuple[Seen, bool]]:
    """Frames in their order, each with whether a shot starts with it: the first does.

    Told FRAMES_AFTER frames late, and held back for as long.
    """
    strengths: deque[float] = deque(maxlen=FRAMES_BEFORE)
    before: deque[Seen] = deque(maxlen=FRAMES_AFTER + 1)  # the last frames, of this shot alone
    for now, *after in _with_those_after(_weighed(frames, rules), FRAMES_AFTER):
        is_start = not before or (_stands_out(now, after, strengths, rules) and _stays(now, after, before, rules))
        if is_start:
            before.clear()
        strengths.append(now.strength)
        before.append(now.seen)
        yield now.seen, is_start


def _with_those_after(items: Iterable[_Weighed], count: int) -> Iterator[list[_Weighed]]:
    """Each item and up to `count` that follow it."""
    waiting: deque[_Weighed] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield list(waiting)
            waiting.popleft()
    while waiting:
        yield list(waiting)
        waiting.popleft()


def _stands_out(now: _Weighed, after: Sequence[_Weighed], before: Iterable[float], rules: ShotRules) -> bool:
    """Whether a frame differs from the one before it by enough, and by much more than is usual around it."""
    if now.strength < rules.floor:
        return False
    strongest = sorted(before)[-STRONGEST:]
    usual = max(strongest[0] if strongest else 0.0, sum(item.strength for item in after) / max(1, len(after)))
    return now.strength >= (rules.key_ratio if now.seen.is_key else rules.ratio) * usual


def _stays(now: _Weighed, after: Sequence[_Weighed], before: Sequence[Seen], rules: ShotRules) -> bool:
    """Whether what is shown is new and stays: a flash is soon gone, and what follows it was there before."""
    pairs = [(seen.luma, now.seen.luma) for seen in before]
    pairs += [(before[-1].luma, item.seen.luma) for item in after[-1:]]
    return all(difference(one, other, 0.0)[0] >= rules.persistence * now.apart for one, other in pairs)


def _same(picture: Picture) -> Picture:
    """The picture."""
    return picture


@dataclass
class Reservoir(Generic[Picture]):
    """Some frames of a stretch that goes on: the first in each of equal cells, which double when there are too many.

    Cells grow to `widest_s` and no further; from then on as many frames are held as come. Below that `room` are.
    """

    start_s: float
    widest_s: float
    room: int
    times_s: list[float] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    halvings: int = FINEST

    @property
    def spacing_s(self) -> float:
        """Length of a cell."""
        return math.ldexp(self.widest_s, -self.halvings)

    def _cell(self, time_s: float) -> int:
        return math.floor((time_s - self.start_s) / self.spacing_s + SAME_TIME_S)

    def offer(self, time_s: float, make: Callable[[], Picture]) -> None:
        """A frame, later than those before it; its picture is made only if it is kept."""
        if self.times_s and self._cell(time_s) <= self._cell(self.times_s[-1]):
            return
        self.times_s.append(time_s)
        self.pictures.append(make())
        while len(self.times_s) > self.room and self.halvings > 0:
            self._thin()

    def absorb(self, other: Reservoir[Picture]) -> None:
        """What another one, of a later stretch, has kept."""
        for time_s, picture in zip(other.times_s, other.pictures, strict=True):
            self.offer(time_s, partial(_same, picture))

    def _thin(self) -> None:
        """Doubles the cells."""
        self.halvings -= 1
        cells = [self._cell(time_s) for time_s in self.times_s]
        firsts = [n for n, cell in enumerate(cells) if n == 0 or cell != cells[n - 1]]
        self.times_s = [self.times_s[n] for n in firsts]
        self.pictures = [self.pictures[n] for n in firsts]


@dataclass(frozen=True, slots=True)
class Clip(Generic[Picture]):
    """A window of one shot with the pictures of its T frames."""

    window: Window
    pictures: tuple[Picture, ...]


def clips_of(
    frames: Iterable[Seen], start_s: float, end_s: float, settings: Sampling, make: Callable[[Any], Picture]
) -> Iterator[Clip[Picture]]:
    """The clips of a stretch of video, frame by frame: its shots, those longer than a window in equal parts.

    Together they cover [start_s, end_s], but for shots without frames. `make` turns a frame into a picture.
    """
    before: Reservoir[Picture] | None = None
    for shot in _shots(frames, start_s, end_s, settings, make):
        if before is not None:
            yield from _parts(before, shot.start_s, settings)
        before = shot
    if before is not None:
        yield from _parts(before, end_s, settings)


def _shots(
    frames: Iterable[Seen], start_s: float, end_s: float, settings: Sampling, make: Callable[[Any], Picture]
) -> Iterator[Reservoir[Picture]]:
    """What is kept of each shot of a stretch. Each lasts until the next one starts.

    A shot that is too short joins the one before it, or the one after it where there is none or others have joined it.
    """
    rules, shortest = settings.shots, shortest_s(settings)
    assert rules is not None, "windows follow shots where there are rules for them"
    before: Reservoir[Picture] | None = None
    now: Reservoir[Picture] = _reservoir(start_s, settings)
    joined_s = start_s  # where what has joined `before` starts
    for seen, is_start in marked(frames, rules):
        if is_start and seen.time_s - now.start_s >= shortest:
            if before is not None:
                yield before
            before, now, joined_s = now, _reservoir(seen.time_s, settings), seen.time_s
        elif is_start and before is not None and seen.time_s - joined_s < shortest:
            before.absorb(now)
            now = _reservoir(seen.time_s, settings)
        now.offer(seen.time_s, partial(make, seen.frame))
    if before is not None and end_s - now.start_s < shortest:
        before.absorb(now)
        yield before
        return
    if before is not None:
        yield before
    yield now


def _reservoir(start_s: float, settings: Sampling) -> Reservoir[Any]:
    # Parts of a long shot are at least half a window: what is kept is near enough to their moments too.
    return Reservoir(start_s, settings.window_s / (8 * settings.frames), ROOM_PER_SAMPLE * settings.frames)


def _parts(shot: Reservoir[Picture], end_s: float, settings: Sampling) -> Iterator[Clip[Picture]]:
    """A shot as clips; none of one without frames."""
    if not shot.times_s:
        return
    times_s = np.array(shot.times_s)
    count = max(1, math.ceil((end_s - shot.start_s) / settings.window_s - SAME_TIME_S))
    edges = np.linspace(shot.start_s, end_s, count + 1).tolist()
    for part_start_s, part_end_s in pairwise(edges):
        chosen = nearest(times_s, sampling.centres(part_start_s, part_end_s, settings.frames))
        window = Window(part_start_s, part_end_s, tuple(times_s[chosen].tolist()))
        yield Clip(window, tuple(shot.pictures[n] for n in chosen))


def nearest(times_s: Times, wanted_s: Times) -> NDArray[np.int64]:
    """For each wanted time which of the ascending times is nearest, but the last one before it where both are far.

    Far is further than a quarter of the time between two wanted ones: a frame that stays for seconds is on the screen
    until the next one starts.
    """
    step_s = wanted_s[1] - wanted_s[0] if len(wanted_s) > 1 else 0.0
    before = np.maximum(np.searchsorted(times_s, wanted_s + SAME_TIME_S, side="right") - 1, 0)
    after = np.minimum(before + 1, len(times_s) - 1)
    ahead_s = times_s[after] - wanted_s
    is_after = (ahead_s >= 0) & (ahead_s < wanted_s - times_s[before]) & (ahead_s <= sampling.STEP_PART * step_s)
    return np.where(is_after, after, before)


# --- units


def shortest_s(settings: Sampling) -> float:
    """The shortest shot that is one: as the rules say, within what windows and units allow."""
    assert settings.shots is not None, "windows follow shots where there are rules for them"
    return min(max(settings.shots.shortest_s, settings.window_s / MOST_PER_WINDOW), settings.window_s / 2)


def stretches(windows: Sequence[Window]) -> list[tuple[float, float]]:
    """Start and end of what ascending windows cover without a gap; time stamps may jump, and nothing is shown there."""
    found: list[tuple[float, float]] = []
    for window in windows:
        if found and window.start_s <= found[-1][1] + SAME_TIME_S:
            found[-1] = (found[-1][0], window.end_s)
        else:
            found.append((window.start_s, window.end_s))
    return found


def uncovered(windows: Sequence[Window], clips: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """What ascending clips leave of the stretches that windows cover, as spans in seconds."""
    found: list[tuple[float, float]] = []
    for start_s, end_s in stretches(windows):
        reached_s = start_s
        inside = [clip for clip in clips if start_s - SAME_TIME_S <= clip[0] < end_s]
        for clip_start_s, clip_end_s in [*inside, (end_s, end_s)]:
            if clip_start_s > reached_s + SAME_TIME_S:
                found.append((reached_s, clip_start_s))
            reached_s = clip_end_s
    return found


def intact_counts(clips: Sequence[Window], planned: Sequence[Window], times_s: Times) -> list[int]:
    """How many of each clip's samples are intact, by what was planned before anything was decoded.

    Planned windows show frames that packets promise. Where none of the n decoded frames, ascending `times_s`, is close
    enough to one of them, the part of the window that it stands for is damaged, and so is every sample in it.
    """
    starts = np.concatenate([np.linspace(w.start_s, w.end_s, len(w.frame_times_s), endpoint=False) for w in planned])
    wanted_s = np.concatenate([w.frame_times_s for w in planned])
    limits_s = np.concatenate([np.full(len(w.frame_times_s), sampling.tolerance_s(w)) for w in planned])
    is_intact = np.abs(sampling.shown_at(times_s, wanted_s) - wanted_s) <= limits_s
    found = []
    for clip in clips:
        moments_s = sampling.centres(clip.start_s, clip.end_s, len(clip.frame_times_s))
        parts = np.maximum(np.searchsorted(starts, moments_s, side="right") - 1, 0)
        found.append(int(is_intact[parts].sum()))
    return found
