"""Training batches of generated footage: random takes as an indexer would see them, with texts.

An indexer keeps the centre of a resized picture, so drawn scenes are seen in crops of a larger picture, with the crop,
the sharpness, the noise and the coarseness of the levels varying from clip to clip. One stream of random numbers makes
everything: a seed is a data set that never ends, and held-out data is another seed.
"""

# B clips, T frames, C = 3 channels, S pixels, K texts

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from xclip_core.captions import Caption, caption, label_captions, truth_table
from xclip_core.objective import Batch, Choice
from xclip_core.pictures import Library
from xclip_core.reel import shoot
from xclip_core.scenes import MOTIONS, VALUES, Camera, Motion, random_scene
from xclip_core.shots import CAMERAS, random_shot
from xclip_core.takes import Take, film_scene

# What a single frame cannot show.
OF_TIME = ("motion", "speed", "camera", "cut")
# Offered in every batch of clips: they are what clips are for.
ALWAYS = ("motion", "camera")
# Shapes are the slowest to be learnt; unweighted they stay at chance (0.2) for 100,000 frames.
WEIGHTS = {"shape": 5.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a stream of batches is made of. `frames` 1 gives still pictures of resting objects."""

    frames: int
    size: int  # pixels of the square crop
    clips: int
    captions: int  # of so many of the clips, one each
    label_sets: int  # attributes per batch, besides motion and camera, of which every value is offered as a choice
    easy: float = 0.0  # share of scenes with a large object on a plain background, where shapes are learnt first
    shots: float = 0.0  # share of clips that are shots over pictures; the others are drawn scenes
    with_object: float = 0.35  # share of the shots with an object in front of a static camera

    @property
    def motions(self) -> tuple[Motion, ...]:
        """The motions scenes may have."""
        return ("still",) if self.frames == 1 else MOTIONS


def batches(recipe: Recipe, seed: int | Sequence[int], library: Library | None = None) -> Iterator[Batch]:
    """Endless batches; the same recipe, seed and library give the same ones. Shots need a library."""
    rng = np.random.default_rng(seed)
    while True:
        takes = [_take(recipe, rng, library) for _ in range(recipe.clips)]
        yield batch_of(takes, recipe, rng)


def _take(recipe: Recipe, rng: np.random.Generator, library: Library | None) -> Take:
    """A random take of a recipe: a shot over a picture, or a drawn scene, made easy now and then."""
    if library is not None and rng.random() < recipe.shots:
        cameras: tuple[Camera, ...] = ("static",) if recipe.frames == 1 else CAMERAS
        shot = random_shot(rng, with_object=recipe.with_object, cameras=cameras)
        return shoot(replace(shot, cut=shot.cut and recipe.frames > 1), library, recipe.frames, recipe.size, rng)
    scene = random_scene(rng, recipe.motions)
    scene = replace(scene, size="large", background="plain") if rng.random() < recipe.easy else scene
    return film_scene(scene, recipe.frames, recipe.size, rng)


def batch_of(takes: Sequence[Take], recipe: Recipe, rng: np.random.Generator) -> Batch:
    """One batch of given takes, with random wordings."""
    truths = [visible_claims(take.claims, recipe.frames) for take in takes]
    said = [truth for truth in truths if truth][: recipe.captions]
    texts: list[Caption] = [caption(truth, rng) for truth in said]
    choices = [Choice(0, len(texts), both_ways=True)] if texts else []
    for name in _label_sets(recipe, rng):
        start = len(texts)
        texts += label_captions(name, VALUES[name], rng)
        choices.append(Choice(start, len(texts), weight=WEIGHTS.get(name, 1.0)))
    return Batch(
        frames_BTHWC=torch.from_numpy(np.stack([take.frames_TCHW for take in takes])).permute(0, 1, 3, 4, 2),
        texts=tuple(c.text for c in texts),
        truth_BK=torch.from_numpy(truth_table(truths, texts)),
        choices=tuple(choices),
        numbers_BG=torch.tensor([take.numbers for take in takes], dtype=torch.float32),
    )


def visible_claims(claims: Mapping[str, str], frames: int) -> Mapping[str, str]:
    """What can be said of a take of which so many frames are seen."""
    return claims if frames > 1 else {name: value for name, value in claims.items() if name not in OF_TIME}


def _label_sets(recipe: Recipe, rng: np.random.Generator) -> list[str]:
    """The attributes offered as choices in one batch: those of time always, where they can be seen, others in turn."""
    others = [name for name in VALUES if name not in ALWAYS and (recipe.frames > 1 or name not in OF_TIME)]
    drawn: list[str] = rng.permutation(others)[: recipe.label_sets].tolist()
    return [*ALWAYS, *drawn] if recipe.frames > 1 else drawn
