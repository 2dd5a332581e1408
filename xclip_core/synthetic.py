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
from xclip_core.scenes import MOTIONS, VALUES, Camera, Motion, Scene, random_scene
from xclip_core.shots import CAMERAS, Shot, random_shot
from xclip_core.takes import Take, film_scene

# What a single frame cannot show.
OF_TIME = ("motion", "speed", "camera", "cut")
# Offered in every batch of clips: they are what clips are for.
ALWAYS = ("motion", "camera")
# Shapes are the slowest to be learnt; unweighted they stay at chance (0.2) for 100,000 frames.
WEIGHTS = {"shape": 5.0}
# Over pictures it never saw, a model that sees no motion says that there is none: static was right in all clips, the
# seven others in 0.85. Trained at last against such odds, it says so only where it is sure.
FIRST_ODDS = {"camera": 150.0, "cut": 20.0}


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
    evened: bool = False  # whether what is answered where nothing is seen is made up for
    with_object: float = 0.35  # share of the shots with an object in front of a static camera

    @property
    def motions(self) -> tuple[Motion, ...]:
        """The motions scenes may have."""
        return ("still",) if self.frames == 1 else MOTIONS


def batches(recipe: Recipe, seed: int | Sequence[int], library: Library | None = None) -> Iterator[Batch]:
    """Endless batches; the same recipe, seed and library give the same ones. Shots need a library."""
    rng = np.random.default_rng(seed)
    while True:
        records = (_record(recipe, rng, over_pictures=library is not None) for _ in range(recipe.clips))
        takes = [_film(record, recipe, rng, library) for record in records]
        yield batch_of(takes, recipe, rng)


def _record(recipe: Recipe, rng: np.random.Generator, *, over_pictures: bool) -> Shot | Scene:
    """What a random clip of a recipe shows: a shot over a picture, or a drawn scene, made easy now and then."""
    if over_pictures and rng.random() < recipe.shots:
        cameras: tuple[Camera, ...] = ("static",) if recipe.frames == 1 else CAMERAS
        shot = random_shot(rng, with_object=recipe.with_object, cameras=cameras)
        return replace(shot, cut=shot.cut and recipe.frames > 1)
    scene = random_scene(rng, recipe.motions)
    return replace(scene, size="large", background="plain") if rng.random() < recipe.easy else scene


def _film(record: Shot | Scene, recipe: Recipe, rng: np.random.Generator, library: Library | None) -> Take:
    """A record as a take. Shots need a library."""
    if isinstance(record, Scene):
        return film_scene(record, recipe.frames, recipe.size, rng)
    if library is None:
        raise ValueError("a shot needs pictures; expected a library")
    return shoot(record, library, recipe.frames, recipe.size, rng)


def _shares(recipe: Recipe, name: str) -> tuple[float, ...]:
    """How likely each value of an attribute is made to look: as likely as the others, but for the first of some."""
    if not recipe.evened or name not in FIRST_ODDS:
        return ()
    odds = np.array([FIRST_ODDS[name], *[1.0] * (len(VALUES[name]) - 1)])
    return tuple((odds / odds.sum()).tolist())


def batch_of(takes: Sequence[Take], recipe: Recipe, rng: np.random.Generator) -> Batch:
    """One batch of given takes, with random wordings."""
    truths = [visible_claims(take.claims, recipe.frames) for take in takes]
    said = [truth for truth in truths if truth][: recipe.captions]
    texts: list[Caption] = [caption(truth, rng) for truth in said]
    choices = [Choice(0, len(texts), both_ways=True)] if texts else []
    for name in _label_sets(recipe, rng):
        start = len(texts)
        texts += label_captions(name, VALUES[name], rng)
        choices.append(Choice(start, len(texts), weight=WEIGHTS.get(name, 1.0), shares=_shares(recipe, name)))
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
