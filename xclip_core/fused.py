"""`fast.FastVideo` on a GPU in half precision: its products, and Triton's kernels between them.

Each residual sum is the product's own: it adds to the tokens where they are. Biases are not added to tokens at all:
they are the same for every token, so that whoever reads tokens adds the sum of all biases so far, known beforehand.
The message of a frame, small products one after the other, is made on a second stream beside the norm of all tokens.
Nothing here waits for the device, so that `pipeline.embed` records a pass once and replays it.
"""

# B clips, T frames of a clip, F = B T frames, L tokens of a frame, D width, E joint dimension, N patches

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclip_core import kernels
from xclip_core.blocks import attend
from xclip_core.encode import check_frames
from xclip_core.fast import GREY, FastAttention, FastBlock, FastFrames, FastVideo


class FusedVideo(nn.Module):
    """`FastVideo`, which it takes over, for frames on a CUDA device."""

    def __init__(self, own: FastVideo) -> None:
        super().__init__()
        self.config, self.rest = own.config, own.rest
        self.visual = FusedFrames(own.visual)

    @torch.inference_mode()
    def forward(self, frames_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
        """As of `FastVideo`."""
        check_frames(self.config, frames_BTHWC)
        T = self.config.frames
        with _current(frames_BTHWC.device):
            frame_FE, x_FLD, bias_D = self.visual(frames_BTHWC.contiguous().flatten(0, 1))
            video_BE = self.rest.mit(frame_FE.float().unflatten(0, (-1, T)))
            # As `XClip.integrate`: norm, mean over time, projection.
            mean_BND = kernels.mean_norm(x_FLD, bias_D, self.rest.prompts_visual_ln, T)
            return F.normalize(video_BE, dim=-1), mean_BND @ self.rest.prompts_visual_proj


class FusedFrames(nn.Module):
    """`FastFrames`, but for the biases of its tokens."""

    def __init__(self, own: FastFrames) -> None:
        super().__init__()
        self.own, self.config = own, own.config
        owed_D = torch.zeros_like(own.class_D, dtype=torch.float64)
        self.blocks = nn.ModuleList()
        for block in own.blocks:
            self.blocks.append(fused := FusedBlock(own.config.frames, cast(FastBlock, block), owed_D))
            owed_D = owed_D + fused.biases()
        self.owed_D = nn.Parameter(owed_D.float())

    def forward(self, frames_FHWC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames F x S x S x 3 to frame vectors F x E, tokens F x L x D, and a bias D that these still lack."""
        own = self.own
        pixels_FNK = kernels.cut(frames_FHWC, self.config.patch_size, GREY, own.proj.dtype)
        x_FLD = kernels.begin(F.linear(pixels_FNK, own.patches.weight), own.place_ND, own.class_D, own.ln_pre)
        for block in self.blocks:
            block(x_FLD)
        class_FD = (x_FLD[:, 0] + self.owed_D).to(x_FLD.dtype)
        return own.ln_post(class_FD) @ own.proj, x_FLD, self.owed_D


class FusedBlock(nn.Module):
    """`FastBlock` of tokens that lack the biases of all blocks before (float64, D), as its result lacks its own."""

    def __init__(self, frames: int, own: FastBlock, owed_D: Tensor) -> None:
        super().__init__()
        self.own, self.frames = own, frames
        self.first_owed_D = nn.Parameter(owed_D.float())
        self.second_owed_D = nn.Parameter((owed_D + own.attn.write.bias.double()).float())
        # Class tokens lack them too: they are taken into the bias of the product that reads these.
        weight, bias = own.message_fc.weight, own.message_fc.bias
        self.message_bias = nn.Parameter((bias.double() + weight.double() @ owed_D).to(bias.dtype))
        self.is_one_kernel = kernels.suits_silu(own.mlp.widen.weight)

    def biases(self) -> Tensor:
        """What the block owes tokens, D."""
        return self.own.attn.write.bias.double() + self.own.mlp.narrow.bias.double()

    def forward(self, x_FLD: Tensor) -> None:
        """Tokens F x L x D of whole clips, changed in place."""
        own, D = self.own, x_FLD.shape[-1]
        flat_RD = x_FLD.view(-1, D)
        source_FMD = x_FLD.new_empty(len(x_FLD), x_FLD.shape[1] + 1, D)
        with _beside(x_FLD.device):
            self._message(x_FLD[:, 0], source_FMD)
        kernels.norm_into(source_FMD, x_FLD, self.first_owed_D, own.ln_1)
        _join(x_FLD.device)
        read_FLD = attended(own.attn, source_FMD, x_FLD.shape[1])
        flat_RD.addmm_(read_FLD.view(-1, D), own.attn.write.weight.t())
        normed_FLD = kernels.norm_into(torch.empty_like(x_FLD), x_FLD, self.second_owed_D, own.ln_2)
        flat_RD.addmm_(self._widened(normed_FLD.view(-1, D)), own.mlp.narrow.weight.t())

    def _message(self, class_FD: Tensor, source_FMD: Tensor) -> None:
        """Writes the normalised message of each frame to its last place in `source_FMD`."""
        own = self.own
        message_FD = F.linear(class_FD, own.message_fc.weight, self.message_bias)
        message_BTD = message_FD.view(-1, self.frames, message_FD.shape[-1])
        read_BTD = attended(own.message_attn, own.message_ln(message_BTD), self.frames)
        message_FD.addmm_(read_BTD.view_as(message_FD), own.message_attn.write.weight.t())
        last = source_FMD.shape[1] - 1
        kernels.norm_into(source_FMD, message_FD[:, None], own.message_attn.write.bias, own.ln_1, first=last)

    def _widened(self, x_RD: Tensor) -> Tensor:
        """R x D to R x 4D."""
        product = self.own.mlp.widen
        return kernels.linear_silu(x_RD, product.weight, product.bias) if self.is_one_kernel else product(x_RD)


def attended(attention: FastAttention, x_FMD: Tensor, queries: int) -> Tensor:
    """`FastAttention` up to its last product: F x Q x D."""
    qkv_FMX = attention.read(x_FMD)
    if qkv_FMX.shape[1] <= kernels.MOST_TOKENS:
        return kernels.attend(qkv_FMX, queries)
    q, k, v = qkv_FMX.chunk(3, dim=-1)
    return attend(q[:, :queries], k, v)


# --- devices and streams


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches its kernels on the current device, whatever their tensors are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """What is done here may run beside what comes after it, until `_join`."""
    if device.type != "cuda":
        yield
        return
    side = _side_stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        yield


def _join(device: torch.device) -> None:
    """What comes after this needs what was done beside it."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).wait_stream(_side_stream(device))
