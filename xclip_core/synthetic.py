"""Training batches of generated footage: random scenes, rendered as an indexer would see them, with texts.

An indexer keeps the centre of a resized picture, so a batch shows crops of a larger picture, with the crop, the
sharpness, the noise and the coarseness of the levels varying from clip to clip. One stream of random
numbers makes everything: a seed is a data set that never ends, and held-out data is another seed.
"""

# B clips, T frames, C = 3 channels, S pixels, K texts

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from xclip_core.captions import Caption, caption, label_captions, truth_table
from xclip_core.drawing import TRAVEL, Pixels, frame_times, render_planes
from xclip_core.geometry import RESIZE_RATIO
from xclip_core.objective import Batch, Choice
from xclip_core.scenes import HEADING, MOTIONS, VALUES, Motion, Scene, claims_of, random_scene
from xclip_core.views import View, cropped_view

# What a single frame cannot show.
OF_TIME = ("motion", "speed")
# Shapes are the slowest to be learnt; unweighted they stay at chance (0.2) for 100,000 frames.
WEIGHTS = {"shape": 5.0}
GUIDE_SIZE = 5  # numbers per scene, see `guide_numbers`
MEAN_TRAVEL = {speed: sum(ends) / 2 for speed, ends in TRAVEL.items()}
GROWTH_SIGN: dict[str, float] = {"growing": 2.0, "shrinking": -2.0}
NOISE_LEVELS = 12  # largest standard deviation of the noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a stream of batches is made of. `frames` 1 gives still pictures of resting objects."""

    frames: int
    size: int  # pixels of the square crop
    clips: int
    captions: int  # of the first so many clips, one each
    label_sets: int  # attributes per batch, besides motion, of which every value is offered as a choice
    easy: float = 0.0  # share of scenes with a large object on a plain background, where shapes are learnt first

    @property
    def motions(self) -> tuple[Motion, ...]:
        """The motions scenes may have."""
        return ("still",) if self.frames == 1 else MOTIONS


def batches(recipe: Recipe, seed: int | Sequence[int]) -> Iterator[Batch]:
    """Endless batches; the same recipe and seed give the same ones."""
    rng = np.random.default_rng(seed)
    while True:
        scenes = [_scene(recipe, rng) for _ in range(recipe.clips)]
        yield batch_of(scenes, recipe, rng)


def _scene(recipe: Recipe, rng: np.random.Generator) -> Scene:
    """A random scene of a recipe, made easy now and then."""
    scene = random_scene(rng, recipe.motions)
    return replace(scene, size="large", background="plain") if rng.random() < recipe.easy else scene


def batch_of(scenes: Sequence[Scene], recipe: Recipe, rng: np.random.Generator) -> Batch:
    """One batch of given scenes, with random crops, noise and wordings."""
    truths = [visible_claims(scene, recipe.frames) for scene in scenes]
    texts: list[Caption] = [caption(truth, rng) for truth in truths[: recipe.captions]]
    choices = [Choice(0, len(texts), both_ways=True)] if texts else []
    for name in _label_sets(recipe, rng):
        start = len(texts)
        texts += label_captions(name, VALUES[name], rng)
        choices.append(Choice(start, len(texts), weight=WEIGHTS.get(name, 1.0)))
    frames_BTCHW = np.stack([filmed(scene, recipe.frames, recipe.size, rng) for scene in scenes])
    return Batch(
        frames_BTHWC=torch.from_numpy(frames_BTCHW).permute(0, 1, 3, 4, 2),
        texts=tuple(c.text for c in texts),
        truth_BK=torch.from_numpy(truth_table(truths, texts)),
        choices=tuple(choices),
        guide_BG=torch.tensor([guide_numbers(scene) for scene in scenes]),
    )


def guide_numbers(scene: Scene) -> list[float]:
    """Where the object is half-way (x, y), how far it goes (x, y) and how it grows, each about one in size."""
    step = MEAN_TRAVEL[scene.speed] / 0.4
    x, y = HEADING.get(scene.motion, (0.0, 0.0))
    return [scene.middle[0] / 0.2, scene.middle[1] / 0.2, x * step, y * step, GROWTH_SIGN.get(scene.motion, 0.0)]


def visible_claims(scene: Scene, frames: int) -> Mapping[str, str]:
    """What can be said of a scene of which so many frames are seen."""
    claims = claims_of(scene)
    return claims if frames > 1 else {name: value for name, value in claims.items() if name not in OF_TIME}


def _label_sets(recipe: Recipe, rng: np.random.Generator) -> list[str]:
    """The attributes offered as choices in one batch: motion always, where it can be seen, others in turn."""
    others = [name for name in VALUES if name != "motion" and (recipe.frames > 1 or name not in OF_TIME)]
    drawn = rng.permutation(others)[: recipe.label_sets].tolist()
    return ["motion", *drawn] if recipe.frames > 1 else drawn


def filmed(scene: Scene, frames: int, size: int, rng: np.random.Generator) -> Pixels:
    """A scene as a camera and an indexer might deliver it: T x 3 x S x S uint8 RGB with random imperfections."""
    jitter_T = rng.uniform(-0.2, 0.2, frames) / frames
    times_T = (frame_times(frames) + jitter_T).astype(np.float32)
    planes_TCHW = render_planes(scene, times_T, random_view(size, rng), softness_px=float(rng.uniform(0.8, 2.5)))
    return worn(planes_TCHW, rng)


def random_view(size: int, rng: np.random.Generator) -> View:
    """A square crop of a larger picture: round the indexer's own centre crop (224 of 256 parts), wider and tighter."""
    short_side_px = RESIZE_RATIO * size * rng.uniform(0.87, 1.1)
    shift_x, shift_y = (float(v) for v in rng.uniform(-0.04, 0.04, 2))
    return cropped_view(size, size, short_side_px, (shift_x, shift_y))


def worn(planes_TCHW: Pixels, rng: np.random.Generator) -> Pixels:
    """Frames T x 3 x S x S with coarser levels or noise, each on some clips only."""
    kind = rng.random()
    if kind < 0.3:
        bits = int(rng.integers(2, 5))  # steps of 4 to 16 levels, each at its middle
        return (planes_TCHW >> bits << bits | 1 << (bits - 1)).astype(np.uint8)
    return planes_TCHW if kind < 0.6 else _noisy(planes_TCHW, int(rng.integers(1, NOISE_LEVELS + 1)), rng)


def _noisy(planes_TCHW: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    """Frames T x 3 x S x S with noise of a standard deviation of `level` levels: a random run of a fixed table."""
    table = _noise_table()
    start = int(rng.integers(len(table) - planes_TCHW.size))
    noisy_TCHW = table[start : start + planes_TCHW.size].reshape(planes_TCHW.shape) * np.int16(level)
    noisy_TCHW >>= 5
    noisy_TCHW += planes_TCHW
    return np.clip(noisy_TCHW, 0, 255, out=noisy_TCHW).astype(np.uint8)


@cache
def _noise_table() -> NDArray[np.int16]:
    """Normal noise with a standard deviation of 32: drawing it afresh would take longer than rendering."""
    noise = np.random.default_rng(0).standard_normal(1 << 20) * 32
    return np.clip(noise.round(), -127, 127).astype(np.int16)
