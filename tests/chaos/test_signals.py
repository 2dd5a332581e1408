"""Ctrl-C and SIGTERM during `footage index`: what is done is committed, the next run does the rest, nothing stays."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from pipeline.archive import Archive
from tests.chaos import piles, runs
from tests.chaos.conftest import Stage
from tests.chaos.runs import Run


def command(run: Run) -> list[str]:
    """What somebody would type."""
    options = {"--model": run.weights, "--window": piles.WINDOW_S, "--context": "none", "--engine": run.engine}
    given = [str(part) for option in options.items() for part in option]
    return [sys.executable, "-m", "jobs", "index", str(run.pile), str(run.archive), *given]


def stop(run: Run, signum: signal.Signals) -> tuple[int, str, list[int]]:
    """Starts the run, signals its group like a terminal; its exit code, stderr, and processes that outlive it."""
    with subprocess.Popen(command(run), stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        runs.wait_for_parts(run, 2, lambda: process.poll() is None)  # none is committed for another two seconds
        family = runs.descendants(process.pid)
        os.killpg(process.pid, signum)
        _, err = process.communicate(timeout=60)
    return process.returncode, err, left(family)


def left(family: Iterable[int]) -> list[int]:
    """Of these processes, which are still there after a moment."""
    until = time.monotonic() + 10
    while (alive := [pid for pid in family if runs.is_alive(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    return alive


def check(stage: Stage, run: Run, err: str) -> None:
    """What was done is in, whole, and counted right; one more run completes it."""
    said = re.search(r"stopped: (\d+) of the (\d+) videos of this run are in the archive; .* again to go on", err)
    assert said is not None, err
    done, planned = map(int, said.groups())
    # With Ray, a part that is written may not have come to the driver yet: then it is not done.
    assert (0 if run.engine == "ray" else 1) <= done < planned == piles.VIDEOS - piles.SAME
    assert Archive.open(run.archive).runs()[-1]["state"] == "stopped"
    reader = stage.reader(run)
    reader.look()
    assert reader.wrong == []
    shown = runs.shown(run.archive, stage.space)
    assert len(shown.keys() & (stage.after.keys() - stage.before.keys())) == done
    rest = subprocess.run([*command(run), "--json"], capture_output=True, text=True, check=True)
    assert json.loads(rest.stdout)["planned"] == planned - done
    assert stage.losses(run) == (0, 0)
    assert not (run.archive / "_scratch").exists()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_commits_what_is_done_and_says_how_to_go_on(stage: Stage, tmp_path: Path, signum, code) -> None:
    run = stage.copy(tmp_path / "archive")
    returned, err, _ = stop(run, signum)
    assert returned == code
    check(stage, run, err)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_takes_rays_workers_along(stage: Stage, tmp_path: Path, signum, code) -> None:
    run = stage.copy(tmp_path / "archive", engine="ray")
    returned, err, outlived = stop(run, signum)
    assert (returned, outlived) == (code, [])
    check(stage, run, err)
