"""A pile of many small videos in two states, so that a run has new, changed, vanished and unchanged files to do.

Windows are short (`WINDOW_S`), so that the long videos span two units: a video that could be seen by halves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.media import Painter, Picture, make_video

RATE_HZ = 10
WINDOW_S = 0.2
CLIPS_PER_S = 5
SHORT, LONG = 2, 14  # seconds; the second is more than the 64 clips of a unit
NEW, CHANGED, SAME = 6, 4, 2  # how many of the short ones


def painter(seed: int) -> Painter:
    """Noise in the colour that belongs to a seed: no two videos have the same content."""
    colour = np.random.default_rng(seed).integers(40, 215, 3)

    def paint(number: int, size: tuple[int, int]) -> Picture:
        noise = np.random.default_rng([seed, number]).integers(-30, 30, (size[1], size[0], 3))
        return (colour + noise).clip(0, 255).astype(np.uint8)

    return paint


def write(file: Path, length_s: int, seed: int) -> Path:
    """One video."""
    return make_video(file, frames=RATE_HZ * length_s, rate_hz=RATE_HZ, size=(32, 24), paint=painter(seed))


def make_first_state(folder: Path) -> Path:
    """What is there when the archive is first made."""
    folder.mkdir(parents=True)
    for n in range(CHANGED):
        write(folder / f"changed {n}.mp4", SHORT + 1, 100 + n)
    for n in range(SAME):
        write(folder / f"same {n}.mp4", SHORT, 200 + n)
    write(folder / "changed long.mp4", LONG + 1, 300)
    write(folder / "vanishes.mp4", SHORT, 400)
    return folder


def change(folder: Path) -> None:
    """The second state, which the killed runs are to bring the archive to."""
    for n in range(NEW):
        write(folder / f"new {n}.mp4", SHORT, 500 + n)
    for n in range(CHANGED):
        write(folder / f"changed {n}.mp4", SHORT, 600 + n)
    write(folder / "changed long.mp4", LONG, 700)
    write(folder / "new long.mp4", LONG, 800)
    (folder / "vanishes.mp4").unlink()


VIDEOS = NEW + CHANGED + SAME + 2
CLIPS = CLIPS_PER_S * (SHORT * (NEW + CHANGED + SAME) + 2 * LONG)
