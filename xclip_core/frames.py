"""The cross-frame communication transformer: CLIP's vision tower whose frames exchange one message per layer.

Ni et al., ECCV 2022, §3.2; spec §2. In each layer every frame's class token is turned into a message, the messages
of one clip attend to each other (cross-frame attention), and each frame then attends to its own tokens plus its
message. The message is dropped before the MLP and made anew in the next layer.
"""

# B clips, T frames, S pixels, N patches, L = N + 1 tokens (class first), D width, E joint dimension

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xclip_core.blocks import Attention, Mlp
from xclip_core.config import XClipConfig


class CrossFrameBlock(nn.Module):
    """One layer: message exchange between frames, attention inside each frame, MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.message_fc = nn.Linear(width, width)
        self.message_ln = nn.LayerNorm(width)
        self.message_attn = Attention(width)
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x_BTLD: Tensor) -> Tensor:
        """Tokens B x T x L x D of whole clips, to the same shape."""
        message_BTD = self.message_fc(x_BTLD[:, :, 0])  # from the class token before any norm
        normed_BTD = self.message_ln(message_BTD)
        message_BTD = message_BTD + self.message_attn(normed_BTD, normed_BTD)

        source = self.ln_1(torch.cat([x_BTLD, message_BTD.unsqueeze(2)], dim=2))  # B x T x (L + 1) x D
        # The message's own query row would be dropped, so it is never computed: exact (spec §2, step 5).
        x_BTLD = x_BTLD + self.attn(source[:, :, :-1], source)
        out: Tensor = x_BTLD + self.mlp(self.ln_2(x_BTLD))
        return out


class CrossFrameLayers(nn.Module):
    """The stack of layers; a class of its own only because official files call it `transformer.resblocks`.

    With `recompute` training keeps the input of each layer alone and computes the rest a second time going backward:
    the same gradients to the bit, for a third more work and a fraction of the memory.
    """

    recompute = False

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(CrossFrameBlock(width) for _ in range(layers)))

    def forward(self, x_BTLD: Tensor) -> Tensor:
        """B x T x L x D to B x T x L x D."""
        if not (self.recompute and torch.is_grad_enabled()):
            out: Tensor = self.resblocks(x_BTLD)
            return out
        for block in self.resblocks:
            # Nothing in a layer is random, so no random state needs to be kept.
            x_BTLD = checkpoint(block, x_BTLD, use_reentrant=False, preserve_rng_state=False)
        return x_BTLD


class FrameEncoder(nn.Module):
    """Pixels of a clip to one vector per frame and one token per patch."""

    def __init__(self, config: XClipConfig) -> None:
        super().__init__()
        D, P = config.vision_width, config.patch_size
        self.conv1 = nn.Conv2d(3, D, kernel_size=P, stride=P, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(D))
        self.positional_embedding = nn.Parameter(torch.empty(config.patches + 1, D))
        self.ln_pre = nn.LayerNorm(D)
        self.transformer = CrossFrameLayers(D, config.vision_layers)
        self.ln_post = nn.LayerNorm(D)
        self.proj = nn.Parameter(torch.empty(D, config.embed_dim))

    def forward(self, pixels_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels B x T x 3 x S x S to frame vectors B x T x E and patch tokens B x T x N x D.

        The patch tokens are those of the last layer, before `ln_post`: the video-specific prompt reads them.
        """
        B, T = pixels_BTCHW.shape[:2]
        patches = self.conv1(pixels_BTCHW.flatten(0, 1))  # (B * T) x D x S/P x S/P
        patch_BTND = patches.flatten(2).transpose(1, 2).unflatten(0, (B, T))
        class_BT1D = self.class_embedding.expand(B, T, 1, -1)
        x_BTLD = torch.cat([class_BT1D, patch_BTND], dim=2) + self.positional_embedding
        x_BTLD = self.transformer(self.ln_pre(x_BTLD))
        return self.ln_post(x_BTLD[:, :, 0]) @ self.proj, x_BTLD[:, :, 1:]
