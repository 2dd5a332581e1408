"""The transformer parts that all towers share: attention with packed weights, the QuickGELU MLP, the pre-norm block.

Parameter names are those of the official checkpoints, so that a state dict loads without a translation layer.
Dropout and drop-path are left out: both are zero in every released config (spec §2).
"""

# *any leading axes, Q queries, M source tokens, D width, H heads, h = 64 head width

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclip_core.config import HEAD_WIDTH


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the activation CLIP was trained with; exact GELU moves X-CLIP's logits by 1e-2."""

    def forward(self, x: Tensor) -> Tensor:
        """(*any, D) to (*any, D)."""
        return x * torch.sigmoid(1.702 * x)


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """Multi-head attention over the second last axis; heads are 64 wide.

    q is (*any, Q, D), k and v are (*any, M, D); returns (*any, Q, D).
    """
    # Leading axes become one: torch's fused kernels take four axes, and the fallback for five is 3 to 7 times slower.
    lead = q.shape[:-2]
    q, k, v = (torch.unflatten(x.flatten(0, -3), -1, (-1, HEAD_WIDTH)).transpose(1, 2) for x in (q, k, v))
    if q.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # The fused kernel's backward takes 5 times as long in bfloat16 as in float32, and loses what autocast gains.
        with torch.autocast("cpu", enabled=False):
            mixed = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=causal)
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)  # (lead, H, Q, h)
    return torch.unflatten(mixed.transpose(1, 2).flatten(-2), 0, lead)


class Attention(nn.Module):
    """Attention with query, key and value weights packed in one matrix, in that order, as in CLIP's files."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, query: Tensor, source: Tensor, *, causal: bool = False) -> Tensor:
        """Query (*any, Q, D) attends to source (*any, M, D); returns (*any, Q, D)."""
        D = query.shape[-1]
        q = F.linear(query, self.in_proj_weight[:D], self.in_proj_bias[:D])
        k, v = F.linear(source, self.in_proj_weight[D:], self.in_proj_bias[D:]).chunk(2, dim=-1)
        out: Tensor = self.out_proj(attend(q, k, v, causal=causal))
        return out


class Mlp(nn.Module):
    """Two linear layers, four times as wide in between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = QuickGELU()
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(*any, D) to (*any, D)."""
        out: Tensor = self.c_proj(self.gelu(self.c_fc(x)))
        return out


class Block(nn.Module):
    """CLIP's pre-norm block: used by the text tower (causal) and by multi-frame integration (not causal)."""

    def __init__(self, width: int, *, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """(*any, M, D) to (*any, M, D)."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, causal=self.causal)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out
