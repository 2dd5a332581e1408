"""The savings the model takes are exact, and it refuses what would mix clips or channels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from schemas.errors import ShapeError
from tests.models import TINY, random_inputs, random_state, save_safetensors
from xclip_core import XClip, load, model

T, S, E, N = TINY.frames, TINY.image_size, TINY.embed_dim, TINY.patches
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
CONFIG = replace(TINY, context_length=77)
PIXELS, PADDED = random_inputs(CONFIG, clips=7, texts=11)
ENDS = PADDED.argmax(dim=-1)
TOKEN_IDS = PADDED[:, : ENDS.max() + 1]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[torch.dtype, XClip]:
    path = save_safetensors(random_state(CONFIG), tmp_path_factory.mktemp("model"))
    return {dtype: load(path, dtype=dtype) for dtype in TOLERANCE}


@pytest.fixture(params=TOLERANCE, ids=["float64", "float32"])
def xclip(request, models) -> XClip:
    return models[request.param]


@pytest.fixture
def scored(xclip):
    """Everything `score` needs, and the logits it gives."""
    video, context = xclip.video(PIXELS.to(xclip.dtype))
    text = xclip.text(TOKEN_IDS)
    return video, context, text, xclip.score(video, context, text)


def assert_equal(got, expected, *, scale=1.0):
    torch.testing.assert_close(got, expected, atol=scale * TOLERANCE[expected.dtype], rtol=0)


# Exact savings


def test_shapes_and_dtypes_of_all_three_calls(xclip, scored):
    assert [tuple(x.shape) for x in scored] == [(7, E), (7, N, E), (11, E), (7, 11)]
    assert {x.dtype for x in scored} == {xclip.dtype}


def test_texts_cut_to_the_longest_equal_texts_padded_to_77(xclip):
    assert PADDED.shape[1] == 77 > TOKEN_IDS.shape[1]
    padded = xclip.text(PADDED)
    assert_equal(xclip.text(TOKEN_IDS), padded)
    for k, end in enumerate(ENDS):
        assert_equal(xclip.text(PADDED[k : k + 1, : end + 1]), padded[k : k + 1])


def test_padding_behind_the_end_token_is_not_read(xclip):
    behind = torch.arange(TOKEN_IDS.shape[1]) > ENDS[:, None]
    assert_equal(xclip.text(TOKEN_IDS.masked_fill(behind, TINY.vocab_size - 1)), xclip.text(TOKEN_IDS))


@pytest.mark.parametrize("pairs", [1, 6, 7, 20, 70, 77, 10**6])
def test_score_in_chunks_of_texts_equals_score_at_once(pairs, xclip, scored, monkeypatch):
    *inputs, expected = scored
    monkeypatch.setattr(model, "PAIRS_PER_CHUNK", pairs)
    assert_equal(xclip.score(*inputs), expected, scale=60)


def test_chunks_hold_no_more_pairs_than_stated(xclip, scored, monkeypatch):
    seen = []
    handle = xclip.prompts_generator.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    monkeypatch.setattr(model, "PAIRS_PER_CHUNK", 28)
    xclip.score(*scored[:3])
    handle.remove()
    assert seen == [4, 4, 3]  # texts at a time, for 7 clips


def test_score_of_each_pair_equals_its_score_among_others(xclip, scored):
    video, context, text, logits = scored
    for b, k in ((0, 0), (3, 10), (6, 4)):
        pair = xclip.score(video[b : b + 1], context[b : b + 1], text[k : k + 1])
        assert_equal(pair, logits[b : b + 1, k : k + 1], scale=60)


def test_clip_does_not_depend_on_batch_size_or_neighbours(xclip):
    pixels = PIXELS.to(xclip.dtype)
    video, context = xclip.video(pixels)
    other_video, other_context = xclip.video(torch.cat([pixels[4:] * 3, pixels[2:4]]))
    assert_equal(other_video[3:], video[2:4])
    assert_equal(other_context[3:], context[2:4])
    for b in range(len(pixels)):
        alone = xclip.video(pixels[b : b + 1])
        assert_equal(alone[0], video[b : b + 1])
        assert_equal(alone[1], context[b : b + 1])


def test_text_does_not_depend_on_batch_neighbours(xclip):
    assert_equal(xclip.text(TOKEN_IDS.flip(0)).flip(0), xclip.text(TOKEN_IDS))


def test_vectors_stored_and_given_back_score_the_same(xclip, scored, tmp_path):
    video, context, text, logits = scored
    torch.save([video, context, text], tmp_path / "stored.pt")
    assert torch.equal(xclip.score(*torch.load(tmp_path / "stored.pt")), logits)


def test_unit_videos_score_as_raw_ones(xclip, scored):
    video, context, text, logits = scored
    assert_equal(xclip.score(F.normalize(video, dim=-1), context, text), logits, scale=60)


def test_unit_texts_do_not_score_as_raw_ones(xclip, scored):
    video, context, text, logits = scored
    assert (xclip.score(video, context, F.normalize(text, dim=-1)) - logits).abs().max() > 0.01


@pytest.mark.parametrize("stored", [torch.float16, torch.float32])
def test_vectors_may_be_stored_in_another_dtype_than_the_models(stored, xclip, scored):
    video, context, text, logits = scored
    got = xclip.score(video.to(stored), context.to(stored), text.to(stored))
    assert got.dtype == xclip.dtype
    torch.testing.assert_close(got, logits, atol=0.2 if stored == torch.float16 else 1e-3, rtol=0)


def test_logits_are_cosines_times_the_exponential_of_the_scale(xclip, scored):
    video, context, text, logits = scored
    prompted = xclip.prompts_generator(text, context)
    cosines = F.cosine_similarity(video[:, None], prompted, dim=-1, eps=0)
    assert_equal(cosines * xclip.logit_scale.exp(), logits, scale=60)


def test_model_remembers_nothing(xclip, scored):
    xclip.text(TOKEN_IDS[:2])
    xclip.video(PIXELS[:1].to(xclip.dtype))
    again = xclip.video(PIXELS.to(xclip.dtype))
    assert torch.equal(xclip.score(*again, xclip.text(TOKEN_IDS)), scored[-1])


def test_model_keeps_no_state_beside_its_parameters(xclip):
    assert not list(xclip.buffers())


# What is refused


@pytest.mark.parametrize(
    "shape",
    [
        (2, T + 1, 3, S, S),
        (2, 1, 3, S, S),
        (T, 1, 3, S, S),
        (2, T, 3, S + 8, S + 8),
        (2, T, 3, S, S - 8),
        (2, T, S, S, 3),
        (2, 3, T, S, S),
        (2, T, 1, S, S),
        (T, 3, S, S),
        (2 * T, 3, S, S),
        (0, T, 3, S, S),
        (),
    ],
    ids=str,
)
def test_pixels_of_another_shape_are_refused(shape, models):
    expected = rf"\(clips, {T} frames, 3 channels, {S}, {S}\): sample {T} frames.*preprocess\.resize_and_crop"
    with pytest.raises(ShapeError, match=expected):
        models[torch.float32].video(torch.zeros(shape))


def test_one_frame_each_of_as_many_clips_as_a_clip_has_frames_is_not_taken_for_one_clip(models):
    # The reference reshapes this silently, and mixes the frames of T different videos.
    with pytest.raises(ShapeError, match=rf"pixels have shape \({T}, 1, 3, {S}, {S}\)"):
        models[torch.float32].video(torch.zeros(T, 1, 3, S, S))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float64])
def test_pixels_of_another_dtype_are_refused(dtype, models):
    with pytest.raises(ShapeError, match=rf"pixels are {dtype} and the model is torch\.float32.*preprocess\.normalise"):
        models[torch.float32].video(PIXELS.to(dtype))


@pytest.mark.parametrize(
    "token_ids",
    [TOKEN_IDS[0], TOKEN_IDS[None], TOKEN_IDS[:, :0], torch.zeros(2, 78, dtype=torch.int64), TOKEN_IDS.float()],
    ids=["one axis", "three axes", "no token", "78 tokens", "float"],
)
def test_tokens_of_another_shape_or_dtype_are_refused(token_ids, models):
    with pytest.raises(ShapeError, match=r"expected integers \(texts, tokens\) with 1 to 77 tokens"):
        models[torch.float32].text(token_ids)


@pytest.mark.parametrize(
    ("video", "context", "text"),
    [
        ((E,), (1, N, E), (2, E)),
        ((3, E), (2, N, E), (2, E)),
        ((3, E), (1, N, E), (2, E)),
        ((3, E), (3, N + 1, E), (2, E)),
        ((3, E), (N, E), (2, E)),
        ((3, E), (3, N, E), (E,)),
        ((3, E), (3, N, E), (3, 2, E)),
        ((3, E), (3, N, E), (2, E - 64)),
        ((3, E - 64), (3, N, E), (2, E)),
    ],
    ids=str,
)
def test_scores_of_vectors_that_do_not_belong_together_are_refused(video, context, text, models):
    expected = rf"expected \(clips, {E}\), \(the same clips, {N}, {E}\) and \(texts, {E}\)"
    with pytest.raises(ShapeError, match=expected):
        models[torch.float32].score(torch.ones(video), torch.ones(context), torch.ones(text))


@pytest.mark.parametrize(("clips", "texts"), [(0, 2), (2, 0)])
def test_no_clips_or_no_texts_score_as_an_empty_table(clips, texts, models):
    logits = models[torch.float32].score(torch.ones(clips, E), torch.ones(clips, N, E), torch.ones(texts, E))
    assert logits.shape == (clips, texts)
