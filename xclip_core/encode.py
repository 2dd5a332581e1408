"""Frames and words to unit vectors: the calls most users of the model need."""

# B clips, T frames, S pixels, C = 3 channels, K texts, E joint dimension

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from schemas.errors import ShapeError
from xclip_core.config import ModelConfig
from xclip_core.frame_mean import FrameMean
from xclip_core.model import XClip
from xclip_core.preprocess import normalise
from xclip_core.tokenise import tokenise

# What can be indexed and searched with. Both kinds have a config, a provenance, and the same three calls.
Encoder = XClip | FrameMean


def check_frames(config: ModelConfig, frames_BTHWC: Tensor) -> None:
    """Raises ShapeError unless frames are B x T x S x S x 3, uint8, of the model's T and S."""
    T, S = config.frames, config.image_size
    if frames_BTHWC.dtype != torch.uint8 or frames_BTHWC.ndim != 5 or frames_BTHWC.shape[1:] != (T, S, S, 3):
        raise ShapeError(
            f"frames are {frames_BTHWC.dtype} of shape {tuple(frames_BTHWC.shape)}; this model takes uint8 RGB "
            f"(clips, {T} frames, {S}, {S}, 3): sample {T} frames per clip and use preprocess.resize_and_crop"
        )


@torch.inference_mode()
def encode_video_with_context(model: Encoder, frames_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
    """Clips to unit vectors B x E and their prompt contexts B x N x E, both float32 on the model's device.

    `frames_BTHWC` is B x T x S x S x 3, uint8, RGB. Raises ShapeError for anything else.
    """
    config = model.config
    check_frames(config, frames_BTHWC)
    pixels_BTCHW = normalise(frames_BTHWC.to(model.device), model.dtype, mean=config.mean, std=config.std)
    video_BE, context_BNE = model.video(pixels_BTCHW)
    return F.normalize(video_BE.float(), dim=-1), context_BNE.float()


def encode_video(model: Encoder, frames_BTHWC: Tensor) -> Tensor:
    """Clips B x T x S x S x 3 (uint8 RGB) to unit float32 vectors B x E."""
    return encode_video_with_context(model, frames_BTHWC)[0]


@torch.inference_mode()
def encode_text_raw(model: Encoder, texts: Sequence[str]) -> Tensor:
    """Texts to raw vectors K x E, as `score` wants them. Keep the result: the model caches nothing."""
    token_ids_KL = tokenise(texts, context_length=model.config.context_length, arch=model.config.arch)
    return model.text(token_ids_KL.to(model.device))


def encode_text(model: Encoder, texts: Sequence[str]) -> Tensor:
    """Texts to unit float32 vectors K x E, for recall by dot product; not the model's score (see `XClip.score`)."""
    return F.normalize(encode_text_raw(model, texts).float(), dim=-1)
