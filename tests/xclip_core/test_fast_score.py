"""The text side laid out for speed: the model's own logits, whatever passes together."""

from __future__ import annotations

import pytest
import torch

from tests.models import WORDED, random_frames
from xclip_core import encode_text_raw, encode_video_with_context, fast_score, load
from xclip_core.fast_score import FastScore, scorer

TEXTS = ["a person runs", "snow", "something moves to the left", "a dog sleeps", "it rains"]


@pytest.fixture(scope="module")
def clips(tiny_weights) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors and contexts of seven clips."""
    return encode_video_with_context(load(tiny_weights), random_frames(WORDED, clips=7))


@pytest.fixture(scope="module")
def expected(tiny_weights, clips) -> torch.Tensor:
    """The model's logits in float64."""
    model = load(tiny_weights, dtype=torch.float64)
    with torch.inference_mode():
        return model.score(*clips, encode_text_raw(model, TEXTS))


def logits(weights, clips, dtype: torch.dtype) -> torch.Tensor:
    model = load(weights)
    return FastScore(model, encode_text_raw(model, TEXTS), dtype)(*clips)


@pytest.mark.parametrize("pairs", [1, 3, 5, 12, 1000])
def test_in_float32_it_is_the_model_whatever_passes_together(pairs, tiny_weights, clips, expected, monkeypatch) -> None:
    monkeypatch.setitem(fast_score.PAIRS_PER_PASS, "cpu", pairs)
    found = logits(tiny_weights, clips, torch.float32)
    assert found.shape == (7, len(TEXTS))
    torch.testing.assert_close(found.double(), expected, atol=2e-4, rtol=0)


def test_in_bfloat16_logits_differ_by_little(tiny_weights, clips, expected) -> None:
    found = logits(tiny_weights, clips, torch.bfloat16)
    assert found.dtype == torch.float32
    assert (found.double() - expected).abs().max() < 0.5, "of logits up to 60"


def test_the_model_is_left_as_it_was(tiny_weights, clips) -> None:
    model = load(tiny_weights)
    text_QE = encode_text_raw(model, TEXTS)
    with torch.inference_mode():
        before = model.score(*clips, text_QE)
        for dtype in (torch.float32, torch.bfloat16):
            scorer(model, text_QE, dtype)(*clips)
        assert torch.equal(model.score(*clips, text_QE), before)


def test_vectors_and_contexts_may_be_scaled_and_stored_shorter(tiny_weights, clips, expected) -> None:
    video_BE, context_BNE = clips
    found = logits(tiny_weights, (7 * video_BE, context_BNE.half()), torch.float32)
    torch.testing.assert_close(found.double(), expected, atol=0.05, rtol=0)


def test_a_model_of_other_numbers_scores_by_itself(tiny_weights, clips, expected) -> None:
    model = load(tiny_weights, dtype=torch.float64)
    with torch.inference_mode():
        found = scorer(model, encode_text_raw(model, TEXTS), torch.float32)(*clips)
    torch.testing.assert_close(found, expected.float())
