"""Clips that follow the shots of a video: found and taken in the one pass that decodes it.

`cuts` finds the shots, by packets' key frames and small grey pictures; here frames are decoded for it, and kept.
"""

# N clips, T frames, S model size

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np

from pipeline import cuts, decode, sampling
from pipeline.cuts import Clip, Seen
from pipeline.decode import Frame, Resizer
from pipeline.demux import opened, origin_s
from pipeline.picking import Shot, in_order
from pipeline.samples import Picture, Still
from pipeline.settings import Sampling
from pipeline.thumbnails import to_webp
from schemas.errors import UndecodableVideo
from schemas.records import DecodedUnit, Unit, Window

RAW_PIXELS = 640 * 360  # of a frame that takes no more memory than twice what would be made of it


def decode_by_shots(image_size: int, settings: Sampling, units: list[Unit]) -> list[DecodedUnit]:
    """`shots_of` as a stage."""
    return [shots_of(unit, image_size, settings) for unit in units]


def shots_of(unit: Unit, image_size: int, settings: Sampling) -> DecodedUnit:
    """The clips of the stretch that a unit's windows cover, cut where its shots are.

    Raises UndecodableVideo when no clip can be had. One pass from the key frame before the stretch to its end: all
    frames are decoded, and some kept at model size.
    """
    began = time.perf_counter()
    found, times_s = _cut(unit, image_size, settings)
    counts = cuts.intact_counts([clip.window for clip in found], unit.windows, np.array(times_s)) if found else []
    kept = [(clip, intact) for clip, intact in zip(found, counts, strict=True) if intact]
    if not kept:
        raise UndecodableVideo(decode.NOTHING_INTACT)
    return DecodedUnit(
        unit=unit,
        windows=tuple(clip.window for clip, _ in kept),
        frames_NTHWC=np.stack([clip.frames_THWC for clip, _ in kept]),
        thumbnails=tuple(clip.thumbnail for clip, _ in kept),
        intact_samples=tuple(intact for _, intact in kept),
        decode_s=time.perf_counter() - began,
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A clip's frames T x S x S x 3 and its thumbnail."""

    window: Window
    frames_THWC: Picture
    thumbnail: bytes


class _Keeper:
    """What is made of the frames of shots: a look at each, and pictures of those that become samples.

    Most frames that are kept for a while never become samples. Small ones are kept as they came, and only those that do
    are scaled; large ones would take too much memory.
    """

    def __init__(self, image_size: int) -> None:
        self._image_size = image_size
        # One each: a scaler keeps the tables of one size.
        self._looks, self._crops, self._posters = Resizer(), Resizer(), Resizer()

    def seen(self, shot: Shot) -> Seen:
        """A frame for the detector."""
        return Seen(shot.time_s, self._looks.luma(shot.frame), bool(shot.frame.key_frame), shot.frame)

    def keep(self, frame: Frame) -> Frame | Still:
        """A frame in the form in which it waits."""
        return frame if frame.width * frame.height <= RAW_PIXELS else self._still(frame)

    def _still(self, frame: Frame) -> Still:
        return Still(self._crops.model_input(frame, self._image_size), self._posters.small(frame))

    def draw(self, clip: Clip[Frame | Still]) -> _Drawn:
        """A clip's pictures; the middle one is its thumbnail."""
        frames = [
            kept.picture if isinstance(kept, Still) else self._crops.model_input(kept, self._image_size)
            for kept in clip.pictures
        ]
        middle = clip.pictures[len(clip.pictures) // 2]
        small = middle.small if isinstance(middle, Still) else self._posters.small(middle)
        return _Drawn(clip.window, np.stack(frames), to_webp(small))


def _cut(unit: Unit, image_size: int, settings: Sampling) -> tuple[list[_Drawn], list[float]]:
    """A unit's clips, and the times of all frames that came out for it. Seeks, and starts again as `_take` does."""
    first_s = unit.windows[0].frame_times_s[0]
    for seek in (True, False):
        with opened(unit.uri) as (container, stream):
            if seek:
                decode.seek_to(container, stream, int((first_s + origin_s(container)) / stream.time_base))
            shots = in_order(decode.intact_frames(container, stream))
            first = next(shots, None)
            if not seek or (first is not None and first.time_s <= first_s + sampling.SAME_TIME_S):
                found = _cut_frames(chain(filter(None, [first]), shots), unit, _Keeper(image_size), settings)
                break
    return found


def _cut_frames(
    shots: Iterator[Shot], unit: Unit, keeper: _Keeper, settings: Sampling
) -> tuple[list[_Drawn], list[float]]:
    """The clips of frames in order, and the frames' times."""
    stretches = cuts.stretches(unit.windows)
    starts = [start_s - sampling.SAME_TIME_S for start_s, _ in stretches]
    times_s: list[float] = []
    found: list[_Drawn] = []

    def in_time() -> Iterator[Shot]:
        for shot in shots:
            if times_s and shot.time_s >= stretches[-1][1] - sampling.SAME_TIME_S:
                return
            times_s.append(shot.time_s)
            yield shot

    for place, group in groupby(in_time(), lambda shot: bisect_right(starts, shot.time_s) - 1):
        if place >= 0:  # else before the first: on the way from the key frame
            clips = cuts.clips_of(map(keeper.seen, group), *stretches[place], settings, keeper.keep)
            found += map(keeper.draw, clips)
    return found, times_s
