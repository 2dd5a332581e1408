"""What a model costs, by arithmetic: multiplications per clip and text, parameters, bytes stored per clip.

The formulae of spec §10, which agree with counted FLOPs to three decimals; 1 MAC is 2 FLOPs. They are of the whole
model as published: computing no message query, as `frames` does, saves less than 3 % of them.
"""

# B clips, T frames, N patches, L tokens of a frame, D vision width, E joint dimension, W text width, C context length

from __future__ import annotations

import math

from xclip_core.config import XClipConfig
from xclip_core.model import shapes


def clip_macs(config: XClipConfig) -> int:
    """To index a clip: its vector and the context stored beside it."""
    return vision_macs(config) + context_macs(config)


def vision_macs(config: XClipConfig) -> int:
    """From T pictures to one vector: patches, messages, attention inside frames, MLPs, integration."""
    T, N, P, D, E = config.frames, config.patches, config.patch_size, config.vision_width, config.embed_dim
    L = N + 1
    patches = T * N * 3 * P**2 * D
    attention = T * ((L + 1) * 4 * D**2 + 2 * (L + 1) ** 2 * D)
    mlp = T * L * 8 * D**2
    messages = 5 * T * D**2 + 2 * T**2 * D
    integration = config.mit_layers * (12 * T * E**2 + 2 * T**2 * E)
    return patches + config.vision_layers * (attention + mlp + messages) + T * D * E + integration


def context_macs(config: XClipConfig) -> int:
    """From patch tokens to z-bar, projected after the mean over time."""
    return config.patches * config.vision_width * config.embed_dim


def widest_layer(config: XClipConfig) -> int:
    """Numbers that a clip is at its widest: the hidden layer of an MLP, for all frames."""
    return config.frames * (config.patches + 1) * 4 * config.vision_width


def prompt_macs(config: XClipConfig) -> int:
    """Once per clip that is scored: keys and values of its context."""
    return config.prompt_layers * config.patches * 2 * config.embed_dim**2


def pair_macs(config: XClipConfig) -> int:
    """For each clip and text that are scored together."""
    E = config.embed_dim
    return config.prompt_layers * (10 * E**2 + 2 * config.patches * E)


def text_macs(config: XClipConfig) -> int:
    """To encode one text of full length; short labels cost about a seventh."""
    C, W = config.context_length, config.text_width
    return config.text_layers * (12 * C * W**2 + 2 * C**2 * W) + W * config.embed_dim


def parameter_count(config: XClipConfig) -> int:
    """All numbers of a model."""
    return sum(math.prod(shape) for shape in shapes(config).values())


def stored_bytes(config: XClipConfig) -> dict[str, int]:
    """Bytes per clip in an archive before compression: the vector, and its context in each code."""
    N, E = config.patches, config.embed_dim
    return {"embedding": 4 * E, "context_int8": N * (E + 4), "context_float16": 2 * N * E}
