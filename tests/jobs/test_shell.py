"""What the command line is to a shell: a version, completion, and help that is there at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.versions import versions

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from jobs.__main__ import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment})


def test_the_version_is_that_of_the_package(footage) -> None:
    assert footage("--version") == (0, f"footage {versions()['footage']}\n", "")


@pytest.mark.parametrize(
    ("words", "number", "expected"),
    [
        ("footage ev", "1", {"evaluate", "eval-search"}),
        ("footage index --tol", "2", {"--tolerance"}),
        ("footage index a b --engine ", "5", {"ray", "local"}),
    ],
)
def test_bash_completes_commands_options_and_choices(words: str, number: str, expected: set[str]) -> None:
    ended = run(_FOOTAGE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=number)
    assert expected <= set(ended.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_asks_us(shell: str) -> None:
    ended = run(_FOOTAGE_COMPLETE=f"source_{shell}")
    assert "_FOOTAGE_COMPLETE" in ended.stdout
    assert "footage" in ended.stdout


def test_help_is_there_at_once() -> None:
    """0.1 s on an idle machine; the best of five, and some patience for a busy one."""
    took_s = []
    for _ in range(5):
        began = time.process_time(), os.times()
        assert run("--help").returncode == 0
        took_s.append(os.times().children_user - began[1].children_user)
    assert min(took_s) < 0.5
