"""CLIP's text tower: token ids to one vector per text.

Spec §5. The text's vector is the output at its end token, which has the largest id; attention is causal, so
padding behind it changes nothing and rows may be cut to the longest text of the batch (7 times cheaper on labels).
"""

# K texts, L tokens (at most C, the context length), W width, E joint dimension

from __future__ import annotations

import torch
from torch import Tensor, nn

from xclip_core.blocks import Block
from xclip_core.config import XClipConfig


class TextLayers(nn.Module):
    """The stack of causal blocks; official files call it `transformer.resblocks`."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, causal=True) for _ in range(layers)))

    def forward(self, x_KLW: Tensor) -> Tensor:
        """K x L x W to K x L x W."""
        out: Tensor = self.resblocks(x_KLW)
        return out


class TextEncoder(nn.Module):
    """Token ids of whole texts to their vectors."""

    def __init__(self, config: XClipConfig) -> None:
        super().__init__()
        W = config.text_width
        # As all the rest without initial values: on a model of shapes torch would load its compiler to draw them.
        empty = torch.empty(config.vocab_size, W)
        self.token_embedding = nn.Embedding.from_pretrained(empty, freeze=False)  # type: ignore[no-untyped-call]
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, W))
        self.transformer = TextLayers(W, config.text_layers)
        self.ln_final = nn.LayerNorm(W)
        self.text_projection = nn.Parameter(torch.empty(W, config.embed_dim))

    def forward(self, token_ids_KL: Tensor) -> Tensor:
        """Token ids K x L, zero padded behind the end token, to K x E, not normalised."""
        K, L = token_ids_KL.shape
        x_KLW = self.token_embedding(token_ids_KL) + self.positional_embedding[:L]
        x_KLW = self.ln_final(self.transformer(x_KLW))
        end_K = token_ids_KL.argmax(dim=-1)
        text_KE: Tensor = x_KLW[torch.arange(K, device=x_KLW.device), end_K] @ self.text_projection
        return text_KE
