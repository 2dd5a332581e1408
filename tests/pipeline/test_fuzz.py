"""Mutated headers and payloads: no crash, no hang, every file accounted for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.pipeline.fuzzing import BASES, case, make_bases, outcome

ROOT = Path(__file__).parents[2]
KINDS = {"not_a_video", "undecodable", "too_large", "memory"}
# Of the ten thousand: a transport stream in which another stream begins, of which PyAV knows nothing.
ONCE_FATAL = (9376,)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bases(tmp_path_factory.mktemp("bases"))


def run_cases(bases: Path, first: int, end: int) -> dict[int, str]:
    """What became of each case; a process that dies of one is replaced and goes on behind it."""
    became: dict[int, str] = {}
    while first < end:
        run = subprocess.run(
            [sys.executable, "-m", "tests.pipeline.fuzzing", str(bases), str(first), str(end)],
            capture_output=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        became |= dict(map(json.loads, run.stdout.splitlines()))
        first += len(run.stdout.splitlines())
        if run.returncode:
            became[first] = f"died: {run.returncode}: {run.stderr.decode(errors='replace')[-800:]}"
            first += 1
    return became


def check(became: dict[int, str], first: int, end: int) -> None:
    """Every case has an outcome, and it is clips or a kind of failure that a bad file may have."""
    assert sorted(became) == list(range(first, end))
    strange = {
        number: text
        for number, text in became.items()
        if (not text.startswith("ok ") and not set(text.split()) <= KINDS) or not text
    }
    assert strange == {}


@pytest.mark.parametrize("name", BASES)
def test_the_files_that_are_mutated_are_sound(name: str, bases: Path) -> None:
    assert outcome(bases / name) == "ok 2"


def test_a_case_is_the_same_for_ever_and_no_two_are_alike(bases: Path) -> None:
    assert case(bases, 7) == case(bases, 7)
    assert len({case(bases, number)[1] for number in range(100)}) == 100


def test_four_hundred_mutated_files_are_accounted_for(bases: Path) -> None:
    became = run_cases(bases, 0, 400)
    check(became, 0, 400)
    counts = Counter(text.split()[0] for text in became.values())
    assert counts["ok"] > 40, "mutations that decode reach the decoder"
    assert counts["not_a_video"] > 10, "and others break the container"


@pytest.mark.parametrize("number", ONCE_FATAL)
def test_what_ended_a_run_once_does_not_again(number: int, bases: Path) -> None:
    check(run_cases(bases, number, number + 1), number, number + 1)


@pytest.mark.slow
def test_ten_thousand_mutated_files_are_accounted_for(bases: Path) -> None:
    check(run_cases(bases, 400, 10_400), 400, 10_400)


def test_a_case_that_kills_its_process_is_told_and_the_rest_go_on(bases: Path) -> None:
    """The test of the test: a run that ends early is seen as a death of the case it was at."""
    (bases / "broken").mkdir()
    became = run_cases(bases / "broken", 0, 3)  # no base file is there: every case dies
    assert [text.startswith("died: 1") for text in became.values()] == [True] * 3
    with pytest.raises(AssertionError):
        check(became, 0, 3)
