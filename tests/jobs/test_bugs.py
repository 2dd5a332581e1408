"""A bug that one file provokes: it costs that file, is called a bug, and nobody can overlook it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.console import EXIT_ERROR
from pipeline import decode, demux
from tests.footage import film

MOTIONS = ("left", "right", "up")


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for motion in MOTIONS:
        film(folder / f"{motion}.mp4", motion)
    return folder


@pytest.fixture(params=["inspect", "decode"])
def stage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stage of which one file finds a hole."""
    module, name = {"inspect": (demux, "inspected"), "decode": (decode, "decode")}[request.param]
    sound = getattr(module, name)

    def holed(record, *rest):
        uri = record.file.uri if request.param == "inspect" else record.uri
        if uri.endswith("right.mp4"):
            raise IndexError("nobody thought of this")
        return sound(record, *rest)

    monkeypatch.setattr(module, name, holed)
    return request.param


def test_a_bug_costs_the_file_that_provokes_it_and_the_command_says_so(
    footage, pile: Path, tiny_weights: Path, tmp_path: Path, stage: str
) -> None:
    archive = tmp_path / "archive"
    code, out, err = footage("index", pile, archive, "--model", tiny_weights, "--engine", "local", "--json")
    report = json.loads(out)
    assert (code, report["indexed"], report["failed"]) == (EXIT_ERROR, 2, 1)
    assert "a file met a bug of footage" in err
    code, out, _ = footage("failures", archive, "--kind", "bug", "--json")
    (letter,) = json.loads(out)["failures"]
    assert (code, letter["stage"], letter["attempts"], letter["permanent"]) == (0, stage, 1, False)
    assert letter["uri"].endswith("right.mp4")
    assert letter["error"].startswith(
        "IndexError: nobody thought of this (" + ("demux" if stage == "inspect" else "decode") + ".py, line "
    )


def test_what_the_mended_program_can_read_is_indexed_by_the_next_run(
    footage, pile: Path, tiny_weights: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("index", pile, tmp_path / "archive", "--model", tiny_weights, "--engine", "local", "--json")
    footage(*arguments)
    monkeypatch.undo()
    code, out, _ = footage(*arguments)
    report = json.loads(out)
    assert (code, report["indexed"], report["unchanged"], report["failed"]) == (0, 1, 2, 0)
