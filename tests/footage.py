"""A small pile of real video files with known content, one broken and one empty file among them."""

from __future__ import annotations

from pathlib import Path

from pipeline.decode import write_video
from xclip_core.drawing import frame_times, render
from xclip_core.scenes import Motion, Scene

RATE_HZ = 10
SCENE_S = 2
VIDEOS: dict[str, tuple[Motion, ...]] = {
    "left_then_right.mp4": ("left", "right"),
    "sub/up.mp4": ("up",),
    "three scenes.mp4": ("down", "still", "growing"),
}
CLIPS = 6  # with a window of SCENE_S
BROKEN = ("broken.mp4", "empty.mov")


def make_pile(folder: Path) -> Path:
    """Writes the pile; returns its folder."""
    for name, motions in VIDEOS.items():
        film(folder / name, *motions)
    (folder / "broken.mp4").write_text("this is not a video")
    (folder / "empty.mov").touch()
    (folder / "notes.md").write_text("not looked at")
    return folder


def film(file: Path, *motions: Motion, colour_seed: int = 0) -> Path:
    """A video of SCENE_S seconds per motion, 96 x 64 pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    times = frame_times(SCENE_S * RATE_HZ)
    scenes = [Scene(motion=motion, seed=colour_seed + number) for number, motion in enumerate(motions)]
    frames = (frame for scene in scenes for frame in render(scene, times=times, height=64, width=96))
    write_video(file, frames, shape=(64, 96), rate_hz=RATE_HZ)
    return file
