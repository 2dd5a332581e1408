"""The record of a training: JSON lines for programs, and TensorBoard event files where tensorboard is installed.

A run that was killed has written steps that its checkpoint does not know of; they are taken back when it resumes, so
every step is in the file once. Lines hold nothing that depends on the clock: a run that was killed and resumed leaves
the same file as one that was not.
"""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xclip_core.durable import write_text

FILE = "metrics.jsonl"
EVENTS = "tensorboard"
NO_TENSORBOARD = "tensorboard is not installed, so metrics go to metrics.jsonl alone; pip install 'footage[train]'"


class Curves:
    """The open record of a run in `folder`, whose steps after `step` are taken back."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / FILE
        write_text(self._path, "".join(line + "\n" for line in kept_lines(self._path, step)))
        self._stream = self._path.open("a", encoding="utf-8")
        self._events = _event_writer(folder / EVENTS, step)

    def write(self, kind: str, step: int, **values: float) -> None:
        """One line, and one point in each of TensorBoard's curves."""
        self._stream.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._stream.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def force(self) -> None:
        """Waits until all lines are on the disk: before a checkpoint that counts on them."""
        os.fsync(self._stream.fileno())
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Closes all files."""
        self._stream.close()
        if self._events is not None:
            self._events.close()


def kept_lines(path: Path, step: int) -> list[str]:
    """The whole lines of a record up to a step; the last line of a killed run may be half a line."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            written = json.loads(line)
        except json.JSONDecodeError:
            break
        if written["step"] <= step:
            kept.append(line)
    return kept


def last_step(folder: Path) -> int:
    """The step of the last whole line of a record that somebody else may be writing; 0 when there is none."""
    path = folder / FILE
    lines = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def has_tensorboard() -> bool:
    """Whether event files can be written."""
    return find_spec("tensorboard") is not None


def _event_writer(folder: Path, step: int) -> Any:
    """TensorBoard's writer, which hides points of later steps that a killed run left; None without tensorboard."""
    if not has_tensorboard():
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
