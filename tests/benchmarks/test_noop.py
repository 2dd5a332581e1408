"""Runs that find nothing to do, as a benchmark: what it measures is in its table and its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import noop

ROOT = Path(__file__).parents[2]


def test_figures_are_in_the_tables_columns():
    row = {
        "videos": 100_000, "walk": "made up", "took_s": 1.234, "cpu_s": 1.0, "peak_mb": 1234.5, "imports_mb": 150.0,
    }  # fmt: skip
    header, _, line = noop.shown("plan", [row]).splitlines()
    assert header == "| videos | walk | wall (s) | CPU (s) | peak (MB) | of which imports (MB) |"
    assert line == "| 100,000 | made up | 1.23 | 1.00 | 1,234 | 150 |"


def run_script(name: str, folder: Path, *arguments: str) -> str:
    """What a script prints that is run as people run one, from another folder."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_planning_is_measured_and_written_down(tmp_path: Path):
    said = run_script("noop", tmp_path, "plan", "40", "--rounds", "1")
    assert "| 40 | real files, walked | " in said
    (line,) = (tmp_path / "build/bench/noop.jsonl").read_text().splitlines()
    (row,) = json.loads(line)["rows"]
    assert row["took_s"] > 0
    assert 0 < row["imports_mb"] <= row["peak_mb"]


@pytest.mark.slow
def test_a_second_run_finds_nothing_to_do(tmp_path: Path):
    run_script("noop", tmp_path, "clips", "3")
    rows = json.loads((tmp_path / "build/bench/noop.jsonl").read_text())["rows"]
    assert [(row["indexed"], row["unchanged"]) for row in rows] == [(3, 0), (0, 3), (0, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decode", "encode", "ingest", "noop", "scaling", "where"])
def test_every_comparison_is_a_script_that_explains_itself(name: str, tmp_path: Path):
    assert "usage: " in run_script(name, tmp_path, "--help")
