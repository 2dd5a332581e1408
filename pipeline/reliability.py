"""Reliability: of what was said with some probability, how often it held; as numbers, and as a picture.

The only place that knows matplotlib, which is needed for the picture alone.
"""

# B things that were said

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.errors import InputError
from xclip_core.durable import write_whole

BINS = 15


@dataclass(frozen=True, slots=True)
class Bins:
    """Probabilities in bins of equal width, (low, high]: how many, their mean, and the share that held."""

    count: tuple[int, ...]
    mean_probability: tuple[float, ...]  # 0 of an empty bin
    held_share: tuple[float, ...]

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: the distance of the two shares, by how many a bin holds."""
        total = max(1, sum(self.count))
        gaps = zip(self.count, self.mean_probability, self.held_share, strict=True)
        return sum(count * abs(mean - held) for count, mean, held in gaps) / total


def bins_of(share_B: NDArray[np.float64], truth_B: NDArray[np.bool_], bins: int = BINS) -> Bins:
    """Probabilities (B,) and whether what was said held (B,), in bins."""
    place_B = np.clip(np.ceil(share_B * bins) - 1, 0, bins - 1).astype(np.int64)
    count = np.bincount(place_B, minlength=bins)
    sums = (np.bincount(place_B, weights=values, minlength=bins) for values in (share_B, truth_B.astype(np.float64)))
    means = (total / np.maximum(count, 1) for total in sums)
    mean, held = (tuple(each.tolist()) for each in means)
    return Bins(tuple(count.tolist()), mean, held)


def check() -> None:
    """Raises InputError unless pictures can be drawn."""
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise InputError("the diagram needs matplotlib; run: pip install 'footage[calibrate]'") from error


def draw(lots: Mapping[str, tuple[Bins, Bins]], file: Path) -> None:
    """A reliability diagram for each mode, before and after, as PNG. `lots` is by the mode's name."""
    check()
    from matplotlib.figure import Figure  # no window system is asked for

    figure = Figure(figsize=(5 * len(lots), 5), layout="constrained")
    for place, (name, (before, after)) in enumerate(lots.items(), start=1):
        axes = figure.add_subplot(1, len(lots), place)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for label, bins, colour in (("uncalibrated", before, "tab:red"), ("calibrated", after, "tab:blue")):
            points = [
                (m, h, c) for m, h, c in zip(bins.mean_probability, bins.held_share, bins.count, strict=True) if c
            ]
            means, held, counts = zip(*points, strict=True)
            sizes = [12 + 120 * count / sum(counts) for count in counts]
            axes.plot(means, held, color=colour, linewidth=1)
            axes.scatter(means, held, s=sizes, color=colour, label=f"{label}, ECE {bins.calibration_error:.3f}")
        axes.set(xlim=(0, 1), ylim=(0, 1), title=f"{name} mode, clips held out", aspect="equal")
        axes.set(xlabel="probability said", ylabel="share that held")
        axes.legend(loc="upper left")
    write_whole(file, lambda part: figure.savefig(part, format="png", dpi=120))
