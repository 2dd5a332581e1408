"""The training view of a clip: the reference's crop, flip, colour jitter and grayscale (spec §1).

torchvision's operations with our own draws: its random transforms take no generator, and a view must depend on the
generator alone, so that a run that was killed sees the same pictures again. Everything stays uint8, as in the
reference. The only place that knows torchvision.
"""

# T frames, H x W pixels, S model size, C = 3 channels

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transform

CROP_SCALES = (1.0, 0.875, 0.75, 0.66)
MAX_SCALE_GAP = 1  # how many steps width and height may differ in the list above
SNAP_PIXELS = 3  # a crop nearer to the model's size than this is taken at that size, and not resized
FLIP_SHARE = 0.5
JITTER_SHARE = 0.8
GREY_SHARE = 0.2

Jitter = Callable[[Tensor, float], Tensor]
# Each operation with the range of its factor: brightness and contrast 0.4, saturation 0.2, hue 0.1 of the circle.
JITTERS: tuple[tuple[Jitter, float, float], ...] = (
    (transform.adjust_brightness, 0.6, 1.4),
    (transform.adjust_contrast, 0.6, 1.4),
    (transform.adjust_saturation, 0.8, 1.2),
    (transform.adjust_hue, -0.1, 0.1),
)


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def training_view(frames_THWC: Tensor, size: int, rng: np.random.Generator, *, flip: bool) -> Tensor:
    """RGB uint8 frames T x H x W x 3, short side at the test resize, to a random view T x S x S x 3 uint8.

    Crop, flip and grayscale are the same for all frames; colours jitter from frame to frame. `flip` False leaves the
    mirroring out, for labels that tell left from right.
    """
    crop = draw_crop(frames_THWC.shape[1], frames_THWC.shape[2], size, rng)
    view_TCHW = frames_THWC.permute(0, 3, 1, 2)
    view_TCHW = transform.resized_crop(
        view_TCHW, crop.top, crop.left, crop.height, crop.width, [size, size], antialias=False
    )
    flipped, jittered, grey = rng.random(3) < (FLIP_SHARE, JITTER_SHARE, GREY_SHARE)
    if flip and flipped:
        view_TCHW = transform.horizontal_flip(view_TCHW)
    if jittered:
        view_TCHW = torch.stack([jitter(frame, rng) for frame in view_TCHW])
    if grey:
        view_TCHW = transform.rgb_to_grayscale(view_TCHW, num_output_channels=3)
    return view_TCHW.permute(0, 2, 3, 1).contiguous()


def draw_crop(height: int, width: int, size: int, rng: np.random.Generator) -> Crop:
    """One of the reference's multi-scale crops: sides from four scales of the short side, at a corner or the centre."""
    base = min(height, width)
    sides = [_snapped(int(base * scale), size) for scale in CROP_SCALES]
    pairs = [(i, j) for i, j in product(range(len(sides)), repeat=2) if abs(i - j) <= MAX_SCALE_GAP]
    i, j = pairs[rng.integers(len(pairs))]
    # Steps are whole pixels on a grid of quarters, so the far corners may miss the border by up to 3 pixels.
    down, right = (height - sides[i]) // 4, (width - sides[j]) // 4
    places = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))
    rows, columns = places[rng.integers(len(places))]
    return Crop(rows * down, columns * right, sides[i], sides[j])


def _snapped(side: int, size: int) -> int:
    """A side that is nearly the model's size, made so."""
    return size if abs(side - size) < SNAP_PIXELS else side


def jitter(frame_CHW: Tensor, rng: np.random.Generator) -> Tensor:
    """One frame 3 x H x W uint8 with brightness, contrast, saturation and hue changed a little, in random order."""
    for number in rng.permutation(len(JITTERS)):
        change, low, high = JITTERS[number]
        frame_CHW = change(frame_CHW, float(rng.uniform(low, high)))
    return frame_CHW
