"""Triton kernels for what lies between the matrix products of the video tower on a GPU.

In half precision products run near a GPU's peak, and what torch does between them takes as long again: each of its
kernels reads and writes all tokens. Here each thing is read and written once. Patches are cut from uint8 frames as the
first product wants them; a layer norm takes along all biases before it and leaves room for a message; attention over
the few tokens of a frame is one tile; SiLU belongs to its product; contexts are means of norms that nobody writes down.

Sums are in float32 whatever the dtype. Every function takes contiguous tensors of one device, and is tested against
torch's own; without a GPU by Triton's interpreter (`TRITON_INTERPRET=1` before this module is imported).
"""

# B clips, T frames of a clip, F frames, S pixels, P pixels of a patch, N patches, L = N + 1 tokens, D width,
# M tokens that are read, Q of them that read, X = 3 D, I inner and O outer width of a product

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from xclip_core.config import HEAD_WIDTH

# Tokens that one program normalises, and its warps; of 1 to 16 and 1 to 8 the fastest on an H200, within 4 % of a copy.
ROWS, WARPS = 4, 2
LINES = 8  # of a picture that one program cuts
LEAST_TILE = 16  # rows of a product: fewer, tensor cores do not take
MOST_TOKENS = 64  # of attention in one tile
HOPPER = 9  # compute capability
LOG2_E = 1.4426950408889634
# Tiles of a product with SiLU: 0.447 ms for 51,200 x 768 by 768 x 3072, where cuBLAS took 0.42 for the product alone.
# With the product that follows, 0.833; groups of 4 and 8: 0.837 and 0.855, halves of a tile stored one after the other
# 0.843, two tiles at a time of half the size 0.841 to 0.963, warps that only load 0.844 to 0.883. All on one H200.
TILE_ROWS, TILE_COLUMNS, TILE_DEPTH, TILE_GROUP = 128, 256, 64, 16


@triton.jit
def _normed(x, weight_ptr, shift_ptr, d, is_d, width, eps):
    """Layer norm of rows x (rows, block)."""
    mean = tl.sum(x, axis=1) / width
    centred = tl.where(is_d[None, :], x - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=1) / width + eps)
    weight = tl.load(weight_ptr + d, mask=is_d, other=0.0).to(tl.float32)
    shift = tl.load(shift_ptr + d, mask=is_d, other=0.0).to(tl.float32)
    return centred * scale[:, None] * weight[None, :] + shift[None, :]


# --- patches


@triton.jit
def _cut_kernel(frames_ptr, out_ptr, lines, side, grey, P: tl.constexpr, LINES: tl.constexpr, BLOCK: tl.constexpr):
    line = tl.program_id(0) * LINES + tl.arange(0, LINES)  # of all frames
    at = tl.arange(0, BLOCK)  # byte of the line
    size = side * P
    mask = (line < lines)[:, None] & (at < 3 * size)[None, :]
    pixels = tl.load(frames_ptr + line.to(tl.int64)[:, None] * 3 * size + at[None, :], mask=mask, other=0)
    row, inside = line // P, line % P  # of patches, of all frames; of the patch
    patch = row.to(tl.int64)[:, None] * side + (at // (3 * P))[None, :]
    to = patch * (3 * P * P) + inside[:, None] * (3 * P) + (at % (3 * P))[None, :]
    tl.store(out_ptr + to, (pixels.to(tl.float32) - grey).to(out_ptr.dtype.element_ty), mask=mask)


def cut(frames_FHWC: Tensor, patch_size: int, grey: int, dtype: torch.dtype) -> Tensor:
    """Patches of uint8 frames F x S x S x 3, less a grey level: F x N x 3PP, rows of pixels in their order."""
    F, S = frames_FHWC.shape[:2]
    side = S // patch_size
    out = frames_FHWC.new_empty(F, side * side, 3 * patch_size**2, dtype=dtype)
    lines = F * S
    _cut_kernel[(triton.cdiv(lines, LINES),)](
        frames_FHWC, out, lines, side, grey, P=patch_size, LINES=LINES, BLOCK=triton.next_power_of_2(3 * S)
    )
    return out


@triton.jit
def _begin_kernel(
    patch_ptr, place_ptr, class_ptr, weight_ptr, shift_ptr, out_ptr, rows, L, width, eps,
    BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    frame, token = row // L, row % L
    d = tl.arange(0, BLOCK)
    is_d = d < width
    mask = ((row < rows) & (token > 0))[:, None] & is_d[None, :]
    patch = (frame * (L - 1) + token - 1).to(tl.int64)
    x = tl.load(patch_ptr + patch[:, None] * width + d[None, :], mask=mask, other=0.0).to(tl.float32)
    x += tl.load(place_ptr + (token - 1)[:, None] * width + d[None, :], mask=mask, other=0.0).to(tl.float32)
    first = tl.load(class_ptr + d, mask=is_d, other=0.0).to(tl.float32)
    x = tl.where((token == 0)[:, None], first[None, :], x)
    y = _normed(x, weight_ptr, shift_ptr, d, is_d, width, eps)
    to = out_ptr + row.to(tl.int64)[:, None] * width + d[None, :]
    tl.store(to, y.to(out_ptr.dtype.element_ty), mask=(row < rows)[:, None] & is_d[None, :])


def begin(patch_FND: Tensor, place_ND: Tensor, class_D: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    """The class token and, in their places, the patches of each frame, normalised: F x L x D."""
    F, N, D = patch_FND.shape
    out = patch_FND.new_empty(F, N + 1, D)
    rows = F * (N + 1)
    _begin_kernel[(triton.cdiv(rows, ROWS),)](
        patch_FND, place_ND, class_D, norm.weight, norm.bias, out, rows, N + 1, D, norm.eps,
        BLOCK=triton.next_power_of_2(D), ROWS=ROWS,
    )  # fmt: skip
    return out


# --- norms


@triton.jit
def _norm_kernel(
    x_ptr, bias_ptr, weight_ptr, shift_ptr, out_ptr, rows, L, M, first, width, eps,
    BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK)
    is_d = d < width
    mask = (row < rows)[:, None] & is_d[None, :]
    at = row.to(tl.int64)[:, None] * width + d[None, :]
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + d, mask=is_d, other=0.0).to(tl.float32)
    y = _normed(x + bias[None, :], weight_ptr, shift_ptr, d, is_d, width, eps)
    to = (row // L * M + first + row % L).to(tl.int64)[:, None] * width + d[None, :]
    tl.store(out_ptr + to, y.to(out_ptr.dtype.element_ty), mask=mask)


def norm_into(out_FMD: Tensor, x_FLD: Tensor, bias_D: Tensor, norm: torch.nn.LayerNorm, *, first: int = 0) -> Tensor:
    """Writes the layer norm of tokens F x L x D, a bias added first, to `out` from token `first`."""
    F, L, D = x_FLD.shape
    rows = F * L
    _norm_kernel[(triton.cdiv(rows, ROWS),)](
        x_FLD, bias_D, norm.weight, norm.bias, out_FMD, rows, L, out_FMD.shape[1], first, D, norm.eps,
        BLOCK=triton.next_power_of_2(D), ROWS=ROWS, num_warps=WARPS,
    )  # fmt: skip
    return out_FMD


@triton.jit
def _mean_kernel(x_ptr, bias_ptr, weight_ptr, shift_ptr, out_ptr, T, L, width, eps, BLOCK: tl.constexpr):
    clip, patch = tl.program_id(0).to(tl.int64), tl.program_id(1)
    d = tl.arange(0, BLOCK)
    is_d = d < width
    bias = tl.load(bias_ptr + d, mask=is_d, other=0.0).to(tl.float32)
    total = tl.zeros((1, BLOCK), dtype=tl.float32)
    for t in range(T):
        at = ((clip * T + t) * L + 1 + patch) * width
        x = tl.load(x_ptr + at + d, mask=is_d, other=0.0).to(tl.float32) + bias
        total += _normed(x[None, :], weight_ptr, shift_ptr, d, is_d, width, eps)
    to = out_ptr + (clip * (L - 1) + patch) * width + d
    tl.store(to[None, :], total / T, mask=is_d[None, :])


def mean_norm(x_FLD: Tensor, bias_D: Tensor, norm: torch.nn.LayerNorm, frames: int) -> Tensor:
    """The mean over a clip's frames of normalised patch tokens, a bias added first: B x N x D, float32."""
    F, L, D = x_FLD.shape
    out = x_FLD.new_empty(F // frames, L - 1, D, dtype=torch.float32)
    _mean_kernel[(F // frames, L - 1)](
        x_FLD, bias_D, norm.weight, norm.bias, out, frames, L, D, norm.eps, BLOCK=triton.next_power_of_2(D)
    )
    return out


# --- attention


@triton.jit
def _attend_kernel(qkv_ptr, out_ptr, Q, M, width, scale, BLOCK: tl.constexpr, HEAD: tl.constexpr):
    frame, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token, h = tl.arange(0, BLOCK), tl.arange(0, HEAD)
    at = qkv_ptr + (frame * M + token)[:, None] * 3 * width + head * HEAD + h[None, :]
    q = tl.load(at, mask=(token < Q)[:, None], other=0.0)
    k = tl.load(at + width, mask=(token < M)[:, None], other=0.0)
    v = tl.load(at + 2 * width, mask=(token < M)[:, None], other=0.0)
    scores = tl.where((token < M)[None, :], tl.dot(q, tl.trans(k)) * scale, -float("inf"))
    shares = tl.exp2(scores - tl.max(scores, axis=1)[:, None])
    mixed = tl.dot(shares.to(v.dtype), v) / tl.sum(shares, axis=1)[:, None]
    to = out_ptr + (frame * Q + token)[:, None] * width + head * HEAD + h[None, :]
    tl.store(to, mixed.to(out_ptr.dtype.element_ty), mask=(token < Q)[:, None])


def attend(qkv_FMX: Tensor, queries: int) -> Tensor:
    """What the first of at most MOST_TOKENS tokens read from all of them: F x Q x D of q, k and v side by side."""
    F, M, X = qkv_FMX.shape
    out = qkv_FMX.new_empty(F, queries, X // 3)
    _attend_kernel[(F, X // 3 // HEAD_WIDTH)](
        qkv_FMX, out, queries, M, X // 3, LOG2_E * HEAD_WIDTH**-0.5,
        BLOCK=max(LEAST_TILE, triton.next_power_of_2(M)), HEAD=HEAD_WIDTH,
    )  # fmt: skip
    return out


# --- a product with SiLU


@triton.jit
def _silu(x, IS_TANH: tl.constexpr):
    """SiLU of float32, `IS_TANH` by a GPU's own tanh: rounded to bfloat16, neither is nearer to the exact one.

    A sigmoid is an exponential and a quotient, both of the unit that has few lanes: 0.526 ms for what takes 0.447 so.
    """
    if IS_TANH:
        half = 0.5 * x
        tanh = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [half], tl.float32, is_pure=True, pack=1)
        return half * tanh + half
    return x * tl.sigmoid(x)


@triton.jit
def _silu_kernel(
    x_desc, weight_desc, bias_ptr, out_desc, rows, outer, inner, PROGRAMS: tl.constexpr, IS_TANH: tl.constexpr,
    TILE_ROWS: tl.constexpr, TILE_COLUMNS: tl.constexpr, TILE_DEPTH: tl.constexpr, TILE_GROUP: tl.constexpr,
):  # fmt: skip
    down, across = tl.cdiv(rows, TILE_ROWS), tl.cdiv(outer, TILE_COLUMNS)
    steps = tl.cdiv(inner, TILE_DEPTH)
    # Tiles of a few rows of tiles follow one another, column by column: what they read stays in the L2 cache.
    for tile in tl.range(tl.program_id(0), down * across, PROGRAMS, flatten=True):
        group = tile // (TILE_GROUP * across) * TILE_GROUP
        height = min(down - group, TILE_GROUP)
        row = (group + tile % (TILE_GROUP * across) % height) * TILE_ROWS
        column = tile % (TILE_GROUP * across) // height * TILE_COLUMNS
        total = tl.zeros((TILE_ROWS, TILE_COLUMNS), dtype=tl.float32)
        for step in range(steps):
            x = x_desc.load([row, step * TILE_DEPTH])
            weight = weight_desc.load([column, step * TILE_DEPTH])
            total = tl.dot(x, weight.T, total)
        total += tl.load(bias_ptr + column + tl.arange(0, TILE_COLUMNS))[None, :].to(tl.float32)
        out_desc.store([row, column], _silu(total, IS_TANH).to(out_desc.dtype))


def suits_silu(weight_OI: Tensor) -> bool:
    """Whether `linear_silu` takes this weight: tiles are whole, and the device loads tiles by itself (Hopper, TMA)."""
    outer, inner = weight_OI.shape
    is_tiled = outer % TILE_COLUMNS == 0 and inner % TILE_DEPTH == 0
    return is_tiled and (not weight_OI.is_cuda or torch.cuda.get_device_capability(weight_OI.device)[0] >= HOPPER)


def linear_silu(x_RI: Tensor, weight_OI: Tensor, bias_O: Tensor) -> Tensor:
    """SiLU of a product with a bias: rows R x I to R x O."""
    rows, inner = x_RI.shape
    outer = len(weight_OI)
    out = x_RI.new_empty(rows, outer)
    tiles = triton.cdiv(rows, TILE_ROWS) * (outer // TILE_COLUMNS)
    programs = min(tiles, _multiprocessors(x_RI.device))
    described = TensorDescriptor.from_tensor
    _silu_kernel[(programs,)](
        described(x_RI, [TILE_ROWS, TILE_DEPTH]), described(weight_OI, [TILE_COLUMNS, TILE_DEPTH]), bias_O,
        described(out, [TILE_ROWS, TILE_COLUMNS]), rows, outer, inner, PROGRAMS=programs, IS_TANH=x_RI.is_cuda,
        TILE_ROWS=TILE_ROWS, TILE_COLUMNS=TILE_COLUMNS, TILE_DEPTH=TILE_DEPTH, TILE_GROUP=TILE_GROUP,
        num_stages=3, num_warps=8,
    )  # fmt: skip
    return out


def _multiprocessors(device: torch.device) -> int:
    """Programs that run at a time, one on each."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
