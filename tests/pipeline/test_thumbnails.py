"""Thumbnails: small, in proportion, never enlarged."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.thumbnails import LONG_SIDE, thumbnail_shape, to_webp


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1080, 1920), (90, 160)),
        ((1920, 1080), (160, 90)),
        ((160, 160), (160, 160)),
        ((48, 64), (48, 64)),
        ((1, 1), (1, 1)),
        ((2, 20_000), (1, 160)),
    ],
)
def test_the_long_side_is_160_pixels_at_most(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert thumbnail_shape(*shape) == expected


@given(height=st.integers(1, 9000), width=st.integers(1, 9000))
def test_thumbnails_keep_the_proportions_and_are_never_enlarged(height: int, width: int) -> None:
    small_height, small_width = thumbnail_shape(height, width)
    assert 1 <= small_height <= min(height, LONG_SIDE)
    assert 1 <= small_width <= min(width, LONG_SIDE)
    assert max(small_height, small_width) == min(LONG_SIDE, max(height, width))
    assert small_height * width == pytest.approx(small_width * height, abs=max(height, width))


def test_a_picture_goes_to_webp_and_back_with_its_colours() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, :30], picture[:, 30:] = (230, 20, 20), (20, 20, 230)
    stored = Image.open(BytesIO(to_webp(picture)))
    assert (stored.format, stored.size) == ("WEBP", (60, 40))
    back = np.asarray(stored.convert("RGB")).astype(int)
    np.testing.assert_allclose(back[20, 10], (230, 20, 20), atol=12)
    np.testing.assert_allclose(back[20, 50], (20, 20, 230), atol=12)


def test_the_same_picture_is_the_same_bytes() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    assert to_webp(picture) == to_webp(picture.copy())
