"""The model card of the embedded model: prose with holes, and measured numbers to fill them.

Nothing in the template states a result; every figure is passed in by the run that measured it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xclip_core.model import XClip
from xclip_core.pretrain import PLAIN_WEIGHT, POSITION_STD, Stage, Trained
from xclip_core.rehearsal import Rehearsal
from xclip_core.scenes import VALUES
from xclip_core.synthetic import Recipe
from xclip_core.training import TrainSettings

TEMPLATE = """\
# footage-tiny

A small X-CLIP (Ni et al., ECCV 2022) that ships with `footage`, so that indexing, search and tagging work with no
network. Trained from nothing on footage that the package generates, over the pictures named below, none of which ships;
no video and no text of anybody else went into it. Licence: Apache-2.0, as the package.

## What it knows

One simple object on a still background, and how a shot over any picture moves and looks: {values}.
{not_learnt}
In English, in a vocabulary of {words} words and parts of words.

## What it does not know

Everything else: people, animals, actions, places, text in the picture, sound, several objects, two motions at once. A
word it never saw carries no meaning: all such words share one vector that it learnt to read past. For anything more,
use a released X-CLIP (`--model`).

## Size

{file_bytes:,} bytes of float16 tensors in the official layout, {parameters:,} parameters.
{frames} frames of {image_size} x {image_size} pixels, patches of {patch_size}, width {vision_width},
{vision_layers} layers; text width {text_width}, {text_layers} layers; joint dimension {embed_dim};
{mit_layers} integration layer, {prompt_layers} prompt layers.

## Recipe

Seed {seed}; `footage pretrain` makes it again. AdamW (0.9, 0.98), linear warm-up then cosine, gradient norm clipped.

| stage | data per step | steps | learning rate | new parts | weight decay | wall time | last loss |
| --- | --- | --- | --- | --- | --- | --- | --- |
{stages}

**Rehearsal**: multi-frame integration alone learns eight camera motions from 8 x 8 thumbnails, which a fixed random
subspace of 64 dimensions turns into frame vectors. **Single frames**: image and text, with the frame's thumbnail to be
found again in that subspace. **Clips**, then **mostly shots**: the whole model; the cross-entropy of its own score over
texts, plus {plain_weight} times that of the plain cosine, which an index's recall uses. Up to there, from the single
frames on, guides that are not kept read thumbnails, colours, and the numbers of object and camera off the vectors.
**Evened**: the same without guides, a resting camera made to look 150 times and an uncut clip 20 times as likely as
any other answer, which the model learns to make up for. Position codes start at a standard deviation of {position_std}.
The text tower is trained throughout: motion words cannot be learnt from single frames.

Pictures: {pictures}

Made with torch {torch}, numpy {numpy}, Python {python}, {threads} threads on {machine}, in {minutes:.0f} minutes.

## Held-out figures

{clips} generated clips per line (fewer where a line is about some of them), of a seed that training never used, seed
{figures_seed}. Everything goes through text. "Held-out wordings" never occurred in training, though their words did.
"Shuffled" clips have their frames in random order: a model that reads motion falls to one half between opposite
directions, one that reads something else does not.

### Drawn scenes

{figures}

### Shots over pictures

A camera that moves over a still picture, or an object (a cut-out) in front of it. "Mirrored" and "backwards" clips are
the same clips altered; the figure is how often the answer becomes what the alteration made of the motion. "Foreign
texts" are made of words it never saw, such as "people dancing". Half of the clips that may have a cut have one.

{shots}
"""


NOT_LEARNT = 1.5  # times chance: an attribute below this on every kind of footage counts as not learnt


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Held-out figures of the exported file by kind of footage and name, and how they were made."""

    clips: int
    seed: int
    tables: Mapping[str, Mapping[str, float]]  # drawn scenes
    shots: Mapping[str, Mapping[str, float]]  # over pictures


def model_card(model: XClip, file: Path, trained: Trained, measured: Measured, pictures: str) -> str:
    """The card as Markdown; `model` is the one loaded from `file`, `pictures` says what it was trained over."""
    plan, stages = trained.plan, trained.stages
    config = model.config
    sizes = {name: getattr(config, name) for name in config.__slots__}
    rehearsal, *others = stages
    recipes = (plan.frame_recipe, plan.clip_recipe, plan.shot_recipe, plan.evened_recipe)
    settings = zip(others, recipes, (plan.frames, plan.clips, plan.shots, plan.evened), strict=True)
    return TEMPLATE.format(
        **sizes,
        values="; ".join(f"{name} ({', '.join(values)})" for name, values in VALUES.items()),
        not_learnt=_not_learnt(measured),
        words=len(trained.vocabulary),
        file_bytes=file.stat().st_size,
        parameters=sum(p.numel() for p in model.parameters()),
        seed=plan.seed,
        stages="\n".join([_rehearsal_row(rehearsal, plan.rehearsal), *(_stage_row(*row) for row in settings)]),
        pictures=pictures,
        shots=_figures(measured.shots),
        position_std=POSITION_STD,
        plain_weight=PLAIN_WEIGHT,
        torch=torch.__version__,
        numpy=np.__version__,
        python=platform.python_version(),
        threads=torch.get_num_threads(),
        machine=platform.machine(),
        minutes=sum(stage.seconds for stage in stages) / 60,
        clips=measured.clips,
        figures_seed=measured.seed,
        figures=_figures(measured.tables),
    )


def _rehearsal_row(stage: Stage, settings: Rehearsal) -> str:
    """The first line of the recipe table."""
    data = f"{settings.batch} shots as thumbnails, of a pool of {settings.pool}"
    rates = f"{settings.lr:g} | | 0.02"
    return f"| {stage.name} | {data} | {stage.steps} | {rates} | {stage.seconds:.0f} s | {stage.loss:.3f} |"


def _not_learnt(measured: Measured) -> str:
    """Which attributes it was shown and answers hardly better than chance on, by the measured figures."""
    tables = (*measured.tables.values(), *measured.shots.values())
    best = {name: max(table.get(name, 1.0) for table in tables if name in table) for name in VALUES if name != "camera"}
    poor = [name for name, figure in best.items() if figure < NOT_LEARNT / len(VALUES[name])]
    return f"It was shown and did not learn: {', '.join(poor)} (see the figures)." if poor else ""


def _stage_row(stage: Stage, recipe: Recipe, settings: TrainSettings) -> str:
    """One line of the recipe table."""
    data = f"{recipe.clips} clips of {recipe.frames} frames, {recipe.captions} captions"
    rates = f"{settings.lr:g} | x {settings.new_parts_factor:g} | {settings.weight_decay:g}"
    return f"| {stage.name} | {data} | {stage.steps} | {rates} | {stage.seconds:.0f} s | {stage.loss:.3f} |"


def _figures(tables: Mapping[str, Mapping[str, float]]) -> str:
    """One line per figure, one column per kind of footage."""
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    head = [f"| figure | {' | '.join(tables)} |", "| --- |" + " --- |" * len(tables)]
    rows = ["| " + " | ".join([name, *(_figure(table, name) for table in tables.values())]) + " |" for name in names]
    return "\n".join(head + rows)


def _figure(table: Mapping[str, float], name: str) -> str:
    """One figure, or nothing where it was not measured."""
    return f"{table[name]:.3f}" if name in table else ""
