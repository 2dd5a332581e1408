"""What of a scene a picture shows: pixel centres in scene coordinates, whole or cropped."""

# H rows, W columns of pixels

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class View:
    """Pixel centres of a picture in scene coordinates: x of each column, y of each row, in short sides."""

    x_W: Floats
    y_H: Floats

    @property
    def pixels_per_side(self) -> float:
        """Pixels per short side of the whole picture."""
        return 1.0 / float(self.x_W[1] - self.x_W[0])


def whole_view(height: int, width: int) -> View:
    """The whole picture at a resolution."""
    return cropped_view(height, width, min(height, width))


def cropped_view(height: int, width: int, short_side_px: float, shift: tuple[float, float] = (0.0, 0.0)) -> View:
    """What a crop of height x width shows of a picture whose short side has `short_side_px` pixels.

    `shift` moves the crop's centre (x, y, in short sides).
    """
    x_W = (np.arange(width) + 0.5 - width / 2) / short_side_px + shift[0]
    y_H = (np.arange(height) + 0.5 - height / 2) / short_side_px + shift[1]
    return View(x_W.astype(np.float32), y_H.astype(np.float32))
