"""The pictures that shots are filmed over: backgrounds and cut-out objects from a folder, and generated textures.

Pictures are needed for training and for measuring, never for use, and none of them ships. A folder holds files of any
size; those with transparency are objects, all others backgrounds. Files whose names agree up to `__` are one family
(sizes and shades of one wallpaper): a family is either trained on or held out, never both.
"""

# C = 3 channels (4 with opacity), H x W pixels of a picture, h x w of the part in view, T frames, S pixels of the
# square that is seen

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from schemas.errors import InputError
from xclip_core.backgrounds import PATTERNS
from xclip_core.scenes import LUMA, pick
from xclip_core.views import whole_view

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SHORT_SIDE_PX = 288  # of a stored background: a window of 64 pixels may show a quarter of it
OBJECT_SIDE_PX = 96
HELD_OUT_OF = 6  # one family in so many
TEXTURES = 60
TEXTURE_SHAPE = (SHORT_SIDE_PX, 512)


@dataclass(frozen=True, slots=True)
class Library:
    """Backgrounds as levels of halved size, each 3 x H x W float32 in 0..255; objects 4 x H x W, opacity in 0..1."""

    backgrounds: tuple[tuple[Tensor, ...], ...]
    objects: tuple[Tensor, ...]


def read_library(folder: Path | None, *, held_out: bool, seed: int = 0) -> Library:
    """The pictures of a folder, or those of its families that are kept from training, and generated textures.

    Without a folder there are textures alone. Raises InputError when a folder holds no background.
    """
    files = [] if folder is None else [file for file in _files(folder) if _is_held_out(file) == held_out]
    pictures = [_read(file) for file in files]
    backgrounds = [_levels(p) for p in pictures if p.shape[0] == 3]
    if folder is not None and not backgrounds:
        raise InputError(f"{folder} holds no {'held-out ' * held_out}picture ({', '.join(PICTURES)}); expected some")
    textures = (_levels(texture) for texture in _textures(TEXTURES // (1 + 3 * held_out), [seed, int(held_out)]))
    return Library((*backgrounds, *textures), tuple(p for p in pictures if p.shape[0] == 4))


def pictures_of(folder: Path) -> Library:
    """Every picture of a folder as a background, whatever its name, and nothing else: for measuring."""
    return Library(tuple(_levels(_read(file)[:3]) for file in _files(folder)), ())


def _files(folder: Path) -> list[Path]:
    """The picture files below a folder in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)


def _is_held_out(file: Path) -> bool:
    """Whether a file's family is kept from training: decided by its name alone, so the same everywhere."""
    family = file.stem.split("__")[0]
    return hashlib.sha256(family.encode()).digest()[0] % HELD_OUT_OF == 0


def _read(file: Path) -> Tensor:
    """A background 3 x H x W, or an object 4 x H x W with its opacity in 0..1 last, at the size it is stored in."""
    with Image.open(file) as image:
        if "A" in image.getbands() and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            shown = image.convert("RGBA")
            shown.thumbnail((OBJECT_SIDE_PX, OBJECT_SIDE_PX))
        else:
            image.draft("RGB", (image.width // 4, image.height // 4))  # JPEG: decodes less where that is enough
            scale = SHORT_SIDE_PX / min(image.size)
            shown = image.convert("RGB").resize(
                (round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS
            )
    planes = torch.from_numpy(np.array(shown)).permute(2, 0, 1).float()
    planes[3:] /= 255
    return planes.contiguous()


def _levels(planes_CHW: Tensor) -> tuple[Tensor, ...]:
    """A picture C x H x W and its halvings: a window takes the one whose pixels are about as large as its own."""
    levels = [planes_CHW]
    while min(levels[-1].shape[1:]) > SHORT_SIDE_PX // 4:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return tuple(levels)


def _textures(count: int, seed: list[int]) -> Iterator[Tensor]:
    """Generated backgrounds 3 x H x W: photographs are few, and their colours and scales are not all there are."""
    rng = np.random.default_rng([7, *seed])
    view = whole_view(*TEXTURE_SHAPE)
    for _ in range(count):
        base_C11 = rng.uniform(60, 190) + rng.uniform(-40, 40, (3, 1, 1))
        pattern_CHW = PATTERNS[pick(rng, ("textured", "cluttered"))](view, rng)
        yield torch.from_numpy(np.clip(base_C11 + pattern_CHW, 0, 255).astype(np.float32))


def window(levels: tuple[Tensor, ...], x_T: Tensor, y_T: Tensor, side_T: Tensor, size: int) -> Tensor:
    """Square windows of a background, T x 3 x S x S: centres and sides in pixels of the first level."""
    level = int(np.clip(np.log2(max(1.0, 1.3 * float(side_T.mean()) / size)), 0, len(levels) - 1))
    place_S = (torch.arange(size) + 0.5) / size - 0.5
    columns_TS, rows_TS = ((c_T[:, None] + place_S * side_T[:, None]) / 2**level for c_T in (x_T, y_T))
    return _sampled(levels[level], rows_TS, columns_TS)


def cut_out(object_CHW: Tensor, x_T: Tensor, y_T: Tensor, side_T: Tensor, size: int) -> Tensor:
    """An object seen through the model's window, T x 4 x S x S, clear where it is not.

    Centres and longest sides are in sides of the window, from its centre.
    """
    H, W = object_CHW.shape[1:]
    place_S = (torch.arange(size) + 0.5) / size - 0.5
    scale_T1 = (max(H, W) / side_T)[:, None]
    columns_TS, rows_TS = ((place_S - c_T[:, None]) * scale_T1 + length / 2 for c_T, length in ((x_T, W), (y_T, H)))
    planes = F.pad(object_CHW, (1, 1, 1, 1))  # a clear rim, which is what lies beyond the edges
    return _sampled(planes, rows_TS + 1, columns_TS + 1)


def _sampled(planes_CHW: Tensor, rows_TS: Tensor, columns_TS: Tensor) -> Tensor:
    """Bilinear samples T x C x S x S at rows and columns in pixels; the edge goes on for ever beyond the edge.

    As two matrix products on the part in view, because upright windows are separable.
    """
    (top, bottom), (left, right) = (
        _in_view(p, n) for p, n in zip((rows_TS, columns_TS), planes_CHW.shape[1:], strict=True)
    )
    rows_TSh = _weights(rows_TS - top, bottom - top)
    columns_TSw = _weights(columns_TS - left, right - left)
    return rows_TSh[:, None] @ planes_CHW[None, :, top:bottom, left:right] @ columns_TSw[:, None].transpose(-1, -2)


def _in_view(position_TS: Tensor, length: int) -> tuple[int, int]:
    """First and last + 1 of the pixels that samples at some positions read, of `length`."""
    first, last = int(position_TS.min()) - 1, int(position_TS.max()) + 2
    start = min(max(first, 0), length - 1)
    return start, max(min(last, length), start + 1)


def _weights(position_TS: Tensor, length: int) -> Tensor:
    """Rows T x S x length that interpolate between `length` pixels at some positions."""
    position_TS = (position_TS - 0.5).clamp(0, length - 1)
    pixels = torch.arange(length)
    return (1 - (position_TS[..., None] - pixels).abs()).clamp(min=0)


def luma(frames_TCHW: Tensor) -> Tensor:
    """Grey levels T x H x W of RGB frames T x 3 x H x W, by ITU-R BT.601."""
    return torch.einsum("tchw,c->thw", frames_TCHW.float(), torch.tensor(LUMA))


def whole_picture(levels: tuple[Tensor, ...]) -> NDArray[np.uint8]:
    """A background as H x W x 3 uint8."""
    return levels[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
