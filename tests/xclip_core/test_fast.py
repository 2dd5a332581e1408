"""The video side laid out for speed: the same function, and no clip depends on its neighbours by a bit."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from schemas.errors import ShapeError
from tests.models import WORDED, random_frames
from xclip_core import cost, encode_video_with_context, fast, load
from xclip_core.fast import FastVideo, fast_video, faster_dtype

DTYPES = [torch.float32, torch.bfloat16]
FRAMES = random_frames(WORDED, clips=7)


@pytest.fixture(scope="module")
def expected(tiny_weights) -> tuple[torch.Tensor, torch.Tensor]:
    return encode_video_with_context(load(tiny_weights, dtype=torch.float64), FRAMES)


def cosines(got: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return F.cosine_similarity(got.flatten(1), expected.flatten(1))


@pytest.mark.parametrize("short_tokens", [0, 64], ids=["fused attention", "two products"])
def test_in_float32_it_is_the_model(short_tokens, tiny_weights, expected, monkeypatch) -> None:
    monkeypatch.setattr(fast, "SHORT_TOKENS", short_tokens)
    video_BE, context_BNE = FastVideo(load(tiny_weights), torch.float32)(FRAMES)
    torch.testing.assert_close(video_BE, expected[0], atol=2e-6, rtol=0)
    torch.testing.assert_close(context_BNE, expected[1], atol=2e-5, rtol=0)


def test_in_bfloat16_it_is_nearly_the_model(tiny_weights, expected) -> None:
    video_BE, context_BNE = FastVideo(load(tiny_weights), torch.bfloat16).packed()(FRAMES)
    assert video_BE.dtype == context_BNE.dtype == torch.float32
    assert cosines(video_BE, expected[0]).min() > 0.9995
    assert cosines(context_BNE, expected[1]).min() > 0.9995


def test_dark_and_bright_frames_keep_their_digits_in_bfloat16(tiny_weights) -> None:
    # Frames of one grey level each: what the folded mean must take away is as large as it gets.
    frames = torch.stack([torch.full_like(FRAMES[0], level) for level in (0, 16, 127, 235, 255)])
    video_BE, _ = encode_video_with_context(load(tiny_weights), frames)
    got_BE, _ = FastVideo(load(tiny_weights), torch.bfloat16).packed()(frames)
    assert cosines(got_BE, video_BE).min() > 0.9995


@pytest.mark.parametrize("order", [[0], [6], [6, 0], [1, 1, 1, 2, 0], [3, 0, 5, 4, 1, 2, 6]])
def test_in_bfloat16_neighbours_change_no_bit_of_a_vector(order, tiny_weights) -> None:
    encoder = FastVideo(load(tiny_weights), torch.bfloat16).packed()
    together, apart = encoder(FRAMES), encoder(FRAMES[order])
    for one, other in zip(apart, together, strict=True):
        assert torch.equal(one, other[order])


def test_weights_laid_out_beforehand_change_next_to_nothing(tiny_weights, monkeypatch) -> None:
    usual = FastVideo(load(tiny_weights), torch.bfloat16).packed()(FRAMES)
    monkeypatch.setattr(fast, "packs", lambda *_: False)
    for one, other in zip(usual, FastVideo(load(tiny_weights), torch.bfloat16).packed()(FRAMES), strict=True):
        assert cosines(one, other).min() > 0.9995


@pytest.mark.parametrize("error", [AttributeError("gone"), RuntimeError("other arguments")])
def test_a_torch_that_cannot_lay_out_weights_does_without(error, tiny_weights, expected, monkeypatch) -> None:
    def pack(*_):
        raise error

    monkeypatch.setattr(fast.Product, "pack", pack)
    video_BE, _ = FastVideo(load(tiny_weights), torch.bfloat16).packed()(FRAMES)
    assert cosines(video_BE, expected[0]).min() > 0.9995


def test_no_layer_gives_out_more_numbers_than_its_cost_says(tiny_weights) -> None:
    encoder, sizes = FastVideo(load(tiny_weights), torch.float32), []
    for module in encoder.visual.modules():
        module.register_forward_hook(lambda _module, _given, out: sizes.append(torch.as_tensor(out[0]).numel()))
    encoder(FRAMES[:1])
    assert max(sizes) == cost.widest_layer(WORDED)


def test_frames_may_be_a_view_and_are_not_changed(tiny_weights) -> None:
    encoder = FastVideo(load(tiny_weights), torch.float32)
    view = FRAMES.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    kept = view.clone()
    assert torch.equal(encoder(view)[0], encoder(FRAMES)[0])
    assert torch.equal(view, kept)


@pytest.mark.parametrize(
    "frames", [FRAMES.float(), FRAMES[:, 1:], FRAMES[..., :1], FRAMES[0]], ids=["float", "T", "C", "one"]
)
def test_frames_of_another_shape_or_dtype_are_refused(frames, tiny_weights) -> None:
    with pytest.raises(ShapeError, match="this model takes uint8 RGB"):
        FastVideo(load(tiny_weights), torch.float32)(frames)


def test_it_takes_the_model_over_and_keeps_no_text_tower(tiny_weights) -> None:
    model = load(tiny_weights)
    names = {name.split(".")[1] for name in FastVideo(model, torch.float32).state_dict() if name.startswith("rest.")}
    assert names == {"mit", "prompts_visual_ln", "prompts_visual_proj", "logit_scale"}


def test_an_encoder_of_another_kind_goes_its_own_way(tiny_weights, monkeypatch) -> None:
    class Other:
        device = torch.device("cpu")

    seen = []
    monkeypatch.setattr(fast, "encode_video_with_context", lambda model, frames: seen.append((model, frames)))
    other = Other()
    fast_video(other, torch.bfloat16)(FRAMES)
    assert seen[0][0] is other
    assert isinstance(fast_video(load(tiny_weights), torch.bfloat16), FastVideo)


@pytest.mark.parametrize(
    ("float32_s", "bfloat16_s", "expected"),
    [(2.1, 1.0, torch.bfloat16), (1.0, 1.0, torch.float32), (1.2, 1.0, torch.float32), (1.0, 8.0, torch.float32)],
)
def test_bfloat16_is_taken_where_it_is_clearly_faster(float32_s, bfloat16_s, expected, monkeypatch) -> None:
    seconds = {torch.float32: float32_s, torch.bfloat16: bfloat16_s}
    monkeypatch.setattr(fast, "_product_s", lambda _device, dtype: seconds[dtype])
    assert faster_dtype("cpu") == expected


@pytest.mark.parametrize(("has_it", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_on_a_gpu_nothing_is_timed(has_it, expected, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_it and not including_emulation)
    monkeypatch.setattr(fast, "_product_s", None)
    assert faster_dtype("cuda:1") == expected


@pytest.mark.gpu
def test_a_gpu_of_today_has_bfloat16_and_is_quicker_with_it() -> None:
    assert faster_dtype("cuda") == torch.bfloat16
    assert fast.product_s("cuda", torch.float32) > fast.WORTH_IT * fast.product_s("cuda", torch.bfloat16)


def test_the_choice_is_made_by_products_that_are_really_done() -> None:
    assert faster_dtype("cpu") in DTYPES
    assert all(fast._product_s("cpu", dtype) > 0 for dtype in DTYPES)


@pytest.mark.gpu
def test_on_cuda_it_is_the_model(tiny_weights, expected) -> None:
    for dtype, least in ((torch.float32, 0.99999), (torch.bfloat16, 0.9995)):
        for make in (FastVideo, fast_video):  # in bfloat16 the latter has kernels of its own
            found = make(load(tiny_weights, device="cuda"), dtype)(FRAMES.cuda())
            for one, other in zip(found, expected, strict=True):
                assert cosines(one.cpu(), other).min() > least
