"""Multi-frame integration learns camera motions from thumbnails alone, before there are frame vectors to integrate.

A thumbnail stands for a frame's vector (`guides`), so a step costs a hundredth of one through the vision tower, and
one layer of attention over eight vectors learns to read shifts and scales: 0.88 of eight camera motions over pictures
it never saw, after a minute and a half. Thumbnails can be mirrored, turned over and played backwards exactly, which
makes one rendered shot eight.
"""

# B clips, T frames, E joint dimension, G numbers of a clip, P = 64 thumbnail pixels, N clips in the pool

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclip_core.guides import THUMBNAIL_SIDE, Guides, thumbnails
from xclip_core.pictures import Library
from xclip_core.reel import shoot
from xclip_core.scenes import Camera, pick
from xclip_core.shots import CAMERAS, MIRRORED, REVERSED, TURNED_OVER, random_shot
from xclip_core.takes import CAMERA_NUMBERS
from xclip_core.temporal import MultiFrameIntegration

log = logging.getLogger(__name__)

RENDER_SIDE = 3 * THUMBNAIL_SIDE
LOG_EVERY = 200
# Besides its thumbnail a frame's vector will tell other things, and the thumbnail not quite.
CONTENT_STD, NOISE_STD = 0.3, 0.15
# Columns of the camera's numbers (right, down, zoom) that change sign when a clip is mirrored, turned over, reversed.
MIRROR, TURN, REVERSE = (0,), (1,), (0, 1, 2)


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
    """Rendered shots: thumbnails N x T x P, camera numbers N x 4, and the place of the camera's motion in CAMERAS."""

    thumbnail_BTP: Tensor
    numbers_BG: Tensor
    camera_B: Tensor


def rehearse(
    mit: MultiFrameIntegration, guides: Guides, library: Library, settings: Rehearsal, seed: int
) -> list[float]:
    """Trains `mit` and the guides' numbers in place; returns the loss of each step."""
    rng, generator = np.random.default_rng([seed, 3]), torch.Generator().manual_seed(seed)
    frames = mit.positional_embedding.shape[1]
    names = nn.Linear(mit.positional_embedding.shape[2], len(CAMERAS))
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
        numbers_BG = F.pad(batch.numbers_BG, (guides.numbers.out_features - CAMERA_NUMBERS, 0), value=float("nan"))
        loss = F.cross_entropy(logits_BK, batch.camera_B) + guides.number_loss(video_BE, numbers_BG)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        right += 0.01 * ((logits_BK.argmax(-1) == batch.camera_B).float().mean().item() - right)
        if (step + 1) % settings.renew_every == 0:
            _renew(pool, render_pool(library, settings.renew, frames, rng), rng)
        if (step + 1) % LOG_EVERY == 0:
            log.info("rehearsal step %d of %d: loss %.3f, right %.3f", step + 1, settings.steps, losses[-1], right)
    return losses


def render_pool(library: Library, count: int, frames: int, rng: np.random.Generator) -> Pool:
    """So many random shots without objects and cuts, as thumbnails."""
    takes, cameras = [], []
    for _ in range(count):
        shot = replace(random_shot(rng), look="normal", cut=False, camera=pick(rng, CAMERAS))
        takes.append(shoot(shot, library, frames, RENDER_SIDE, rng))
        cameras.append(CAMERAS.index(shot.camera))
    frames_BTHWC = torch.from_numpy(np.stack([take.frames_TCHW for take in takes])).permute(0, 1, 3, 4, 2)
    numbers_BG = torch.tensor([take.numbers[-CAMERA_NUMBERS:] for take in takes])
    return Pool(thumbnails(frames_BTHWC), numbers_BG, torch.tensor(cameras))


def turned(batch: Pool, rng: np.random.Generator) -> Pool:
    """Each clip mirrored, turned over and played backwards at random, with its numbers and its name."""
    side = THUMBNAIL_SIDE
    picture = torch.unflatten(batch.thumbnail_BTP, -1, (side, side))
    numbers_BG, camera_B = batch.numbers_BG.clone(), batch.camera_B
    for axis, columns, swap in ((-1, MIRROR, _MIRRORED), (-2, TURN, _TURNED), (1, REVERSE, _REVERSED)):
        chosen_B = torch.from_numpy(rng.random(len(picture)) < 0.5)
        picture = torch.where(chosen_B[:, None, None, None], picture.flip(axis), picture)
        numbers_BG[:, list(columns)] *= torch.where(chosen_B, -1.0, 1.0)[:, None]
        camera_B = torch.where(chosen_B, swap[camera_B], camera_B)
    return Pool(picture.flatten(2), numbers_BG, camera_B)


def _swap(partner: Mapping[Camera, Camera]) -> Tensor:
    """For each camera motion, by its place in CAMERAS, the place of its partner, or its own where it has none."""
    return torch.tensor([CAMERAS.index(partner.get(camera, camera)) for camera in CAMERAS])


_MIRRORED, _TURNED, _REVERSED = map(_swap, (MIRRORED, TURNED_OVER, REVERSED))


def _as_vectors(guides: Guides, batch: Pool, generator: torch.Generator) -> Tensor:
    """Frame vectors B x T x E that tell thumbnails, something else that stays the same in a clip, and noise."""
    frame_BTE = guides.as_frames(batch.thumbnail_BTP)
    B, _, E = frame_BTE.shape
    content_B1E = CONTENT_STD * torch.randn(B, 1, E, generator=generator)
    return frame_BTE + content_B1E + NOISE_STD * torch.randn(frame_BTE.shape, generator=generator)


def _drawn(pool: Pool, count: int, rng: np.random.Generator) -> Pool:
    """So many of the pool's clips, drawn at random."""
    rows = torch.from_numpy(rng.integers(len(pool.camera_B), size=count))
    return Pool(pool.thumbnail_BTP[rows], pool.numbers_BG[rows], pool.camera_B[rows])


def _renew(pool: Pool, fresh: Pool, rng: np.random.Generator) -> None:
    """Overwrites random clips of the pool by fresh ones."""
    rows = torch.from_numpy(rng.permutation(len(pool.camera_B))[: len(fresh.camera_B)])
    for old, new in ((pool.thumbnail_BTP, fresh.thumbnail_BTP), (pool.numbers_BG, fresh.numbers_BG)):
        old[rows] = new
    pool.camera_B[rows] = fresh.camera_B
