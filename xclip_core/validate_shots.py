"""Held-out figures on shots over pictures: what the camera does, what moves, if there is a cut, which colour rules.

As `validate`, through text alone. The same clips are also mirrored and played backwards: an answer that does not swap
with them was not read from the motion. What the pictures are, photographs kept from training or frames of real
footage, is the caller's choice; without any there are generated textures.
"""

# B clips, T frames, S pixels, K texts

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from xclip_core.captions import label_captions
from xclip_core.model import XClip
from xclip_core.pictures import Library
from xclip_core.reel import shoot
from xclip_core.scenes import DIRECTIONS, MOTIONS, VALUES, Camera, pick
from xclip_core.shots import CAMERAS, MIRRORED, REVERSED, Shot, random_shot
from xclip_core.takes import Take
from xclip_core.validate import WORDING_SETS, Clips, cosines, encode_clips, label_texts, scores, told_apart, top_1

# Words that the embedded model never saw, in sentences like those it knows.
FOREIGN = (
    "a dog",
    "people dancing",
    "a football match",
    "someone cooks dinner",
    "a crowded street",
    "a woman plays the violin",
    "an aeroplane takes off",
    "a speech in parliament",
)


def validate_shots(model: XClip, library: Library, *, seed: int, clips: int) -> dict[str, float]:
    """Accuracies by name, each in 0..1, over `clips` clips of each kind."""
    rng = np.random.default_rng([seed, 2])
    filmed = [_camera_take(model, library, CAMERAS[b % len(CAMERAS)], rng) for b in range(clips)]
    figures = camera_figures(model, filmed, rng)
    if library.objects:
        figures |= _object_figures(model, library, clips, rng)
    shots = [replace(random_shot(rng), cut=b % 2 == 0) for b in range(clips)]
    anything = _encoded(model, _films(model, library, shots, rng))
    return figures | {name: _accuracy(model, anything, name) for name in ("cut", "tint", "look", "speed")}


def _object_figures(model: XClip, library: Library, clips: int, rng: np.random.Generator) -> dict[str, float]:
    """What is read of objects in front of pictures: eight directions among all motions, four among four, nearing."""
    shots = [replace(random_shot(rng, with_object=1.0), motion=pick(rng, MOTIONS)) for _ in range(clips)]
    seen = _encoded(model, _films(model, library, shots, rng))
    straight, depth = DIRECTIONS[:4], ("growing", "shrinking")
    return {
        "object directions, eight among eleven motions": _accuracy(model, seen.where("motion", DIRECTIONS), "motion"),
        "object left, right, up or down": told_apart(model, seen, "motion", straight),
        "object towards or away": told_apart(model, seen, "motion", depth),
    }


def camera_figures(model: XClip, takes: Sequence[Take], rng: np.random.Generator) -> dict[str, float]:
    """What is read of camera motions, by labels and other words, and how answers follow the footage."""
    seen = _encoded(model, takes)
    labels = label_texts("camera", CAMERAS)
    logits_BK = scores(model, seen, labels)
    sets = [label_captions("camera", CAMERAS, rng, held_out=True) for _ in range(WORDING_SETS)]
    held_out = [top_1(scores(model, seen, [c.text for c in s]), seen, "camera", CAMERAS) for s in sets]
    figures = {
        "camera motions, labels": top_1(logits_BK, seen, "camera", CAMERAS),
        "camera motions, held-out wordings": float(np.mean(held_out)),
        "camera motions, plain cosine": top_1(cosines(model, seen, labels), seen, "camera", CAMERAS),
    }
    for camera in CAMERAS:
        own = seen.where("camera", [camera])
        figures[f"camera: {camera}"] = top_1(scores(model, own, labels), own, "camera", CAMERAS)
    frames_BTHWC = _frames(takes)
    figures["mirrored: left and right swap"] = _swaps(model, frames_BTHWC.flip(3), seen, MIRRORED, labels)
    zooms: dict[Camera, Camera] = {"zoom in": "zoom out", "zoom out": "zoom in"}
    figures["backwards: in and out swap"] = _swaps(model, frames_BTHWC.flip(1), seen, zooms, labels)
    figures["backwards: every motion swaps"] = _swaps(model, frames_BTHWC.flip(1), seen, REVERSED, labels)
    figures["own label above 8 foreign texts"] = _above_foreign(model, seen, logits_BK)
    return figures


def _camera_take(model: XClip, library: Library, camera: Camera, rng: np.random.Generator) -> Take:
    """One camera motion in ordinary light, without objects and cuts."""
    shot = replace(random_shot(rng, cameras=(camera,)), look="normal", cut=False)
    return shoot(shot, library, model.config.frames, model.config.image_size, rng)


def _films(model: XClip, library: Library, shots: Sequence[Shot], rng: np.random.Generator) -> list[Take]:
    """Shots as takes of the model's size."""
    return [shoot(shot, library, model.config.frames, model.config.image_size, rng) for shot in shots]


def _frames(takes: Sequence[Take]) -> Tensor:
    """The frames of takes, B x T x S x S x 3 uint8 RGB."""
    return torch.from_numpy(np.stack([take.frames_TCHW for take in takes])).permute(0, 1, 3, 4, 2).contiguous()


def _encoded(model: XClip, takes: Sequence[Take]) -> Clips:
    """Takes as clips that texts can be scored with."""
    return encode_clips(model, _frames(takes), [take.claims for take in takes])


def _accuracy(model: XClip, clips: Clips, attribute: str) -> float:
    """Top-1 over the labels of an attribute, on the clips of which it can be said."""
    return told_apart(model, clips, attribute, VALUES[attribute])


def _swaps(
    model: XClip, frames_BTHWC: Tensor, seen: Clips, swap: Mapping[Camera, Camera], labels: Sequence[str]
) -> float:
    """How often altered clips B x T x S x S x 3 are called what the alteration made of them."""
    truths = [{**truth, "camera": swap.get(truth["camera"], "")} for truth in seen.truths]  # type: ignore[call-overload]
    altered = encode_clips(model, frames_BTHWC.contiguous(), truths).where("camera", list(swap.values()))
    return top_1(scores(model, altered, labels), altered, "camera", CAMERAS)


def _above_foreign(model: XClip, seen: Clips, logits_BK: Tensor) -> float:
    """How often the label of a clip's own camera motion scores above every text of foreign words."""
    own = torch.tensor([CAMERAS.index(truth["camera"]) for truth in seen.truths])
    best_B = scores(model, seen, FOREIGN).max(dim=1).values
    return (logits_BK[torch.arange(len(own)), own] > best_B).float().mean().item()
