"""The harness of comparisons: order of rounds, medians of ratios, tables, and what is written down of a result."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import harness


def test_every_round_begins_with_another_way():
    order: list[str] = []

    def way(name: str, value: float):
        return lambda: order.append(name) or value

    taken = harness.alternate({"a": way("a", 1.0), "b": way("b", 2.0), "c": way("c", 3.0)}, 3)
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert taken == {"a": [1.0] * 3, "b": [2.0] * 3, "c": [3.0] * 3}


def test_a_ratio_is_the_median_of_the_rounds_own_ratios():
    # The last round was disturbed, both ways alike: medians of times would say 4 / 2, means 13 / 4.
    assert harness.ratio([3.0, 4.0, 30.0], [1.0, 2.0, 10.0]) == 3.0


def test_a_table_is_markdown():
    assert harness.table(["row", "x"], [["a", "1.00"]]).splitlines() == [
        "| row | x |",
        "| --- | ---: |",
        "| a | 1.00 |",
    ]


def test_results_are_appended_with_the_machine_they_are_of(tmp_path: Path):
    for seconds in (1.5, 2.5):
        file = harness.record("name", {"seconds": seconds}, tmp_path / "new")
    first, second = map(json.loads, file.read_text().splitlines())
    assert file == tmp_path / "new" / "name.jsonl"
    assert (first["seconds"], second["seconds"]) == (1.5, 2.5)
    machine = second["machine"]
    assert machine["cpu"]
    assert machine["cores"] >= 1
    assert machine["commit"] != ""
    assert torch.__version__.startswith(machine["torch"])


def test_a_package_that_is_not_installed_is_said_to_be_missing():
    assert harness.version("no-such-package-of-ours") == harness.MISSING


# A second of CPU in a process whose parent ends without waiting for it; it lives on until it was looked at.
BURN = "import time\nwhile time.process_time() < 1: pass\ntime.sleep(1.2)"
PARENT = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {BURN!r}])\ntime.sleep(4)"


@pytest.mark.skipif(not Path("/proc").exists(), reason="there is no /proc here")
def test_cpu_time_is_of_descendants_that_nobody_waits_for():
    parent, cpu_s = subprocess.Popen([sys.executable, "-c", PARENT]), 0.0
    family = harness.Descendants(parent.pid)
    while parent.poll() is None:
        cpu_s = family.cpu_s()
        time.sleep(0.5)
    assert 0.9 <= cpu_s <= 2
