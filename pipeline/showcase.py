"""Footage made on the spot, so that the tool can be tried with nothing at hand: real video files, known content.

Every video is a few scenes of ten seconds, one after the other, so that the time codes of hits can be checked by eye.
One file is no video at all: a run must account for it and go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from pipeline.decode import write_video
from xclip_core.drawing import frame_times, render
from xclip_core.scenes import DIRECTIONS, Scene

HEIGHT, WIDTH, RATE_HZ = 240, 320, 12
SCENE_S = 10

# Name of the file, and what is seen in it: a scene every ten seconds.
REEL: dict[str, tuple[Scene, ...]] = {
    "morning": (
        Scene(shape="circle", colour="red", motion="left", background="plain", seed=1),
        Scene(shape="circle", colour="red", motion="right", background="plain", seed=1),
        Scene(shape="square", colour="blue", motion="up", background="gradient", seed=2),
    ),
    "harbour": (
        Scene(shape="triangle", colour="green", motion="down", background="textured", seed=3),
        Scene(shape="square", colour="yellow", motion="still", background="textured", ground="dark", seed=4),
    ),
    "night_shift": (
        Scene(shape="circle", colour="white", motion="up-right", look="dark", ground="dark", seed=5),
        Scene(shape="star", colour="orange", motion="down-left", look="dark", ground="dark", seed=6),
    ),
    "newsreel": (
        Scene(shape="square", colour="white", motion="left", look="black-and-white", ground="dark", seed=7),
        Scene(shape="circle", colour="black", motion="growing", look="black-and-white", seed=8),
    ),
    "close_up": (
        Scene(shape="circle", colour="yellow", motion="growing", background="plain", ground="dark", seed=9),
        Scene(shape="square", colour="red", motion="shrinking", background="gradient", seed=10),
    ),
    "traffic": (
        Scene(shape="square", colour="red", motion="right", speed="fast", background="textured", seed=11),
        Scene(shape="square", colour="blue", motion="left", speed="slow", background="textured", seed=12),
        Scene(shape="circle", colour="green", motion="down-right", size="small", background="gradient", seed=13),
    ),
    "kite": (
        Scene(shape="triangle", colour="purple", motion="up", background="gradient", seed=14),
        Scene(shape="triangle", colour="purple", motion="up-left", background="gradient", seed=14),
    ),
    "snowfield": (Scene(shape="circle", colour="blue", motion="down", look="bright", seed=15),),
}
QUERIES = ("a red circle moves to the left", "a blue square going up", "something grows", "a dark video")
# What the demo tags with: all motions the embedded model knows, in words a person would use.
LABELS = {motion: f"something moves {motion.replace('-', ' and ')}" for motion in DIRECTIONS} | {
    "still": "something stays still",
    "growing": "something grows",
    "shrinking": "something shrinks",
}


def make_footage(folder: Path) -> list[Path]:
    """Writes the videos of the reel and one file that is none; returns their paths. Files that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    broken = folder / "broken.mp4"
    broken.write_text("This is not a video. A run reports it and goes on.\n", encoding="utf-8")
    videos = [folder / f"{name}.mp4" for name in REEL]
    for file, scenes in zip(videos, REEL.values(), strict=True):
        if not file.exists():
            draft = file.with_name(f".{file.stem}.draft")  # no video's ending: never indexed half written
            write_video(draft, _frames(scenes), shape=(HEIGHT, WIDTH), rate_hz=RATE_HZ)
            draft.rename(file)
    return [*videos, broken]


def write_labels(file: Path) -> None:
    """The demo's label set as YAML."""
    file.write_text(yaml.safe_dump(LABELS, sort_keys=False), encoding="utf-8")


def _frames(scenes: tuple[Scene, ...]) -> Iterator[NDArray[np.uint8]]:
    """All pictures of a video, H x W x 3 RGB."""
    times = frame_times(SCENE_S * RATE_HZ)
    for scene in scenes:
        yield from render(scene, times=times, height=HEIGHT, width=WIDTH)
