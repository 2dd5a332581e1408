"""Stages that do as their record says: work, raise, crash, hang. At module level: Ray's workers import them."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from schemas.errors import NotAVideo, UnreadableFile


@dataclass(frozen=True)
class Task:
    """A record: what to do, and where to note that it was tried."""

    number: int
    deed: str = "work"
    notes: str = ""


@dataclass(frozen=True)
class Result:
    """What the last stage makes of a record."""

    number: int
    worker: int


def _note(task: Task) -> None:
    """One line for each time a record is tried. Appending is atomic, whoever crashes next."""
    if task.notes:
        with Path(task.notes, f"{task.number}-{task.deed}").open("a") as stream:
            stream.write("tried\n")


def _segfault() -> None:
    ctypes.string_at(0)


def _hang() -> None:
    """Waits in C with the GIL held: no signal handler and no thread of Python runs again."""
    ctypes.PyDLL(None).sleep(3600)


def _killed() -> None:
    """As the kernel does when memory runs out: nothing can be said any more."""
    os.kill(os.getpid(), signal.SIGKILL)


def _glutton() -> None:
    """Asks for more than any cap of the tests allows, and would touch all of it."""
    np.ones(1 << 30, np.uint8)


def _bad_file() -> None:
    raise NotAVideo("this is text")


def _lost_disk() -> None:
    raise UnreadableFile("cannot be read: I/O error")


def _bug() -> None:
    raise TypeError("a bug in the stage")


def _full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


DEEDS = {
    "work": lambda: None,
    "segfault": _segfault,
    "hang": _hang,
    "killed": _killed,
    "glutton": _glutton,
    "bad_file": _bad_file,
    "lost_disk": _lost_disk,
    "bug": _bug,
    "full_disk": _full_disk,
}


def first(tasks: list[Task]) -> list[Task]:
    """Does what each task says and passes it on."""
    for task in tasks:
        _note(task)
        DEEDS[task.deed]()
    return list(tasks)


def last(tasks: list[Task]) -> list[Result]:
    """A result for each task."""
    return [Result(task.number, os.getpid()) for task in tasks]


def fan_out(tasks: list[Task]) -> list[Task]:
    """As `first`, and each task as many times as its number."""
    return [task for task in first(tasks) for _ in range(task.number)]


@dataclass(frozen=True)
class Counted:
    """What `Counter` makes of a record."""

    number: int
    batch_size: int
    batches_before: int
    worker: int


@dataclass
class Counter:
    """A stage with a state, which must survive from batch to batch: the batches it has seen."""

    seen: list[int] = field(default_factory=list)

    def __call__(self, tasks: list[Task]) -> list[Counted]:
        """One result for each task."""
        self.seen.append(len(tasks))
        return [Counted(task.number, len(tasks), len(self.seen) - 1, os.getpid()) for task in tasks]


def two_seconds(_: Task) -> float:
    """A deadline."""
    return 2.0
