"""Fixtures that tests of every package share. Models are random and tiny: see `tests/models.py`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: without a GPU its kernels run as Python

from pipeline import logs
from schemas.errors import ModelError
from tests import stores
from tests.models import WORDED, random_state, save_safetensors
from xclip_core import XClip, load
from xclip_core.quantised import byte_levels

# Models here are tiny: a second thread gains nothing, and waits for its core where the machine is busy.
torch.set_num_threads(1)
# A busy machine is no bug: an example may wait for its core longer than Hypothesis' 200 ms.
settings.register_profile("footage", deadline=None)
settings.load_profile("footage")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`gpu` tests skip themselves where there is no CUDA device, unless FOOTAGE_REQUIRE_GPU says that is a failure."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available() and not os.environ.get("FOOTAGE_REQUIRE_GPU"):
        pytest.skip("needs a CUDA device")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What `--dist loadgroup` gives to one process: each file, and all tests that start Ray, of which one at a time.

    The latter come first: they take longest, and begun last they would leave the other processes with nothing to do.
    """
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else item.path.relative_to(item.config.rootpath).as_posix()
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture
def multiplies_bytes() -> None:
    """Skips a test where this CPU or this torch multiplies no bytes."""
    try:
        byte_levels()
    except ModelError as error:
        pytest.skip(str(error))


LEVELS = {name: logging.getLogger(name).level for name in (None, logs.ROOT)}
EXCEPTHOOK = sys.excepthook


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What a command decides of the log is its own process's, and undone here: tests of commands share one.

    Also before a test: a fixture of a whole module may have run a command.
    """
    _forget_the_log()
    yield
    _forget_the_log()


def _forget_the_log() -> None:
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, logs.Stderr)]:
        root.removeHandler(handler)
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)
    sys.excepthook = EXCEPTHOOK
    logging.captureWarnings(capture=False)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of a tiny random model that takes real words."""
    return save_safetensors(random_state(WORDED), tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def tiny_model(tiny_weights: Path) -> XClip:
    """The tiny random model, float32, on the CPU. Not to be changed."""
    return load(tiny_weights)


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The address of an S3 server on this machine, empty."""
    with stores.serve() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An empty bucket of this test's own, and an environment that leads to it; its URL."""
    for name, value in stores.environment(s3_url).items():
        monkeypatch.setenv(name, value)
    stores.s3().clear_instance_cache()  # a test before may have sent it elsewhere
    name = f"test-{abs(hash(request.node.nodeid)):x}"
    stores.s3().mkdir(name)
    return f"s3://{name}"
