"""Which packets to decode for some frames, and which frames those may be: arithmetic on a packet index, no video.

A frame can be had by decoding, from the key frame before it, every frame that others predict from, up to itself. Frames
that nobody predicts from are decoded only where they are taken themselves. With a tolerance, a moment may be shown by
any frame near enough: a key frame if there is one, else the first that decoding comes to. What is cheapest in all is
found in one pass over the moments that keeps, for each frame that may show the last one, the least cost so far.
"""

# n packets of a stream, m moments

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import sampling
from pipeline.sampling import SAME_TIME_S, Times
from schemas.records import DecodeCost, DecodeSteps, Window

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Costs = NDArray[np.float64]

# Of the frames that may show a moment, so many are looked at. More than three are there in short groups of pictures
# only, where all are cheap.
CHOICES = 3


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """The packets of a stream that are to be shown, in file order, which is the order of decoding.

    `stamp_n` are presentation times in ticks, `time_n` the same in seconds on the video's own clock.
    """

    stamp_n: Numbers
    time_n: Times
    size_n: Numbers  # bytes
    key_n: Flags
    reference_n: Flags  # False: nobody predicts from it

    def __post_init__(self) -> None:
        lengths = {len(v) for v in (self.stamp_n, self.time_n, self.size_n, self.key_n, self.reference_n)}
        if len(lengths) != 1:
            raise ValueError(f"a packet index with columns of {sorted(lengths)} packets; expected one length")

    @property
    def is_plain(self) -> bool:
        """Whether each packet is one frame with a time of its own, from a key frame on: else nothing can be planned."""
        return len(self.stamp_n) > 0 and bool(self.key_n[0]) and len(np.unique(self.stamp_n)) == len(self.stamp_n)


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel:
    """Seconds that decoding takes, for one size of picture. By default frames count alike, and nothing else."""

    frame_s: float = 1.0
    byte_s: float = 0.0
    restart_s: float = 0.0  # to empty the decoder and begin at another key frame
    scale_s: float = 0.0  # of each frame that is taken

    @classmethod
    def measured(cls, cost: DecodeCost | None, width: int, height: int) -> CostModel:
        """What was measured of a codec, for frames of a size; the default where nothing was."""
        if cost is None:
            return PER_FRAME
        return cls(
            frame_s=cost.megapixel_s * width * height / 1e6,
            byte_s=cost.byte_s,
            restart_s=cost.restart_s,
            scale_s=cost.scale_s,
        )

    def of(self, size_n: Numbers) -> Costs:
        """Seconds for each of n packets by their sizes in bytes."""
        return np.asarray(self.frame_s + self.byte_s * size_n, dtype=np.float64)


PER_FRAME = CostModel()


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """What to decode, by numbers of packets: `feed`, ascending, and `restarts`, those of them before which the decoder
    is emptied; `chosen_m` is the packet whose frame shows each of m moments.
    """

    feed: Numbers
    restarts: Numbers
    chosen_m: Numbers
    cost_s: float


class _Way(NamedTuple):
    """A way to show the moments so far: the last one's frame, the stretch it is decoded in, the cost of all."""

    frame: int
    start: int
    last: int
    cost_s: float
    before: _Way | None


@dataclass(frozen=True, slots=True)
class _Costs:
    """What decoding costs, by packet."""

    own_n: Costs  # to decode a packet
    before_n: Costs  # to decode, of all packets before it, those that others need; one longer, the last is for all
    start_n: Numbers  # where decoding must begin
    is_needed_n: Flags
    restart_s: float

    def alone(self, frame: int) -> float:
        """To decode one frame and what it needs."""
        return float(self.before_n[frame] - self.before_n[self.start_n[frame]] + self.own_n[frame])

    def fresh(self, frame: int, before: _Way | None) -> _Way:
        """On to a frame by beginning at its key frame."""
        start = int(self.start_n[frame])
        if before is None:
            return _Way(frame, start, frame, self.alone(frame), None)
        return _Way(frame, start, frame, before.cost_s + self.restart_s + self.alone(frame), before)

    def onward(self, frame: int, before: _Way) -> _Way:
        """On to a frame without a break, or to one that was passed already."""
        if frame > before.last:
            more_s = self.before_n[frame] - self.before_n[before.last + 1] + self.own_n[frame]
        else:
            more_s = 0.0 if self.is_needed_n[frame] or frame == before.frame else self.own_n[frame]
        return _Way(frame, before.start, max(frame, before.last), before.cost_s + float(more_s), before)

    def extended(self, frame: int, before: _Way) -> _Way:
        """On to a frame in the cheaper of both ways."""
        start, fresh = int(self.start_n[frame]), self.fresh(frame, before)
        if start < before.start:
            return fresh
        onward = self.onward(frame, before)
        return onward if start <= before.last or onward.cost_s <= fresh.cost_s else fresh


def starts(index: PacketIndex) -> Numbers:
    """For each of n frames, the packet at which decoding must begin: the key frame before it in the file.

    A frame that is shown before that key frame is predicted from what comes before it as well (an open group of
    pictures): decoding must begin one key frame earlier.
    """
    keys = np.flatnonzero(index.key_n)
    group_n = np.cumsum(index.key_n) - 1
    leads_n = index.time_n < index.time_n[keys][group_n]
    return np.asarray(keys[np.maximum(group_n - leads_n, 0)], dtype=np.int64)


def plan(
    index: PacketIndex, moments_m: Times, tolerance_m: Times | float = 0.0, model: CostModel = PER_FRAME
) -> DecodePlan:
    """The cheapest way to show m ascending moments, each a frame's own time, by frames at most `tolerance_m` s away.

    The index must be plain. Raises ValueError when no frame is near enough to a moment.
    """
    own_n = model.of(index.size_n)
    before_n = np.concatenate([[0.0], np.cumsum(np.where(index.reference_n, own_n, 0.0))])
    costs = _Costs(own_n, before_n, starts(index), index.reference_n, model.restart_s)
    ways: list[_Way] = []
    for frames in _choices(index, moments_m, tolerance_m, costs):
        if ways:
            ways = [min((costs.extended(f, way) for way in ways), key=lambda way: way.cost_s) for f in frames]
        else:
            ways = [costs.fresh(f, None) for f in frames]
    return _written(min(ways, key=lambda way: way.cost_s), costs, index.time_n, moments_m)


def _choices(index: PacketIndex, moments_m: Times, tolerance_m: Times | float, costs: _Costs) -> list[list[int]]:
    """For each moment the frames that may show it and may be part of the cheapest way."""
    order = np.argsort(index.time_n, kind="stable")
    times = index.time_n[order]
    first_m = np.searchsorted(times, moments_m - tolerance_m - SAME_TIME_S)
    last_m = np.searchsorted(times, moments_m + tolerance_m + SAME_TIME_S, side="right")
    if (first_m == last_m).any():
        moment_s = float(moments_m[np.argmax(first_m == last_m)])
        raise ValueError(f"no frame near {moment_s} s; expected moments that are frames' times")
    return [_best(order[first:last].tolist(), costs) for first, last in zip(first_m, last_m, strict=True)]


def _best(frames: list[int], costs: _Costs) -> list[int]:
    """Of frames near one moment: for each start of decoding the cheapest that others need, and the cheapest of all."""
    best: dict[tuple[int, bool], int] = {}
    for frame in sorted(frames, key=costs.alone):
        start, is_needed = int(costs.start_n[frame]), bool(costs.is_needed_n[frame])
        if (start, True) not in best:
            best.setdefault((start, is_needed), frame)
    return list(best.values())[:CHOICES]


def _written(way: _Way, costs: _Costs, time_n: Times, moments_m: Times) -> DecodePlan:
    """A way, followed back to its beginning, as numbers of packets.

    Decoding comes by more frames than the way counts on: a moment is shown by the nearest of them, which costs nothing.
    """
    chosen: list[int] = []
    spans: list[tuple[int, int]] = []
    here: _Way | None = way
    while here is not None:
        chosen.append(here.frame)
        spans.append((here.start, here.last))
        here = here.before
    is_inside = np.zeros(len(costs.own_n), bool)
    is_whole = np.zeros(len(costs.own_n), bool)  # nothing that the frame needs lies before where decoding begins
    for start, last in spans:
        is_inside[start : last + 1] = True
        is_whole[start : last + 1] |= costs.start_n[start : last + 1] >= start
    chosen_m = np.array(chosen[::-1], dtype=np.int64)
    is_fed = is_inside & costs.is_needed_n
    is_fed[chosen_m] = True
    chosen_m = _nearer(np.flatnonzero(is_fed & is_whole), time_n, moments_m, chosen_m)
    is_fed = is_inside & costs.is_needed_n
    is_fed[chosen_m] = True
    restarts = np.flatnonzero(np.diff(is_inside, prepend=False) & is_inside)[1:]
    cost_s = float(costs.own_n[is_fed].sum() + costs.restart_s * len(restarts))
    return DecodePlan(np.flatnonzero(is_fed), restarts, chosen_m, cost_s)


def _nearer(fed: Numbers, time_n: Times, moments_m: Times, chosen_m: Numbers) -> Numbers:
    """For each moment the nearest of the frames that are decoded, the chosen one where no other is nearer."""
    shown = fed[np.argsort(time_n[fed], kind="stable")]
    after_m = np.minimum(np.searchsorted(time_n[shown], moments_m), len(shown) - 1)
    nearer_m = chosen_m
    for candidate_m in (shown[np.maximum(after_m - 1, 0)], shown[after_m]):
        is_nearer = np.abs(time_n[candidate_m] - moments_m) < np.abs(time_n[nearer_m] - moments_m)
        nearer_m = np.where(is_nearer, candidate_m, nearer_m)
    return nearer_m


def steps(
    index: PacketIndex, windows: Sequence[Window], tolerance_s: float | None, model: CostModel = PER_FRAME
) -> DecodeSteps | None:
    """The plan for some windows of a stream in the form that travels; None where nothing can be planned."""
    if not index.is_plain:
        return None
    found = plan(index, *sampling.moments(windows, tolerance_s), model)
    feed, restarts, shows = (
        index.stamp_n[n].astype("<i8").tobytes() for n in (found.feed, found.restarts, found.chosen_m)
    )
    cost_s = found.cost_s + model.scale_s * len(np.unique(found.chosen_m))
    span = int(found.feed[-1] - found.feed[0]) + 1
    return DecodeSteps(feed, restarts, shows, cost_s, span, is_exact=tolerance_s == 0)
