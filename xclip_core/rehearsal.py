"""Multi-frame integration learns motions from thumbnails alone, before there are frame vectors to integrate.

A thumbnail and an object's outline stand for a frame's vector (`guides`), so a step costs a hundredth of one through
the vision tower, and one layer of attention over eight vectors learns to read shifts and scales: over pictures it never
saw 0.88 of eight camera motions after a minute and a half, 0.98 of eight object directions after half a minute.
Thumbnails can be mirrored, turned over and played backwards exactly, which makes one rendered shot eight.
"""

# B clips, T frames, E joint dimension, G numbers of a clip, P = 64 thumbnail pixels, K names, N clips in the pool

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclip_core.guides import Guides, outlines, thumbnails
from xclip_core.pictures import Library
from xclip_core.reel import shoot
from xclip_core.scenes import MOTIONS, OPPOSITE, Motion
from xclip_core.shots import CAMERAS, MIRRORED, REVERSED, TURNED_OVER, random_shot
from xclip_core.takes import THUMBNAIL_SIDE
from xclip_core.temporal import MultiFrameIntegration

log = logging.getLogger(__name__)

RENDER_SIDE = 3 * THUMBNAIL_SIDE
LOG_EVERY = 200
# Besides its thumbnail a frame's vector will tell other things, and the thumbnail not quite.
CONTENT_STD, NOISE_STD = 0.3, 0.15
WITH_OBJECT = 0.4
# Columns of a guide's numbers (see `takes`) that change sign when a clip is mirrored, turned over, played backwards.
MIRROR, TURN, REVERSE = (0, 2, 5), (1, 3, 6), (2, 3, 4, 5, 6, 7)
NAMES = (*CAMERAS, *MOTIONS)  # what a clip is called: by its object's motion, if it has one


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """How long and on what. The pool of rendered shots is renewed bit by bit, five shots a step."""

    steps: int = 3000
    batch: int = 128
    pool: int = 6000
    lr: float = 1.5e-3
    warmup_steps: int = 100
    renew_every: int = 20
    renew: int = 100

    def __post_init__(self) -> None:
        if not 2 <= self.warmup_steps < self.steps - 1:
            raise ValueError(f"{self.steps=} and {self.warmup_steps=}: expected a warm-up of 2 to steps - 2")


@dataclass(frozen=True, slots=True)
class Pool:
    """Rendered shots: thumbnails and outlines N x T x P, a guide's numbers N x G, the place of a name in NAMES."""

    thumbnail_BTP: Tensor
    outline_BTP: Tensor
    numbers_BG: Tensor
    name_B: Tensor


def rehearse(
    mit: MultiFrameIntegration, guides: Guides, library: Library, settings: Rehearsal, seed: int
) -> list[float]:
    """Trains `mit` and the guides' numbers in place; returns the loss of each step."""
    rng, generator = np.random.default_rng([seed, 3]), torch.Generator().manual_seed(seed)
    frames = mit.positional_embedding.shape[1]
    names = nn.Linear(mit.positional_embedding.shape[2], len(NAMES))
    nn.init.normal_(names.weight, std=0.02, generator=generator)
    nn.init.zeros_(names.bias)
    parameters = [*mit.parameters(), *guides.numbers.parameters(), *names.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.lr, total_steps=settings.steps, pct_start=settings.warmup_steps / settings.steps
    )
    pool = render_pool(library, settings.pool, frames, rng)
    losses, right = [], 0.0
    for step in range(settings.steps):
        batch = turned(_drawn(pool, settings.batch, rng), rng)
        video_BE = mit(_as_vectors(guides, batch, generator))
        logits_BK = names(video_BE)
        loss = F.cross_entropy(logits_BK, batch.name_B) + guides.number_loss(video_BE, batch.numbers_BG)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        right += 0.01 * ((logits_BK.argmax(-1) == batch.name_B).float().mean().item() - right)
        if (step + 1) % settings.renew_every == 0:
            _renew(pool, render_pool(library, settings.renew, frames, rng), rng)
        if (step + 1) % LOG_EVERY == 0:
            log.info("rehearsal step %d of %d: loss %.3f, right %.3f", step + 1, settings.steps, losses[-1], right)
    return losses


def render_pool(library: Library, count: int, frames: int, rng: np.random.Generator) -> Pool:
    """So many random shots without cuts, as thumbnails."""
    share = WITH_OBJECT if library.objects else 0.0
    shots = [replace(random_shot(rng, with_object=share), look="normal", cut=False) for _ in range(count)]
    takes = [shoot(shot, library, frames, RENDER_SIDE, rng) for shot in shots]
    frames_BTHWC = torch.from_numpy(np.stack([take.frames_TCHW for take in takes])).permute(0, 1, 3, 4, 2)
    return Pool(
        thumbnails(frames_BTHWC),
        outlines(torch.from_numpy(np.stack([take.cover_TP for take in takes]))),
        torch.tensor([take.numbers for take in takes]),
        torch.tensor([NAMES.index(shot.motion or shot.camera) for shot in shots]),
    )


def turned(batch: Pool, rng: np.random.Generator) -> Pool:
    """Each clip mirrored, turned over and played backwards at random, with its numbers and its name."""
    pictures = torch.stack([batch.thumbnail_BTP, batch.outline_BTP], dim=2)
    pictures = torch.unflatten(pictures, -1, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    numbers_BG, name_B = batch.numbers_BG.clone(), batch.name_B
    for axis, columns, swap in ((-1, MIRROR, _MIRRORED), (-2, TURN, _TURNED), (1, REVERSE, _REVERSED)):
        chosen_B = torch.from_numpy(rng.random(len(pictures)) < 0.5)
        pictures = torch.where(chosen_B[:, None, None, None, None], pictures.flip(axis), pictures)
        numbers_BG[:, list(columns)] *= torch.where(chosen_B, -1.0, 1.0)[:, None]
        name_B = torch.where(chosen_B, swap[name_B], name_B)
    thumbnail_BTP, outline_BTP = pictures.flatten(3).unbind(2)
    return Pool(thumbnail_BTP, outline_BTP, numbers_BG, name_B)


def _swap(partner: Mapping[Any, str]) -> Tensor:
    """For each name, by its place in NAMES, the place of its partner, or its own where it has none."""
    return torch.tensor([NAMES.index(partner.get(name, name)) for name in NAMES])


def _exchanged(motion: Motion, one: str, other: str) -> str:
    """A motion with two directions exchanged, such as "up-right" for "up-left"."""
    return motion.replace(one, "*").replace(other, one).replace("*", other)


_MIRRORED = _swap({**MIRRORED, **{motion: _exchanged(motion, "left", "right") for motion in MOTIONS}})
_TURNED = _swap({**TURNED_OVER, **{motion: _exchanged(motion, "up", "down") for motion in MOTIONS}})
_REVERSED = _swap({**REVERSED, **OPPOSITE, "growing": "shrinking", "shrinking": "growing"})


def _as_vectors(guides: Guides, batch: Pool, generator: torch.Generator) -> Tensor:
    """Frame vectors B x T x E that tell thumbnails, something else that stays the same in a clip, and noise."""
    frame_BTE = guides.as_frames(batch.thumbnail_BTP, batch.outline_BTP)
    B, _, E = frame_BTE.shape
    content_B1E = CONTENT_STD * torch.randn(B, 1, E, generator=generator)
    return frame_BTE + content_B1E + NOISE_STD * torch.randn(frame_BTE.shape, generator=generator)


def _drawn(pool: Pool, count: int, rng: np.random.Generator) -> Pool:
    """So many of the pool's clips, drawn at random."""
    rows = torch.from_numpy(rng.integers(len(pool.name_B), size=count))
    return Pool(*(getattr(pool, field.name)[rows] for field in fields(pool)))


def _renew(pool: Pool, fresh: Pool, rng: np.random.Generator) -> None:
    """Overwrites random clips of the pool by fresh ones."""
    rows = torch.from_numpy(rng.permutation(len(pool.name_B))[: len(fresh.name_B)])
    for field in fields(pool):
        getattr(pool, field.name)[rows] = getattr(fresh, field.name)
