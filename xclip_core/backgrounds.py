"""Backgrounds: plain, gradients and periodic noise of several octaves, the same picture at any resolution.

Real footage has edges as well as grain and shows things of any colour: hence textures with flat patches, and clutter.
"""

# H x W pixels, C = 3 colours, K colours of a palette, O octaves of noise, G lattice cells per side, P positions

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from xclip_core.views import Floats, View

LATTICE = 16
OCTAVES = np.array([2.0, 4.0, 8.0, 16.0])  # noise cells per short side


def _plain(view: View, _rng: np.random.Generator) -> Floats:
    """No pattern: 3 x H x W zeros."""
    return np.zeros((3, len(view.y_H), len(view.x_W)), dtype=np.float32)


def _gradient(view: View, rng: np.random.Generator) -> Floats:
    """A linear change of colour across the picture in any direction, 3 x H x W."""
    angle = rng.uniform(0, 2 * np.pi)
    across_HW = np.float32(np.sin(angle)) * view.y_H[:, None] + np.float32(np.cos(angle)) * view.x_W
    slope_C11 = rng.uniform(40, 100) + rng.uniform(-25, 25, (3, 1, 1))
    return across_HW * slope_C11.astype(np.float32)


def _texture(view: View, rng: np.random.Generator) -> Floats:
    """Noise of several octaves, 3 x H x W: from clouds to grain, soft or with hard edges like piles of things."""
    noise_CHW = _noise(view, _amplitudes(rng), rng)
    if rng.random() < 0.5:
        noise_CHW = np.tanh(4 * noise_CHW)  # flat patches with edges
    out: Floats = noise_CHW * np.float32(rng.uniform(15, 50))
    return out


def _clutter(view: View, rng: np.random.Generator) -> Floats:
    """Noise cut into levels, each of another colour, like things in front of each other, 3 x H x W."""
    noise_CHW = _noise(view, _amplitudes(rng), rng)
    palette_KC = rng.uniform(-110, 110, (8, 1)) + rng.uniform(-60, 60, (8, 3))
    level_HW = (noise_CHW[0] * rng.uniform(1.0, 3.0) + 4).astype(np.int64) % len(palette_KC)
    patches_CHW = palette_KC.T.astype(np.float32)[:, level_HW]
    out: Floats = patches_CHW + np.float32(12) * noise_CHW
    return out


def _amplitudes(rng: np.random.Generator) -> NDArray[np.float64]:
    """How strong each octave is, from rough to smooth, of unit length in all."""
    amplitudes_O = OCTAVES ** -rng.uniform(0.1, 1.1)
    unit_O: NDArray[np.float64] = amplitudes_O / np.linalg.norm(amplitudes_O)
    return unit_O


def _noise(view: View, amplitudes_O: NDArray[np.float64], rng: np.random.Generator) -> Floats:
    """Periodic value noise summed over octaves, 3 x H x W, mostly grey with some colour, roughly in -1.5..1.5."""
    O, G = len(OCTAVES), LATTICE  # noqa: E741  # a size, as in the legend
    grey_OGG = rng.standard_normal((O, G, G), dtype=np.float32)
    lattice_COGG = grey_OGG + np.float32(0.4) * rng.standard_normal((3, O, G, G), dtype=np.float32)
    lattice_COGG *= amplitudes_O.astype(np.float32)[:, None, None]
    offsets_2O1 = rng.uniform(0, G, (2, O, 1))
    rows_OHG = _interpolation(view.y_H * OCTAVES[:, None] + offsets_2O1[0])
    columns_OWG = _interpolation(view.x_W * OCTAVES[:, None] + offsets_2O1[1])
    rows_CHOG = (rows_OHG @ lattice_COGG).transpose(0, 2, 1, 3)
    H, W = len(view.y_H), len(view.x_W)
    # Octaves side by side, so that one product both interpolates along x and adds the octaves up.
    return rows_CHOG.reshape(3, H, O * G) @ columns_OWG.transpose(0, 2, 1).reshape(O * G, W)


def _interpolation(positions_OP: NDArray[np.float64]) -> Floats:
    """Weights O x P x G that interpolate periodic lattices smoothly at P positions, for each octave."""
    cell_OP = np.floor(positions_OP)
    part_OP = positions_OP - cell_OP
    part_OP = part_OP * part_OP * (3 - 2 * part_OP)  # smoothstep: no visible lattice lines
    index_OP1 = cell_OP.astype(np.int64)[..., None] % LATTICE
    weights_OPG = np.zeros((*positions_OP.shape, LATTICE), dtype=np.float32)
    np.put_along_axis(weights_OPG, index_OP1, 1 - part_OP[..., None], axis=-1)
    np.put_along_axis(weights_OPG, (index_OP1 + 1) % LATTICE, part_OP[..., None], axis=-1)
    return weights_OPG


# Each gives 3 x H x W levels round zero, to be added to the ground's colour.
PATTERNS: dict[str, Callable[[View, np.random.Generator], Floats]] = {
    "plain": _plain,
    "gradient": _gradient,
    "textured": _texture,
    "cluttered": _clutter,
}
