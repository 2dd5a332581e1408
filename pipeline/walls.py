"""Walls round the work on one record: a deadline, a cap on memory, and a note that outlives the worker.

Before the work begins a note is written that holds the record, and beside it a file that `faulthandler` writes to when
the deadline passes or a signal kills the process. Work that ends, well or not, takes its note away. What notes are left
at the end of a run tell which records killed their worker, and how.
"""

from __future__ import annotations

import faulthandler
import pickle
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from schemas.errors import OutOfMemory, first_line
from schemas.records import Failed

TIMEOUT, CRASH, KILLED = "timeout", "crash", "killed"
STATUS = Path("/proc/self/status")
# An environment may lie in the repository, and installed the layers lie beside everybody's packages.
OURS = tuple(Path(__file__).parents[1] / layer for layer in ("schemas", "xclip_core", "pipeline", "jobs"))
# faulthandler's own words; the frame that was running comes in the lines below them.
DEADLINE_PASSED = "Timeout ("
SIGNAL_CAUGHT = "Fatal Python error: "


@dataclass(frozen=True, slots=True)
class _Note:
    """What a worker was about to do."""

    record: Any
    stage: str
    deadline_s: float


@contextmanager
def watched(folder: Path, stage: str, record: Any, deadline_s: float) -> Iterator[None]:
    """Ends this process when the work takes too long, even inside C code that never lets Python run.

    However it ends, `deaths` tells of it.
    """
    place, note = _note(folder, stage, record, deadline_s)
    others = faulthandler.is_enabled()  # Ray's, which writes to the worker's log
    with place.with_suffix(".txt").open("w") as last_words:
        place.with_suffix(".note").write_bytes(note)
        faulthandler.enable(last_words, all_threads=False)
        faulthandler.dump_traceback_later(deadline_s, exit=True, file=last_words)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
            if others and sys.__stderr__ is not None:
                faulthandler.enable(sys.__stderr__, all_threads=False)
            _forget(place)


def _note(folder: Path, stage: str, record: Any, deadline_s: float) -> tuple[Path, bytes]:
    """Where a note lies, without its suffix, and what it says. Equal records share one: a second try replaces it."""
    note = pickle.dumps(_Note(record, stage, deadline_s))
    return folder / f"death-{xxhash.xxh3_64_hexdigest(note)}", note


def _forget(place: Path) -> None:
    """Takes a note away."""
    place.with_suffix(".note").unlink(missing_ok=True)
    place.with_suffix(".txt").unlink(missing_ok=True)


def timed_out(folder: Path, stage: str, record: Any, deadline_s: float) -> Failed | None:
    """The failure of a record that went over its deadline before in this run: to wait for it again is of no use."""
    place, _ = _note(folder, stage, record, deadline_s)
    failed = _read(place.with_suffix(".note")) if place.with_suffix(".note").exists() else None
    if failed is None or failed.kind != TIMEOUT:
        return None
    _forget(place)
    return failed


def deaths(folder: Path) -> Iterator[Failed]:
    """A failure for each record whose worker did not come back, in no particular order; their notes are taken away."""
    for file in list(folder.glob("death-*.note")):
        failed = _read(file)
        _forget(file.with_suffix(""))
        if failed is not None:
            yield failed


def _read(file: Path) -> Failed | None:
    """What a note and the last words beside it tell; None if the worker died while writing it, and had not begun."""
    try:
        note: _Note = pickle.loads(file.read_bytes())  # noqa: S301  # from a folder only this run can write
    except (EOFError, pickle.UnpicklingError):
        return None
    kind, error = cause_of_death(file.with_suffix(".txt").read_text(errors="replace"), note.deadline_s)
    return Failed(note.record, kind, error, note.stage, permanent=False)


def cause_of_death(last_words: str, deadline_s: float) -> tuple[str, str]:
    """A kind and a sentence from what faulthandler wrote down."""
    if DEADLINE_PASSED in last_words:
        return TIMEOUT, f"over its deadline of {deadline_s:.0f} s, and stopped{_where(last_words)}"
    if SIGNAL_CAUGHT in last_words:
        signal = last_words.split(SIGNAL_CAUGHT, 1)[1].splitlines()[0]
        return CRASH, f"the worker crashed: {signal}{_where(last_words)}"
    return KILLED, "the worker was killed from outside, most likely because the machine ran out of memory"


def _where(last_words: str) -> str:
    """The innermost line of our own code, as faulthandler has it: '  File "/x/pipeline/decode.py", line 7 in inspect'.

    It lists all threads, and Ray's first.
    """
    for line in last_words.splitlines():
        path, _, place = line.removeprefix('  File "').partition('", ')
        if place and any(map(Path(path).is_relative_to, OURS)):
            return f" ({Path(path).name}, {place})"
    return ""


def told(error: Exception) -> str:
    """An exception that nobody foresaw: its kind, its first line, and the innermost line of our own code."""
    places = [f for f in traceback.extract_tb(error.__traceback__) if any(map(Path(f.filename).is_relative_to, OURS))]
    where = f" ({Path(places[-1].filename).name}, line {places[-1].lineno} in {places[-1].name})" if places else ""
    return f"{type(error).__name__}: {first_line(error)}{where}"


@contextmanager
def memory_cap(extra_bytes: int) -> Iterator[None]:
    """Lets this process take at most so much more private memory meanwhile. Raises OutOfMemory beyond.

    RLIMIT_DATA and not RLIMIT_AS: a Ray worker maps the whole object store, tens of gigabytes that are not its own.
    Works on Linux; does nothing elsewhere.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = data_bytes() + extra_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if soft == resource.RLIM_INFINITY else min(soft, wanted), hard))
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(f"needs more than {extra_bytes / 2**30:.1f} GiB of memory") from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def data_bytes() -> int:
    """Private writable memory of this process, as RLIMIT_DATA counts it."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024
