"""A take: the frames of one generated clip, what can truthfully be said of it, and the numbers behind the words.

Both kinds of generated footage end here, drawn scenes (`drawing`) and shots over pictures (`reel`), so that batches
mix them freely. What only pixels tell, the dominant colour and the look of a photograph, is read off them here.
"""

# T frames, C = 3 channels, S pixels

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from xclip_core.drawing import TRAVEL, Pixels, frame_times, render_planes
from xclip_core.geometry import RESIZE_RATIO
from xclip_core.scenes import HEADING, LUMA, Motion, Scene, claims_of
from xclip_core.views import View, cropped_view

NOISE_LEVELS = 12  # largest standard deviation of the noise
MEAN_TRAVEL = {speed: sum(ends) / 2 for speed, ends in TRAVEL.items()}
GROWTH_SIGN: dict[Motion, float] = {"growing": 2.0, "shrinking": -2.0}
# What a guide reads off a clip's vector: the object's place and step (x, y) and growth; the camera's step (x, y),
# zoom and shake. Each is about one in size; unknown is NaN.
OBJECT_NUMBERS, CAMERA_NUMBERS = 5, 4
UNKNOWN_OBJECT = (float("nan"),) * OBJECT_NUMBERS
REST = (0.0,) * CAMERA_NUMBERS
# Of the mean colour: a shot this colourful has a dominant colour, one this grey has none.
MIN_CHROMA, MAX_GREY_CHROMA = 55.0, 28.0
TINT_HUES = {
    "red": (345, 15),
    "orange": (20, 42),
    "yellow": (46, 68),
    "green": (80, 165),
    "blue": (195, 255),
    "purple": (268, 325),
}
MAX_DARK_LUMA, MIN_BRIGHT_LUMA = 50.0, 190.0


@dataclass(frozen=True, slots=True)
class Take:
    """T frames T x 3 x S x S uint8 RGB, claims by attribute, and a guide's numbers."""

    frames_TCHW: Pixels
    claims: Mapping[str, str]
    numbers: tuple[float, ...]


def film_scene(scene: Scene, frames: int, size: int, rng: np.random.Generator) -> Take:
    """A drawn scene as a take, with random imperfections."""
    frames_TCHW = filmed(scene, frames, size, rng)
    claims = {**claims_of(scene), "camera": "static", "cut": "uncut", **tint_claim(frames_TCHW)}
    return Take(frames_TCHW, claims, scene_numbers(scene))


def scene_numbers(scene: Scene) -> tuple[float, ...]:
    """A guide's numbers of a scene, whose camera rests."""
    step = MEAN_TRAVEL[scene.speed] / 0.4
    x, y = HEADING.get(scene.motion, (0.0, 0.0))
    growth = GROWTH_SIGN.get(scene.motion, 0.0)
    return (scene.middle[0] / 0.2, scene.middle[1] / 0.2, x * step, y * step, growth, *REST)


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


def tint_claim(frames_TCHW: Pixels) -> Mapping[str, str]:
    """The colour that dominates frames T x 3 x S x S, or that none does; nothing where it is hard to say."""
    mean_C = frames_TCHW.mean(axis=(0, 2, 3))
    chroma = float(np.ptp(mean_C))
    if chroma < MAX_GREY_CHROMA:
        return {}
    hue = _hue(mean_C)
    fits = [name for name, (first, last) in TINT_HUES.items() if (hue - first) % 360 <= (last - first) % 360]
    return {"tint": fits[0]} if fits and chroma >= MIN_CHROMA else {}


def _hue(rgb_C: NDArray[np.float64]) -> float:
    """The hue of a colour in degrees: 0 red, 120 green, 240 blue."""
    red, green, blue = rgb_C
    return float(np.degrees(np.arctan2(3**0.5 * (green - blue), 2 * red - green - blue)) % 360)


def look_claim(frames_TCHW: Pixels) -> Mapping[str, str]:
    """Whether frames T x 3 x S x S look dark, bright or black-and-white to anyone; nothing for all others."""
    planes = frames_TCHW.astype(np.float32)
    if np.ptp(planes, axis=1).mean() < 4:
        return {"look": "black-and-white"}
    level = float(np.tensordot(planes.mean(axis=(0, 2, 3)), LUMA, axes=1))
    if level < MAX_DARK_LUMA:
        return {"look": "dark"}
    return {"look": "bright"} if level > MIN_BRIGHT_LUMA else {}
