"""What is published: a source archive and a wheel that build, hold all they need, and run outside the clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.media import make_video
from tests.web.browsing import running

ROOT = Path(__file__).parents[2]
SOURCES = ("schemas", "xclip_core", "pipeline", "jobs", "pyproject.toml", "README.md", "LICENSE")
NEEDED = (  # what is no module, of each kind
    "xclip_core/data/footage-tiny.safetensors",
    "xclip_core/data/footage-tiny.md",
    "pipeline/templates/contact_sheet.html",
    "jobs/web/static/index.html",
    "jobs/web/static/app.js",
    "schemas/py.typed",
)


def call(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """What a command prints; its errors are the test's."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel built from it."""
    pytest.importorskip("build", reason="python -m build is not installed")
    folder = tmp_path_factory.mktemp("package")
    for name in SOURCES:  # a copy: what earlier builds left in the clone would be packed too
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder, cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel installed into a folder of its own; libraries are those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = dist.glob("*.whl")
    call(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", folder, wheel, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def environment(installed: Path) -> dict[str, str]:
    """Variables under which Python finds the installed package before the clone's."""
    return {**os.environ, "PYTHONPATH": str(installed)}


@pytest.fixture(scope="module")
def archive(installed: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An archive that the installed command made."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "videos").mkdir()
    make_video(folder / "videos" / "one.mp4", frames=20, rate_hz=2)
    command = ["index", "videos", "archive", "--engine", "local", "--json"]
    said = json.loads(call(installed / "bin" / "footage", *command, cwd=folder, env=environment))
    assert said["indexed"] == 1
    return folder / "archive"


def test_both_hold_what_is_needed_and_nothing_of_the_tests(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    (source,) = dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as packed:
        of_wheel = set(packed.namelist())
    with tarfile.open(source) as packed:
        of_source = {name.split("/", 1)[1] for name in packed.getnames() if "/" in name}
    assert set(NEEDED) <= of_wheel & of_source
    modules = {str(file.relative_to(ROOT)) for top in SOURCES[:4] for file in (ROOT / top).rglob("*.py")}
    assert modules <= of_wheel
    assert {name.split("/")[0].split("-")[0] for name in of_wheel} == {*SOURCES[:4], "footage"}


def test_a_registry_would_take_them(dist: Path) -> None:
    pytest.importorskip("twine", reason="twine is not installed")
    call(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir(), cwd=dist)


def test_the_installed_command_is_the_wheels(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    where = (
        "import jobs, pipeline, schemas, xclip_core as x; print(*(m.__file__ for m in (jobs, pipeline, schemas, x)))"
    )
    files = call(sys.executable, "-c", where, cwd=tmp_path, env=environment).split()
    assert len(files) == 4
    assert all(Path(file).is_relative_to(installed) for file in files)


def test_it_indexes_and_searches(installed: Path, environment: dict[str, str], archive: Path) -> None:
    command = [installed / "bin" / "footage", "search", archive.name, "something moves", "--json"]
    (line, *_) = call(*command, cwd=archive.parent, env=environment).splitlines()
    assert "one.mp4" in line


def test_it_serves(installed: Path, environment: dict[str, str], archive: Path) -> None:
    command = [str(installed / "bin" / "footage"), "serve", archive.name, "--port", "0", "--device", "cpu"]
    with running(command, environment, cwd=archive.parent) as server:
        with urllib.request.urlopen(f"{server.url}/", timeout=30) as page:
            assert b"<title>footage</title>" in page.read()
        with urllib.request.urlopen(f"{server.url}/stats", timeout=30) as answer:
            assert json.load(answer)["videos"] == 1
