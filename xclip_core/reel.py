"""Shots to frames: a window that moves over a picture, an object in front of it, light, colour and wear.

What `drawing` is to scenes. Geometry is exact to a fraction of a pixel; a pan is a pan over its whole length, nothing
wraps round, and the window never leaves the picture.
"""

# T frames, C = 3 channels, S pixels

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from xclip_core.drawing import look_of
from xclip_core.pictures import Library, cut_out, luma, window
from xclip_core.scenes import pick
from xclip_core.shots import Path, Shot, camera_path, object_path, shot_claims
from xclip_core.takes import REST, UNKNOWN_OBJECT, Take, look_claim, tint_claim, worn

# A window with less contrast than this (standard deviation in levels) shows nothing by which a motion could be told.
MIN_CONTRAST = 12.0
# Nor does one that stays the same though the camera moves, such as one along a horizon: levels from frame to frame.
MIN_STEP = 4.0
TRIES = 20
MIN_OBJECT_CONTRAST = 45.0  # mean difference in levels between an object and what is behind it
OBJECT_SIDE = {"still": (0.25, 0.55), "moving": (0.2, 0.5)}
FIRST_CUT, LAST_CUT = 0.25, 0.75  # parts of the clip
CAST = 0.3  # standard deviation of a random colour cast


def shoot(shot: Shot, library: Library, frames: int, size: int, rng: np.random.Generator) -> Take:
    """A shot as a take of T x 3 x S x S uint8 RGB frames."""
    own = np.random.default_rng(shot.seed)
    jitter_T = own.uniform(-0.15, 0.15, frames)
    times_T = (np.arange(frames) + 0.5 + jitter_T) / frames
    camera = camera_path(shot, times_T, own)
    planes_TCHW = _background(shot, camera, library, size, own)
    planes_TCHW, numbers = _with_object(shot, planes_TCHW, times_T, library, own)
    planes_TCHW = _lit(shot, planes_TCHW, own)
    frames_TCHW = worn(planes_TCHW.clamp(0, 255).round().to(torch.uint8).numpy(), rng)
    claims: Mapping[str, str] = {**shot_claims(shot), **look_claim(frames_TCHW), **tint_claim(frames_TCHW)}
    return Take(frames_TCHW, claims, (*numbers, *camera_numbers(shot, camera)))


def camera_numbers(shot: Shot, camera: Path) -> tuple[float, ...]:
    """A guide's numbers of a camera: its step right and down, its zoom, its shake, each about one in size."""
    if shot.camera == "static":
        return REST
    shake = float(np.abs(np.diff(camera.x_T)).mean() + np.abs(np.diff(camera.y_T)).mean()) / 0.1
    right, down, zoom = (float(v[-1] - v[0]) for v in (camera.x_T, camera.y_T, camera.log_side_T))
    return (0.0, 0.0, 0.0, shake) if shot.camera == "shake" else (right / 0.5, down / 0.5, zoom / 0.5, 0.0)


def _background(shot: Shot, camera: Path, library: Library, size: int, rng: np.random.Generator) -> Tensor:
    """What the moving window shows, T x 3 x S x S."""
    min_step = 0.0 if shot.camera == "static" else MIN_STEP
    planes_TCHW = _panned(camera, min_step, library, size, rng)
    if not shot.cut:
        return planes_TCHW
    at = round(len(planes_TCHW) * rng.uniform(FIRST_CUT, LAST_CUT))
    return torch.cat([planes_TCHW[:at], _panned(camera, min_step, library, size, rng)[at:]])


def _panned(camera: Path, min_step: float, library: Library, size: int, rng: np.random.Generator) -> Tensor:
    """A window over a random picture, T x 3 x S x S, at a place where there is something to see."""
    for _ in range(TRIES):
        levels = pick(rng, library.backgrounds)
        planes_TCHW = _random_window(levels, camera, size, rng)
        if _shows(luma(planes_TCHW), min_step):
            break
    return planes_TCHW


def _shows(grey_THW: Tensor, min_step: float) -> bool:
    """Whether there is something to see in each grey frame T x H x W, and enough changes from one to the next."""
    has_contrast = float(grey_THW.std(dim=(1, 2)).min()) >= MIN_CONTRAST
    return has_contrast and (len(grey_THW) == 1 or float(grey_THW.diff(dim=0).abs().mean()) >= min_step)


def _random_window(levels: tuple[Tensor, ...], camera: Path, size: int, rng: np.random.Generator) -> Tensor:
    """The window's path laid somewhere on a picture, at a random scale that keeps it inside, T x 3 x S x S."""
    height, width = levels[0].shape[1:]
    growth_T = np.exp(camera.log_side_T)
    spans = [np.ptp(v_T) + growth_T.max() for v_T in (camera.x_T, camera.y_T)]
    side = rng.uniform(0.35, 1.0) * min(width / spans[0], height / spans[1])
    centres = [
        side * v_T + _start(side * v_T, side * growth_T / 2, length, rng)
        for v_T, length in ((camera.x_T, width), (camera.y_T, height))
    ]
    x_T, y_T, side_T = (torch.from_numpy(v.astype(np.float32)) for v in (*centres, side * growth_T))
    return window(levels, x_T, y_T, side_T, size)


def _start(path_T: np.ndarray, half_T: np.ndarray, length: float, rng: np.random.Generator) -> float:
    """A random start of a path along one axis that keeps a window of half sides `half_T` within 0..length."""
    first, last = float((half_T - path_T).max()), float((length - half_T - path_T).min())
    return float(rng.uniform(first, max(first, last)))


def _with_object(
    shot: Shot, planes_TCHW: Tensor, times_T: np.ndarray, library: Library, rng: np.random.Generator
) -> tuple[Tensor, tuple[float, ...]]:
    """The frames T x 3 x S x S with the shot's object in front, and a guide's numbers of the object."""
    if shot.motion is None or not library.objects:
        return planes_TCHW, UNKNOWN_OBJECT
    path = object_path(shot, times_T, rng)
    side_T = rng.uniform(*OBJECT_SIDE["still" if shot.motion == "still" else "moving"]) * np.exp(path.log_side_T)
    x_T, y_T, sides_T = (torch.from_numpy(v.astype(np.float32)) for v in (path.x_T, path.y_T, side_T))
    for _ in range(TRIES):
        sprite_CHW = pick(rng, library.objects)
        if rng.random() < 0.5:
            sprite_CHW = sprite_CHW.flip(-1)
        seen_TCHW = cut_out(sprite_CHW, x_T, y_T, sides_T, planes_TCHW.shape[-1])
        if _stands_out(seen_TCHW, planes_TCHW):
            break
    step_x, step_y, growth = (float(v[-1] - v[0]) for v in (path.x_T, path.y_T, path.log_side_T))
    numbers = (path.x_T.mean() / 0.2, path.y_T.mean() / 0.2, step_x / 0.4, step_y / 0.4, growth / 0.5)
    return torch.lerp(planes_TCHW, seen_TCHW[:, :3], seen_TCHW[:, 3:]), tuple(map(float, numbers))


def _stands_out(seen_TCHW: Tensor, planes_TCHW: Tensor) -> bool:
    """Whether an object T x 4 x S x S can be told from the background T x 3 x S x S behind it: nobody else could."""
    opacity_THW = seen_TCHW[:, 3]
    difference_THW = (seen_TCHW[:, :3] - planes_TCHW).abs().mean(dim=1)
    return float((difference_THW * opacity_THW).sum() / opacity_THW.sum().clamp(min=1)) >= MIN_OBJECT_CONTRAST


def _lit(shot: Shot, planes_TCHW: Tensor, rng: np.random.Generator) -> Tensor:
    """Frames T x 3 x S x S under another light and, for the looks, darkened, paled or without colour."""
    if rng.random() < 0.6:
        gain_C11 = np.exp(rng.normal(0, 0.2) + rng.normal(0, CAST, (3, 1, 1)) * (rng.random() < 0.5))
        planes_TCHW = planes_TCHW * torch.from_numpy(gain_C11.astype(np.float32))
    gain, base = look_of(shot.look, rng)
    return torch.einsum("dc,tchw->tdhw", torch.from_numpy(gain), planes_TCHW.clamp(0, 255)) + float(base)
