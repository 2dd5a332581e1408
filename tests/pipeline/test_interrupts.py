"""Signals: held while a run commits, heard while it waits, and never asked twice. The signals are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipeline import interrupts
from pipeline.interrupts import Stopped, held, kept_from_others, obeyed


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    """A test that was signalled leaves the system's handlers behind."""
    before = {signum: signal.getsignal(signum) for signum in interrupts.SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def send(signum: signal.Signals) -> None:
    os.kill(os.getpid(), signum)


def numbers(signalled: int, signum: signal.Signals = signal.SIGINT) -> Iterator[int]:
    """0, 1, 2 ... with a signal while somebody waits for the one that is named."""
    for number in range(100):
        if number == signalled:
            send(signum)
        yield number


@pytest.mark.parametrize("signum", interrupts.SIGNALS)
def test_a_signal_during_a_wait_is_the_end_of_the_results(signum: signal.Signals) -> None:
    with held() as hold:
        assert list(hold.listen(numbers(3, signum))) == [0, 1, 2]
        assert hold.signum == signum


def test_a_signal_outside_of_a_wait_lets_the_work_at_hand_be_finished() -> None:
    done = []
    with held() as hold:
        for number in hold.listen(range(100)):
            if number == 3:
                send(signal.SIGTERM)
            done.append(number)
    assert done == [0, 1, 2, 3]


def test_without_a_signal_every_result_comes_and_the_handlers_are_put_back() -> None:
    before = [signal.getsignal(signum) for signum in interrupts.SIGNALS]
    with held() as hold:
        assert list(hold.listen(range(5))) == [0, 1, 2, 3, 4]
    assert hold.signum is None
    assert [signal.getsignal(signum) for signum in interrupts.SIGNALS] == before


def test_errors_of_the_results_pass() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with held() as hold, pytest.raises(ValueError, match="broken"):
        list(hold.listen(broken()))


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_is_not_held_stops_where_it_is(signum: signal.Signals, code: int) -> None:
    with pytest.raises(Stopped, match="run the same command again to go on") as stop, obeyed():
        send(signum)
    assert stop.value.exit_code == code


def start_a_library(*, signalled: bool) -> None:
    """As Ray does it: takes SIGTERM for itself."""
    with kept_from_others():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        if signalled:
            send(signal.SIGTERM)


def test_a_library_that_takes_sigterm_for_itself_does_not_keep_it() -> None:
    with obeyed():
        ours = signal.getsignal(signal.SIGTERM)
        start_a_library(signalled=False)
        assert signal.getsignal(signal.SIGTERM) == ours
        with pytest.raises(Stopped):
            start_a_library(signalled=True)


STUBBORN = """
import time
from pipeline.interrupts import held, obeyed
with obeyed(), held() as hold:
    while True:
        print("held", hold.signum, flush=True)
        time.sleep(0.02)
"""


@pytest.mark.parametrize("signum", interrupts.SIGNALS)
def test_a_second_signal_ends_the_process_at_once(signum: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held None\n"
        process.send_signal(signum)
        while process.stdout.readline() != f"held {int(signum)}\n":
            assert process.poll() is None
        process.send_signal(signum)
        assert process.wait(10) == -signum
