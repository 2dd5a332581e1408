"""Position tables for another number of frames or another picture size than a model was trained with.

The frame table is stretched linearly, the patch table bicubically without antialiasing, as transformers does it
(spec §8.5 and §8.6). No accuracy is published for either: it is done on request only, and provenance says so.
"""

# T frames, E joint dimension, N patches, D vision width

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from schemas.errors import InputError
from xclip_core.config import XClipConfig
from xclip_core.layouts import State

FRAME_TABLE = "mit.positional_embedding"
PATCH_TABLE = "visual.positional_embedding"
UNPUBLISHED = "no accuracy is published for that"


def resample(official: State, config: XClipConfig, *, frames: int, image_size: int) -> tuple[State, tuple[str, ...]]:
    """The weights of a model of `config` for other sizes, and what was changed in words.

    Raises InputError for a size that no table can have.
    """
    _check(config, frames, image_size)
    tables: State = {}
    notes: list[str] = []
    if frames != config.frames:
        tables[FRAME_TABLE] = stretch_frames(official[FRAME_TABLE], frames)
        notes.append(f"the model's frame table was resampled from {config.frames} to {frames} frames; {UNPUBLISHED}")
    if image_size != config.image_size:
        tables[PATCH_TABLE] = stretch_patches(official[PATCH_TABLE], image_size // config.patch_size)
        notes.append(
            f"the model's patch table was resampled from {config.image_size} to {image_size} pixels; {UNPUBLISHED}"
        )
    return official | tables, tuple(notes)


def _check(config: XClipConfig, frames: int, image_size: int) -> None:
    """Raises InputError unless frames and pixels can be had."""
    if frames < 1:
        raise InputError(f"--frames {frames} is not usable; expected at least 1")
    if image_size < 1 or image_size % config.patch_size:
        raise InputError(f"--image-size {image_size} is not usable; expected a multiple of {config.patch_size}")


def stretch_frames(table_1TE: Tensor, frames: int) -> Tensor:
    """1 x T x E to 1 x frames x E, in the dtype given."""
    stretched = F.interpolate(_wide(table_1TE).transpose(1, 2), frames, mode="linear", align_corners=False)
    return stretched.transpose(1, 2).to(table_1TE.dtype).contiguous()


def stretch_patches(table_LD: Tensor, side: int) -> Tensor:
    """1 + N rows, the class token's first, to 1 + side * side rows; x D, in the dtype given."""
    grid_ND = _wide(table_LD[1:])
    was = math.isqrt(len(grid_ND))
    plane = grid_ND.T.reshape(1, -1, was, was)  # 1 x D x was x was
    stretched = F.interpolate(plane, (side, side), mode="bicubic", align_corners=False, antialias=False)
    rows = stretched[0].permute(1, 2, 0).flatten(0, 1).to(table_LD.dtype)
    return torch.cat([table_LD[:1], rows])


def _wide(table_LD: Tensor) -> Tensor:
    """A table, whatever its axes, in float32, or in float64 if it is: half precision is not interpolated in."""
    return table_LD.to(torch.promote_types(table_LD.dtype, torch.float32))
