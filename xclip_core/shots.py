"""Shots: what a camera and one thing in front of it do over a picture, as one small record that can be put into words.

`scenes` draws simple shapes; here the background is a photograph (or a generated texture) and the object a cut-out,
so that what is learnt carries over to ordinary footage. Lengths are in sides of the square that the model sees. A
camera that pans left moves its window left over the picture, so the picture moves right. `reel` renders shots.
"""

# T frames

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from xclip_core.scenes import DIRECTIONS, HEADING, MOTIONS, Camera, Look, Motion, Speed, pick

Floats = NDArray[np.float64]

CAMERAS: tuple[Camera, ...] = get_args(Camera)
# What a shot becomes when it is mirrored, turned over, and played backwards.
MIRRORED: dict[Camera, Camera] = {"pan left": "pan right", "pan right": "pan left"}
TURNED_OVER: dict[Camera, Camera] = {"tilt up": "tilt down", "tilt down": "tilt up"}
REVERSED: dict[Camera, Camera] = {
    "pan left": "pan right",
    "pan right": "pan left",
    "tilt up": "tilt down",
    "tilt down": "tilt up",
    "zoom in": "zoom out",
    "zoom out": "zoom in",
}
PANS: dict[Camera, tuple[float, float]] = {
    "pan left": (-1.0, 0.0),
    "pan right": (1.0, 0.0),
    "tilt up": (0.0, -1.0),
    "tilt down": (0.0, 1.0),
}
CAMERA_TRAVEL: dict[Speed, tuple[float, float]] = {"slow": (0.22, 0.42), "fast": (0.6, 1.1)}  # sides per clip
CAMERA_ZOOM = (1.35, 3.0)  # how much more or less is seen at the end
SHAKE = (0.03, 0.09)  # standard deviation in sides
SLANT = 0.06  # standard deviation of a pan's angle, in radians
TREMBLE = (0.0, 0.002, 0.006)  # standard deviations of what even a tripod may do
TRAVEL: dict[Speed, tuple[float, float]] = {"slow": (0.22, 0.36), "fast": (0.55, 0.9)}
GROWTH = (1.8, 3.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One camera motion over one picture, perhaps with an object, perhaps cut to another picture.

    `motion` None is a shot without an object; only a static camera has one. `seed` settles all that words leave open,
    the picture included.
    """

    camera: Camera = "static"
    speed: Speed = "fast"
    look: Look = "normal"
    motion: Motion | None = None
    cut: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Path:
    """Where the window is at each of T moments: offsets x and y in sides of its middle size, and log of its size."""

    x_T: Floats
    y_T: Floats
    log_side_T: Floats


def random_shot(rng: np.random.Generator, *, cameras: tuple[Camera, ...] = CAMERAS, with_object: float = 0.0) -> Shot:
    """A shot drawn at random. A share `with_object` of them has a static camera and an object."""
    has_object = rng.random() < with_object
    return Shot(
        camera="static" if has_object else pick(rng, cameras),
        speed=pick(rng, get_args(Speed)),
        look=pick(rng, ("normal", "normal", "normal", "normal", *get_args(Look)[1:])),
        motion=pick(rng, MOTIONS) if has_object else None,
        cut=not has_object and rng.random() < 0.12,
        seed=int(rng.integers(2**31)),
    )


def shot_claims(shot: Shot) -> Mapping[str, str]:
    """Attribute to value, for all that the record says of a shot; `reel` adds what only pixels tell."""
    said: dict[str, str] = {"camera": shot.camera, "cut": "cut" if shot.cut else "uncut"}
    if shot.motion is not None:
        said["motion"] = shot.motion
    if shot.motion in DIRECTIONS or shot.camera in PANS:
        said["speed"] = shot.speed
    return said


def camera_path(shot: Shot, times_T: Floats, rng: np.random.Generator) -> Path:
    """The window's path at `times_T` (0 is the clip's start, 1 its end)."""
    part_T = times_T - 0.5
    x_T, y_T, log_side_T = (np.zeros(len(part_T)) for _ in range(3))
    if shot.camera in PANS:
        travel_T, slant = part_T * rng.uniform(*CAMERA_TRAVEL[shot.speed]), rng.normal(0, SLANT)
        x, y = PANS[shot.camera]
        x_T, y_T = travel_T * (x - slant * y), travel_T * (y + slant * x)
    elif shot.camera in ("zoom in", "zoom out"):
        sign = -1.0 if shot.camera == "zoom in" else 1.0
        log_side_T = sign * np.log(rng.uniform(*CAMERA_ZOOM)) * part_T
    elif shot.camera == "shake":
        x_T, y_T = _centred(rng, rng.uniform(*SHAKE), len(part_T)), _centred(rng, rng.uniform(*SHAKE), len(part_T))
    tremble = pick(rng, TREMBLE)
    return Path(x_T + _centred(rng, tremble, len(x_T)), y_T + _centred(rng, tremble, len(y_T)), log_side_T)


def _centred(rng: np.random.Generator, scale: float, count: int) -> Floats:
    """Normal numbers, `count` of them, whose mean is zero."""
    values_T: Floats = rng.normal(0, scale, count)
    values_T -= values_T.mean()
    return values_T


def object_path(shot: Shot, times_T: Floats, rng: np.random.Generator) -> Path:
    """The object's path over the window: its centre from the window's centre, and the log of its growth."""
    part_T = times_T - 0.5
    travel, growth = rng.uniform(*TRAVEL[shot.speed]), rng.uniform(*GROWTH)
    reach = 0.15 if shot.motion in DIRECTIONS else 0.3
    x, y = rng.uniform(-reach, reach, 2)
    step_x, step_y = HEADING.get(shot.motion, (0.0, 0.0)) if shot.motion else (0.0, 0.0)
    sign = {"growing": 1.0, "shrinking": -1.0}.get(shot.motion or "", 0.0)
    return Path(x + travel * step_x * part_T, y + travel * step_y * part_T, sign * np.log(growth) * part_T)
