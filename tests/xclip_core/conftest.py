"""Fixtures of the model's tests: the reference, made once, and our model of the same weights."""

from __future__ import annotations

import pytest
import torch

from tests.models import SQUARE, TINY
from tests.xclip_core.reference import Reference, make_reference
from xclip_core import XClip, load


@pytest.fixture(scope="session", params=[TINY, SQUARE], ids=["widths-differ", "widths-equal"])
def reference(request: pytest.FixtureRequest) -> Reference:
    """The reference once with widths that all differ, once with widths that are all equal."""
    return make_reference(request.param)


@pytest.fixture(scope="session")
def tiny_reference() -> Reference:
    """The reference with widths that all differ."""
    return make_reference(TINY)


@pytest.fixture(scope="session")
def tiny_float64(tiny_reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> XClip:
    """Our float64 model of `tiny_reference`'s weights. Not to be changed: mutations take a copy."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_reference.hf.save_pretrained(folder)
    return load(folder, dtype=torch.float64)
