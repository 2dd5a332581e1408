"""What the runs of an archive say: which space serves. No model is loaded and torch is not imported here."""

from __future__ import annotations

from typing import Any

from pipeline.archive import Archive
from schemas.errors import ArchiveError


def serving_run(archive: Archive) -> dict[str, Any]:
    """The run whose space serves: the last that finished, or, before any has, the last that started."""
    runs = archive.runs()
    finished = [run for run in runs if run["state"] == "finished"]
    if not runs:
        raise ArchiveError(
            f"nothing has been indexed into {archive.folder}; run: footage index VIDEOS {archive.folder}"
        )
    return (finished or runs)[-1]
