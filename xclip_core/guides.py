"""What pretraining has to read off vectors besides texts: thrown away afterwards, but nothing is learnt without it.

A camera motion is a shift between neighbouring frames, and only multi-frame integration knows which frame comes
first: so each frame's vector must carry enough of the picture itself for shifts to be read from two of them. Here 64
of its dimensions, a fixed random subspace, have to be the frame's thumbnail of 8 x 8 grey levels. Words alone never
led there (0.44 of 8 camera motions after 12 minutes); with this, integration learns from thumbnails alone in a minute
(`rehearsal`), before a single frame has been looked at, and finds them in the frames' vectors later.
"""

# B clips, T frames, C = 3 channels, H x W pixels, S pixels, E joint dimension, G numbers of a clip, P = 64 thumbnail
# pixels

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclip_core.scenes import LUMA
from xclip_core.takes import CAMERA_NUMBERS, OBJECT_NUMBERS

THUMBNAIL_SIDE = 8
COLOUR_SIDE = 2  # colours of the quarters of a frame
# Added to the standard deviation of a thumbnail, so that noise on an even picture does not count for a picture.
LEAST_CONTRAST = 4.0
COLOUR_MEAN, COLOUR_STD = 115.0, 64.0
PICTURE_WEIGHT = 0.5


class Guides(nn.Module):
    """The thumbnail's subspace E x P, fixed, and linear maps to colours and to the numbers of a clip."""

    subspace_EP: Tensor

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        basis = torch.randn(width, THUMBNAIL_SIDE**2, generator=generator)
        self.register_buffer("subspace_EP", torch.linalg.qr(basis)[0])
        self.colours = _linear(width, 3 * COLOUR_SIDE**2, generator)
        self.numbers = _linear(width, OBJECT_NUMBERS + CAMERA_NUMBERS, generator)

    def picture_loss(self, frame_BTE: Tensor, frames_BTHWC: Tensor) -> Tensor:
        """How far frame vectors are from telling their thumbnails and colours, a scalar."""
        shown_BTP, colour_BTC = thumbnails(frames_BTHWC), colours(frames_BTHWC)
        read_BTP = frame_BTE @ self.subspace_EP
        return F.mse_loss(read_BTP, shown_BTP) + PICTURE_WEIGHT * F.mse_loss(self.colours(frame_BTE), colour_BTC)

    def number_loss(self, vector_BE: Tensor, numbers_BG: Tensor) -> Tensor:
        """Mean squared error of the numbers read off vectors B x E; unknown ones (NaN) do not count."""
        known = ~numbers_BG.isnan()
        error_BG: Tensor = self.numbers(vector_BE) - numbers_BG.nan_to_num()
        loss: Tensor = (error_BG.square() * known).sum() / known.sum().clamp(min=1)
        return loss

    def as_frames(self, thumbnail_BTP: Tensor) -> Tensor:
        """Thumbnails B x T x P as the frame vectors B x T x E that would tell them and nothing else."""
        frame_BTE: Tensor = thumbnail_BTP @ self.subspace_EP.T
        return frame_BTE


def thumbnails(frames_BTHWC: Tensor) -> Tensor:
    """Frames B x T x S x S x 3 (RGB, 0..255) as 8 x 8 grey levels, B x T x P, of mean 0 and spread about 1."""
    grey_BTHW = frames_BTHWC.float() @ torch.tensor(LUMA)
    small_BTHW = F.adaptive_avg_pool2d(grey_BTHW, THUMBNAIL_SIDE)
    small_BTP = small_BTHW.flatten(2)
    return (small_BTP - small_BTP.mean(-1, keepdim=True)) / (small_BTP.std(-1, keepdim=True) + LEAST_CONTRAST)


def colours(frames_BTHWC: Tensor) -> Tensor:
    """The mean colours of the quarters of frames B x T x S x S x 3, B x T x 12, each about one in size."""
    planes = frames_BTHWC.float().flatten(0, 1).permute(0, 3, 1, 2)
    small = F.adaptive_avg_pool2d(planes, COLOUR_SIDE).flatten(1)
    return torch.unflatten((small - COLOUR_MEAN) / COLOUR_STD, 0, frames_BTHWC.shape[:2])


def _linear(width: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear map from vectors of `width`, initialised from our generator."""
    linear = nn.Linear(width, outputs)
    nn.init.normal_(linear.weight, std=width**-0.5, generator=generator)
    nn.init.zeros_(linear.bias)
    return linear
