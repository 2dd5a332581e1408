"""Ctrl-C and SIGTERM: a run takes no new work, commits what is done, and ends; a second signal ends it at once.

An exception that may fly from any line is no way to stop a thing that commits: between a commit and the note that it
was made, it would have the same clips committed twice. So a run holds signals back and lets them through only where
it waits for results; there, a signal looks like the end of the results. Outside of `held`, a command ends where it is.
"""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GO_ON = "what was committed stays, run the same command again to go on"

Result = TypeVar("Result")


class Stopped(KeyboardInterrupt):
    """A signal ended the run in good order. The message says what is done and how to go on."""

    def __init__(self, signum: int, message: str = f"stopped; {GO_ON}") -> None:
        super().__init__(message)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signum


class _Wake(KeyboardInterrupt):
    """What takes a waiting run out of its wait; never leaves this module."""


class Hold:
    """What a run knows of signals while they are held. `signum` is that of the one that came, or None."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._waits = False

    def catch(self, signum: int, _frame: FrameType | None) -> None:
        """The handler: notes the first signal, and ends a wait."""
        self.signum = signum
        _let_the_next_kill()
        if self._waits:
            raise _Wake

    def listen(self, results: Iterable[Result]) -> Iterator[Result]:
        """The results, up to a signal. What is cut off by it was not done."""
        source = iter(results)
        while self.signum is None:
            try:
                result = self._next(source)
            except _Wake:
                gc.collect()  # what was broken off is put away now, while all that it needs for that is there
                return
            if result is self:
                return
            yield result

    def _next(self, source: Iterator[Any]) -> Any:
        """The next result, waiting for it with open ears; self when there is none."""
        self._waits = True
        try:
            return next(source, self) if self.signum is None else self
        finally:
            self._waits = False


@contextmanager
def held() -> Iterator[Hold]:
    """Holds signals back. Whoever asked looks at `signum` before leaving, and ends with `Stopped` if there is one."""
    hold = Hold()
    if not _is_main_thread():  # signals are handled in the main thread, and here we are not in its way
        yield hold
        return
    before = {signum: signal.signal(signum, hold.catch) for signum in SIGNALS}
    try:
        yield hold
    finally:
        if hold.signum is None:
            _restore(before)


@contextmanager
def obeyed() -> Iterator[None]:
    """While a command runs: the first signal raises `Stopped` wherever it is not held, the second kills."""
    if not _is_main_thread():
        yield
        return
    before = {signum: signal.signal(signum, _stop) for signum in SIGNALS}
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def kept_from_others() -> Iterator[None]:
    """Keeps our handler of SIGTERM while a library is started that would put its own in the place."""
    handler = signal.getsignal(signal.SIGTERM)
    if not (_is_main_thread() and callable(handler)):
        yield
        return
    try:
        yield
    except SystemExit as end:  # a signal came meanwhile, and this is what their handler makes of it
        raise Stopped(signal.SIGTERM) from end
    finally:
        signal.signal(signal.SIGTERM, handler)


def _stop(signum: int, _frame: FrameType | None) -> None:
    """The handler of a command that holds nothing."""
    _let_the_next_kill()
    raise Stopped(signum)


def _let_the_next_kill() -> None:
    """Leaves later signals to the system, which ends the process without asking it."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)


def _restore(before: dict[signal.Signals, Any]) -> None:
    """Puts handlers back; None stands for one that was not set from Python."""
    for signum, handler in before.items():
        signal.signal(signum, signal.SIG_DFL if handler is None else handler)


def _is_main_thread() -> bool:
    """Whether this thread may set handlers."""
    return threading.current_thread() is threading.main_thread()
