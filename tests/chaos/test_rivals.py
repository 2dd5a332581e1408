"""Two that would write one archive: who comes second is refused, and who slept past its lease finds it gone.

The runs are real processes, and those that sleep are stopped by a real SIGSTOP; only the lease's expiry is shortened in
them, so that nobody must wait a minute for it. The slow tests do wait, with real commands.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from pipeline import lease
from pipeline.archive import Archive
from pipeline.repair import repair
from pipeline.rollback import rollback
from pipeline.settings import EngineName
from pipeline.verify import verify
from schemas.errors import ArchiveBusy
from tests.chaos import runs
from tests.chaos.conftest import Stage
from tests.chaos.runs import Reader, Run
from tests.chaos.test_kills import check_files, moments
from tests.chaos.test_signals import command

EXPIRED_S = lease.EXPIRY_S + 5
EXPIRY_S = 3.0  # a heart that beats twice a second misses no six beats, however busy the machine


def footage(*words: object) -> tuple[int, str]:
    """A real command; its exit code and what it says on stderr."""
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, words)], capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stderr


def kinds_wrong(run: Run) -> set[str]:
    """What is wrong with the archive of a run."""
    return {problem.kind for problem in verify(run.archive).problems}


def send(signum: signal.Signals, pids: Iterable[int]) -> None:
    """A signal to each of these processes."""
    for pid in pids:
        os.kill(pid, signum)


# --- beside a run at work


def test_rollback_and_repair_are_refused_while_a_run_is_at_work(stage: Stage, tmp_path: Path) -> None:
    """The run is stopped while the commands are given, so that it surely is at work, and then goes on to its end."""
    run = stage.copy(tmp_path / "archive")
    process = runs.start(run)
    runs.wait_for_parts(run, 2, process.is_alive)
    send(signal.SIGSTOP, [process.pid])
    run_id = Archive.open(run.archive).runs()[-1]["run_id"]
    for words in (["rollback", run.archive, run_id, "--yes"], ["verify", run.archive, "--repair"]):
        code, err = footage(*words)
        assert code == 4, err
        assert f"is being indexed by process {process.pid} on" in err
        assert f"(run {run_id}, last sign of life" in err
    send(signal.SIGCONT, [process.pid])
    process.join(60)
    assert process.exitcode == 0
    assert stage.losses(run) == (0, 0)
    assert kinds_wrong(run) == set()


def undo(run: Run) -> None:
    """Rolls back the last run, which is the one at work."""
    rollback(run.archive, Archive.open(run.archive).runs()[-1]["run_id"])


def mend(run: Run) -> None:
    """Repairs an archive in which nothing is broken."""
    assert {problem.kind for problem in repair(Archive.open(run.archive)).left} <= {"unfinished"}


@pytest.mark.parametrize("rival", [undo, mend])
def test_a_rival_that_asks_again_and_again_gets_the_archive_whole_or_not_at_all(
    rival: Callable[[Run], None], stage: Stage, tmp_path: Path
) -> None:
    run, refused, is_done = stage.copy(tmp_path / "archive"), 0, False
    process = runs.start(run)
    runs.wait_for_parts(run, 1, process.is_alive)
    while not is_done and process.is_alive():
        assert kinds_wrong(run) <= {"unfinished"}, "who only looks is never told of harm"
        with suppress(ArchiveBusy):
            rival(run)
            is_done = True
        refused += not is_done
    process.join(60)
    assert process.exitcode == 0
    assert refused
    assert runs.shown(run.archive, stage.space) == (stage.before if is_done and rival is undo else stage.after)
    assert kinds_wrong(run) == set()


# --- a run that slept


def sleep_and_wake(run: Run, when: Callable[[BaseProcess], object], meanwhile: Callable[[Run], object]) -> str:
    """Stops a run at some moment, has something else done, wakes it up; what it says when it ends, if not well."""
    sleeper = replace(run, expiry_s=EXPIRY_S, last_words=run.archive.with_suffix(".txt"))
    process = runs.start(sleeper)
    when(process)
    if process.is_alive():
        send(signal.SIGSTOP, [process.pid])
    meanwhile(replace(run, expiry_s=EXPIRY_S, wait_s=60))
    if process.is_alive():
        send(signal.SIGCONT, [process.pid])
    process.join(60)
    assert process.exitcode in (0, 1)
    return sleeper.last_words.read_text() if process.exitcode else ""


def check_robbed(said: str) -> None:
    """The run that slept says what happened and what to do."""
    assert said.startswith("LeaseLost: "), said
    assert "gave no sign of life" in said
    assert "nothing is lost: run the same command again when that has ended" in said


def check_unharmed(stage: Stage, run: Run, reader: Reader) -> None:
    """Every clip is there, once, and was never seen but whole."""
    reader.look()
    assert reader.wrong == []
    assert stage.losses(run) == (0, 0)
    check_files(stage, run)
    assert kinds_wrong(run) == set()


def test_a_run_that_slept_past_its_lease_wakes_up_and_does_no_harm(stage: Stage, tmp_path: Path) -> None:
    run = stage.copy(tmp_path / "archive")
    reader = stage.reader(run)
    said = sleep_and_wake(
        run,
        lambda process: runs.wait_for_parts(run, 3, process.is_alive),
        lambda other: runs.complete(other, reader),
    )
    check_robbed(said)
    check_unharmed(stage, run, reader)


@pytest.mark.slow
def test_runs_that_slept_at_ten_moments_do_no_harm(stage: Stage, tmp_path: Path) -> None:
    chance, robbed = random.Random(9), 0
    for number, after_s in enumerate(moments(stage.unbroken_s, 10, chance)):
        run = stage.copy(tmp_path / str(number))
        reader = stage.reader(run)
        said = sleep_and_wake(
            run,
            lambda process, reader=reader, after_s=after_s: reader.watch(process, time.monotonic() + after_s),
            lambda other, reader=reader: runs.complete(other, reader),
        )
        if said:  # else it had ended, or had not begun
            check_robbed(said)
            robbed += 1
        check_unharmed(stage, run, reader)
    assert robbed > 3


# --- with real commands, and the lease's real expiry

TAKES_OVER = {
    "rollback": lambda run: ["rollback", run.archive, Archive.open(run.archive).runs()[-1]["run_id"], "--yes"],
    "repair": lambda run: ["verify", run.archive, "--repair"],
    "compact": lambda run: ["compact", run.archive, "--retention", "0"],
    "index": lambda run: command(run)[3:],
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
@pytest.mark.parametrize("name", TAKES_OVER)
def test_a_command_takes_over_from_one_that_sleeps(name: str, engine: EngineName, stage: Stage, tmp_path: Path) -> None:
    run = stage.copy(tmp_path / "archive", engine=engine)
    with subprocess.Popen(command(run), stderr=subprocess.PIPE, text=True, start_new_session=True) as sleeper:
        runs.wait_for_parts(run, 3, lambda: sleeper.poll() is None)
        family = [sleeper.pid, *runs.descendants(sleeper.pid)]
        send(signal.SIGSTOP, family)
        words = TAKES_OVER[name](run)
        assert footage(*words)[0] == 4, "it may only sleep for a moment"
        time.sleep(EXPIRED_S)
        code, err = footage(*words)
        assert code in (0, 1 if name == "repair" else 0), err
        send(signal.SIGCONT, family)
        _, said = sleeper.communicate(timeout=120)
    assert sleeper.returncode == 1, said
    assert "gave no sign of life" in said
    assert "Traceback" not in said
    assert kinds_wrong(run) <= {"unfinished"}
    if name == "rollback":
        assert runs.shown(run.archive, stage.space) == stage.before
    runs.complete(replace(run, engine="local"))
    check_unharmed(stage, run, stage.reader(run))
