"""The embedded model, from nothing: image-text training on single frames, then X-CLIP on clips, then one file.

The two stages are the paper's: there, CLIP was trained on images by others; here the first stage is a CLIP of our own,
small enough for two cores. Straight on clips nothing is learnt: in 38,000 clips accuracy stayed at chance, because
motion can only be read from frames whose vectors already say where things are.
"""

# V all tokens, U used tokens, W text width

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from xclip_core import weights
from xclip_core.captions import training_words
from xclip_core.config import XClipConfig
from xclip_core.durable import save_tensors
from xclip_core.initialise import initialise_clip, initialise_xclip
from xclip_core.model import XClip
from xclip_core.objective import clip_loss, frame_loss
from xclip_core.synthetic import GUIDE_SIZE, Recipe, batches
from xclip_core.training import TrainSettings, train
from xclip_core.vocabulary import Vocabulary, vocabulary_of

log = logging.getLogger(__name__)

# A token table of text width 128 alone would take 12.6 MB of the 16 MB that the file may have.
TINY = XClipConfig(
    frames=8,
    image_size=64,
    patch_size=16,
    embed_dim=128,
    vision_width=128,
    vision_layers=4,
    text_width=64,
    text_layers=3,
)
FRAMES = TrainSettings(steps=1800, lr=1e-3, warmup_steps=100, new_parts_factor=1.0, weight_decay=0.02, train_text=True)
CLIPS = TrainSettings(steps=2400, lr=6e-4, warmup_steps=100, new_parts_factor=3.0, weight_decay=0.02, train_text=True)
FRAME_RECIPE = Recipe(frames=1, size=TINY.image_size, clips=96, captions=24, label_sets=7, easy=0.4)
CLIP_RECIPE = Recipe(frames=TINY.frames, size=TINY.image_size, clips=48, captions=16, label_sets=1)
# Position codes at CLIP's and X-CLIP's scales (0.09 and 0.02) are learnt from much later at this size.
POSITION_STD = 0.3
PLAIN_WEIGHT = 0.5
LAST_LOSSES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Both stages of a pretraining run. The same plan on the same machine gives the same model."""

    seed: int = 0
    frames: TrainSettings = FRAMES
    clips: TrainSettings = CLIPS
    frame_recipe: Recipe = FRAME_RECIPE
    clip_recipe: Recipe = CLIP_RECIPE
    config: XClipConfig = TINY

    def scaled(self, factor: float) -> Plan:
        """The same plan with `factor` times the steps, warm-up included."""
        frames, clips = (
            replace(s, steps=max(1, round(s.steps * factor)), warmup_steps=int(s.warmup_steps * factor))
            for s in (self.frames, self.clips)
        )
        return replace(self, frames=frames, clips=clips)


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage did: optimiser steps, wall time, and the mean of its last losses."""

    name: str
    steps: int
    seconds: float
    loss: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model, the small vocabulary its token table is of, and a record of the stages."""

    plan: Plan
    model: XClip
    vocabulary: Vocabulary
    stages: tuple[Stage, ...]


def new_model(vocabulary: Vocabulary, seed: int, config: XClipConfig = TINY) -> XClip:
    """A model with initial values and the small vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    model = XClip(replace(config, vocab_size=len(vocabulary)))
    initialise_clip(model, generator, position_std=POSITION_STD)
    initialise_xclip(model, generator, position_std=POSITION_STD)
    return model


def pretrain(plan: Plan) -> Trained:
    """Runs both stages from nothing."""
    vocabulary = vocabulary_of(training_words())
    model = new_model(vocabulary, plan.seed, plan.config)
    guide = new_guide(plan.config.embed_dim, plan.seed)
    tokenise = partial(vocabulary.tokenise, rng=np.random.default_rng([plan.seed, 0]))
    on_frames = partial(frame_loss, model, tokenise=tokenise, guide=guide)
    on_clips = partial(clip_loss, model, tokenise=tokenise, guide=guide, plain_weight=PLAIN_WEIGHT)
    pictures, clips = batches(plan.frame_recipe, [plan.seed, 1]), batches(plan.clip_recipe, [plan.seed, 2])
    stages = (
        _timed("single frames", partial(train, model, pictures, on_frames, plan.frames, guide=guide)),
        _timed("clips", partial(train, model, clips, on_clips, plan.clips, guide=guide)),
    )
    return Trained(plan, model, vocabulary, stages)


def new_guide(width: int, seed: int) -> nn.Linear:
    """The linear map that training has to read the scene's numbers with, from vectors of `width`."""
    guide = nn.Linear(width, GUIDE_SIZE)
    nn.init.normal_(guide.weight, std=width**-0.5, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(guide.bias)
    return guide


def _timed(name: str, run: Callable[[], list[float]]) -> Stage:
    """One stage run, and its record."""
    log.info("training on %s", name)
    start_s = time.perf_counter()
    losses = run()
    recent = losses[-LAST_LOSSES:]
    return Stage(name, len(losses), time.perf_counter() - start_s, sum(recent) / len(recent))


def export(model: XClip, vocabulary: Vocabulary, path: Path) -> None:
    """Writes official-layout float16 safetensors with the full token table, whole or not at all."""
    state = {weights.official_name(name): tensor for name, tensor in model.state_dict().items()}
    name = "token_embedding.weight"
    state[name] = vocabulary.expand(state[name], TINY.vocab_size)
    save_tensors({name: tensor.to(torch.float16) for name, tensor in state.items()}, path)
