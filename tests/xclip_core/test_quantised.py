"""Frames multiplied in bytes: nearly the model, the same whoever shares the pass, and refused where it would not do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from schemas.errors import ModelError, ShapeError
from tests.models import WORDED, random_frames
from xclip_core import XClip, encode_video_with_context, load, quantised
from xclip_core.fast import Patches, Product, fast_video, faster_dtype
from xclip_core.quantised import FEW_LEVELS, LEVELS, BytePatches, ByteProduct, ByteVideo, byte_levels, byte_video

FRAMES = random_frames(WORDED, clips=7)
TOO_COARSE = r"int8 is too coarse for this model: of 7 of the first clips .* at least 0.995"


def _refusal() -> str | None:
    try:
        byte_levels()
    except ModelError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(_refusal() is not None, reason=f"{_refusal()}")


@pytest.fixture(params=list(product((torch.float32, torch.bfloat16), (LEVELS, FEW_LEVELS))), ids=str)
def made(request, tiny_weights, monkeypatch) -> Callable[..., ByteVideo]:
    """Makes encoders of one kind, of the tiny model or another: what lies between products, and how many levels."""
    dtype, levels = request.param
    if levels > byte_levels():
        pytest.skip("sums of so many levels overflow on this CPU")
    if dtype not in (torch.float32, faster_dtype("cpu")):
        pytest.skip("without instructions for bfloat16 seven clips take a minute")
    monkeypatch.setattr(quantised, "byte_levels", lambda: levels)
    return lambda model=None: byte_video(model or load(tiny_weights), dtype)


@pytest.fixture
def encoder(made) -> ByteVideo:
    return made()


def test_it_is_nearly_the_model(encoder, tiny_weights) -> None:
    video_BE, context_BNE = encode_video_with_context(load(tiny_weights, dtype=torch.float64), FRAMES)
    got_BE, got_BNE = encoder(FRAMES)
    assert got_BE.dtype == got_BNE.dtype == torch.float32
    assert F.cosine_similarity(got_BE, video_BE).min() > 0.999
    assert F.cosine_similarity(got_BNE.flatten(1), context_BNE.flatten(1)).min() > 0.995
    assert 0.999 < encoder.closeness < 1, "it says how near it came, and bytes were really used"


@pytest.mark.parametrize("order", [[0], [6], [1, 1, 1, 2, 0], [3, 0, 5, 4, 1, 2, 6]])
def test_neighbours_change_no_bit(order, encoder) -> None:
    together, apart = encoder(FRAMES), encoder(FRAMES[order])
    for one, other in zip(apart, together, strict=True):
        assert torch.equal(one, other[order])


def test_which_clips_came_first_changes_no_bit(made) -> None:
    one, other = made(), made()
    one(FRAMES[:2])
    assert torch.equal(one(FRAMES)[0], other(FRAMES)[0])


def test_frames_of_one_grey_have_vectors(encoder, tiny_weights) -> None:
    frames = torch.stack([torch.full_like(FRAMES[0], level) for level in (0, 128, 255)])
    video_BE, _ = encode_video_with_context(load(tiny_weights), frames)
    got_BE, _ = encoder(frames)
    assert F.cosine_similarity(got_BE, video_BE).min() > 0.995


def test_nothing_that_is_multiplied_has_more_levels_than_leave_sums_exact(encoder, monkeypatch) -> None:
    most, multiply = [], quantised._multiply

    def watched(x, *given):
        most.append(x.max().item())
        return multiply(x, *given)

    monkeypatch.setattr(quantised, "_multiply", watched)
    encoder(FRAMES)
    assert encoder.levels <= max(most) <= encoder.levels + 1
    assert isinstance(encoder.video.visual.patches, BytePatches if encoder.levels == LEVELS else Patches)


def test_frames_of_another_shape_are_refused(encoder) -> None:
    with pytest.raises(ShapeError, match="this model takes uint8 RGB"):
        encoder(FRAMES[:, 1:])


def drowned(weights: Path) -> XClip:
    """A model with an activation that drowns all others and that no norm puts out."""
    model = load(weights)
    for block in model.visual.transformer.resblocks:
        block.mlp.c_fc.bias.data[0] = 1e5
        block.mlp.c_proj.weight.data[:, 0] = 1e-9
    return model


def test_a_model_that_bytes_are_too_coarse_for_is_refused(tiny_weights) -> None:
    encoder = byte_video(drowned(tiny_weights), faster_dtype("cpu"))
    for _ in range(2):  # another thread may have waited for the first
        with pytest.raises(ModelError, match=TOO_COARSE):
            encoder(FRAMES)
    assert not encoder.in_bytes


def test_where_nobody_asked_it_is_encoded_as_it_would_have_been(tiny_weights) -> None:
    dtype = faster_dtype("cpu")
    encoder = byte_video(drowned(tiny_weights), dtype, is_asked=False)
    plain = fast_video(drowned(tiny_weights), dtype)
    got, expected = encoder(FRAMES[:1]), plain(FRAMES[:1])
    assert not encoder.in_bytes
    assert encoder.closeness < quantised.CLOSE_UNASKED
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


@pytest.mark.parametrize(
    ("cosines", "asked", "unasked"),
    [
        ((0.9949, 0.9949, 0.9949), False, False),
        ((0.9951, 0.9951, 0.9951), True, False),
        ((0.9949, 0.9991, 0.9999), True, False),
        ((0.9951, 0.9991, 0.9999), True, True),
    ],
)
def test_bytes_that_nobody_asked_for_must_come_nearer(cosines, asked, unasked, tiny_weights, monkeypatch) -> None:
    for is_asked, in_bytes in ((True, asked), (False, unasked)):
        found = iter(cosines)
        monkeypatch.setattr(quantised, "_cosine", lambda ways, clip, found=found: next(found))
        encoder = byte_video(load(tiny_weights), torch.float32, is_asked=is_asked)
        encoder.settle(FRAMES[:3])
        assert encoder.in_bytes is in_bytes


def test_a_model_of_numbers_that_are_none_is_encoded_as_it_would_have_been(tiny_weights) -> None:
    model = load(tiny_weights)
    model.visual.transformer.resblocks[0].mlp.c_fc.bias.data[0] = float("inf")
    encoder = byte_video(model, torch.float32, is_asked=False)
    encoder(FRAMES[:1])
    assert (encoder.in_bytes, encoder.closeness) == (False, 0.0)


def outlying(weights: Path, times: float) -> XClip:
    """The model with a place that its norms put out so many times as large; the product after them makes up for it."""
    model = load(weights)
    for block in model.visual.transformer.resblocks:
        for norm, weight in ((block.ln_1, block.attn.in_proj_weight), (block.ln_2, block.mlp.c_fc.weight)):
            norm.weight.data[3] *= times
            norm.bias.data[3] *= times
            weight.data[:, 3] /= times
    return model


@pytest.mark.parametrize("times", [64.0, 1e5])
def test_a_place_that_norms_put_out_large_costs_others_no_digits(times, made, tiny_weights, monkeypatch) -> None:
    plain, large = made(), made(outlying(tiny_weights, times))
    monkeypatch.setattr(quantised, "_evened", lambda *layers: layers)
    uneven = made(outlying(tiny_weights, times))
    with suppress(ModelError):
        uneven(FRAMES)
    assert uneven.closeness < 0.995, "or this would show nothing"
    found_BE, expected_BE = large(FRAMES)[0], plain(FRAMES)[0]
    assert large.closeness > 0.999
    assert F.cosine_similarity(found_BE, expected_BE).min() > 0.999


def test_layers_that_are_evened_are_the_same_function() -> None:
    norm, after = nn.LayerNorm(16), Product(torch.ones(4, 16), torch.ones(4))
    norm.weight.data[0], after.weight.data[:, 0] = 64.0, 1 / 64
    even, taken = quantised._evened(norm, after)
    assert torch.equal(even.weight, torch.ones(16))
    assert torch.equal(taken.weight, torch.ones(4, 16))
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(7))
    assert torch.allclose(taken(even(x)), after(norm(x)), atol=1e-4)


def test_a_norm_that_puts_out_nothing_is_left_as_it_is() -> None:
    norm, after = nn.LayerNorm(16), Product(torch.zeros(4, 16), torch.zeros(4))
    for weight in (0.0, 100.0):  # or after which nothing is left
        nn.init.constant_(norm.weight, weight)
        even, taken = quantised._evened(norm, after)
        assert torch.equal(even.weight, norm.weight)
        assert torch.equal(taken.weight, after.weight)


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(ModelError, match="int8 is for X-CLIP models"):
        byte_video(object(), torch.bfloat16)


# --- one product


def product_of(weight: torch.Tensor, bias: torch.Tensor, *, silu: bool = False) -> ByteProduct:
    return ByteProduct(Product(weight, bias, silu=silu), rows=4, levels=FEW_LEVELS)


# Least and greatest are nothing or so large that a 126th of them is a number of full precision.
@given(seed=st.integers(0, 2**32 - 1), low=st.integers(-1000, 1000), span=st.just(0.0) | st.floats(1e-6, 1e3))
def test_what_comes_is_off_by_half_a_step_at_most(seed: int, low: int, span: float) -> None:
    # The weight is the identity, which bytes hold exactly, so that what comes out is what went in, rounded.
    x = torch.from_numpy(np.random.default_rng(seed).uniform(low, low + span, (5, 16))).float()
    step, kept = (max(x.max().item(), 0) - min(x.min().item(), 0)) / FEW_LEVELS, x.clone()
    out = product_of(torch.eye(16), torch.zeros(16))(x)
    assert torch.equal(x, kept), "what is given is left as it was"
    assert (out - x).abs().max() <= 0.5 * step * (1 + 1e-3) + 1e-5 * max(abs(low), span)


def test_a_product_has_its_bias_and_silu() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, bias, x = (torch.randn(shape, generator=generator) for shape in ((24, 32), (24,), (3, 5, 32)))
    for silu, after in ((False, lambda y: y), (True, F.silu)):
        expected = after(F.linear(x, weight, bias))
        assert (product_of(weight, bias, silu=silu)(x) - expected).norm() < 0.02 * expected.norm()


def test_pixels_are_not_rounded() -> None:
    if byte_levels() < LEVELS:
        pytest.skip("pixels are multiplied as floats on this CPU")
    weight = torch.randint(-127, 128, (8, 48), generator=torch.Generator().manual_seed(2)).float()
    weight[:, 0] = 127.0  # so that the scale of each output is one
    pixels = torch.randint(0, 256, (2, 3, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    patches = Patches(weight)
    assert torch.equal(BytePatches(patches, rows=3)(pixels), patches(pixels))


# --- the machine


@pytest.mark.parametrize(("exact_up_to", "levels"), [(255, LEVELS), (254, FEW_LEVELS), (127, FEW_LEVELS)])
def test_levels_are_as_many_as_leave_sums_exact(exact_up_to, levels, monkeypatch) -> None:
    monkeypatch.setattr(quantised, "_is_exact", lambda most: most <= exact_up_to)
    assert byte_levels() == levels


def test_a_cpu_whose_sums_overflow_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(quantised, "_is_exact", lambda most: False)
    with pytest.raises(ModelError, match="even of 7 bits by 8; use --precision auto"):
        byte_levels()


def test_sums_that_overflow_16_bits_are_found_out(monkeypatch) -> None:
    def multiply(x, scale, zero, layer, dtype):
        # As without VNNI: two products at a time in 16 bits, which hold on to their ends.
        pairs = x.to(torch.int32).unsqueeze(1) * weight_OI.unsqueeze(0)
        return pairs.unflatten(-1, (-1, 2)).sum(-1).clamp(-(2**15), 2**15 - 1).sum(-1).to(dtype)

    weight_OI = torch.empty(0)

    def keep(rounded_OI, shape):
        nonlocal weight_OI
        weight_OI = rounded_OI.to(torch.int32)

    monkeypatch.setattr(torch.ops.onednn, "qlinear_prepack", keep)
    monkeypatch.setattr(quantised, "_multiply", multiply)
    assert byte_levels() == FEW_LEVELS


@pytest.mark.parametrize("error", [AttributeError("gone"), RuntimeError("not built")])
def test_a_torch_without_such_products_is_refused(error, monkeypatch) -> None:
    def multiply(*_):
        raise error

    monkeypatch.setattr(quantised, "_multiply", multiply)
    with pytest.raises(ModelError, match="this torch cannot multiply bytes"):
        byte_levels()


WIDE = replace(WORDED, vision_width=quantised.WIDE)


@pytest.mark.parametrize(
    ("config", "gain", "expected"),
    [(WIDE, 1.2, True), (WIDE, 1.1, False), (replace(WIDE, vision_width=448), 9.0, False), (object(), 9.0, False)],
    ids=["wide", "no faster", "narrow", "another kind"],
)
def test_wide_models_are_worth_trying_where_bytes_are_faster(config, gain, expected, monkeypatch) -> None:
    monkeypatch.setattr(quantised, "gain", lambda dtype: gain)
    assert quantised.pays(config, torch.float32) is expected


def test_a_gain_is_the_median_of_pairs(monkeypatch) -> None:
    # The fourth pair is slower in bytes, and the last two were held up.
    times = iter([3.0, 1.0] * 3 + [1.0, 2.0] + [8.0, 2.0] + [9.0, 0.0])
    monkeypatch.setattr(quantised, "TRIES", 6)
    monkeypatch.setattr(quantised, "took_s", lambda work: (work(), next(times))[1])
    assert quantised.gain(torch.float32) == 3.0


def test_a_cpu_that_multiplies_no_bytes_is_not_tried(monkeypatch) -> None:
    monkeypatch.setattr(quantised, "_is_exact", lambda most: False)
    assert quantised.gain(torch.float32) == 0
    assert not quantised.pays(WIDE, torch.float32)
