"""Sizes of a model: what no X-CLIP can have is refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from schemas.errors import WeightsError
from tests.models import TINY
from xclip_core import XClipConfig


@pytest.mark.parametrize(
    ("image_size", "patch_size", "patches"), [(224, 32, 49), (224, 16, 196), (224, 14, 256), (336, 14, 576)]
)
def test_released_models_have_their_number_of_patches(image_size, patch_size, patches):
    assert replace(TINY, image_size=image_size, patch_size=patch_size).patches == patches


@pytest.mark.parametrize("field", [field.name for field in fields(XClipConfig)])
@pytest.mark.parametrize("value", [0, -64])
def test_sizes_below_one_are_refused(field, value):
    with pytest.raises(WeightsError, match=rf"{field}={value} in a model config; expected at least 1"):
        replace(TINY, **{field: value})


@pytest.mark.parametrize("field", ["embed_dim", "vision_width", "text_width"])
def test_widths_that_do_not_divide_into_heads_of_64_are_refused(field):
    with pytest.raises(WeightsError, match=rf"{field}=100 is not a multiple of the head width 64"):
        replace(TINY, **{field: 100})


def test_images_that_do_not_divide_into_patches_are_refused():
    with pytest.raises(WeightsError, match="image_size=30 is not a multiple of patch_size=8"):
        replace(TINY, image_size=30)


def test_config_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        TINY.frames = 8
