"""Room on disk: a full disk or temporary folder ends a run with a sentence that names the place and says what to do."""

from __future__ import annotations

import errno
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.stores import AnyPath
from schemas.errors import NoRoom

FULL = (errno.ENOSPC, errno.EDQUOT)
# Delta and FAISS keep no number of what the system said, only its words.
FULL_IN_WORDS = ("no space left on device", "os error 28", "disk quota exceeded")
LEAST_BYTES = 1_000_000  # less is as good as nothing: a part with its thumbnails and a commit would not fit


@contextmanager
def needed(folder: AnyPath) -> Iterator[None]:
    """Turns what anybody says of a full disk while this lasts into NoRoom."""
    try:
        yield
    except NoRoom:
        raise
    except Exception as error:
        if not _tells_of_a_full_disk(error):
            raise
        raise NoRoom(_sentence(folder)) from error


def check(folder: AnyPath, *, has_losses: bool) -> None:
    """Raises NoRoom when units were lost and the disk is full: then no bad file took their workers along."""
    if has_losses and _free_bytes(folder) < LEAST_BYTES:
        raise NoRoom(_sentence(folder))


def check_temporary(temporary: Path) -> None:
    """Raises NoRoom when the temporary folder is full: what cannot start for that reason gives any other."""
    if shutil.disk_usage(temporary).free < LEAST_BYTES:
        raise NoRoom(_said(f"in the temporary folder {temporary} (TMPDIR)"))


def _tells_of_a_full_disk(error: BaseException) -> bool:
    """Whether an error, of whatever library, is that of a full disk."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return any(words in str(error).lower() for words in FULL_IN_WORDS)


def _free_bytes(folder: AnyPath) -> float:
    """Room on the disk of a folder, which may be still to be made; a store has no end."""
    if not isinstance(folder, Path):
        return math.inf
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def _sentence(folder: AnyPath) -> str:
    """Which place is full, and what to do."""
    temporary = Path(tempfile.gettempdir())
    is_there = _free_bytes(folder) < LEAST_BYTES or _free_bytes(temporary) >= LEAST_BYTES
    return _said(
        f"on the disk of the archive {folder}" if is_there else f"in the temporary folder {temporary} (TMPDIR)"
    )


def _said(place: str) -> str:
    """A place is full, and what to do."""
    return (
        f"there is no room left {place}; nothing that was committed is lost: make room and run the same command again "
        "to go on"
    )
