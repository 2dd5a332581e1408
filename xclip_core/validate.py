"""Held-out figures of a model on generated footage: one table of named accuracies, the same for the same seed.

Everything goes through text, as a user's labels would: a clip's answer is the text with the highest `model.score`.
Held-out clips come from a seed that training never used, held-out wordings from `wordings(held_out=True)`. Generated
footage says nothing about people, animals or actions; what transfers to real backgrounds is measured elsewhere.
"""

# B clips, T frames, S pixels, N patches, E joint dimension, K texts

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from xclip_core.captions import Caption, caption, label_captions, truth_table
from xclip_core.drawing import Pixels, frame_times, render
from xclip_core.encode import encode_text_raw, encode_video_with_context
from xclip_core.model import XClip
from xclip_core.preprocess import resize_and_crop
from xclip_core.scenes import DIRECTIONS, NINE_MOTIONS, OPPOSITE, VALUES, Scene, claims_of, random_scene
from xclip_core.takes import filmed
from xclip_core.wordings import LABELS

WORDING_SETS = 8
CLIPS_PER_BATCH = 64
# What drawn scenes differ in; shots over pictures have the rest (`validate_shots`).
OF_SCENES = tuple(name for name in VALUES if name not in ("camera", "cut", "tint"))
RECALL_AT = 20  # clips that the plain cosine hands to the model's own score
FULL_SIZE = (240, 320)  # height and width of footage as a file would hold it

# A scene to frames T x S x S x 3, uint8 RGB.
Film = Callable[[Scene, int, int, np.random.Generator], Tensor]
# Clips and texts to B x K, the larger the truer: `scores` or `cosines`.
Ask = Callable[[XClip, "Clips", Sequence[str]], Tensor]


@dataclass(frozen=True, slots=True)
class Clips:
    """Encoded clips and what is true of them; `shuffled_BE` are the same clips with their frames in random order."""

    truths: tuple[Mapping[str, str], ...]
    video_BE: Tensor
    context_BNE: Tensor

    def where(self, attribute: str, values: Sequence[str]) -> Clips:
        """The clips whose attribute has one of the values."""
        kept = [b for b, truth in enumerate(self.truths) if truth.get(attribute) in values]
        return Clips(tuple(self.truths[b] for b in kept), self.video_BE[kept], self.context_BNE[kept])


def film_cropped(scene: Scene, frames: int, size: int, rng: np.random.Generator) -> Tensor:
    """As in training: a random crop with random imperfections, T x S x S x 3 uint8."""
    return torch.from_numpy(filmed(scene, frames, size, rng)).permute(0, 2, 3, 1)


def film_full(scene: Scene, frames: int, size: int, _rng: np.random.Generator) -> Tensor:
    """As from a file: a clean picture of 320 x 240, resized and cropped by `preprocess`, T x S x S x 3 uint8."""
    frames_THWC = render(scene, times=frame_times(frames), height=FULL_SIZE[0], width=FULL_SIZE[1])
    return resize_and_crop(torch.from_numpy(frames_THWC), size)


def film_over(backdrops: Sequence[Pixels]) -> Film:
    """Scenes over still pictures (each H x W x 3 uint8 RGB) in place of drawn backgrounds."""

    def film(scene: Scene, frames: int, size: int, rng: np.random.Generator) -> Tensor:
        picture = backdrops[int(rng.integers(len(backdrops)))]
        height, width = picture.shape[:2]
        frames_THWC = render(scene, times=frame_times(frames), height=height, width=width, backdrop=picture)
        return resize_and_crop(torch.from_numpy(frames_THWC), size)

    return film


def validate(model: XClip, *, seed: int, clips: int, film: Film = film_cropped) -> dict[str, float]:
    """Accuracies by name, each in 0..1, over `clips` clips of the nine motions and as many of all eleven."""
    rng = np.random.default_rng([seed, 1])  # never a seed of training, which takes whole numbers
    nine_scenes = [random_scene(rng, NINE_MOTIONS) for _ in range(clips)]
    any_scenes = [random_scene(rng) for _ in range(clips)]
    nine, shuffled = encode_scenes(model, nine_scenes, rng, film)
    anything, _ = encode_scenes(model, any_scenes, rng, film)
    figures = motion_figures(model, nine, rng)
    figures["opposite directions"] = opposite_accuracy(model, nine)
    figures["opposite directions, frames shuffled"] = opposite_accuracy(model, shuffled)
    figures["growing or shrinking"] = told_apart(model, anything, "motion", ("growing", "shrinking"))
    for name in OF_SCENES:
        figures[name] = told_apart(model, anything, name, VALUES[name])
    return figures | search_figures(model, anything, rng)


def encode_scenes(model: XClip, scenes: Sequence[Scene], rng: np.random.Generator, film: Film) -> tuple[Clips, Clips]:
    """Scenes filmed and encoded, in order and with each clip's frames in random order."""
    T, S = model.config.frames, model.config.image_size
    frames_BTHWC = torch.stack([film(scene, T, S, rng) for scene in scenes])
    orders_BT = torch.from_numpy(np.stack([rng.permutation(T) for _ in scenes]))
    mixed_BTHWC = frames_BTHWC[torch.arange(len(scenes)).unsqueeze(1), orders_BT]
    truths = [{**claims_of(scene), "camera": "static", "cut": "uncut"} for scene in scenes]
    return encode_clips(model, frames_BTHWC, truths), encode_clips(model, mixed_BTHWC, truths)


def encode_clips(model: XClip, frames_BTHWC: Tensor, truths: Sequence[Mapping[str, str]]) -> Clips:
    """Clips B x T x S x S x 3 (uint8 RGB) of which something is known, encoded in batches."""
    parts = [encode_video_with_context(model, part) for part in torch.split(frames_BTHWC, CLIPS_PER_BATCH)]
    video_BE, context_BNE = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Clips(tuple(truths), video_BE, context_BNE)


def label_texts(attribute: str, values: Sequence[str]) -> list[str]:
    """The short names of an attribute's values."""
    return [LABELS[attribute, value] for value in values]


@torch.inference_mode()
def scores(model: XClip, clips: Clips, texts: Sequence[str]) -> Tensor:
    """The model's logits B x K, one batch of clips at a time."""
    text_KE = encode_text_raw(model, texts)
    pairs = zip(*(torch.split(x, CLIPS_PER_BATCH) for x in (clips.video_BE, clips.context_BNE)), strict=True)
    return torch.cat([model.score(video_BE, context_BNE, text_KE) for video_BE, context_BNE in pairs])


@torch.inference_mode()
def cosines(model: XClip, clips: Clips, texts: Sequence[str]) -> Tensor:
    """Plain cosines B x K, as an index's recall computes them."""
    return clips.video_BE @ F.normalize(encode_text_raw(model, texts), dim=-1).T


def top_1(logits_BK: Tensor, clips: Clips, attribute: str, values: Sequence[str]) -> float:
    """The share of clips whose highest logit is that of their attribute's value; K texts stand for `values`.

    NaN when there are no clips.
    """
    answers = [values[k] for k in logits_BK.argmax(dim=-1).tolist()]
    right = [answer == truth[attribute] for answer, truth in zip(answers, clips.truths, strict=True)]
    return float(np.mean(right)) if right else float("nan")


def told_apart(model: XClip, clips: Clips, attribute: str, values: Sequence[str], ask: Ask = scores) -> float:
    """Top-1 among some values of an attribute, by their labels, on the clips that have one of them."""
    clips = clips.where(attribute, values)
    return top_1(ask(model, clips, label_texts(attribute, values)), clips, attribute, values)


def motion_figures(model: XClip, nine: Clips, rng: np.random.Generator) -> dict[str, float]:
    """Top-1 over the nine motions: by their labels, by wordings never trained on, and by the plain cosine."""
    labels = label_texts("motion", NINE_MOTIONS)
    by_score, by_cosine = scores(model, nine, labels), cosines(model, nine, labels)
    sets = [label_captions("motion", NINE_MOTIONS, rng, held_out=True) for _ in range(WORDING_SETS)]
    held_out = [top_1(scores(model, nine, _texts(s)), nine, "motion", NINE_MOTIONS) for s in sets]
    return {
        "nine motions, labels": top_1(by_score, nine, "motion", NINE_MOTIONS),
        "nine motions, held-out wordings": float(np.mean(held_out)),
        "nine motions, worst of 8 sets of held-out wordings": min(held_out),
        "nine motions, plain cosine": top_1(by_cosine, nine, "motion", NINE_MOTIONS),
        "plain cosine agrees with the score": (by_score.argmax(-1) == by_cosine.argmax(-1)).float().mean().item(),
    }


def opposite_accuracy(model: XClip, nine: Clips, ask: Ask = scores) -> float:
    """How often a moving clip prefers its direction's label to the opposite one's; 0.5 is chance."""
    moving = nine.where("motion", DIRECTIONS)
    logits_BK = ask(model, moving, label_texts("motion", DIRECTIONS))
    own = [DIRECTIONS.index(truth["motion"]) for truth in moving.truths]
    other = [DIRECTIONS.index(OPPOSITE[DIRECTIONS[k]]) for k in own]
    rows = torch.arange(len(own))
    return (logits_BK[rows, own] > logits_BK[rows, other]).float().mean().item()


def search_figures(model: XClip, clips: Clips, rng: np.random.Generator) -> dict[str, float]:
    """Free text against all clips, a held-out caption per clip: how often the best hit is true, what recall keeps."""
    captions = [caption(truth, rng, held_out=True) for truth in clips.truths]
    truth_BK = torch.from_numpy(truth_table(clips.truths, captions))
    by_score, by_cosine = (f(model, clips, _texts(captions)) for f in (scores, cosines))
    best_K, kept = by_score.argmax(dim=0), by_cosine.topk(min(RECALL_AT, len(by_cosine)), dim=0).indices
    columns = torch.arange(len(captions))
    return {
        "search: best hit is true": truth_BK[best_K, columns].float().mean().item(),
        "search: best hit is true, plain cosine": truth_BK[by_cosine.argmax(dim=0), columns].float().mean().item(),
        f"search: best hit is among the cosine's first {RECALL_AT}": (kept == best_K).any(dim=0).float().mean().item(),
    }


def _texts(captions: Sequence[Caption]) -> list[str]:
    """The texts alone."""
    return [c.text for c in captions]
