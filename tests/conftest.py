"""Fixtures that tests of every package share. Models are random and tiny: see `tests/models.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.models import WORDED, random_state, save_safetensors
from xclip_core import XClip, load

# Models here are tiny: a second thread gains nothing, and waits for its core where the machine is busy.
torch.set_num_threads(1)
# A busy machine is no bug: an example may wait for its core longer than Hypothesis' 200 ms.
settings.register_profile("footage", deadline=None)
settings.load_profile("footage")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`gpu` tests skip themselves where there is no CUDA device, unless FOOTAGE_REQUIRE_GPU says that is a failure."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available() and not os.environ.get("FOOTAGE_REQUIRE_GPU"):
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of a tiny random model that takes real words."""
    return save_safetensors(random_state(WORDED), tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def tiny_model(tiny_weights: Path) -> XClip:
    """The tiny random model, float32, on the CPU. Not to be changed."""
    return load(tiny_weights)
