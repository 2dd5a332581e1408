"""The first steps of indexing a file, one call each, for tests that start from a path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline import decode, demux, plan, sources
from pipeline.settings import Sampling
from schemas.records import DecodedUnit, HashedFile, InspectedVideo, Unit
from tests.media import Picture

SIZE = 32  # pixels, of the model that the tests decode for


def source(path: Path) -> HashedFile:
    """The file, read."""
    return sources.fingerprint(next(iter(sources.take_inventory(path))))


def inspected(path: Path, window_s: float = 1.0, frames: int = 5, stride_s: float | None = None) -> InspectedVideo:
    """The file cut into windows."""
    sampling = Sampling(window_s=window_s, stride_s=window_s if stride_s is None else stride_s, frames=frames)
    return demux.inspect(source(path), sampling)


def units(path: Path, window_s: float = 1.0, frames: int = 5, stride_s: float | None = None) -> tuple[Unit, ...]:
    """The units of a file that no archive knows."""
    return plan.plan_video(inspected(path, window_s, frames, stride_s), None, {}, 0, "space").units


def planned(path: Path, sampling: Sampling, first: int = 0) -> Unit:
    """The unit of a file's windows from number `first` on, with the steps that its packets suggest."""
    video = demux.inspect(source(path), sampling)
    (unit,) = plan.plan_video(video, None, {}, 0, "space").units
    part = unit.windows[first:]
    return replace(unit, windows=part, steps=demux.read_packets(str(path)).steps(part, sampling.tolerance_s))


def decoded(path: Path, window_s: float = 1.0, frames: int = 5, stride_s: float | None = None) -> DecodedUnit:
    """The clips of a file's first unit."""
    return decode.decode(units(path, window_s, frames, stride_s)[0], SIZE)


def numbers(unit: DecodedUnit, read) -> list[list[int]]:
    """The number in each frame of each clip; `read` tells it from a picture."""
    return [[read(frame) for frame in clip] for clip in unit.frames_NTHWC]


def pictures(unit: DecodedUnit) -> list[Picture]:
    """All frames of all clips."""
    return [frame for clip in unit.frames_NTHWC for frame in clip]
