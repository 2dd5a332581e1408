"""Frames and words to unit vectors: what callers of the package rely on."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import xclip_core
from schemas.errors import InputError, ShapeError
from tests.models import WORDED, random_frames
from xclip_core import encode_text, encode_text_raw, encode_video, encode_video_with_context, load
from xclip_core.preprocess import normalise
from xclip_core.tokenise import tokenise

T, S, E, N = WORDED.frames, WORDED.image_size, WORDED.embed_dim, WORDED.patches
FRAMES = random_frames(WORDED)
LABELS = ["riding a bike", "playing the cello in an orchestra", "a dog runs"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def model(request, tiny_weights):
    return load(tiny_weights, dtype=request.param)


def assert_unit(vectors):
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(vectors)), atol=1e-6, rtol=0)


def test_videos_are_unit_float32_vectors_whatever_the_model(model):
    video = encode_video(model, FRAMES)
    assert video.shape == (3, E)
    assert video.dtype == torch.float32
    assert_unit(video)


def test_texts_are_unit_float32_vectors_whatever_the_model(model):
    text = encode_text(model, LABELS)
    assert text.shape == (3, E)
    assert text.dtype == torch.float32
    assert_unit(text)


def test_contexts_are_float32_and_come_with_the_same_videos(model):
    video, context = encode_video_with_context(model, FRAMES)
    assert context.shape == (3, N, E)
    assert context.dtype == torch.float32
    assert torch.equal(video, encode_video(model, FRAMES))


def test_raw_texts_are_in_the_models_dtype_and_not_unit(model):
    raw = encode_text_raw(model, LABELS)
    assert raw.dtype == model.dtype
    assert (raw.float().norm(dim=-1) - 1).abs().min() > 0.1
    torch.testing.assert_close(F.normalize(raw.float(), dim=-1), encode_text(model, LABELS))


def test_what_encode_returns_can_be_scored(model):
    logits = model.score(*encode_video_with_context(model, FRAMES), encode_text_raw(model, LABELS))
    assert logits.shape == (3, 3)
    assert logits.isfinite().all()


def test_encode_is_the_model_between_preprocess_and_normalise(tiny_model):
    raw, context = tiny_model.video(normalise(FRAMES, torch.float32))
    got, got_context = encode_video_with_context(tiny_model, FRAMES)
    assert torch.equal(got, F.normalize(raw, dim=-1))
    assert torch.equal(got_context, context)
    assert torch.equal(encode_text_raw(tiny_model, LABELS), tiny_model.text(tokenise(LABELS)))


@pytest.mark.parametrize("order", [[0], [2], [2, 0], [1, 1, 1, 2, 0]])
def test_clip_does_not_depend_on_batch_size_or_neighbours(order, tiny_model):
    together = encode_video_with_context(tiny_model, FRAMES)
    apart = encode_video_with_context(tiny_model, FRAMES[order])
    for got, expected in zip(apart, together, strict=True):
        torch.testing.assert_close(got, expected[order], atol=1e-5, rtol=0)


def test_text_does_not_depend_on_how_long_its_neighbours_are(tiny_model):
    together = encode_text(tiny_model, LABELS)
    apart = torch.cat([encode_text(tiny_model, [label]) for label in LABELS])
    torch.testing.assert_close(apart, together, atol=1e-5, rtol=0)


def test_frames_given_are_not_changed(tiny_model):
    frames = FRAMES.clone()
    encode_video(tiny_model, frames)
    assert torch.equal(frames, FRAMES)


def test_frames_may_be_a_view_with_any_strides(tiny_model):
    view = FRAMES.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    assert not view.is_contiguous()
    assert torch.equal(encode_video(tiny_model, view), encode_video(tiny_model, FRAMES))


def test_nothing_is_recorded_for_gradients(tiny_model):
    assert not encode_video(tiny_model, FRAMES).requires_grad
    assert not encode_text(tiny_model, LABELS).requires_grad


@pytest.mark.parametrize(
    "frames",
    [
        FRAMES.float(),
        FRAMES.float() / 255,
        FRAMES.to(torch.int64),
        FRAMES[:, :-1],
        FRAMES[:, :1],
        FRAMES[0],
        FRAMES[:, :, :-1],
        FRAMES[:, :, :, :-1],
        FRAMES[..., :1],
        FRAMES.movedim(-1, 2),
    ],
    ids=lambda frames: f"{str(frames.dtype).removeprefix('torch.')} {tuple(frames.shape)}",
)
def test_frames_of_another_shape_or_dtype_are_refused(frames, tiny_model):
    expected = rf"takes uint8 RGB \(clips, {T} frames, {S}, {S}, 3\): sample {T} frames per clip"
    with pytest.raises(ShapeError, match=expected):
        encode_video(tiny_model, frames)


def test_no_clips_are_refused(tiny_model):
    with pytest.raises(ShapeError, match=r"pixels have shape \(0, "):
        encode_video(tiny_model, FRAMES[:0])


@pytest.mark.parametrize("texts", [[], "a dog", [""], ["a dog", "  "], ["word " * 76]])
def test_texts_that_cannot_be_encoded_are_refused(texts, tiny_model):
    with pytest.raises(InputError, match=r"list of one or more texts|is empty|shorten it"):
        encode_text(tiny_model, texts)


def test_public_names_are_these():
    assert xclip_core.__all__ == sorted(xclip_core.__all__)
    assert all(hasattr(xclip_core, name) for name in xclip_core.__all__)
    assert set(xclip_core.__all__) >= {"XClip", "XClipConfig", "encode_text", "encode_video", "load"}
