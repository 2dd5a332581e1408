"""X-CLIP with parts cut out, to see what each is worth: without all three it is CLIP on frames and a mean.

A part is cut by putting something simpler in its place, never by a switch in the model's own code. What is left is
shared with the model that was cut, so that training one trains the other.

    messages      frames no longer exchange messages: each layer is CLIP's own
    integration   the clip's vector is the mean of its frame vectors
    prompt        texts stay as they are, whatever the clip shows
"""

# B clips, T frames, L tokens of a frame, D width, E joint dimension, K texts, N patches

from __future__ import annotations

import copy
from collections.abc import Callable, Collection

from torch import Tensor, nn

from schemas.errors import InputError
from xclip_core.blocks import Block
from xclip_core.frames import CrossFrameBlock
from xclip_core.model import XClip


class FrameMeanIntegration(nn.Module):
    """The mean over time, in place of multi-frame integration."""

    def forward(self, frame_BTE: Tensor) -> Tensor:
        """B x T x E to B x E."""
        return frame_BTE.mean(dim=1)


class NoPrompt(nn.Module):
    """Every clip's own copy of the texts, in place of the prompt generator."""

    def forward(self, text_KE: Tensor, context_BNE: Tensor) -> Tensor:
        """K x E and B x N x E to B x K x E."""
        return text_KE.expand(context_BNE.shape[0], -1, -1)


def _without_messages(model: XClip) -> None:
    """Each layer of the frame encoder as CLIP has it: B x T x L x D to the same, frame by frame."""
    layers = model.visual.transformer.resblocks
    for place, layer in enumerate(layers):
        if isinstance(layer, CrossFrameBlock):
            layers[place] = _plain_layer(layer)


def _plain_layer(layer: CrossFrameBlock) -> Block:
    """The attention and MLP of a layer without its messages; the same parameters, D wide."""
    plain = Block.__new__(Block)
    nn.Module.__init__(plain)
    plain.causal = False
    plain.ln_1, plain.attn, plain.ln_2, plain.mlp = layer.ln_1, layer.attn, layer.ln_2, layer.mlp
    return plain


def _without_integration(model: XClip) -> None:
    """A mean in the place of multi-frame integration."""
    model.mit = FrameMeanIntegration()  # type: ignore[assignment]


def _without_prompt(model: XClip) -> None:
    """Nothing in the place of the prompt generator."""
    model.prompts_generator = NoPrompt()  # type: ignore[assignment]


PARTS: dict[str, Callable[[XClip], None]] = {
    "messages": _without_messages,
    "integration": _without_integration,
    "prompt": _without_prompt,
}


def cut(model: XClip, parts: Collection[str] = tuple(PARTS)) -> XClip:
    """The model without some of its parts, or without any of them. Raises InputError for a part that there is not."""
    unknown = set(parts) - PARTS.keys()
    if unknown:
        raise InputError(f"X-CLIP has no part {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}")
    # Modules are copied, parameters are not.
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    rest = copy.deepcopy(model, memo=dict(shared))
    for part in parts:
        PARTS[part](rest)
    return rest
