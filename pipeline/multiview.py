"""Views of a video for testing, as the reference makes them: which frames of it, and which squares of those.

A single view is deterministic: T frames at the centres of T equal parts, short side at 256/224 of the model's size, the
centre square. Several views in time are that many random training samples; the reference draws them from an unseeded
generator, here the run's seed and the file's name decide them, whatever else is in the list. Three crops are the first,
last and middle square along the long side, the short side at the model's size.
"""

# n frames of a file, T frames of a view, V views, H x W pixels of a picture, S model size, C = 3 channels

from __future__ import annotations

import re
import time
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import decode, demux, sampling, sources
from pipeline.plan import DEADLINE_BASE_S
from pipeline.stores import AnyPath
from schemas.errors import InputError
from schemas.records import SourceFile
from xclip_core.geometry import crop_offset, resized_side

MAX_CLIPS = 100
# On the safe side: what is read more slowly hangs, since even film at the lowest rates takes less time than this.
DECODE_BYTES_PER_S = 2e4


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """How many samples in time, how many crops of each, and what decides the random ones."""

    clips: int = 1
    crops: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.clips <= MAX_CLIPS or self.crops not in (1, 3):
            raise InputError(
                f"{self} views are not usable; expected 1 to {MAX_CLIPS} samples in time with 1 or 3 crops, such as 4x3"
            )

    @property
    def count(self) -> int:
        """V."""
        return self.clips * self.crops

    def __str__(self) -> str:
        return f"{self.clips}x{self.crops}"


def parse_views(text: str, seed: int = 0) -> Views:
    """`4x3` as four samples in time with three crops each."""
    match = re.fullmatch(r"(\d{1,3})x(\d{1,3})", text.strip().lower())
    if not match or seed < 0:
        raise InputError(
            f"--views {text!r} --seed {seed} is not usable; expected such as --views 4x3 and a seed from 0"
        )
    return Views(clips=int(match[1]), crops=int(match[2]), seed=seed)


@dataclass(frozen=True, slots=True)
class ViewedVideo:
    """All views of a file: `frames_VTHWC` is V x T x S x S x 3 uint8 RGB, crop by crop as in the reference."""

    uri: str
    frames_VTHWC: NDArray[np.uint8]
    decode_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewStage:
    """Decoding as a stage: files to views, each in one pass over the file."""

    views: Views
    frames: int  # T
    image_size: int  # S

    def __call__(self, files: list[SourceFile]) -> list[ViewedVideo]:
        """Raises VideoError for a file from which no view can be had."""
        return [self._view(file) for file in files]

    def _view(self, file: SourceFile) -> ViewedVideo:
        """All views of one file."""
        began = time.perf_counter()
        times_s = demux.frame_times(file.uri)
        chosen = sample_indices(len(times_s), self.frames, self.views, sources.to_path(file.uri))
        short_side = resized_side(self.image_size) if self.views.crops == 1 else self.image_size
        pictures = decode.short_side_frames(file.uri, times_s[chosen].ravel().tolist(), short_side)
        clips = pictures.reshape(*chosen.shape, *pictures.shape[1:])
        crops = [crop for clip in squares(clips, self.image_size, self.views.crops) for crop in clip]
        return ViewedVideo(file.uri, np.stack(crops), time.perf_counter() - began)


def deadline_s(file: SourceFile) -> float:
    """Longest time that the views of a file may take; it catches hangs, not slowness."""
    return DEADLINE_BASE_S + file.size_bytes / DECODE_BYTES_PER_S


def sample_indices(n: int, T: int, views: Views, path: AnyPath) -> NDArray[np.int64]:
    """Frame numbers of each sample in time, clips x T."""
    if views.clips == 1:
        return sampling.test_indices(n, T)[None]
    rng = np.random.default_rng([views.seed, zlib.crc32(bytes(path.name, "utf-8", "surrogateescape"))])
    return np.stack([sampling.train_indices(n, T, rng) for _ in range(views.clips)])


def squares(pictures: NDArray[np.uint8], size: int, crops: int) -> list[NDArray[np.uint8]]:
    """Crops S x S of pictures ... x H x W x 3: the centre, or the first, last and middle along the long side."""
    height, width = pictures.shape[-3:-1]
    middle = crop_offset(height, size), crop_offset(width, size)
    ends = [(0, 0), (height - size, width - size)]
    corners = [middle] if crops == 1 else [*ends, middle]
    return [pictures[..., top : top + size, left : left + size, :] for top, left in corners]
