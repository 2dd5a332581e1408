"""Initial values: the model's constructors leave memory as it is, because inference replaces every tensor.

`initialise_clip` is CLIP's own scheme for a tower that starts from nothing; `initialise_xclip` is the official one for
what X-CLIP adds to a trained CLIP (spec §7). Both draw from a generator that is passed in, so a seed is a model.
"""

# D vision width, E joint dimension, W text width

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from xclip_core.blocks import Attention, Block, Mlp
from xclip_core.frames import CrossFrameBlock
from xclip_core.model import XClip

Part = TypeVar("Part", bound=nn.Module)

CLIP_POSITION_STD = 0.01
XCLIP_STD = 0.02
ALPHA = 0.1  # the paper's; the constructor default of the official code, 1e-4, is never used for training
TEMPERATURE = 0.07  # CLIP's initial one: logit_scale is the log of its inverse


@torch.no_grad()
def initialise_clip(model: XClip, generator: torch.Generator, *, position_std: float | None = None) -> None:
    """CLIP's initial values for both towers. `position_std` replaces CLIP's D**-0.5 for the patch position codes."""
    D, W = model.config.vision_width, model.config.text_width
    visual, text = model.visual, model.text_encoder
    # CLIP leaves its patch convolution at torch's default. Larger values drown the position codes in flat colour.
    nn.init.kaiming_uniform_(visual.conv1.weight, a=math.sqrt(5), generator=generator)
    _normal(visual.class_embedding, D**-0.5, generator)
    _normal(visual.positional_embedding, position_std or D**-0.5, generator)
    _normal(visual.proj, D**-0.5, generator)
    _normal(text.token_embedding.weight, XCLIP_STD, generator)
    _normal(text.positional_embedding, CLIP_POSITION_STD, generator)
    _normal(text.text_projection, W**-0.5, generator)
    _clip_layers(visual.transformer, D, generator)
    _clip_layers(text.transformer, W, generator)
    model.logit_scale.fill_(math.log(1 / TEMPERATURE))


@torch.no_grad()
def initialise_xclip(model: XClip, generator: torch.Generator, *, position_std: float = XCLIP_STD) -> None:
    """The official initial values for messages, multi-frame integration and video-specific prompts.

    `position_std` is that of the frame position codes.
    """
    for block in _of_type(model.visual, CrossFrameBlock):
        _default_linear(block.message_fc, generator)
        _default_linear(block.message_attn.out_proj, generator)
        block.message_attn.out_proj.bias.zero_()
        _xavier_in(block.message_attn, generator)
    for part in (model.mit, model.prompts_generator):
        for linear in _of_type(part, nn.Linear):
            _small_linear(linear, generator)
    for attention in _of_type(model.mit, Attention):
        _xavier_in(attention, generator)
    nn.init.trunc_normal_(model.mit.positional_embedding, std=position_std, generator=generator)
    nn.init.normal_(model.prompts_visual_proj, generator=generator)  # std 1, unscaled, as the official code has it
    model.prompts_generator.alpha.fill_(ALPHA)


def _normal(parameter: Tensor, std: float, generator: torch.Generator) -> None:
    """Fills a parameter of any shape (...,) from a normal distribution round zero."""
    nn.init.normal_(parameter, std=std, generator=generator)


def _of_type(parent: nn.Module, kind: type[Part]) -> list[Part]:
    """The modules of one kind below another, in the order in which they were made."""
    return [module for module in parent.modules() if isinstance(module, kind)]


def _clip_layers(tower: nn.Module, width: int, generator: torch.Generator) -> None:
    """CLIP's values for a stack of blocks; what X-CLIP adds to a block is left alone."""
    blocks: list[CrossFrameBlock | Block] = [*_of_type(tower, CrossFrameBlock), *_of_type(tower, Block)]
    for block in blocks:
        _clip_attention(block.attn, width, len(blocks), generator)
        _clip_mlp(block.mlp, width, len(blocks), generator)


def _clip_attention(attention: Attention, width: int, layers: int, generator: torch.Generator) -> None:
    """CLIP's scale: width**-0.5 going in, and less going out the deeper the tower is."""
    _normal(attention.in_proj_weight, width**-0.5, generator)
    attention.in_proj_bias.zero_()
    _normal(attention.out_proj.weight, width**-0.5 * (2 * layers) ** -0.5, generator)
    attention.out_proj.bias.zero_()


def _clip_mlp(mlp: Mlp, width: int, layers: int, generator: torch.Generator) -> None:
    """CLIP's scale for the two linear layers, with biases at zero."""
    _normal(mlp.c_fc.weight, (2 * width) ** -0.5, generator)
    _normal(mlp.c_proj.weight, width**-0.5 * (2 * layers) ** -0.5, generator)
    mlp.c_fc.bias.zero_()
    mlp.c_proj.bias.zero_()


def _xavier_in(attention: Attention, generator: torch.Generator) -> None:
    """The torch default for packed query, key and value weights (3D x D), biases at zero."""
    nn.init.xavier_uniform_(attention.in_proj_weight, generator=generator)
    attention.in_proj_bias.zero_()


def _default_linear(linear: nn.Linear, generator: torch.Generator) -> None:
    """The torch default for a linear layer, from our generator."""
    nn.init.kaiming_uniform_(linear.weight, a=math.sqrt(5), generator=generator)
    bound = linear.in_features**-0.5
    nn.init.uniform_(linear.bias, -bound, bound, generator=generator)


def _small_linear(linear: nn.Linear, generator: torch.Generator) -> None:
    """Truncated normal of 0.02, bias at zero: multi-frame integration and prompts."""
    nn.init.trunc_normal_(linear.weight, std=XCLIP_STD, generator=generator)
    if linear.bias is not None:
        linear.bias.zero_()
