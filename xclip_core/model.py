"""X-CLIP for inference: three stateless calls over tensors, and the checks that keep clips apart.

    video, context = model.video(pixels)     # once per clip; both can be stored
    text = model.text(token_ids)             # once per text; the caller keeps it, the model caches nothing
    logits = model.score(video, context, text)

Ni et al., "Expanding Language-Image Pretrained Models for General Video Recognition", ECCV 2022. The model knows
tensors only: `preprocess` knows pixels, `tokenise` words, `weights` names and files, `encode` joins them.
"""

# B clips, T frames, S pixels, N patches, D vision width, E joint dimension, K texts, L tokens

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from schemas.errors import ShapeError
from xclip_core.config import XClipConfig
from xclip_core.frames import FrameEncoder
from xclip_core.prompts import PromptGenerator
from xclip_core.temporal import MultiFrameIntegration
from xclip_core.text import TextEncoder
from xclip_core.weights import official_name

# Prompted texts are B x K x E with 4E-wide MLP rows: 4096 pairs of E=512 are 33 MB. Chunks over texts are exact.
PAIRS_PER_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model's weights came from."""

    source: str
    layout: str  # official | hf for X-CLIP; clip-openai | clip-openclip | clip-hf for a start from CLIP; openclip
    weights_hash: str  # sha256 over names, shapes and float32 values: equal for equal weights in any layout
    notes: tuple[str, ...] = ()  # what a user must know: the model is not trained, or a table was resampled


class XClip(nn.Module):
    """The whole model. Frame count, image size and joint dimension are in `config`."""

    provenance: Provenance | None = None

    def __init__(self, config: XClipConfig) -> None:
        super().__init__()
        D, E = config.vision_width, config.embed_dim
        self.config = config
        self.visual = FrameEncoder(config)
        self.mit = MultiFrameIntegration(config)
        self.prompts_visual_ln = nn.LayerNorm(D)
        self.prompts_visual_proj = nn.Parameter(torch.empty(D, E))
        self.prompts_generator = PromptGenerator(config)
        self.text_encoder = TextEncoder(config)
        self.logit_scale = nn.Parameter(torch.empty(()))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, which pixels must share."""
        return self.logit_scale.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are, and the inputs must be."""
        return self.logit_scale.device

    def video(self, pixels_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Clips to their vectors B x E and prompt contexts (z-bar) B x N x E, neither normalised.

        `pixels_BTCHW` is B x T x 3 x S x S in the model's dtype, RGB, normalised by `preprocess.normalise`.
        Raises ShapeError for any other T, S, channel order or dtype: a wrong T would mix frames of other clips.
        """
        self._check_pixels(pixels_BTCHW)
        return self.integrate(*self.visual(pixels_BTCHW))

    def integrate(self, frame_BTE: Tensor, patch_BTND: Tensor) -> tuple[Tensor, Tensor]:
        """Frame vectors B x T x E and patch tokens B x T x N x D to clip vectors B x E and contexts B x N x E."""
        # Norm before the mean over time, projection after it: the projection is linear, so this is exact and T
        # times cheaper; the norm is not (spec §4).
        context_BNE = self.prompts_visual_ln(patch_BTND).mean(dim=1) @ self.prompts_visual_proj
        return self.mit(frame_BTE), context_BNE

    def text(self, token_ids_KL: Tensor) -> Tensor:
        """Token ids K x L (L up to the context length, zero padded) to raw text vectors K x E."""
        self._check_tokens(token_ids_KL)
        text_KE: Tensor = self.text_encoder(token_ids_KL)
        return text_KE

    def score(self, video_BE: Tensor, context_BNE: Tensor, text_KE: Tensor) -> Tensor:
        """The model's own logits B x K: exp(logit_scale) * cosine of each clip with each text prompted by that clip.

        `text_KE` must be raw: the prompt generator was trained on un-normalised texts. `video_BE` may be scaled, and
        any of the three may have been stored in another dtype than the model's.
        """
        self._check_scores(video_BE, context_BNE, text_KE)
        video_BE, context_BNE, text_KE = (x.to(self.dtype) for x in (video_BE, context_BNE, text_KE))
        unit_BE = F.normalize(video_BE, dim=-1, eps=0.0)
        step = max(1, PAIRS_PER_CHUNK // max(1, len(video_BE)))
        chunks = [self._cosines(unit_BE, context_BNE, chunk) for chunk in torch.split(text_KE, step)]
        return self.logit_scale.exp() * torch.cat(chunks, dim=1)

    def _cosines(self, unit_BE: Tensor, context_BNE: Tensor, text_KE: Tensor) -> Tensor:
        """B x K cosines between unit clips B x E and texts K x E prompted by those clips."""
        prompted_BKE = F.normalize(self.prompts_generator(text_KE, context_BNE), dim=-1, eps=0.0)
        with torch.autocast(unit_BE.device.type, enabled=False):  # cosines times 100 want more digits than bfloat16's
            return torch.einsum("be,bke->bk", unit_BE, prompted_BKE)

    def _check_pixels(self, pixels_BTCHW: Tensor) -> None:
        """Raises ShapeError unless pixels are B x T x 3 x S x S in the model's dtype."""
        T, S = self.config.frames, self.config.image_size
        given = tuple(pixels_BTCHW.shape)
        if len(given) != 5 or given[1:] != (T, 3, S, S) or not given[0]:
            raise ShapeError(
                f"pixels have shape {given}; this model takes (clips, {T} frames, 3 channels, {S}, {S}): "
                f"sample {T} frames per clip, put channels third, resize with preprocess.resize_and_crop"
            )
        if pixels_BTCHW.dtype != self.dtype:
            raise ShapeError(
                f"pixels are {pixels_BTCHW.dtype} and the model is {self.dtype}; "
                "normalise uint8 frames with preprocess.normalise, or call encode_video"
            )

    def _check_tokens(self, token_ids_KL: Tensor) -> None:
        """Raises ShapeError unless tokens are whole numbers K x L with L in 1..context_length."""
        limit = self.config.context_length
        if token_ids_KL.ndim != 2 or not 1 <= token_ids_KL.shape[1] <= limit or token_ids_KL.is_floating_point():
            raise ShapeError(
                f"token ids are {token_ids_KL.dtype} of shape {tuple(token_ids_KL.shape)}; "
                f"expected integers (texts, tokens) with 1 to {limit} tokens, as tokenise returns"
            )
        # Looked up beyond the table, an id is an IndexError on the CPU and a poisoned context on CUDA.
        if token_ids_KL.numel() and int(token_ids_KL.max()) >= self.config.vocab_size:
            raise ShapeError(
                f"token id {int(token_ids_KL.max())} is beyond this model's vocabulary of {self.config.vocab_size}; "
                "these weights were trained with another tokeniser"
            )

    def _check_scores(self, video_BE: Tensor, context_BNE: Tensor, text_KE: Tensor) -> None:
        """Raises ShapeError unless videos are B x E, contexts B x N x E and texts K x E."""
        E, N = self.config.embed_dim, self.config.patches
        given = tuple(video_BE.shape), tuple(context_BNE.shape), tuple(text_KE.shape)
        B = given[0][0] if video_BE.ndim == 2 else -1
        if given[0] != (B, E) or given[1] != (B, N, E) or text_KE.ndim != 2 or given[2][1] != E:
            raise ShapeError(
                f"video, context and text have shapes {given}; "
                f"expected (clips, {E}), (the same clips, {N}, {E}) and (texts, {E})"
            )


def without_values(config: XClipConfig) -> XClip:
    """A model that takes no memory and has no values, for its shapes or to be filled."""
    with torch.device("meta"):
        return XClip(config)


def shapes(config: XClipConfig) -> dict[str, torch.Size]:
    """The official name and the shape of every tensor of a model."""
    return {official_name(name): tensor.shape for name, tensor in without_values(config).state_dict().items()}
