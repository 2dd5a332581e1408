"""Prompt contexts as bytes: how much each code loses, and that no length is taken for another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.contexts import PACKERS, unpack
from schemas.errors import ArchiveError

contexts = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=12).map(lambda shape: (shape[0], 64)),
    elements=st.floats(-1000, 1000, width=32),
)


@given(contexts)
def test_int8_is_off_by_half_a_step_of_its_token_at_most(context_PE: np.ndarray) -> None:
    P, E = context_PE.shape
    stored = PACKERS["int8"](context_PE)
    assert len(stored) == P * (E + 4)
    step_P1 = np.abs(context_PE).max(axis=1, keepdims=True) / 127
    error_PE = np.abs(unpack(stored, P, E) - context_PE)
    assert np.all(error_PE <= 0.5 * step_P1 * (1 + 1e-4) + 1e-30)


@given(contexts)
def test_float16_is_float16(context_PE: np.ndarray) -> None:
    P, E = context_PE.shape
    stored = PACKERS["float16"](context_PE)
    assert len(stored) == 2 * P * E
    np.testing.assert_array_equal(unpack(stored, P, E), context_PE.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("code", ["int8", "float16"])
def test_zeros_stay_zeros(code: str) -> None:
    context_PE = np.zeros((9, 64), np.float32)
    context_PE[4] = 1.0  # one token that is not zero has a scale of its own
    np.testing.assert_array_equal(unpack(PACKERS[code](context_PE), 9, 64), context_PE)


@pytest.mark.parametrize("code", ["int8", "float16"])
def test_the_largest_value_of_a_token_is_kept_with_its_sign(code: str) -> None:
    context_PE = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    context_PE[0, 5], context_PE[1, 6], context_PE[2, 7] = 100.0, -3.0, 1e-3 + 8
    back_PE = unpack(PACKERS[code](context_PE), 3, 64)
    np.testing.assert_array_equal(np.abs(back_PE).argmax(axis=1), [5, 6, 7])
    np.testing.assert_allclose(back_PE[range(3), [5, 6, 7]], [100, -3, 8.001], rtol=1e-3)


def test_tokens_of_different_size_do_not_share_a_scale() -> None:
    context_PE = np.stack([np.full(64, 1e-4), np.full(64, 1e4)]).astype(np.float32)
    np.testing.assert_allclose(unpack(PACKERS["int8"](context_PE), 2, 64), context_PE, rtol=1e-6)


def test_none_stores_nothing() -> None:
    assert PACKERS["none"](np.ones((9, 64), np.float32)) == b""


@pytest.mark.parametrize("length", [0, 1, 9 * 64, 9 * 68 - 1, 9 * 68 + 1, 2 * 9 * 64 - 1, 4 * 9 * 64])
def test_a_length_that_no_code_has_is_an_error_that_says_what_is_expected(length: int) -> None:
    with pytest.raises(ArchiveError, match=f"a stored context has {length} bytes; expected 1152 or 612"):
        unpack(bytes(length), 9, 64)
