"""The frames of X-CLIP multiplied in bytes on a CPU: quicker than bfloat16 with VNNI, and than float32 without.

Weights are rounded to int8, with a scale for each output. What goes into a product is rounded to uint8 as it comes,
with a scale and a zero point for each clip, from its least and its greatest value: the affine scheme of Jacob et al.
("Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018), dynamic.
Products of bytes are added up in whole numbers, and what is float32 besides is done clip by clip, so that neither
neighbours nor threads change a bit of a clip. Norms, attention weights, the messages between frames, and all that comes
after the frames stay as they are in `fast`. Without VNNI what goes in is rounded to 7 bits, and patches, whose pixels
have 8, stay as well.

What it does to vectors depends on the weights: a few large activations cost all others their digits. Those that come
out of a norm are made smaller and their weights larger (`_evened`), and the first clips are encoded both ways: a model
whose vectors come out too far from its own is encoded without bytes, or refused where bytes were asked for.
"""

# B clips, T frames, S pixels, N patches, L tokens, D width, E joint dimension

from __future__ import annotations

import copy
import statistics
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from schemas.errors import ModelError
from xclip_core.config import ModelConfig, XClipConfig
from xclip_core.encode import Encoder
from xclip_core.fast import (
    GREY,
    ROWS,
    WIDTH,
    FastAttention,
    FastBlock,
    FastMlp,
    FastVideo,
    Patches,
    Product,
    one_thread,
    took_s,
)
from xclip_core.model import XClip

# The least cosine of the median clip to what the same frames give unrounded: as near as frames within the default
# tolerance must come to the very frames. Where bytes were not asked for, each clip must come so near and the median
# clip nearer, so that what frames are taken matters more (benchmarks/closeness.py).
CLOSE, CLOSE_UNASKED = 0.995, 0.999
# The gain that bytes are tried for, of a product that is timed so often. It is the least of a layer's four: the widest
# are twice as fast on the CPU where this one is 1.5 times.
WORTH_IT, TRIES = 1.15, 11
WIDE = 512  # products of narrower models are so small that rounding what goes into them takes as long
# Of what a norm puts out, how many standard deviations count as its size; and by which power of two it is made smaller
# at most, so that no weight leaves what floats can hold.
SPREAD, MOST_EVENED = 3, 30
# Steps from the least to the greatest that goes into a product: one less than its bits have, so that rounding never
# leaves them. Without VNNI two products at a time are added up in 16 bits, which 7 bits by 8 never overflow.
LEVELS, FEW_LEVELS = 254, 126
ZERO = 128  # torch turns floats into int8 with vectors and into uint8 one by one: what is int8 is moved by this


def _multiply(x: Tensor, scale: float, zero: int, layer: _ByteWeight, dtype: torch.dtype) -> Tensor:
    """Bytes (rows, inner), which mean scale * (x - zero), by a layer's, to (rows, outer) in another dtype."""
    after = "swish" if layer.silu else "none"
    out: Tensor = torch.ops.onednn.qlinear_pointwise(
        x, scale, zero, layer.packed, layer.scale_O, layer.zero_O, layer.bias_O, 1.0, 0, dtype, after, [], "none"
    )
    return out


class _ByteWeight(nn.Module):
    """A weight (outer, inner) in int8, laid out for oneDNN, with its scales and its bias."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, *, silu: bool, rows: int) -> None:
        super().__init__()
        weight_OI = weight_OI.detach().float()
        self.scale_O = weight_OI.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        self.zero_O = torch.zeros(len(weight_OI), dtype=torch.int32)
        self.bias_O = None if bias_O is None else bias_O.detach().float()
        self.silu = silu
        rounded_OI = (weight_OI / self.scale_O[:, None]).round().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(rounded_OI, [rows, weight_OI.shape[1]])


class ByteProduct(nn.Module):
    """A `fast.Product` of one clip's tokens: what comes is rounded to so many levels, with a scale of its own."""

    def __init__(self, own: Product, rows: int, levels: int) -> None:
        super().__init__()
        self.dtype, self.levels = own.weight.dtype, levels
        self.layer = _ByteWeight(own.weight, own.bias, silu=own.silu, rows=rows)

    def forward(self, x: Tensor) -> Tensor:
        """(*any, inner) of one clip to (*any, outer)."""
        rows = x.reshape(-1, x.shape[-1])
        least, most = (float(end) for end in torch.aminmax(rows))
        least, most = min(least, 0.0), max(most, 0.0)  # else the zero point lies far outside, and sums overflow
        scale = max((most - least) / self.levels, torch.finfo(torch.float32).tiny)
        zero = -round(least / scale)
        # Rounding keeps order, so that the least becomes 0 and the greatest `levels`, or one more.
        places = rows.to(torch.float32, copy=True).mul_(1 / scale).add_(zero - ZERO).round_()
        x8 = places.to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO)
        return _multiply(x8, scale, zero, self.layer, self.dtype).view(*x.shape[:-1], -1)


class BytePatches(nn.Module):
    """`fast.Patches`: pixels are bytes already, and nothing of them is rounded."""

    def __init__(self, own: Patches, rows: int) -> None:
        super().__init__()
        self.dtype = own.weight.dtype
        self.layer = _ByteWeight(own.weight, None, silu=False, rows=rows)

    def forward(self, pixels: Tensor) -> Tensor:
        """As of `fast.Patches`."""
        rows = pixels.reshape(-1, pixels.shape[-1])
        return _multiply(rows, 1.0, GREY, self.layer, self.dtype).view(*pixels.shape[:-1], -1)


class EachClip(nn.Module):
    """A module applied to one clip after the other: each has its own scales, and what is between stays in the cache."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own

    def forward(self, x: Tensor, *given: Any) -> Tensor:
        """(B, *any) to (B, *any)."""
        return torch.stack([self.own(clip, *given) for clip in x])


def rounded(video: FastVideo, levels: int) -> FastVideo:
    """A copy whose frames are multiplied in bytes. It shares the other weights, those of the messages, a token a frame.

    Those of patches are among them where there are FEW_LEVELS: pixels are bytes of 8 bits.
    """
    video = copy.deepcopy(video, {id(tensor): tensor for tensor in (*video.parameters(), *video.buffers())})
    config, visual = video.config, video.visual
    rows = config.frames * (config.patches + 1)
    if levels == LEVELS:
        visual.patches = cast(Patches, BytePatches(visual.patches, rows))
    for block in cast(Iterable[FastBlock], visual.blocks):
        block.ln_1, block.attn.read = _evened(block.ln_1, block.attn.read)
        block.ln_2, block.mlp.widen = _evened(block.ln_2, block.mlp.widen)
        for module in (block.attn, block.mlp):
            for name, product in list(module.named_children()):
                setattr(module, name, ByteProduct(cast(Product, product), rows, levels))
        block.attn = cast(FastAttention, EachClip(block.attn))
        block.mlp = cast(FastMlp, EachClip(block.mlp))
    return video.packed()


def _evened(norm: nn.LayerNorm, product: Product) -> tuple[nn.LayerNorm, Product]:
    """The two, which follow one another, as the same function with fewer outliers between them.

    Where the norm puts out much more than elsewhere, half of that (SmoothQuant, Xiao et al., ICML 2023) goes from its
    weights into the product's (RepQ-ViT, Li et al., ICCV 2023). Sizes are told from weights and not from clips, so that
    no clip changes another's vector. Powers of two change no digit.
    """
    tiny = torch.finfo(torch.float32).tiny
    size_I = (norm.bias.abs() + SPREAD * norm.weight.abs()).float()
    times_I = (size_I / product.weight.abs().amax(dim=0).float().clamp_min(tiny)).clamp(tiny, 1 / tiny)
    outlying_I = (times_I / times_I.median()).log2()
    part_I = torch.exp2((outlying_I / 2).trunc().clamp(0, MOST_EVENED)).to(norm.weight.dtype)
    evened = copy.deepcopy(norm)
    evened.weight, evened.bias = nn.Parameter(norm.weight / part_I), nn.Parameter(norm.bias / part_I)
    return evened, Product(product.weight * part_I, product.bias, silu=product.silu)


class ByteVideo:
    """`FastVideo` in bytes, if the first clips show that they keep near enough to it.

    `cosines` are those between the two, of the clips that it was decided by; `in_bytes` tells what came of them.
    """

    def __init__(self, video: FastVideo, levels: int, *, is_asked: bool) -> None:
        self.levels, self.is_asked = levels, is_asked
        self.cosines: list[float] = []
        self.in_bytes = True
        self._bytes: FastVideo | None = rounded(video, levels)
        self.video = video.packed()  # which lets go of the weights as they were: not before they are rounded
        self._settling = threading.Lock()

    @property
    def closeness(self) -> float | None:
        """The median clip's cosine; None before any is known."""
        return statistics.median(self.cosines) if self.cosines else None

    def __call__(self, frames_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
        """As of `FastVideo`. Raises ModelError, each time, where bytes were asked for and came too far off."""
        self.settle(frames_BTHWC)
        if self.is_asked and not self.in_bytes:
            raise ModelError(
                f"int8 is too coarse for this model: of {len(self.cosines)} of the first clips the median vector is "
                f"at a cosine of {self.closeness:.4f} to its own, expected at least {CLOSE}; use --precision auto"
            )
        return encode(self.video, frames_BTHWC)

    def settle(self, frames_BTHWC: Tensor, each: Callable[..., Iterable[float]] = map) -> None:
        """Decides by some clips, once, which are encoded both ways, one by one; `each` may do several at a time."""
        with self._settling:
            if self._bytes is None:
                return
            ways = (self.video, self._bytes)
            self.cosines = list(each(partial(_cosine, ways), torch.split(frames_BTHWC, 1)))
            median_enough, least_enough = (CLOSE, -1.0) if self.is_asked else (CLOSE_UNASKED, CLOSE)
            self.in_bytes = statistics.median(self.cosines) >= median_enough and min(self.cosines) >= least_enough
            self.video, self._bytes = ways[self.in_bytes], None


def _cosine(ways: tuple[FastVideo, FastVideo], frames_1THWC: Tensor) -> float:
    """Between the vectors of one clip, plain and in bytes; 0 for plain ones of no numbers, which cannot be rounded."""
    plain, in_bytes = ways
    expected_1E, _ = encode(plain, frames_1THWC)
    if not expected_1E.isfinite().all():
        return 0.0
    return F.cosine_similarity(encode(in_bytes, frames_1THWC)[0], expected_1E).item()


def encode(video: FastVideo, frames_BTHWC: Tensor) -> tuple[Tensor, Tensor]:
    """As `video`, clips together, or one by one in float32, whose sums round by how many there are."""
    most = 1 if video.visual.proj.dtype == torch.float32 else len(frames_BTHWC)
    video_BE, context_BNE = zip(*map(video, torch.split(frames_BTHWC, most)), strict=True)
    return torch.cat(video_BE), torch.cat(context_BNE)


def byte_video(model: Encoder, dtype: torch.dtype, *, is_asked: bool = True) -> ByteVideo:
    """The quickest way from uint8 frames to vectors and contexts on a CPU, for a model that it takes over.

    `dtype` is that of what lies between the products, and of these too where bytes are not asked for and come too far
    off. Raises ModelError for other models than X-CLIP's, and where this CPU or this torch multiplies bytes wrongly or
    not at all.
    """
    if not isinstance(model, XClip):
        raise ModelError("int8 is for X-CLIP models, and this is another; use --precision auto")
    return ByteVideo(FastVideo(model, dtype), byte_levels(), is_asked=is_asked)


# --- the machine


def byte_levels() -> int:
    """Steps that what goes into a product may have here, so that sums are exact: LEVELS or FEW_LEVELS.

    Raises ModelError where this CPU or this torch multiplies bytes wrongly or not at all.
    """
    try:
        for levels in (LEVELS, FEW_LEVELS):
            if _is_exact(levels + 1):
                return levels
    except (AttributeError, RuntimeError) as error:
        raise ModelError("this torch cannot multiply bytes on this CPU; use --precision auto") from error
    raise ModelError("products of bytes overflow on this CPU, even of 7 bits by 8; use --precision auto")


def _is_exact(most: int) -> bool:
    """Whether sums of products are right where what goes in is `most` at most, by the greatest there are."""
    weight_OI = torch.full((16, 64), 127.0)
    weight_OI[1::2] = -127.0
    weight_OI[2::4, ::2] = -127.0
    layer = _ByteWeight(weight_OI, None, silu=False, rows=8)
    x = torch.full((8, 64), most, dtype=torch.uint8)
    return torch.equal(_multiply(x, 1.0, 0, layer, torch.float32), x.float() @ weight_OI.T)


def pays(config: ModelConfig, dtype: torch.dtype) -> bool:
    """Whether a model is worth trying in bytes on this CPU, where it would else be encoded in `dtype`."""
    return isinstance(config, XClipConfig) and config.vision_width >= WIDE and gain(dtype) > WORTH_IT


@torch.inference_mode()
def gain(dtype: torch.dtype) -> float:
    """How many times as fast as in `dtype` one thread does a product of a layer's size in bytes; 0 where it cannot.

    Rounding what goes in is part of it. Takes 70 ms with AVX2.
    """
    try:
        own = Product(torch.ones(WIDTH, WIDTH, dtype=dtype), torch.ones(WIDTH, dtype=dtype))
        in_bytes = ByteProduct(own, ROWS, byte_levels())
    except ModelError:
        return 0.0
    x = torch.ones(ROWS, WIDTH, dtype=dtype)
    # In turn: with decoders on the same cores times grow by a half now and then, but for both.
    with one_thread():
        return statistics.median(_ratio(partial(own, x), partial(in_bytes, x)) for _ in range(TRIES))


def _ratio(one: Callable[[], object], other: Callable[[], object]) -> float:
    return took_s(one) / max(took_s(other), 1e-9)
