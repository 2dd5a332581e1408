"""What is between a GPU's products: each kernel is torch's own functions; on a CPU by Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("triton", reason="torch brings Triton on Linux alone")

from xclip_core import kernels, load
from xclip_core.fast import GREY, FastVideo
from xclip_core.fused import FusedVideo

WIDTHS = (96, 128)  # not a power of two, and one
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def norm_of(width: int) -> nn.LayerNorm:
    """A layer norm with weights."""
    norm = nn.LayerNorm(width).to(DEVICE).requires_grad_(requires_grad=False)
    norm.weight.copy_(random(width, seed=7))
    norm.bias.copy_(random(width, seed=8))
    return norm


def close(found: Tensor, expected: Tensor) -> bool:
    """To what sums in another order differ by."""
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("patch_size", [14, 16, 32])
def test_patches_are_cut_as_rows_of_pixels(patch_size: int) -> None:
    side = 3
    frames_FHWC = torch.randint(0, 256, (2, side * patch_size, side * patch_size, 3), dtype=torch.uint8).to(DEVICE)
    found = kernels.cut(frames_FHWC, patch_size, GREY, torch.float32)
    for number in range(side * side):
        top, left = (patch_size * x for x in divmod(number, side))
        patch = frames_FHWC[:, top : top + patch_size, left : left + patch_size].flatten(1).float() - GREY
        assert torch.equal(found[:, number], patch)


@pytest.mark.parametrize("width", WIDTHS)
def test_tokens_begin_with_the_class_and_places(width: int) -> None:
    patch_FND, place_ND, class_D, norm = random(3, 5, width), random(5, width, seed=1), random(width), norm_of(width)
    expected = norm(torch.cat([class_D.expand(3, 1, -1), patch_FND + place_ND], dim=1))
    assert close(kernels.begin(patch_FND, place_ND, class_D, norm), expected)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_norm_adds_the_bias_and_leaves_room(width: int) -> None:
    x_FLD, bias_D, norm = random(3, 5, width), random(width, seed=2), norm_of(width)
    before = x_FLD.clone()
    out = torch.zeros(3, 7, width, device=DEVICE)
    kernels.norm_into(out, x_FLD, bias_D, norm, first=1)
    assert close(out[:, 1:6], norm(before + bias_D))
    assert not out[:, 0].any()
    assert not out[:, 6].any()
    assert torch.equal(x_FLD, before)


@pytest.mark.parametrize("width", WIDTHS)
def test_means_of_norms_are_of_a_clips_frames_and_leave_out_the_class(width: int) -> None:
    x_FLD, bias_D, norm = random(6, 4, width), random(width, seed=3), norm_of(width)
    expected = norm(x_FLD + bias_D).unflatten(0, (2, 3))[:, :, 1:].mean(dim=1)
    assert close(kernels.mean_norm(x_FLD, bias_D, norm, 3), expected)


@pytest.mark.parametrize(("tokens", "queries"), [(8, 8), (51, 50), (64, 64), (17, 1)])
def test_attention_of_one_tile(tokens: int, queries: int) -> None:
    qkv_FMX = random(3, tokens, 3 * 128)
    q, k, v = (torch.unflatten(x, -1, (-1, 64)).transpose(1, 2) for x in qkv_FMX.chunk(3, dim=-1))
    expected = F.scaled_dot_product_attention(q[:, :, :queries], k, v).transpose(1, 2).flatten(-2)
    assert torch.allclose(kernels.attend(qkv_FMX, queries), expected, rtol=5e-3, atol=5e-3)  # tensor cores round


@pytest.mark.parametrize("rows", [1, 128, 130, 1200])
def test_silu_belongs_to_its_product(rows: int) -> None:
    x, weight, bias = random(rows, 128), random(512, 128, seed=4) * 0.1, random(512, seed=5)
    x, weight, bias = (tensor.bfloat16() if DEVICE == "cuda" else tensor for tensor in (x, weight, bias))
    expected = F.silu(F.linear(x.float(), weight.float(), bias.float()))
    found = kernels.linear_silu(x, weight, bias).float()
    assert torch.allclose(found, expected, rtol=1e-2 if DEVICE == "cuda" else 1e-4, atol=1e-2)


def test_products_of_other_widths_are_left_to_torch() -> None:
    assert kernels.suits_silu(random(512, 128))
    assert not kernels.suits_silu(random(500, 128))
    assert not kernels.suits_silu(random(512, 100))


@pytest.mark.skipif(DEVICE == "cuda", reason="in bfloat16 there: see test_fast")
def test_the_whole_is_the_model() -> None:
    frames_BTHWC = torch.randint(0, 256, (2, 8, 64, 64, 3), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    expected = FastVideo(load("footage-tiny"), torch.float32)(frames_BTHWC)
    found = FusedVideo(FastVideo(load("footage-tiny"), torch.float32))(frames_BTHWC)
    for one, other in zip(found, expected, strict=True):
        assert close(one, other)
