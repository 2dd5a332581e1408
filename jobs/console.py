"""How commands speak: results on stdout, everything else on stderr, errors as one sentence.

With `--log-json` or FOOTAGE_LOG=json everything else is one JSON object a line, for machines: see `pipeline.logs`.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, TextIO, cast

from pipeline import logs
from pipeline.interrupts import Stopped, obeyed
from schemas.errors import ArchiveBusy, FootageError, InputError, RefusedToRetire

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from pipeline.progress import Progress

# What is counted in a phase; others go by seconds of footage.
COUNTED = {
    "compare": "files",
    "inspect": "files",
    "evaluate": "files",
    "tag": "clips",
    "export": "clips",
    "train": "steps",
    "merge": "archives",
    "wait": "s for another run",
}
LOG_FORMATS = ("text", "json")
LINE_WIDTH = 160  # of a table that is told to the log, line by line
EXIT_ERROR = 1
EXIT_SOME_FAILED = 3
EXIT_BUSY = 4
EXIT_REFUSED = 5  # to retire videos: a disk is missing, or a person must say yes


def messages() -> Console:
    """The console for people: progress, notes, errors. Where JSON is asked for, each line becomes a record."""
    from rich.console import Console

    if logs.is_json():
        return Console(file=cast("TextIO", _Lines()), highlight=False, width=LINE_WIDTH)
    return Console(stderr=True, highlight=False)


class _Lines(io.TextIOBase):
    """A stream whose lines are records."""

    def write(self, text: str) -> int:
        """Rich writes whole lines."""
        for line in filter(None, map(str.strip, text.splitlines())):
            logs.logger("message").info("%s", line)
        return len(text)


def results() -> Console:
    """The console for tables on stdout."""
    from rich.console import Console

    return Console(highlight=False)


def caution(notes: Iterable[str]) -> None:
    """What a user must know of a model before believing what comes of it, on stderr."""
    for note in notes:
        if logs.is_json():
            logs.logger("note").warning("%s", note)
            continue
        messages().print(f"[bold yellow]note:[/] {_escaped(note)}", soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON object on stdout; dataclasses become objects."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """What JSON has no form of: dataclasses become objects, all else text."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def stream_json(value: Mapping[str, Any], lists: Mapping[str, Iterable[Any]]) -> None:
    """One JSON object on stdout, whose last fields are lists that are too long to hold."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str)[:-1])
    for name, items in lists.items():
        sys.stdout.write(f", {json.dumps(name)}: [")
        for number, item in enumerate(items):
            sys.stdout.write(("" if number == 0 else ", ") + json.dumps(item, ensure_ascii=False, default=str))
        sys.stdout.write("]")
    sys.stdout.write("}\n")


def set_up(*, debug: bool, as_json: bool) -> None:
    """Decides what reaches stderr and in which form, also for the workers that this process will start.

    Raises InputError for a format that there is not.
    """
    asked = os.environ.get(logs.VARIABLE, LOG_FORMATS[0]) or LOG_FORMATS[0]
    if asked not in LOG_FORMATS:
        raise InputError(f"{logs.VARIABLE}={asked} is no format of the log; expected one of {', '.join(LOG_FORMATS)}")
    if as_json:
        os.environ[logs.VARIABLE] = "json"
    logs.set_up(as_json=logs.is_json(), debug=debug)
    sys.excepthook = _told_to_the_log if logs.is_json() else sys.__excepthook__


def _told_to_the_log(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug, as one record; the interpreter then ends with 1 as ever."""
    logs.logger("bug").critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For a command that is over in seconds: what importing torch leaves is not looked through again and again.

    Nor is it when the process ends, which takes longer than any other time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _exit_code(error: Exception) -> int:
    """How a command ends that an error ended: what a scheduler does about some is different."""
    if isinstance(error, ArchiveBusy):
        return EXIT_BUSY
    return EXIT_REFUSED if isinstance(error, RefusedToRetire) else EXIT_ERROR


def run(app: Callable[[], None], *, debug: bool) -> int:
    """Runs the application; errors that a user can act on become one sentence and exit code 1, a signal 128 more."""
    try:
        with obeyed():
            app()
    except (FootageError, OSError) as error:  # OSError: a full disk, a folder that may not be written to
        _tell(error, debug=debug)
        return _exit_code(error)
    except SystemExit as end:  # typer's way to end, also after a signal
        stopped = _stopped(end)
        if stopped is None:
            raise
        messages().print(_escaped(str(stopped)), soft_wrap=True)
        return stopped.exit_code
    return 0


def _tell(error: Exception, *, debug: bool) -> None:
    """One sentence, with the traceback if asked for."""
    if logs.is_json():
        told = logs.fields(error=type(error).__name__, exit_code=_exit_code(error))
        logs.logger("error").error("%s", error, exc_info=error if debug else None, extra=told)
        return
    if debug:
        traceback.print_exc()
    messages().print(f"[bold red]error:[/] {_escaped(str(error))}", soft_wrap=True)


def _stopped(end: SystemExit) -> Stopped | None:
    """The signal that ended the application, under what typer made of it."""
    error: BaseException | None = end
    while error is not None and not isinstance(error, Stopped):
        error = error.__cause__ or error.__context__
    return error


def _escaped(text: str) -> str:
    """Text in which rich sees no markup: file names may look like it."""
    from rich.markup import escape

    return escape(text)


@contextmanager
def progress_bar(*, enabled: bool) -> Iterator[Callable[[Progress], None]]:
    """A function that shows how far a run is: files, or while indexing footage per second, and the time left."""
    if not enabled or logs.is_json():
        yield lambda _: None
        return
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=messages(), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            task = tasks.get(progress.phase)
            if task is None:
                task = tasks[progress.phase] = bar.add_task(progress.phase, total=progress.total, rate="")
            bar.update(task, completed=progress.done, rate=_rate(progress, bar.tasks[task].elapsed or 0.0))

        yield show


def _rate(progress: Progress, elapsed_s: float) -> str:
    """How far and how fast, in words."""
    if progress.phase in COUNTED:
        return f"{progress.done:.0f} of {progress.total:.0f} {COUNTED[progress.phase]}"
    speed = f", {progress.done / elapsed_s:.0f} s/s" if elapsed_s > 1 else ""
    return f"{progress.done:.0f} of {progress.total:.0f} s of footage{speed}"


def length(seconds: float) -> str:
    """A length of time for people: 42 s, 3 min 20 s, 1 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest_s:02} s"


def size(size_bytes: float) -> str:
    """Bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
