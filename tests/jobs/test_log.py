"""The log as JSON lines: one object a line on stderr, and stdout as ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import logs
from tests.footage import BROKEN, make_pile


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What --log-json sets is taken back."""
    monkeypatch.setenv(logs.VARIABLE, "text")
    yield
    logs.set_up(as_json=False)


def objects(err: str) -> list[dict]:
    """The lines of stderr, each of which must be an object with what all have."""
    found = [json.loads(line) for line in err.splitlines()]
    assert all({"time", "level", "logger", "message"} <= each.keys() for each in found)
    return found


def test_a_run_is_told_line_by_line_and_the_report_stays_on_stdout(footage, tmp_path: Path, tiny_weights: Path) -> None:
    pile, archive = make_pile(tmp_path / "pile"), tmp_path / "archive"
    options = ("--model", tiny_weights, "--window", 2, "--engine", "local", "--json")
    code, out, err = footage("--log-json", "index", pile, archive, *options)
    assert code == 3
    report, told = json.loads(out), objects(err)
    runs = [each for each in told if each["logger"] == "footage.run"]
    assert [each["state"] for each in runs] == ["started", "finished"]
    assert {each["run_id"] for each in runs} == {report["run_id"]}
    assert (runs[-1]["indexed"], runs[-1]["failed"]) == (report["indexed"], report["failed"])
    letters = [each for each in told if each["logger"] == "footage.dead_letter"]
    assert {Path(each["uri"]).name for each in letters} == set(BROKEN)
    assert {each["kind"] for each in letters} == {"not_a_video"}
    assert {each["run_id"] for each in letters} == {report["run_id"]}


def test_the_variable_does_the_same_and_the_option_may_stand_anywhere(
    footage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = footage("info", tmp_path / "nowhere", "--log-json")
    (told,) = objects(err)
    assert (code, told["level"], told["error"], told["exit_code"]) == (1, "error", "ArchiveError", 1)
    monkeypatch.setenv(logs.VARIABLE, "json")
    code, _, err = footage("info", tmp_path / "nowhere", "--debug")
    assert "Traceback" in objects(err)[0]["traceback"]
    monkeypatch.setenv(logs.VARIABLE, "xml")
    code, _, err = footage("info", tmp_path / "nowhere")
    assert (code, "FOOTAGE_LOG=xml is no format" in err) == (1, True)


def test_people_get_sentences_and_no_news_of_single_files(footage, tmp_path: Path, tiny_weights: Path) -> None:
    pile = make_pile(tmp_path / "pile")
    options = ("--model", tiny_weights, "--window", 2, "--engine", "local", "--json")
    _, _, err = footage("index", pile, tmp_path / "archive", *options)
    assert "{" not in err
    assert "dead_letter" not in err


def test_what_people_are_told_becomes_records(footage, tmp_path: Path, tiny_weights: Path) -> None:
    pile, archive = make_pile(tmp_path / "pile"), tmp_path / "archive"
    footage("index", pile, archive, "--model", tiny_weights, "--window", 2, "--engine", "local")
    _, out, err = footage("--log-json", "failures", archive)
    assert [each["message"] for each in objects(err) if each["logger"] == "footage.message"] == [
        "2 failures; try them again with: footage retry"
    ]
    assert "broken.mp4" in out


def test_a_bug_is_one_record_and_ends_with_1() -> None:
    code = "import sys; from jobs import console; console.set_up(debug=False, as_json=True); raise KeyError('a bug')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    (told,) = objects(ended.stderr)
    assert (ended.returncode, told["logger"], told["level"]) == (1, "footage.bug", "critical")
    assert "KeyError" in told["traceback"]


def test_warnings_and_other_libraries_come_in_the_same_form() -> None:
    code = """if True:
        import logging, warnings
        from jobs import console
        console.set_up(debug=False, as_json=True)
        warnings.warn("old")
        logging.getLogger("deltalake").error("a disk is gone")
        logging.getLogger("deltalake").warning("nobody needs to know")"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    told = objects(ended.stderr)
    assert [each["logger"] for each in told] == ["py.warnings", "deltalake"]


@pytest.mark.ray
@pytest.mark.slow
def test_workers_of_ray_write_the_same_lines(tmp_path: Path, tiny_weights: Path) -> None:
    pile, archive = make_pile(tmp_path / "pile"), tmp_path / "archive"
    command = [
        sys.executable,
        "-m",
        "jobs",
        "--log-json",
        "index",
        str(pile),
        str(archive),
        "--model",
        str(tiny_weights),
    ]
    (pile / "sub" / "up.mp4").write_bytes((pile / "left_then_right.mp4").read_bytes()[:3000])
    with_ray = {**os.environ, "RAY_TMPDIR": "/tmp/footage-log-test"}
    Path(with_ray["RAY_TMPDIR"]).mkdir(exist_ok=True)
    ended = subprocess.run(command, capture_output=True, text=True, env=with_ray, timeout=500)
    assert ended.returncode == 3
    objects(ended.stderr)
    session = Path(with_ray["RAY_TMPDIR"]) / "ray" / "session_latest" / "logs"
    lines = [line for file in session.glob("worker-*.err") for line in file.read_text().splitlines()]
    told = [json.loads(line) for line in lines if line.startswith('{"time"')]
    assert {each["kind"] for each in told if each["logger"] == "footage.worker"} >= {"not_a_video"}
