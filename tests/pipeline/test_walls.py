"""Walls round a record: what is left when its worker dies, and how much memory it may take."""

from __future__ import annotations

import ctypes
import pickle
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline import walls
from schemas.errors import OutOfMemory
from schemas.records import Failed

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


def work_on(folder: Path, record: str, deed: str, deadline_s: float = 60.0) -> subprocess.CompletedProcess:
    """One record in a process of its own."""
    code = (
        "import ctypes, os, signal, sys, time\nfrom pathlib import Path\nfrom pipeline import walls\n"
        f"with walls.watched(Path({str(folder)!r}), 'decode', {record!r}, {deadline_s}):\n    {deed}\n"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


DEATHS = {
    "ctypes.PyDLL(None).sleep(60)": "timeout",  # in C, with the GIL held
    "ctypes.CDLL(None).sleep(60)": "timeout",
    "time.sleep(60)": "timeout",
    "ctypes.string_at(0)": "crash",
    "os.abort()": "crash",
    "os.kill(os.getpid(), signal.SIGFPE)": "crash",
    "os.kill(os.getpid(), signal.SIGKILL)": "killed",
}


@pytest.mark.parametrize("deed", DEATHS)
def test_a_note_tells_how_a_worker_died(deed: str, tmp_path: Path) -> None:
    began = time.monotonic()
    assert work_on(tmp_path, "a record", deed, 1.0 if DEATHS[deed] == "timeout" else 60.0).returncode != 0
    assert time.monotonic() - began < 20, "the deadline holds"
    (failed,) = walls.deaths(tmp_path)
    assert (failed.record, failed.stage, failed.kind, failed.permanent) == ("a record", "decode", DEATHS[deed], False)
    assert list(tmp_path.iterdir()) == [], "told once"


def test_the_sentence_says_where_it_happened() -> None:
    words = (
        "Timeout (0:00:02)!\nThread 0x0a (most recent call first):\n"
        '  File "/usr/lib/python3.12/threading.py", line 331 in wait\n\nThread 0x0b (most recent call first):\n'
        f'  File "{ROOT}/.venv/lib/ray/data/util.py", line 1926 in poll_uss\n\nThread 0x0c (most recent call first):\n'
        f'  File "/lib/av/x.py", line 3 in decode\n  File "{ROOT}/pipeline/decode.py", line 7 in inspect\n'
    )
    assert walls.cause_of_death(words, 2.0) == (
        "timeout",
        "over its deadline of 2 s, and stopped (decode.py, line 7 in inspect)",
    )
    assert walls.cause_of_death("Fatal Python error: Bus error\n\n", 2.0) == ("crash", "the worker crashed: Bus error")


@pytest.mark.parametrize("deed", ["pass", "raise ValueError('a bug')"])
def test_work_that_ends_leaves_no_note(deed: str, tmp_path: Path) -> None:
    assert work_on(tmp_path, "a record", deed).returncode == (0 if deed == "pass" else 1)
    assert list(tmp_path.iterdir()) == []


def test_a_second_try_that_succeeds_takes_the_note_away(tmp_path: Path) -> None:
    work_on(tmp_path, "a record", "os.abort()")
    assert len(list(tmp_path.glob("*.note"))) == 1
    work_on(tmp_path, "a record", "pass")
    assert list(walls.deaths(tmp_path)) == []


def test_only_a_deadline_is_not_waited_for_again(tmp_path: Path) -> None:
    work_on(tmp_path, "slow", "time.sleep(60)", 1.0)
    work_on(tmp_path, "crash", "os.abort()", 1.0)
    assert walls.timed_out(tmp_path, "decode", "crash", 1.0) is None
    assert walls.timed_out(tmp_path, "decode", "another", 1.0) is None
    failed = walls.timed_out(tmp_path, "decode", "slow", 1.0)
    assert isinstance(failed, Failed)
    assert failed.kind == "timeout"
    assert [other.record for other in walls.deaths(tmp_path)] == ["crash"], "the first is told already"


def test_a_note_that_was_not_written_to_the_end_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "death-0.note").write_bytes(pickle.dumps("half")[:5])
    assert list(walls.deaths(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_memory_beyond_the_cap_is_a_video_error_and_the_cap_goes_away() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(OutOfMemory, match=r"needs more than 0\.1 GiB of memory"), walls.memory_cap(128 * MIB):
        np.ones(256 * MIB, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with walls.memory_cap(512 * MIB):
        assert np.ones(256 * MIB, np.uint8)[-1] == 1


def test_memory_that_c_code_asks_for_counts(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    # More than any test before can have freed and left with the process.
    with walls.memory_cap(128 * MIB):
        assert libc.malloc(2048 * MIB) is None
    address = libc.malloc(2048 * MIB)
    assert address is not None
    libc.free(address)


def test_a_stricter_limit_of_the_user_stays() -> None:
    code = (
        "import resource\nfrom pipeline import walls\n"
        "limit = walls.data_bytes() + (64 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))\n"
        "with walls.memory_cap(1 << 30):\n    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == limit\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
