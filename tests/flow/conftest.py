"""A pile of footage, indexed once; tests that change things copy it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.flows import IndexReport, index
from pipeline.settings import EngineName, IndexSettings
from tests.footage import SCENE_S, make_pile


@pytest.fixture(scope="session")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pile. Not to be changed."""
    return make_pile(tmp_path_factory.mktemp("pile"))


@pytest.fixture
def own_pile(pile: Path, tmp_path: Path) -> Path:
    """A pile that a test may change."""
    return Path(shutil.copytree(pile, tmp_path / "pile"))


@pytest.fixture(scope="session")
def settings_for(tiny_weights: Path):
    """Settings for the tiny random model, one clip per scene."""

    def make(engine: EngineName = "local", **changes) -> IndexSettings:
        return IndexSettings(**{"model": str(tiny_weights), "window_s": SCENE_S, "engine": engine, **changes})

    return make


@pytest.fixture(scope="session")
def indexed(pile: Path, settings_for, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, IndexReport]:
    """The archive of the pile, made by the plain loop, and its report. Not to be changed."""
    folder = tmp_path_factory.mktemp("indexed") / "archive"
    return folder, index(pile, folder, settings_for())
