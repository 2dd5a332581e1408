"""The multi-frame integration transformer: frame vectors of a clip to one video vector.

Ni et al., ECCV 2022, §3.2; spec §3. The outer residual adds the input *without* its position code; the paper's
equation 6 leaves that residual out, the released weights need it.
"""

# B clips, T frames, E joint dimension

from __future__ import annotations

import torch
from torch import Tensor, nn

from xclip_core.blocks import Block
from xclip_core.config import XClipConfig


class MultiFrameIntegration(nn.Module):
    """Attention over the T frame vectors, then their mean."""

    def __init__(self, config: XClipConfig) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(1, config.frames, config.embed_dim))
        self.resblocks = nn.Sequential(*(Block(config.embed_dim) for _ in range(config.mit_layers)))

    def forward(self, frame_BTE: Tensor) -> Tensor:
        """B x T x E to B x E, not normalised."""
        mixed_BTE = self.resblocks(frame_BTE + self.positional_embedding)
        video_BE: Tensor = (mixed_BTE + frame_BTE).mean(dim=1)
        return video_BE
