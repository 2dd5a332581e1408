"""A small archive of real videos with tags, and the app over it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from starlette.testclient import TestClient

from jobs.web.app import create_app
from jobs.web.limits import Limits
from pipeline import flows, serving, showcase, tagging
from pipeline.label_files import read_labels
from pipeline.service import Service
from pipeline.settings import IndexSettings

SETTINGS = IndexSettings(engine="local", precision="float32")
VIDEOS = ("morning", "harbour", "kite")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `footage`, `archive` and `labels.yaml`. Not to be changed."""
    folder = tmp_path_factory.mktemp("served")
    for file in showcase.make_footage(folder / "all"):
        if file.stem in VIDEOS:
            (folder / "footage").mkdir(exist_ok=True)
            shutil.copy(file, folder / "footage" / file.name)
    showcase.write_labels(folder / "labels.yaml")
    flows.index(str(folder / "footage"), folder / "archive", SETTINGS)
    tagging.tag(serving.open_space(folder / "archive"), read_labels(folder / "labels.yaml"))
    return folder


@pytest.fixture(scope="session")
def service(made: Path) -> Service:
    """The service over that archive."""
    return Service(made / "archive", device="cpu")


@pytest.fixture
def client(service: Service, made: Path) -> Iterator[TestClient]:
    """What asks an app of its own, whose errors come back as they would over a network."""
    sets = {"motions": read_labels(made / "labels.yaml")}
    app = create_app(service, limits=Limits(seconds=20.0, body_bytes=1 << 20), label_sets=sets)
    with TestClient(app, raise_server_exceptions=False) as asking:
        yield asking
