"""What footage says while it works: records of Python's `logging` under the logger `footage`, and JSON lines of them.

Each part asks for its logger (`logger("lease")`) and says facts, with fields beside the sentence: run_id, uri, kind.
Where they go is decided once, by the command line (`jobs.console`): sentences for people, or with FOOTAGE_LOG=json an
object a line. A worker of Ray reads the same variable and writes to its own stderr, which Ray keeps in a file.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

VARIABLE = "FOOTAGE_LOG"
ROOT = "footage"
FIELDS = "footage_fields"  # of a record: no library's name


def logger(part: str) -> logging.Logger:
    """The logger of a part of footage."""
    return logging.getLogger(f"{ROOT}.{part}")


def fields(**values: Any) -> dict[str, Any]:
    """What goes into `extra` of a call, so that it becomes fields of the JSON object."""
    return {FIELDS: values}


def run(run_id: str, state: str, **more: Any) -> None:
    """Says that a run started, was stopped, or finished."""
    logger("run").info("run %s: %s", state, run_id, extra=fields(run_id=run_id, state=state, **more))


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC), level, logger, message, the fields, and the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False, default=str)


class Stderr(logging.StreamHandler[TextIO]):
    """Writes to what is stderr at that moment: progress bars and tests put something else in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # logging's own last resort does the same
        """Where records go."""
        return sys.stderr


def set_up(*, as_json: bool, debug: bool = False) -> None:
    """Decides where all records of this process go: ours from warnings on, or as JSON from information on.

    Other libraries' are shown from errors on, or with `debug` from information on. Called again, it replaces itself.
    """
    handler = Stderr()
    handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, Stderr)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO if debug else logging.ERROR)
    logging.getLogger(ROOT).setLevel(logging.INFO if debug or as_json else logging.WARNING)
    logging.captureWarnings(as_json)
    logging.getLogger("py.warnings").setLevel(logging.WARNING)


def is_json() -> bool:
    """Whether the environment asks for JSON lines."""
    return os.environ.get(VARIABLE) == "json"


def in_worker() -> None:
    """The same in a worker of Ray; nothing without the variable."""
    if is_json() and not any(isinstance(each, Stderr) for each in logging.getLogger().handlers):
        set_up(as_json=True)
