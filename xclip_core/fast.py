"""The video side of X-CLIP for bulk work: the same function, its weights laid out for speed, in float32 or bfloat16.

What differs from `frames.FrameEncoder`, each measured in `benchmarks/encode.py`:
patches are cut from uint8 frames and multiplied once, with mean and standard deviation folded into that matrix; query,
key and value are one product; QuickGELU is SiLU, with its 1.702 folded into the matrices round it. Layer norms compute
in float32 whatever the dtype, and what comes after the frames (integration, context) is the model's own, in float32.

On a CPU weights in bfloat16 are laid out for oneDNN once and not with every product.

Whether neighbours change the last bits of a vector is up to the libraries that multiply: oneDNN adds up bfloat16 in one
order however many rows there are (tested), MKL does not with float32. See `pipeline.embed` for what is made of that.
"""

# B clips, T frames, S pixels, P pixels of a patch, N patches, L = N + 1 tokens, D width, E joint dimension

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclip_core.blocks import Attention, Mlp, attend
from xclip_core.config import HEAD_WIDTH, XClipConfig
from xclip_core.encode import Encoder, check_frames, encode_video_with_context
from xclip_core.frames import CrossFrameBlock, FrameEncoder
from xclip_core.model import XClip

GELU_SLOPE = 1.702  # x * sigmoid(1.702 x) = silu(1.702 x) / 1.702
# Subtracted from pixels: whole numbers up to 255 are exact in bfloat16 either way, but sums of smaller ones round less.
GREY = 128
# Up to so many tokens a CPU is quicker with two plain products than with torch's fused attention (9 ms against 15 ms
# for 64 frames of 51 tokens, 12 heads, bfloat16); beyond it the scores would not stay in the cache.
SHORT_TOKENS = 64
TYPICAL_CLIPS = 8  # of a pass
# bfloat16 must be so much faster than float32: 2.1 here with AVX512-BF16; without such instructions it is slower.
WORTH_IT = 1.25
# Of the product that is timed: about those of a layer on a CPU. A GPU is done with that before it has said so.
ROWS, CUDA_ROWS, WIDTH = 256, 16_384, 768


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`blocks.attend`, q (*any, Q, D), k and v (*any, M, D), to (*any, Q, D)."""
    if q.device.type != "cpu" or k.shape[-2] > SHORT_TOKENS:
        return attend(q, k, v)
    q, k, v = (torch.unflatten(x, -1, (-1, HEAD_WIDTH)).transpose(-3, -2) for x in (q, k, v))  # *any x H x tokens x h
    weights = torch.softmax(q @ k.transpose(-1, -2) * HEAD_WIDTH**-0.5, dim=-1)
    return (weights @ v).transpose(-3, -2).flatten(-2)


class Product(nn.Module):
    """A layer's matrix product and its bias, with SiLU after it if asked for."""

    def __init__(self, weight: Tensor, bias: Tensor, *, silu: bool = False) -> None:
        super().__init__()
        self.weight, self.bias, self.silu = nn.Parameter(weight), nn.Parameter(bias), silu
        self._packed: Tensor | None = None

    def pack(self, rows: int) -> None:
        """Lays the weight out as oneDNN wants it for inputs of about so many rows; the module stays where it is."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)  # noqa: SLF001
        del self.weight

    def forward(self, x: Tensor) -> Tensor:
        """(*any, inner) to (*any, outer)."""
        if self._packed is not None:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
                x, self._packed, self.bias, "swish" if self.silu else "none", [], ""
            )
            return out
        out = F.linear(x, self.weight, self.bias)
        return F.silu(out, inplace=True) if self.silu else out


def packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights can be laid out beforehand: by functions of torch that its compiler uses and that have no public
    name, so that they are tried first.
    """
    if device.type != "cpu" or dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    trial = Product(torch.eye(16, dtype=dtype), torch.ones(16, dtype=dtype), silu=True)
    x = torch.arange(-16.0, 16.0).to(dtype).view(2, 16)
    with torch.inference_mode():
        expected = trial(x)
        try:
            trial.pack(len(x))
            return torch.allclose(trial(x), expected, rtol=0.02)
        except (AttributeError, RuntimeError):  # another torch, which has them no longer
            return False


class Patches(nn.Module):
    """The product of the patches' pixels and what each outputs for them; GREY is nothing."""

    def __init__(self, weight_DK: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_DK)

    def forward(self, pixels: Tensor) -> Tensor:
        """(*any, K) in uint8 to (*any, D)."""
        return F.linear(pixels.to(self.weight.dtype).sub_(GREY), self.weight)


class FastAttention(nn.Module):
    """`blocks.Attention` of a sequence to itself, as one product in and one out."""

    def __init__(self, own: Attention) -> None:
        super().__init__()
        self.read = Product(own.in_proj_weight, own.in_proj_bias)
        self.write = Product(own.out_proj.weight, own.out_proj.bias)

    def forward(self, x: Tensor, queries: int) -> Tensor:
        """(*any, M, D) to (*any, queries, D): what the first tokens read from all of them."""
        q, k, v = self.read(x).chunk(3, dim=-1)
        out: Tensor = self.write(_attend(q[..., :queries, :], k, v))
        return out


class FastMlp(nn.Module):
    """`blocks.Mlp` with SiLU for QuickGELU."""

    def __init__(self, own: Mlp) -> None:
        super().__init__()
        self.widen = Product(own.c_fc.weight * GELU_SLOPE, own.c_fc.bias * GELU_SLOPE, silu=True)
        self.narrow = Product(own.c_proj.weight / GELU_SLOPE, own.c_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(*any, D) to (*any, D)."""
        out: Tensor = self.narrow(self.widen(x))
        return out


class FastBlock(nn.Module):
    """`frames.CrossFrameBlock`."""

    def __init__(self, own: CrossFrameBlock) -> None:
        super().__init__()
        self.message_fc, self.message_ln = own.message_fc, own.message_ln
        self.message_attn, self.attn = FastAttention(own.message_attn), FastAttention(own.attn)
        self.ln_1, self.ln_2, self.mlp = own.ln_1, own.ln_2, FastMlp(own.mlp)

    def forward(self, x_BTLD: Tensor) -> Tensor:
        """Tokens B x T x L x D of whole clips, to the same shape; the input is overwritten."""
        T, L = x_BTLD.shape[1:3]
        message_BTD = self.message_fc(x_BTLD[:, :, 0])
        message_BTD = message_BTD + self.message_attn(self.message_ln(message_BTD), T)
        source = self.ln_1(torch.cat([x_BTLD, message_BTD.unsqueeze(2)], dim=2))  # B x T x (L + 1) x D
        x_BTLD = x_BTLD.add_(self.attn(source, L))
        return x_BTLD.add_(self.mlp(self.ln_2(x_BTLD)))


class FastFrames(nn.Module):
    """`frames.FrameEncoder` from uint8 frames."""

    def __init__(self, own: FrameEncoder, config: XClipConfig) -> None:
        super().__init__()
        self.config = config
        mean_C, std_C = (own.proj.new_tensor(x, dtype=torch.float64) for x in (config.mean, config.std))
        weight_DPPC = own.conv1.weight.double().permute(0, 2, 3, 1) / std_C
        grey_D = -(weight_DPPC * (mean_C - GREY)).sum(dim=(1, 2, 3))  # what a patch of GREY gives
        places_LD = own.positional_embedding.double()
        self.patches = Patches(weight_DPPC.flatten(1).to(own.proj.dtype))
        self.place_ND = nn.Parameter((places_LD[1:] + grey_D).to(own.proj.dtype))
        self.class_D = nn.Parameter((places_LD[0] + own.class_embedding.double()).to(own.proj.dtype))
        self.ln_pre, self.ln_post, self.proj = own.ln_pre, own.ln_post, own.proj
        self.blocks = nn.ModuleList(FastBlock(cast(CrossFrameBlock, block)) for block in own.transformer.resblocks)

    def forward(self, frames_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Frames B x T x S x S x 3, uint8 RGB, to frame vectors B x T x E and patch tokens B x T x N x D."""
        x_BTLD = self.ln_pre(self.tokens(frames_BTHWC))
        for block in self.blocks:
            x_BTLD = block(x_BTLD)
        return self.ln_post(x_BTLD[:, :, 0]) @ self.proj, x_BTLD[:, :, 1:]

    def tokens(self, frames_BTHWC: Tensor) -> Tensor:
        """The class token and one token per patch of each frame, with their places: B x T x L x D."""
        B, T, S = frames_BTHWC.shape[:3]
        P, side = self.config.patch_size, S // self.config.patch_size
        grid = frames_BTHWC.view(B, T, side, P, side, 3 * P).transpose(3, 4)  # B x T x side x side x P x 3P
        patch_BTND = self.patches(grid.reshape(B, T, side * side, 3 * P * P)).add_(self.place_ND)
        return torch.cat([self.class_D.expand(B, T, 1, -1), patch_BTND], dim=2)


class FastVideo(nn.Module):
    """`encode_video_with_context` of an X-CLIP model. The model given is taken over and of no use afterwards."""

    def __init__(self, model: XClip, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = model.config
        self.visual = FastFrames(model.visual, model.config).to(dtype)
        del model.visual, model.text_encoder, model.prompts_generator
        self.rest = model.float()

    def packed(self) -> FastVideo:
        """Itself, with its weights laid out for passes of a few clips, where that can be done."""
        if packs(self.visual.proj.device, self.visual.proj.dtype):
            rows = TYPICAL_CLIPS * self.config.frames * (self.config.patches + 1)
            for product in self.visual.modules():
                if isinstance(product, Product):
                    product.pack(rows)
        return self

    @torch.inference_mode()
    def forward(self, frames_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Frames B x T x S x S x 3, uint8 RGB, on the model's device, to unit B x E and contexts B x N x E, float32.

        Raises ShapeError for anything else.
        """
        check_frames(self.config, frames_BTHWC)
        video_BE, context_BNE = self.rest.integrate(*(x.float() for x in self.visual(frames_BTHWC.contiguous())))
        return F.normalize(video_BE, dim=-1), context_BNE


def fast_video(model: Encoder, dtype: torch.dtype) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The quickest way from uint8 frames to vectors B x E and contexts B x N x E for a model, which it takes over.

    An encoder of open_clip's goes through its own code in float32, whatever `dtype`: its towers are of many kinds.
    """
    if isinstance(model, XClip):
        video = FastVideo(model, dtype)
        return _fused(video) if dtype == torch.bfloat16 and model.device.type == "cuda" else video.packed()
    return lambda frames_BTHWC: encode_video_with_context(model, frames_BTHWC.to(model.device))


def _fused(video: FastVideo) -> nn.Module:
    """The same with kernels of its own, where torch brings Triton, which compiles them."""
    if importlib.util.find_spec("triton") is None:
        return video
    from xclip_core.fused import FusedVideo  # on CUDA alone: it imports Triton

    return FusedVideo(video)


def product_macs(device: str) -> int:
    """Multiplications, with an addition each, of the product that is timed on a device."""
    return (CUDA_ROWS if device.startswith("cuda") else ROWS) * WIDTH * WIDTH


def product_s(device: str, dtype: torch.dtype) -> float:
    """Seconds that a product of `product_macs` takes at best, on one thread of a CPU, as each pass of an encoder is."""
    with one_thread():
        return min(_product_s(device, dtype) for _ in range(5))


@contextmanager
def one_thread() -> Iterator[None]:
    """What torch computes on a CPU meanwhile takes one thread, from where this is called."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _product_s(device: str, dtype: torch.dtype) -> float:
    """Seconds that it takes once; of a CPU those that the thread had, whatever else runs beside it."""
    rows = product_macs(device) // WIDTH**2
    x, weight = (torch.ones(count, WIDTH, device=device, dtype=dtype) for count in (rows, WIDTH))
    return took_s(lambda: F.linear(x, weight).sum().item(), device)  # the number is waited for


def took_s(work: Callable[[], object], device: str = "cpu") -> float:
    """Seconds of some work, on a CPU those that this thread had."""
    clock = time.perf_counter if device.startswith("cuda") else time.thread_time
    began = clock()
    work()
    return clock() - began


def faster_dtype(device: str, timed: Callable[[str, torch.dtype], float] = product_s) -> torch.dtype:
    """bfloat16 on a GPU that has it, and on a CPU where a product the size of a layer's is quicker in it, else float32.

    Takes 50 ms on a CPU, but where times are known, which `timed` then tells in place of `product_s`.
    """
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    plain_s, short_s = (timed(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    return torch.bfloat16 if plain_s > WORTH_IT * short_s else torch.float32
