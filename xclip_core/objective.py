"""What training minimises: each clip has to find its own texts among those of the batch.

Cross-entropy over texts, with soft targets because several texts can be true of a clip and several clips can share a
text (two left-moving circles in one batch are not each other's negatives). Texts come in groups, such as a batch's
captions, or one wording of every motion; a clip chooses within each group.

Generated clips also come with numbers and pictures that `guides` have to read off the vectors. They are thrown away
after training, and are there because words for places and motions give no gradient until vectors and words agree a
little: after 29,000 frames places were at 0.14 top-1 without them, at 0.54 with them.
"""

# B clips, T frames, S pixels, K texts, E joint dimension, L tokens, G numbers of a guide

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclip_core.guides import Guides
from xclip_core.model import XClip
from xclip_core.preprocess import normalise

# Texts to token ids K x L; `tokenise.tokenise`, or one with a smaller vocabulary.
Tokeniser = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True, slots=True)
class Choice:
    """Texts `start`..`stop` of a batch, among which each clip chooses; `both_ways`: each text among clips as well.

    `shares` are how likely each text is made to look before anything is seen; a model learns to make up for it (logit
    adjustment, Menon et al., ICLR 2021).
    """

    start: int
    stop: int
    both_ways: bool = False
    weight: float = 1.0
    shares: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Clips, texts, and which text is true of which clip."""

    frames_BTHWC: Tensor  # uint8 RGB
    texts: tuple[str, ...]
    truth_BK: Tensor  # bool
    choices: tuple[Choice, ...]
    numbers_BG: Tensor | None = None  # float32 numbers that guides read off each clip's vector; none for real footage

    def __post_init__(self) -> None:
        given = len(self.frames_BTHWC), len(self.texts)
        if tuple(self.truth_BK.shape) != given:
            raise ValueError(f"truth has shape {tuple(self.truth_BK.shape)}; expected (clips, texts) = {given}")


def soft_cross_entropy(logits_BK: Tensor, truth_BK: Tensor) -> Tensor:
    """Cross-entropy with the target spread evenly over a row's true texts, B x K to a scalar.

    Rows of which nothing is true are left out; zero when that is all of them.
    """
    counts_B = truth_BK.sum(dim=-1)
    known_B = counts_B > 0
    if not known_B.any():
        return logits_BK.sum() * 0.0
    target_BK = truth_BK[known_B] / counts_B[known_B].unsqueeze(-1)
    return F.cross_entropy(logits_BK[known_B], target_BK)


def choice_loss(logits_BK: Tensor, batch: Batch) -> Tensor:
    """The mean over a batch's choices, by weight, of the cross-entropy within each; logits B x K to a scalar."""
    total, weight = logits_BK.new_zeros(()), 0.0
    for choice in batch.choices:
        logits, truth = (x[:, choice.start : choice.stop] for x in (logits_BK, batch.truth_BK))
        if choice.shares:
            logits = logits + logits.new_tensor(choice.shares).log()
        loss = soft_cross_entropy(logits, truth)
        if choice.both_ways:
            loss = (loss + soft_cross_entropy(logits.T, truth.T)) / 2
        total, weight = total + choice.weight * loss, weight + choice.weight
    return total / weight


def frame_loss(model: XClip, batch: Batch, tokenise: Tokeniser, *, guides: Guides | None = None) -> Tensor:
    """Image-text training on single frames (B x 1 x S x S x 3): CLIP's cosine of frame and text, a scalar."""
    frame_B1E, _ = _seen(model, batch)
    text_KE = model.text(tokenise(batch.texts).to(model.device))
    loss = choice_loss(plain_logits(model, frame_B1E[:, 0], text_KE), batch)
    return loss + _guide_loss(guides, frame_B1E, frame_B1E[:, 0], batch)


def clip_loss(
    model: XClip, batch: Batch, tokenise: Tokeniser, *, plain_weight: float = 0.0, guides: Guides | None = None
) -> Tensor:
    """X-CLIP's training on clips B x T x S x S x 3: cross-entropy of `model.score`, a scalar.

    `plain_weight` adds that much of the same loss on the un-prompted cosine, which an index's recall relies on.
    """
    frame_BTE, patch_BTND = _seen(model, batch)
    video_BE, context_BNE = model.integrate(frame_BTE, patch_BTND)
    text_KE = model.text(tokenise(batch.texts).to(model.device))
    with _fast(model):
        logits_BK = model.score(video_BE, context_BNE, text_KE)
    loss = choice_loss(logits_BK, batch)
    if plain_weight:
        loss = loss + plain_weight * choice_loss(plain_logits(model, video_BE, text_KE), batch)
    return loss + _guide_loss(guides, frame_BTE, video_BE, batch)


def _seen(model: XClip, batch: Batch) -> tuple[Tensor, Tensor]:
    """A batch's frame vectors B x T x E and patch tokens B x T x N x D, float32."""
    pixels = normalise(batch.frames_BTHWC.to(model.device), model.dtype)
    with _fast(model):
        frame_BTE, patch_BTND = model.visual(pixels)
    return frame_BTE.float(), patch_BTND.float()


def _fast(model: XClip) -> torch.autocast:
    """Matrix products in bfloat16, twice as fast on CPUs that have it: for the vision tower and the prompt generator,
    which are nearly all of the arithmetic. Scaled cosines stay in float32.
    """
    return torch.autocast(model.device.type, torch.bfloat16)


def _guide_loss(guides: Guides | None, frame_BTE: Tensor, vector_BE: Tensor, batch: Batch) -> Tensor:
    """What guides ask of frame vectors B x T x E and clip vectors B x E; zero without guides."""
    if guides is None:
        return vector_BE.new_zeros(())
    loss = guides.picture_loss(frame_BTE, batch.frames_BTHWC.to(frame_BTE.device))
    return loss if batch.numbers_BG is None else loss + guides.number_loss(vector_BE, batch.numbers_BG.to(vector_BE))


def plain_logits(model: XClip, video_BE: Tensor, text_KE: Tensor) -> Tensor:
    """Scaled cosines B x K of clips or frames with texts that no clip has prompted."""
    return model.logit_scale.exp() * F.normalize(video_BE, dim=-1) @ F.normalize(text_KE, dim=-1).T


class Classifier(nn.Module):
    """A model with a fixed list of labels: pixels to logits, and to the paper's loss against soft targets.

    One module, so that data-parallel training can wrap it. `bf16` runs the video side in bfloat16; scores, whose
    softmax is over cosines times 100, stay in float32: bfloat16 would round them to steps of a quarter.
    """

    text_KE: Tensor

    def __init__(self, model: XClip, text_KE: Tensor, *, bf16: bool = False) -> None:
        super().__init__()
        self.model, self.bf16 = model, bf16
        self.register_buffer("text_KE", text_KE, persistent=False)

    def logits(self, pixels_BTCHW: Tensor) -> Tensor:
        """Normalised pixels B x T x 3 x S x S to the model's scores B x K, float32."""
        with torch.autocast(pixels_BTCHW.device.type, torch.bfloat16, enabled=self.bf16):
            video_BE, context_BNE = self.model.video(pixels_BTCHW)
        return self.model.score(video_BE.float(), context_BNE.float(), self.text_KE)

    def forward(self, clips: tuple[Tensor, Tensor]) -> Tensor:
        """Pixels B x T x 3 x S x S and targets B x K to the mean cross-entropy; a target of zeros costs nothing."""
        pixels_BTCHW, target_BK = clips
        return F.cross_entropy(self.logits(pixels_BTCHW), target_BK)


@torch.no_grad()
def label_texts(model: XClip, token_ids_KL: Tensor) -> Tensor:
    """Token ids K x L of labels to raw text vectors K x E that gradients may be computed with, if not for."""
    return model.text(token_ids_KL.to(model.device))
