"""The text side of X-CLIP for bulk work: the same logits for many clips and many texts, laid out for speed.

The prompt generator makes an own vector of each text for each clip, so that B clips and Q texts cost B x Q passes of
it: two layers of 10 E^2 products a pair, of which the MLP is 8. What can be had without changing the function, and is
taken: the query of the first layer does not see the clip, and is made once a text; patches are normed once a clip;
QuickGELU is SiLU, with its 1.702 folded into the matrices round it; pairs pass in such numbers that what is between
two products stays in the cache. The last layer's second matrix cannot be folded into the clip's vector, because the
prompted text is divided by its length, which needs all of it.

In bfloat16 only what the generator's layers multiply is short: the stream from layer to layer, norms and cosines stay
float32. `benchmarks/tagging.py` measures what that changes.
"""

# B clips, Q texts, N patches, E joint dimension, P pairs of a chunk

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclip_core.blocks import attend
from xclip_core.encode import Encoder
from xclip_core.fast import GELU_SLOPE, Product, packs
from xclip_core.model import XClip
from xclip_core.prompts import PromptBlock

# Pairs that pass together: between the products of the MLP 512 pairs of E = 512 are 2 MB in bfloat16.
PAIRS_PER_PASS = {"cpu": 512, "cuda": 1 << 16}


def _product(layer: nn.Linear, dtype: torch.dtype, scale: float = 1.0, *, silu: bool = False) -> Product:
    """A layer in another dtype; with SiLU after it weight and bias are scaled, else the weight alone."""
    weight = layer.weight.detach()
    bias = torch.zeros_like(weight[:, 0]) if layer.bias is None else layer.bias.detach()
    return Product((scale * weight).to(dtype), ((scale if silu else 1) * bias).to(dtype), silu=silu)


class FastPromptBlock(nn.Module):
    """`prompts.PromptBlock`, its matrices in another dtype than the stream."""

    def __init__(self, own: PromptBlock, dtype: torch.dtype) -> None:
        super().__init__()
        attention, (up, _, _, down) = own.cross_attn, own.mlp
        self.norm1, self.norm3, self.dtype = own.norm1, own.norm3, dtype
        up, down = cast(nn.Linear, up), cast(nn.Linear, down)
        self.query, self.key, self.value = (
            _product(layer, dtype) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        self.proj = _product(attention.proj, dtype)
        self.up, self.down = _product(up, dtype, GELU_SLOPE, silu=True), _product(down, dtype, 1 / GELU_SLOPE)

    def queries(self, text_QE: Tensor) -> Tensor:
        """What texts ask of patches, (*any, Q, E)."""
        out: Tensor = self.query(self.norm1(text_QE).to(self.dtype))
        return out

    def sources(self, normed_BNE: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of clips, B x N x E each."""
        normed_BNE = normed_BNE.to(self.dtype)
        return self.key(normed_BNE), self.value(normed_BNE)

    def forward(self, text_BQE: Tensor, query_BQE: Tensor, source: tuple[Tensor, Tensor]) -> Tensor:
        """Texts B x Q x E with their queries, and what `sources` made of the clips, to B x Q x E in float32."""
        text_BQE = text_BQE + self.proj(attend(query_BQE, *source)).float()
        out: Tensor = text_BQE + self.down(self.up(self.norm3(text_BQE).to(self.dtype))).float()
        return out


class FastScore(nn.Module):
    """`XClip.score` for texts that stay the same: clips B x E and contexts B x N x E to logits B x Q, float32."""

    def __init__(self, model: XClip, text_QE: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        generator = model.prompts_generator
        self.norm, self.alpha, self.scale = generator.norm, generator.alpha, model.logit_scale.detach().exp()
        self.blocks = nn.ModuleList(FastPromptBlock(cast(PromptBlock, block), dtype) for block in generator.decoder)
        self.text_QE = text_QE.to(model.device, torch.float32)
        self.pairs = PAIRS_PER_PASS.get(model.device.type, PAIRS_PER_PASS["cpu"])
        self._pack(model.device, dtype)
        with torch.inference_mode():
            self.query_QE = cast(FastPromptBlock, self.blocks[0]).queries(self.text_QE)

    def _pack(self, device: torch.device, dtype: torch.dtype) -> None:
        """Lays weights out for passes of that many pairs, where that can be done."""
        if packs(device, dtype):
            for product in self.blocks.modules():
                if isinstance(product, Product):
                    product.pack(self.pairs)

    @torch.inference_mode()
    def forward(self, video_BE: Tensor, context_BNE: Tensor) -> Tensor:
        """Logits B x Q; `video_BE` may be scaled, and both may have been stored in another dtype."""
        Q = len(self.text_QE)
        video_BE = F.normalize(video_BE.float(), dim=-1, eps=0.0)
        # Whole clips with all their texts, or one clip with some of them.
        clips, texts = max(1, self.pairs // Q), min(Q, self.pairs)
        rows = zip(torch.split(video_BE, clips), torch.split(context_BNE.float(), clips), strict=True)
        return self.scale * torch.cat([self._rows(*each, texts) for each in rows])

    def _rows(self, video_BE: Tensor, context_BNE: Tensor, texts: int) -> Tensor:
        """Cosines B x Q of a few clips, so many texts at a time."""
        normed_BNE = self.norm(context_BNE)
        sources = [cast(FastPromptBlock, block).sources(normed_BNE) for block in self.blocks]
        spans = range(0, len(self.text_QE), texts)
        return torch.cat([self._cosines(video_BE, sources, slice(at, at + texts)) for at in spans], dim=1)

    def _cosines(self, video_BE: Tensor, sources: list[tuple[Tensor, Tensor]], span: slice) -> Tensor:
        """Cosines B x Q between unit clips B x E and some of the texts prompted by those clips."""
        text_BQE = self.text_QE[span].expand(len(video_BE), -1, -1)
        query_BQE = self.query_QE[span].expand(len(video_BE), -1, -1)
        update_BQE = text_BQE
        for place, (block, source) in enumerate(zip(self.blocks, sources, strict=True)):
            query_BQE = query_BQE if place == 0 else cast(FastPromptBlock, block).queries(update_BQE)
            update_BQE = block(update_BQE, query_BQE, source)
        prompted_BQE = F.normalize(text_BQE + self.alpha * update_BQE, dim=-1, eps=0.0)
        return torch.einsum("be,bqe->bq", video_BE, prompted_BQE)


def scorer(model: Encoder, text_QE: Tensor, dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
    """The quickest way from clips B x E and contexts B x N x E to logits B x Q with raw texts Q x E.

    An encoder of open_clip's has no prompts: its score is one product, in float32 whatever `dtype`.
    """
    if isinstance(model, XClip) and model.dtype == torch.float32:
        return FastScore(model, text_QE, dtype)
    return lambda video_BE, context_BNE: model.score(video_BE, context_BNE, text_QE).float()
