"""Scenes to pixels: anti-aliased shapes over plain, gradient or noise backgrounds, in numpy alone.

Shapes are signed distances evaluated at pixel centres and looks are affine in colour, so one clip is about twenty
array operations. Painting only the object's surroundings, frame by frame, was no faster at 64 pixels. Nothing is
random but the seed of the scene; the same scene at another size shows the same picture.
"""

# T frames, H x W pixels, C = 3 channels

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from xclip_core.backgrounds import PATTERNS
from xclip_core.scenes import COLOURS, GROUND_LUMA, HEADING, LUMA, Look, Scene
from xclip_core.views import Floats, View, whole_view

Pixels = NDArray[np.uint8]

RADIUS = {"small": (0.085, 0.125), "large": (0.19, 0.26)}  # short sides
TRAVEL = {"slow": (0.22, 0.36), "fast": (0.55, 0.9)}  # short sides per clip
GROWTH = (1.8, 3.0)  # largest over smallest radius
GROWN_RADIUS = (0.2, 0.28)


def frame_times(frames: int) -> Floats:
    """The centres of `frames` equal parts of a clip, in 0..1."""
    return ((np.arange(frames) + 0.5) / frames).astype(np.float32)


def render(
    scene: Scene, *, times: Sequence[float] | Floats, height: int, width: int, backdrop: Pixels | None = None
) -> Pixels:
    """The scene at `times` (0 is the clip's start, 1 its end) as T x H x W x 3 uint8 RGB.

    The same scene gives the same picture at any size. `backdrop`, H x W x 3 uint8, replaces the drawn background.
    """
    times_T = np.asarray(times, dtype=np.float32)
    planes_TCHW = render_planes(scene, times_T, whole_view(height, width), backdrop=backdrop)
    return np.ascontiguousarray(planes_TCHW.transpose(0, 2, 3, 1))


def render_planes(
    scene: Scene, times_T: Floats, view: View, *, softness_px: float = 1.0, backdrop: Pixels | None = None
) -> Pixels:
    """The part of a scene that a view shows, T x 3 x H x W uint8 RGB; edges are `softness_px` pixels wide.

    Colour planes, because arithmetic and copies on a last axis of length 3 are three times as slow.
    """
    rng = np.random.default_rng(scene.seed)
    colour_C = np.asarray(COLOURS[scene.colour], dtype=np.float32) + rng.uniform(-14, 14, 3).astype(np.float32)
    centre_T2, radius_T = _path(scene, times_T, rng)
    gain, base = look_of(scene.look, rng)
    ground_CHW = _background(scene, view, rng) if backdrop is None else backdrop.astype(np.float32).transpose(2, 0, 1)
    ground_CHW = np.clip(np.tensordot(gain, ground_CHW, axes=1) + base, 0, 255)
    colour_C11 = np.clip(gain @ colour_C + base, 0, 255)[:, None, None]
    alpha_THW = _coverage(scene, centre_T2, radius_T, view, softness_px)
    frames_TCHW: Floats = alpha_THW[:, None] * (colour_C11 - ground_CHW)
    frames_TCHW += ground_CHW + np.float32(0.5)  # rounds when cut to whole numbers
    return frames_TCHW.astype(np.uint8)


def _path(scene: Scene, times_T: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The object's centre T x 2 (x, y) and radius T over time, in short sides."""
    radius, travel = rng.uniform(*RADIUS[scene.size]), rng.uniform(*TRAVEL[scene.speed])
    growth, grown = rng.uniform(*GROWTH), rng.uniform(*GROWN_RADIUS)
    heading = HEADING.get(scene.motion, (0.0, 0.0))
    step_T = (times_T - 0.5) * travel
    centre_T2 = np.asarray(scene.middle) + step_T[:, None] * np.asarray(heading)
    radius_T = np.full_like(times_T, radius)
    if scene.motion in ("growing", "shrinking"):
        part_T = times_T if scene.motion == "growing" else 1 - times_T
        radius_T = grown * growth ** (part_T - 1)  # a steady rate, as of something that comes nearer
    return centre_T2.astype(np.float32), radius_T.astype(np.float32)


def look_of(look: Look, rng: np.random.Generator) -> tuple[Floats, np.float32]:
    """How a look changes colours: a 3 x 3 matrix applied from the left, and a level added."""
    strength = rng.uniform(0.75, 1.0)
    gain, base = np.eye(3), 0.0
    if look == "dark":
        gain = gain * (1 - 0.85 * strength)  # 15 % to 36 % of the light
    elif look == "bright":
        gain, base = gain * (1 - 0.6 * strength), 255 * 0.6 * strength
    elif look == "black-and-white":
        gain = np.outer((1, 1, 1), LUMA)
    return gain.astype(np.float32), np.float32(base)


def _background(scene: Scene, view: View, rng: np.random.Generator) -> Floats:
    """The background 3 x H x W, levels in 0..255."""
    level = GROUND_LUMA[scene.ground] + rng.uniform(-18, 18)
    base_C11 = (level + rng.uniform(-35, 35, (3, 1, 1))).astype(np.float32)
    out: Floats = np.clip(base_C11 + PATTERNS[scene.background](view, rng), 0, 255)
    return out


def _coverage(scene: Scene, centre_T2: Floats, radius_T: Floats, view: View, softness_px: float) -> Floats:
    """How much of each pixel the object covers, T x H x W in 0..1."""
    x_T1W = (view.x_W - centre_T2[:, :1])[:, None, :] / radius_T[:, None, None]
    y_TH1 = (view.y_H - centre_T2[:, 1:])[:, :, None] / radius_T[:, None, None]
    edge_T11 = (radius_T * np.float32(view.pixels_per_side / softness_px))[:, None, None]
    alpha_THW = DISTANCES[scene.shape](x_T1W, y_TH1)
    alpha_THW *= -edge_T11
    alpha_THW += np.float32(0.5)
    return np.clip(alpha_THW, 0, 1, out=alpha_THW)


def _circle(x_T1W: Floats, y_TH1: Floats) -> Floats:
    """Distance to a disc, T x H x W, negative inside, in units of the object's radius; as for all below."""
    return np.sqrt(x_T1W * x_T1W + y_TH1 * y_TH1) - np.float32(1)


def _square(x_T1W: Floats, y_TH1: Floats) -> Floats:
    """An upright square with a disc's area, T x H x W."""
    return np.maximum(np.abs(x_T1W), np.abs(y_TH1)) - np.float32(0.886)


def _triangle(x_T1W: Floats, y_TH1: Floats) -> Floats:
    """An equilateral triangle that points up, T x H x W."""
    slope_THW = np.float32(0.866) * np.abs(x_T1W) - np.float32(0.5) * y_TH1
    return np.maximum(slope_THW, y_TH1) - np.float32(0.68)


def _star(x_T1W: Floats, y_TH1: Floats) -> Floats:
    """A pentagram with one point up, T x H x W: inside all but one of its five lines."""
    angles = np.pi / 2 + np.arange(5) * 2 * np.pi / 5
    first, *others = [np.float32(np.cos(a)) * x_T1W + np.float32(np.sin(a)) * y_TH1 for a in angles]
    largest, second = first, np.full_like(first, -np.inf)
    for line_THW in others:
        second = np.maximum(second, np.minimum(largest, line_THW))
        largest = np.maximum(largest, line_THW)
    return second - np.float32(0.48)


def _cross(x_T1W: Floats, y_TH1: Floats) -> Floats:
    """An upright plus sign, T x H x W."""
    x, y = np.abs(x_T1W), np.abs(y_TH1)
    return np.minimum(
        np.maximum(x - np.float32(1.1), y - np.float32(0.36)), np.maximum(x - np.float32(0.36), y - np.float32(1.1))
    )


DISTANCES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
}
