"""`footage doctor` as it is typed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.flows import index
from pipeline.settings import IndexSettings
from tests.footage import film


class Usage(NamedTuple):
    """As `shutil.disk_usage` has it."""

    total: int
    used: int
    free: int


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    film(folder / "pile" / "left.mp4", "left")
    index(folder / "pile", folder / "archive", IndexSettings(model=str(tiny_weights), engine="local"))
    return folder / "archive"


def test_every_check_says_what_it_found_and_what_that_means(footage, archive: Path) -> None:
    code, out, _ = footage("doctor", archive, "--json")
    report = json.loads(out)
    assert code == (1 if report["wrong"] else 0)
    assert [check for check in report["checks"] if not (check["found"] and check["meaning"])] == []
    assert {check["state"] for check in report["checks"]} <= {"ok", "slow", "wrong"}
    found = {check["name"]: check for check in report["checks"]}
    assert found["archive"]["state"] == found["archive's model"]["state"] == "ok"
    assert "1 videos, 1 clips" in found["archive"]["found"]
    assert "torch" in found["libraries"]["found"]


def test_a_full_disk_ends_it_with_1(footage, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**11, 10**11 - 500, 500))
    code, out, _ = footage("doctor", archive)
    assert code == 1
    assert "wrong archive's disk: 0.0 GB of 100.0 GB free" in out
    assert "make room" in out
    assert "wrong (a run fails by): archive's disk, temporary disk" in out


def test_an_archive_whose_model_is_gone_is_wrong(footage, archive: Path, tiny_weights: Path) -> None:
    hidden = tiny_weights.with_suffix(".hidden")
    tiny_weights.rename(hidden)
    try:
        code, out, _ = footage("doctor", archive, "--json")
    finally:
        hidden.rename(tiny_weights)
    found = {check["name"]: check for check in json.loads(out)["checks"]}
    assert (code, found["archive's model"]["state"]) == (1, "wrong")
    assert "there is no model" in found["archive's model"]["found"]


@pytest.mark.parametrize(("library", "named"), [("av", "codecs"), ("pyarrow", "archive's disk"), ("torch", "GPU")])
def test_a_library_that_cannot_be_loaded_is_a_finding(library: str, named: str, tmp_path: Path) -> None:
    (tmp_path / f"{library}.py").write_text("raise ImportError('libsomething.so.7: cannot open shared object file')")
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(tmp_path), str(root)])
    command = [sys.executable, "-m", "jobs", "doctor", "--json"]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
    )
    report = json.loads(ended.stdout)
    found = {check["name"]: check for check in report["checks"]}
    assert (ended.returncode, found[named]["state"]) == (1, "wrong")
    assert "libsomething" in found[named]["found"]
    assert found["cores"]["meaning"]


@pytest.mark.ray
@pytest.mark.slow
def test_deep_starts_ray(footage) -> None:
    _, out, _ = footage("doctor", "--deep", "--json")
    found = {check["name"]: check for check in json.loads(out)["checks"]}
    assert found["Ray"]["state"] == "ok", found["Ray"]
    assert "CPUs" in found["Ray"]["found"]
