"""A run's private folder: its plan, and the notes that its workers leave when they die.

Inside the archive, so that every worker of a cluster sees it. Workers write there as they die, which no object store
allows: a run on an archive in one has its folder in TMPDIR, which all machines of a cluster must then share.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.stores import AnyPath

FOLDER = "_scratch"  # Delta takes what begins so for no table's


@contextmanager
def private(archive: AnyPath, run_id: str) -> Iterator[Path]:
    """A folder for one run, as long as this lasts; nobody else can read it."""
    folder = _place(archive, run_id)
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        drop(archive, run_id)


def _place(archive: AnyPath, run_id: str) -> Path:
    """Where a run's folder is; the id of a run cannot be guessed by others who use TMPDIR."""
    if isinstance(archive, Path):
        return archive / FOLDER / run_id
    return Path(tempfile.gettempdir(), f"footage-{run_id}")


def left(archive: AnyPath) -> list[Path]:
    """The folders that runs have in the archive now, or left there when they were killed."""
    return sorted((archive / FOLDER).glob("*")) if isinstance(archive, Path) else []


def drop(archive: AnyPath, run_id: str) -> None:
    """Removes a run's folder, and the folder of those once it is empty."""
    folder = _place(archive, run_id)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.name == FOLDER:
        with suppress(OSError):  # others' are in it; or who took over has swept it all
            folder.parent.rmdir()


def sweep(archive: AnyPath) -> None:
    """Removes what killed runs left. For who holds the lease: nobody else has a run."""
    if isinstance(archive, Path):
        shutil.rmtree(archive / FOLDER, ignore_errors=True)
