"""When a run must not retire videos by itself: a disk that is not mounted looks like an archive that was deleted."""

from __future__ import annotations

import re

import pyarrow.compute as pc

from pipeline import runs, sources
from pipeline.archive import Archive
from pipeline.survey import Survey
from schemas.errors import FootageError, MissingPlace, RefusedToRetire

MOST = 0.2  # of an archive's videos, that may be retired with nobody asked


def asks_for_yes(found: Survey) -> bool:
    """Whether so much would be retired that a person must say so."""
    return not found.job.policy.keep_gone and found.vanished > MOST * found.live


def check(found: Survey) -> None:
    """Raises RefusedToRetire when too much would go and nobody said yes."""
    if not asks_for_yes(found) or found.job.policy.yes:
        return
    example = next(row.uri for row in found.missing)
    raise RefusedToRetire(
        f"{found.vanished} of the archive's {found.live} videos would be retired, because their files are not there "
        f"any more (such as {example}); more than {MOST:.0%} needs a person's word, and nothing was changed. If a disk "
        "should be mounted, mount it and run again; if they are to go, add --yes; to keep showing them, --keep-gone"
    )


def explained(error: MissingPlace, archive: Archive) -> FootageError:
    """The error for a place that is missing: what it would cost an archive that knows videos there."""
    count = _known_at(error.place, archive) if archive.exists() else 0
    if not count:
        return error
    return RefusedToRetire(
        f"{error}. The archive knows {count} videos there, and none was retired: if it is a disk, mount it and run "
        f"again; to give the place up, run: footage reindex {archive.folder} --forget {error.place}"
    )


def _known_at(place: str, archive: Archive) -> int:
    """How many videos of the serving space lie at or below a place; of a glob, that begin as it does."""
    if not archive.runs():
        return 0
    rows = archive.current_videos(runs.serving_run(archive)["space"], ["status"])
    live = rows.filter(pc.not_equal(rows["status"], "gone"))["uri"].to_pylist()
    start = re.split(r"[*?\[]", place)[0]
    if start != place:
        return sum(uri.startswith(sources.to_uri(start)) for uri in live)
    return sum(uri == sources.to_uri(place) or sources.is_below(uri, sources.to_uri(place)) for uri in live)
