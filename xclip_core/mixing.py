"""Mixed clips and soft targets: the paper's CutMix, Mixup and label smoothing (spec §7).

One coin, one lambda and one partner order per micro-batch; a box is the same in all frames of a clip. A micro-batch of
one clip has no partner and stays as it is. Draws come from the generator that is passed in and nothing else is random.
"""

# B clips, T frames, S pixels, C = 3 channels, K labels

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SMOOTHING = 0.1
CUTMIX_SHARE = 0.5  # the rest is Mixup
CUTMIX_BETA = 1.0
MIXUP_BETA = 0.8


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels; `bottom` and `right` are outside it."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Mix:
    """How a micro-batch is mixed: clip b keeps `kept` of itself and gets the rest from clip `partners[b]`.

    With a box the partner's pixels replace what is inside it (CutMix), without one the two are blended (Mixup).
    """

    kept: float
    partners: tuple[int, ...]
    box: Box | None = None


def smooth_targets(labels_B: Tensor, classes: int) -> Tensor:
    """Label numbers B to targets B x K: 0.9 + 0.1/K for the label, 0.1/K for the others."""
    return F.one_hot(labels_B, classes).float() * (1 - SMOOTHING) + SMOOTHING / classes


def draw_mix(rng: np.random.Generator, clips: int, size: int) -> Mix:
    """The mix of a micro-batch of `clips` clips of `size` x `size` pixels."""
    is_cut = rng.random() < CUTMIX_SHARE
    kept = float(rng.beta(CUTMIX_BETA, CUTMIX_BETA) if is_cut else rng.beta(MIXUP_BETA, MIXUP_BETA))
    partners = tuple(map(int, rng.permutation(clips)))
    if not is_cut:
        return Mix(kept, partners)
    box = _box(rng, kept, size)
    # Cut off at the border the box is smaller than drawn: what counts is the area that was really replaced.
    area = (box.bottom - box.top) * (box.right - box.left)
    return Mix(1 - area / size**2, partners, box)


def _box(rng: np.random.Generator, kept: float, size: int) -> Box:
    """A box of 1 - `kept` of the area about a random centre, cut off at the border."""
    side = int(size * np.sqrt(1 - kept))
    row, column = (int(centre) for centre in rng.integers(size, size=2))
    edges = (max(0, at - side // 2) for at in (row, column)), (min(size, at + side // 2) for at in (row, column))
    (top, left), (bottom, right) = edges
    return Box(top, bottom, left, right)


def mix_pixels(pixels_BTCHW: Tensor, mix: Mix) -> Tensor:
    """Normalised pixels B x T x 3 x S x S, mixed; the argument is left as it is."""
    others = pixels_BTCHW[torch.tensor(mix.partners, device=pixels_BTCHW.device)]
    if mix.box is None:
        return mix.kept * pixels_BTCHW + (1 - mix.kept) * others
    rows, columns = slice(mix.box.top, mix.box.bottom), slice(mix.box.left, mix.box.right)
    mixed = pixels_BTCHW.clone()
    mixed[..., rows, columns] = others[..., rows, columns]
    return mixed


def mix_targets(target_BK: Tensor, mix: Mix) -> Tensor:
    """Targets B x K, mixed as the pixels are."""
    others_BK = target_BK[torch.tensor(mix.partners, device=target_BK.device)]
    return mix.kept * target_BK + (1 - mix.kept) * others_BK
