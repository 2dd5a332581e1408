"""kill -9 at random moments: every clip exactly once after the next run, no video ever seen in part, no file forgotten.

The seed is in the test; the moments are spread over the length of an unbroken run, which is measured first. A table of
all kills is printed, and kept in docs/crash-safety.md from a real run.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from pipeline import lease
from pipeline.compact import CompactSettings, compact
from tests.chaos import runs
from tests.chaos.conftest import Stage
from tests.chaos.runs import Run

# What a worker of Ray calls itself while it runs a task or a call of an actor. An idle one has the name of its class
# alone, "MapWorker(MapBatches(embed))", and one that is still being made has the model to load.
AT_WORK = re.compile(r"^ray::.*\((?P<stage>decode|embed)\)(?!\)$|\)\.__init__)")
Kill = Callable[[BaseProcess, random.Random], str]  # what was killed
HEADER = "| killed after (s) | what | looks | lost | doubled | half-visible | recovery (s) |\n|" + " --- |" * 7


@dataclass(frozen=True)
class Outcome:
    """What came of one kill."""

    after_s: float
    what: str
    looks: int
    lost: int
    doubled: int
    half_visible: int
    recovery_s: float

    @property
    def is_good(self) -> bool:
        return self.looks > 0 and self.lost == self.doubled == self.half_visible == 0

    def __str__(self) -> str:
        figures = (self.looks, self.lost, self.doubled, self.half_visible)
        return f"| {self.after_s:.2f} | {self.what} | {' | '.join(map(str, figures))} | {self.recovery_s:.1f} |"


def kill_driver(process: BaseProcess, _: random.Random) -> str:
    """The process that somebody started."""
    process.kill()
    return "driver"


def kill_group(process: BaseProcess, _: random.Random) -> str:
    """It and all that it started."""
    assert process.pid is not None
    family = runs.descendants(process.pid)
    for pid in (process.pid, *family):
        _kill(pid)
    return "everything"


def kill_worker(process: BaseProcess, chance: random.Random) -> str:
    """One of Ray's workers in the midst of decoding or embedding; waits for one."""
    until = time.monotonic() + runs.PATIENCE_S["ray"]
    while not (workers := at_work(process)):
        if not process.is_alive():
            return "nothing: it had ended"
        assert time.monotonic() < until, "nobody decodes and nobody embeds"
        time.sleep(0.01)
    worker, name = chance.choice(workers)
    _kill(worker)
    return f"worker {name}"


def at_work(process: BaseProcess) -> list[tuple[int, str]]:
    """Ray's workers that decode or embed in this instant, and what each calls itself."""
    assert process.pid is not None
    titles = [(pid, runs.title(pid)) for pid in runs.descendants(process.pid)]
    return [(pid, found["stage"]) for pid, title in titles if (found := AT_WORK.search(title))]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it went with its parent
        os.kill(pid, signal.SIGKILL)


def break_run(stage: Stage, run: Run, after_s: float, kill: Kill, chance: random.Random) -> Outcome:
    """Starts a run, kills it, completes it with another, and looks at the archive all the while."""
    reader = stage.reader(run)
    process = runs.start(run)
    reader.watch(process, time.monotonic() + after_s)
    what = kill(process, chance) if process.is_alive() else "nothing: it had ended"
    if kill is not kill_worker:
        process.join(30)
    reader.watch(process, time.monotonic() + runs.PATIENCE_S[run.engine])  # a run survives the death of a worker
    recovery_s = runs.complete(run, reader)
    reader.look()
    lost, doubled = stage.losses(run)
    check_files(stage, run)
    return Outcome(after_s, what, reader.looks, lost, doubled, len(reader.wrong), recovery_s)


def check_files(stage: Stage, run: Run) -> None:
    """What a kill leaves behind goes with the next `compact`: nothing is missing then, and nothing too much."""
    compact(run.archive, CompactSettings(retention_days=0))
    assert runs.leftovers(run.archive) == []
    assert stage.losses(run) == (0, 0)
    assert runs.shown(run.archive, stage.space) == runs.counted(run.archive, stage.space)
    assert not (run.archive / "_scratch").exists()
    assert lease.holder_of(run.archive) is None


def moments(stage_s: float, count: int, chance: random.Random) -> Iterator[float]:
    """A random moment in each of so many equal parts of a run."""
    for part in range(count):
        yield stage_s * (part + chance.random()) / count


def say(outcomes: list[Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the table past pytest."""
    with capsys.disabled():
        sys.stdout.write("\n".join(["", HEADER, *map(str, outcomes), ""]))


def test_a_handful_of_kills_loses_and_doubles_nothing(stage: Stage, tmp_path: Path) -> None:
    chance = random.Random(4)
    for number, after_s in enumerate(moments(stage.unbroken_s, 3, chance)):
        run = stage.copy(tmp_path / str(number))
        outcome = break_run(stage, run, after_s, kill_driver, chance)
        assert outcome.is_good, outcome


def test_kills_one_after_the_other_come_to_an_end_too(stage: Stage, tmp_path: Path) -> None:
    """No run in between is whole: each goes on where the one before was killed."""
    chance, run = random.Random(5), stage.copy(tmp_path / "archive")
    for after_s in (0.4, 0.5, 0.6):
        process = runs.start(run)
        process.join(after_s * stage.unbroken_s)
        process.kill()
        process.join(30)
    assert break_run(stage, run, 0.2, kill_driver, chance).is_good


@pytest.mark.slow
def test_25_kills_lose_nothing_double_nothing_and_show_no_half(stage: Stage, tmp_path: Path, capsys) -> None:
    chance, outcomes = random.Random(2026), []
    for number, after_s in enumerate(moments(stage.unbroken_s, 25, chance)):
        run = stage.copy(tmp_path / str(number))
        outcomes.append(break_run(stage, run, after_s, kill_driver, chance))
    say(outcomes, capsys)
    assert [outcome for outcome in outcomes if not outcome.is_good] == []


@pytest.mark.slow
@pytest.mark.ray
def test_kills_on_ray_of_driver_worker_and_everything(stage: Stage, tmp_path: Path, capsys) -> None:
    chance, outcomes = random.Random(7), []
    whole = stage.copy(tmp_path / "whole", engine="ray")
    whole_s = runs.complete(whole)
    assert stage.losses(whole) == (0, 0)
    for number, after_s in enumerate(moments(whole_s, 6, chance)):
        run = stage.copy(tmp_path / str(number), engine="ray")
        kill = (kill_driver, kill_worker, kill_group)[number % 3]
        outcomes.append(break_run(stage, run, after_s, kill, chance))
    say(outcomes, capsys)
    assert [outcome for outcome in outcomes if not outcome.is_good] == []


@pytest.mark.slow
@pytest.mark.ray
def test_a_killed_driver_and_a_killed_worker_on_ray(stage: Stage, tmp_path: Path) -> None:
    chance = random.Random(8)
    for kill in (kill_worker, kill_driver):
        run = stage.copy(tmp_path / kill.__name__, engine="ray")
        process = runs.start(run)
        there = len(runs.parts(run.archive))
        while len(runs.parts(run.archive)) < there + 2 and process.is_alive():
            time.sleep(0.02)
        assert kill(process, chance) in ("driver", "worker decode", "worker embed")
        process.join(runs.PATIENCE_S[run.engine])
        assert not process.is_alive()
        assert break_run(stage, run, 0.0, kill_driver, chance).is_good
