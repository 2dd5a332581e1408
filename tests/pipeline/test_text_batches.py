"""Texts of several queries in one pass: each as if it had come alone."""

from __future__ import annotations

import pytest
import torch

from pipeline.text_batches import encoded_together
from schemas.errors import InputError
from xclip_core import XClip, encode_text_raw, load

QUERIES = [
    ["a red circle"],
    ["a square", "not a circle"],
    ["something that moves to the left and then goes down again, slowly"],
    ["a"],
] * 8


@pytest.fixture(scope="module")
def shipped() -> XClip:
    """The embedded model."""
    return load("footage-tiny")


def test_neighbours_change_nothing_that_a_float_shows(shipped: XClip) -> None:
    found = encoded_together([(shipped, texts) for texts in QUERIES])
    for texts, vectors_KE in zip(QUERIES, found, strict=True):
        alone_KE = encode_text_raw(shipped, texts)
        assert vectors_KE.shape == alone_KE.shape
        # Another size of a matrix is another order of sums: the last bits, and nothing of what a score tells.
        torch.testing.assert_close(vectors_KE, alone_KE, rtol=0, atol=1e-5)


def test_a_text_that_cannot_be_encoded_is_no_others_concern(tiny_model: XClip) -> None:
    good, bad, also = encoded_together([(tiny_model, ["a circle"]), (tiny_model, [" "]), (tiny_model, ["a dog"])])
    assert isinstance(bad, InputError)
    assert torch.equal(good, encode_text_raw(tiny_model, ["a circle"]))
    assert torch.equal(also, encode_text_raw(tiny_model, ["a dog"]))


def test_two_models_each_have_their_own(tiny_model: XClip, shipped: XClip) -> None:
    asked = [(tiny_model, ["a"]), (shipped, ["a"]), (tiny_model, ["a dog"])]
    found = encoded_together(asked)
    assert [each.shape for each in found] == [encode_text_raw(model, texts).shape for model, texts in asked]
    torch.testing.assert_close(found[1], encode_text_raw(shipped, ["a"]))
    torch.testing.assert_close(found[2], encode_text_raw(tiny_model, ["a dog"]))
