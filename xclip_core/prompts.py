"""The video-specific prompt: what a clip shows adjusts what a text means.

Ni et al., ECCV 2022, §3.3; spec §4. Texts attend to the clip's patch tokens (z-bar, here `context`) and never to
each other, so every (clip, text) pair is independent: texts may be scored in chunks, and z-bar may be stored.
"""

# B clips, K texts, N patches, E joint dimension

from __future__ import annotations

import torch
from torch import Tensor, nn

from xclip_core.blocks import QuickGELU, attend
from xclip_core.config import XClipConfig


class CrossAttention(nn.Module):
    """Texts attend to patches. Query, key and value have no bias, the output projection has one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, text_BKE: Tensor, context_BNE: Tensor) -> Tensor:
        """B x K x E texts read B x N x E patches; returns B x K x E."""
        mixed_BKE = attend(self.q_proj(text_BKE), self.k_proj(context_BNE), self.v_proj(context_BNE))
        out: Tensor = self.proj(mixed_BKE)
        return out


class PromptBlock(nn.Module):
    """Cross-attention and MLP with a residual round each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = CrossAttention(width)
        self.norm3 = nn.LayerNorm(width)
        # Official files number the layers 0 and 3; place 2 was a dropout of zero.
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), QuickGELU(), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, text_BKE: Tensor, context_BNE: Tensor) -> Tensor:
        """B x K x E texts and B x N x E patches to B x K x E."""
        text_BKE = text_BKE + self.cross_attn(self.norm1(text_BKE), context_BNE)
        out: Tensor = text_BKE + self.mlp(self.norm3(text_BKE))
        return out


class PromptGenerator(nn.Module):
    """c + alpha * g(c, z-bar), with alpha one learnt weight per dimension."""

    def __init__(self, config: XClipConfig) -> None:
        super().__init__()
        E = config.embed_dim
        self.norm = nn.LayerNorm(E)
        self.decoder = nn.ModuleList(PromptBlock(E) for _ in range(config.prompt_layers))
        self.alpha = nn.Parameter(torch.empty(E))

    def forward(self, text_KE: Tensor, context_BNE: Tensor) -> Tensor:
        """Raw texts K x E and z-bar B x N x E to prompted texts B x K x E, not normalised."""
        text_BKE = text_KE.expand(context_BNE.shape[0], -1, -1)
        normed_BNE = self.norm(context_BNE)
        update_BKE = text_BKE
        for block in self.decoder:
            update_BKE = block(update_BKE, normed_BNE)
        return text_BKE + self.alpha * update_BKE
