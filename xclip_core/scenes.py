"""Scenes: what a generated clip shows, as one small record whose every field can be put into words.

A scene names categories ("large", "left", "textured"); its seed settles what words leave open (the exact shade, the
exact speed). Lengths are in short sides of the picture, measured from its centre, x to the right and y down, so that
a scene is the same at any resolution and aspect ratio. `drawing` renders it, `captions` talks about it. There is one
object on a still background: no camera motion, no occlusion, no second object. `shots` has the camera.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

Option = TypeVar("Option")
Shape = Literal["circle", "square", "triangle", "star", "cross"]
Colour = Literal["red", "orange", "yellow", "green", "blue", "purple", "black", "white"]
Size = Literal["small", "large"]
Motion = Literal[
    "left", "right", "up", "down", "up-left", "up-right", "down-left", "down-right", "still", "growing", "shrinking"
]
Speed = Literal["slow", "fast"]
Background = Literal["plain", "gradient", "textured", "cluttered"]
Ground = Literal["dark", "medium", "light"]
Look = Literal["normal", "dark", "bright", "black-and-white"]
Camera = Literal["static", "pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "shake"]

DIRECTIONS: tuple[Motion, ...] = get_args(Motion)[:8]
# The nine labels that the shipped model is held to: eight directions and no motion.
NINE_MOTIONS: tuple[Motion, ...] = (*DIRECTIONS, "still")
MOTIONS: tuple[Motion, ...] = get_args(Motion)
OPPOSITE: dict[Motion, Motion] = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "up-left": "down-right",
    "down-right": "up-left",
    "up-right": "down-left",
    "down-left": "up-right",
}
_DIAGONAL = 0.5**0.5
# Unit steps, x to the right and y down, as rows of an image are counted.
HEADING: dict[Motion, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up-left": (-_DIAGONAL, -_DIAGONAL),
    "up-right": (_DIAGONAL, -_DIAGONAL),
    "down-left": (-_DIAGONAL, _DIAGONAL),
    "down-right": (_DIAGONAL, _DIAGONAL),
}
COLOURS: dict[Colour, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (245, 140, 25),
    "yellow": (240, 220, 40),
    "green": (40, 170, 60),
    "blue": (40, 75, 225),
    "purple": (145, 50, 185),
    "black": (18, 18, 18),
    "white": (242, 242, 242),
}
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
GROUND_LUMA: dict[Ground, float] = {"dark": 40.0, "medium": 125.0, "light": 210.0}
# Below this difference in luma an object and its ground are hard to tell apart once colour is taken away.
MIN_CONTRAST = 45.0
# Thirds of what a centre crop keeps of a picture (224 of 256 parts, spec §1), in short sides.
PLACE_EDGE = 0.146
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")
# Every attribute that can be put into words, and its values.
VALUES: dict[str, tuple[str, ...]] = {
    "motion": MOTIONS,
    "speed": get_args(Speed),
    "shape": get_args(Shape),
    "colour": get_args(Colour),
    "size": get_args(Size),
    "look": get_args(Look)[1:],
    "background": get_args(Background),
    "ground": ("dark", "light"),
    "place": tuple(f"{row} {column}" for row in ROWS for column in COLUMNS),
    "camera": get_args(Camera),
    "cut": ("uncut", "cut"),
    "tint": ("red", "orange", "yellow", "green", "blue", "purple"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One object doing one thing over one background.

    `middle` is where the object's centre is half-way through the clip (x, y in short sides from the picture's
    centre, so a 4:3 picture spans -0.67..0.67 by -0.5..0.5). `seed` settles shade, exact size and speed, texture.
    """

    shape: Shape = "circle"
    colour: Colour = "red"
    size: Size = "large"
    motion: Motion = "still"
    speed: Speed = "fast"
    background: Background = "plain"
    ground: Ground = "light"
    look: Look = "normal"
    middle: tuple[float, float] = (0.0, 0.0)
    seed: int = 0


def claims_of(scene: Scene) -> Mapping[str, str]:
    """Attribute to value, for all that can truthfully be said of a scene; what is absent is never claimed.

    A black-and-white scene has no colour, a still object no speed, one that grows no size, one that travels no place.
    """
    said: dict[str, str] = {"motion": scene.motion, "shape": scene.shape, "background": scene.background}
    if scene.look != "black-and-white":
        said["colour"] = scene.colour
    if scene.motion in DIRECTIONS:
        said["speed"] = scene.speed
    else:
        said["place"] = place_of(scene.middle)
    if scene.motion not in ("growing", "shrinking"):
        said["size"] = scene.size
    if scene.look != "normal":
        said["look"] = scene.look
    elif scene.ground != "medium" and scene.background != "cluttered":  # in a darkened picture every ground is dark
        said["ground"] = scene.ground
    return said


def place_of(position: tuple[float, float]) -> str:
    """Which ninth of the picture a position (x, y in short sides) is in, such as "top left"."""
    x, y = position
    return f"{ROWS[_third(y)]} {COLUMNS[_third(x)]}"


def _third(offset: float) -> int:
    """0, 1 or 2 for before, in and after the middle third."""
    return int(offset > -PLACE_EDGE) + int(offset > PLACE_EDGE)


def grounds_for(colour: Colour) -> tuple[Ground, ...]:
    """The grounds on which an object of this colour stands out even without its colour."""
    luma = float(np.dot(LUMA, COLOURS[colour]))
    return tuple(ground for ground, level in GROUND_LUMA.items() if abs(level - luma) >= MIN_CONTRAST)


def random_scene(rng: np.random.Generator, motions: tuple[Motion, ...] = MOTIONS) -> Scene:
    """A scene drawn at random: motion evenly among `motions`, looks mostly normal."""
    colour = pick(rng, tuple(COLOURS))
    motion = pick(rng, motions)
    # A travelling object passes near the centre, a resting one may be anywhere that a centre crop keeps.
    reach = 0.18 if motion in DIRECTIONS else 0.40
    x, y = (float(v) for v in rng.uniform(-reach, reach, 2))
    return Scene(
        shape=pick(rng, get_args(Shape)),
        colour=colour,
        size=pick(rng, get_args(Size)),
        motion=motion,
        speed=pick(rng, get_args(Speed)),
        background=pick(rng, ("plain", "gradient", "textured", "cluttered")),
        ground=pick(rng, grounds_for(colour)),
        look=pick(rng, ("normal", "normal", "normal", *get_args(Look)[1:])),
        middle=(x, y),
        seed=int(rng.integers(2**31)),
    )


def pick(rng: np.random.Generator, options: tuple[Option, ...]) -> Option:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]
