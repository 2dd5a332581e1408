"""The embedded model, from nothing: image-text training on single frames, then X-CLIP on clips, then one file.

The two stages are the paper's: there, CLIP was trained on images by others; here the first stage is a CLIP of our own,
small enough for two cores. Straight on clips nothing is learnt: in 38,000 clips accuracy stayed at chance, because
motion can only be read from frames whose vectors already say where things are.
"""

# V all tokens, U used tokens, W text width

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from xclip_core import weights
from xclip_core.captions import training_words
from xclip_core.config import XClipConfig
from xclip_core.durable import load_state, save_state, save_tensors
from xclip_core.guides import Guides
from xclip_core.initialise import initialise_clip, initialise_xclip
from xclip_core.model import XClip
from xclip_core.objective import Tokeniser, clip_loss, frame_loss
from xclip_core.pictures import Library, read_library
from xclip_core.rehearsal import Rehearsal, rehearse
from xclip_core.synthetic import Recipe, batches
from xclip_core.training import TrainSettings, train
from xclip_core.vocabulary import Vocabulary, vocabulary_of

log = logging.getLogger(__name__)

# A token table of text width 128 alone would take 12.6 MB of the 16 MB that the file may have.
TINY = XClipConfig(
    frames=8,
    image_size=64,
    patch_size=16,
    embed_dim=256,
    vision_width=128,
    vision_layers=4,
    text_width=64,
    text_layers=3,
)
REHEARSAL = Rehearsal()
FRAMES = TrainSettings(steps=2000, lr=1e-3, warmup_steps=100, new_parts_factor=1.0, weight_decay=0.02, train_text=True)
CLIPS = TrainSettings(steps=6000, lr=6e-4, warmup_steps=200, new_parts_factor=1.0, weight_decay=0.02, train_text=True)
SHOTS = TrainSettings(steps=3400, lr=5e-4, warmup_steps=100, new_parts_factor=1.0, weight_decay=0.02, train_text=True)
FRAME_RECIPE = Recipe(frames=1, size=TINY.image_size, clips=96, captions=24, label_sets=7, easy=0.4, shots=0.4)
CLIP_RECIPE = Recipe(frames=TINY.frames, size=TINY.image_size, clips=32, captions=12, label_sets=1, shots=0.6)
# What is hardest comes last, and again from a high rate: cameras and objects over pictures.
SHOT_RECIPE = replace(CLIP_RECIPE, shots=0.75, with_object=0.45)
# A quarter of an hour more, so that what is answered in doubt is not always that nothing moves; and objects, mostly.
EVENED = TrainSettings(steps=2400, lr=3e-4, warmup_steps=60, new_parts_factor=1.0, weight_decay=0.02, train_text=True)
EVENED_RECIPE = replace(SHOT_RECIPE, evened=True, shots=0.85, with_object=0.55)
# Position codes at CLIP's and X-CLIP's scales (0.09 and 0.02) are learnt from much later at this size.
POSITION_STD = 0.3
PLAIN_WEIGHT = 0.5
LAST_LOSSES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All stages of a pretraining run. The same plan and pictures on the same machine give the same model."""

    seed: int = 0
    pictures: Path | None = None  # a folder, see `pictures`; generated textures alone without one
    rehearsal: Rehearsal = REHEARSAL
    frames: TrainSettings = FRAMES
    clips: TrainSettings = CLIPS
    shots: TrainSettings = SHOTS
    evened: TrainSettings = EVENED
    frame_recipe: Recipe = FRAME_RECIPE
    clip_recipe: Recipe = CLIP_RECIPE
    shot_recipe: Recipe = SHOT_RECIPE
    evened_recipe: Recipe = EVENED_RECIPE
    config: XClipConfig = TINY

    def scaled(self, factor: float) -> Plan:
        """The same plan with `factor` times the steps, warm-up included."""
        frames, clips, shots, evened = (
            replace(s, steps=max(1, round(s.steps * factor)), warmup_steps=int(s.warmup_steps * factor))
            for s in (self.frames, self.clips, self.shots, self.evened)
        )
        steps, warmup_steps = round(self.rehearsal.steps * factor), int(self.rehearsal.warmup_steps * factor)
        rehearsal = replace(self.rehearsal, steps=max(4, steps), warmup_steps=max(2, warmup_steps))
        return replace(self, rehearsal=rehearsal, frames=frames, clips=clips, shots=shots, evened=evened)


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


def pretrain(plan: Plan, kept: Path | None = None) -> Trained:
    """Runs all stages from nothing. With a folder `kept`, a stage that an earlier run of the plan finished is read."""
    vocabulary = vocabulary_of(training_words())
    model = new_model(vocabulary, plan.seed, plan.config)
    guides = Guides(plan.config.embed_dim, plan.seed)
    library = read_library(plan.pictures, held_out=False, seed=plan.seed)
    learner = Learner(plan, model, guides, vocabulary, library)
    parts = nn.ModuleDict({"model": model, "guides": guides})
    stages = [_once(kept, plan, stage, parts, partial(run, learner)) for stage, run in STAGES.items()]
    return Trained(plan, model, vocabulary, tuple(stages))


@dataclass(frozen=True, slots=True)
class Learner:
    """What every stage works on and with."""

    plan: Plan
    model: XClip
    guides: Guides
    vocabulary: Vocabulary
    library: Library

    def tokeniser(self, stage: int) -> Tokeniser:
        """The small vocabulary's tokeniser, with unknown words put in; each stage has random numbers of its own."""
        return partial(self.vocabulary.tokenise, rng=np.random.default_rng([self.plan.seed, 0, stage]))


def _rehearse(learner: Learner) -> list[float]:
    """Integration alone, on thumbnails."""
    plan = learner.plan
    return rehearse(learner.model.mit, learner.guides, learner.library, plan.rehearsal, plan.seed)


def _on_frames(learner: Learner) -> list[float]:
    """Image and text on single frames."""
    plan, model, guides = learner.plan, learner.model, learner.guides
    loss_of = partial(frame_loss, model, tokenise=learner.tokeniser(1), guides=guides)
    return train(model, batches(plan.frame_recipe, [plan.seed, 1], learner.library), loss_of, plan.frames, guide=guides)


def _on_clips(learner: Learner) -> list[float]:
    """The whole model on clips of both kinds."""
    return _whole_model(learner, 2, learner.plan.clips, learner.plan.clip_recipe)


def _on_shots(learner: Learner) -> list[float]:
    """The whole model on shots over pictures, mostly."""
    return _whole_model(learner, 3, learner.plan.shots, learner.plan.shot_recipe)


def _evened(learner: Learner) -> list[float]:
    """The whole model against the odds, without guides: all that they ask for is there."""
    return _whole_model(learner, 4, learner.plan.evened, learner.plan.evened_recipe, guided=False)


def _whole_model(
    learner: Learner, stage: int, settings: TrainSettings, recipe: Recipe, *, guided: bool = True
) -> list[float]:
    """The whole model on clips of a recipe; `stage` decides the random numbers."""
    model, guides = learner.model, learner.guides if guided else None
    loss_of = partial(clip_loss, model, tokenise=learner.tokeniser(stage), guides=guides, plain_weight=PLAIN_WEIGHT)
    return train(model, batches(recipe, [learner.plan.seed, stage], learner.library), loss_of, settings, guide=guides)


STAGES: dict[str, Callable[[Learner], list[float]]] = {
    "rehearsal": _rehearse,
    "single frames": _on_frames,
    "clips": _on_clips,
    "mostly shots": _on_shots,
    "evened": _evened,
}


def _once(kept: Path | None, plan: Plan, name: str, parts: nn.Module, run: Callable[[], list[float]]) -> Stage:
    """A stage's record; it is run, unless its result is kept from an earlier run, and then kept."""
    digest = hashlib.sha256(repr(plan).encode()).hexdigest()[:12]
    file = None if kept is None else kept / f"{name.replace(' ', '-')}.{digest}.pt"
    if file is not None and file.exists():
        log.info("%s: kept in %s", name, file)
        content = load_state(file)
        parts.load_state_dict(content["parts"])
        return Stage(*content["stage"])
    stage = _timed(name, run)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_state(file, {"parts": parts.state_dict(), "stage": list(astuple(stage))})
    return stage


def _timed(name: str, run: Callable[[], list[float]]) -> Stage:
    """One stage run, and its record."""
    log.info("training: %s", name)
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
