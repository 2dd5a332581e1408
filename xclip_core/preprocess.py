"""Pixels: from uint8 RGB frames of any size to what the model takes.

The reference's single-view test pipeline (spec §1): short side to 256/224 of the model's size, bilinear on uint8
without antialiasing, centre crop, ImageNet mean and standard deviation (not CLIP's). The indexer resizes inside the
decoder instead and shares `geometry` and `normalise` with this path.
"""

# T frames, H x W pixels, S model size, C = 3 channels, B clips

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from schemas.errors import ShapeError
from xclip_core.config import MEAN, STD
from xclip_core.geometry import crop_offset, resized_shape


def resize_and_crop(frames_THWC: Tensor, size: int) -> Tensor:
    """RGB uint8 frames T x H x W x 3 to T x S x S x 3 uint8, as the reference's test pipeline does it."""
    if frames_THWC.dtype != torch.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3:
        raise ShapeError(
            f"frames are {frames_THWC.dtype} of shape {tuple(frames_THWC.shape)}; "
            "expected uint8 RGB (frames, height, width, 3)"
        )
    height, width = resized_shape(frames_THWC.shape[1], frames_THWC.shape[2], size)
    planes = frames_THWC.permute(0, 3, 1, 2).float()  # T x 3 x H x W
    planes = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False, antialias=False)
    top, left = crop_offset(height, size), crop_offset(width, size)
    cropped = planes[:, :, top : top + size, left : left + size]
    return cropped.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def normalise(
    frames_BTHWC: Tensor, dtype: torch.dtype, *, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> Tensor:
    """RGB uint8 B x T x S x S x 3 to normalised pixels B x T x 3 x S x S of `dtype`, on the frames' device.

    `mean` and `std` are the model's, on the 0..255 scale; X-CLIP's unless given.
    """
    mean_C, std_C = (torch.tensor(x, device=frames_BTHWC.device, dtype=torch.float32) for x in (mean, std))
    pixels = (frames_BTHWC.float() - mean_C) / std_C
    return pixels.permute(0, 1, 4, 2, 3).to(dtype).contiguous()
