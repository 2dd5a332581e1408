"""A picture file, or a moment of a video file, as the frames and the vector of a clip, made as by the indexer."""

# T frames, S pixels, C = 3 channels, E joint dimension

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import sampling
from pipeline.settings import Sampling
from schemas.errors import InputError
from schemas.records import Unit, Window
from xclip_core import Encoder, encode_video

Frames = NDArray[np.uint8]  # T x S x S x 3, RGB
NO_DEADLINE_S = 3600.0  # a person waits, who can stop it


def encode(model: Encoder, frames_THWC: Frames) -> Tensor:
    """The unit vector E of one clip, T x S x S x 3, float32."""
    return encode_video(model, torch.from_numpy(frames_THWC)[None])[0]


def of_still(file: Path, frames: int, size: int) -> Frames:
    """A picture as a clip in which nothing moves: T x S x S x 3. Raises InputError for what is no picture."""
    from pipeline import thumbnails  # a search for words does not wait for the image library

    return np.repeat(thumbnails.model_input(file, size)[None], frames, axis=0)


def of_moment(uri: str, at_s: float | None, settings: Sampling, size: int) -> Frames:
    """The window round a moment of a video file, by the space's sampling: T x S x S x 3.

    The window is of the space's length, moved or cut where it would leave the video; `at_s` None is the middle. Raises
    InputError for a moment that the video does not have, VideoError for a file that is no sound video.
    """
    from pipeline import decode, demux

    packets = demux.read_packets(uri)
    times_s = np.unique(packets.index.time_n)
    window = window_at(at_s, times_s, packets.end_s, settings, uri)
    unit = Unit("", "", 0, "", uri, (window,), NO_DEADLINE_S)
    frames_THWC: Frames = decode.decode(unit, size).frames_NTHWC[0]
    return frames_THWC


def window_at(at_s: float | None, times_s: sampling.Times, end_s: float, settings: Sampling, name: str) -> Window:
    """The window round `at_s` of a video whose frames start at `times_s` and that ends at `end_s`."""
    start_s = float(times_s[0])
    wanted_s = (start_s + end_s) / 2 if at_s is None else at_s
    if not start_s <= wanted_s <= end_s:
        raise InputError(f"{name} has no moment at {wanted_s:g} s; expected --at from {start_s:g} to {end_s:g}")
    first_s = max(start_s, min(wanted_s - settings.window_s / 2, end_s - settings.window_s))
    last_s = min(end_s, first_s + settings.window_s)
    chosen = sampling.shown_at(times_s, sampling.centres(first_s, last_s, settings.frames))
    return Window(first_s, last_s, tuple(map(float, chosen)))
