"""Archives of parts of a pile to one: what machines indexed that shared the work and knew nothing of each other.

Ids of videos and clips follow from places and contents, so that those of two archives fit together as they are. Of each
video the later revision counts, as within one archive. What is there already is not copied again: merging once more
takes over what changed since, and finishes what was interrupted.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import delta_log, indexes, keys, lease, parts, recall_texts, room, runs, stores
from pipeline.archive import Archive
from pipeline.current import SHOWN
from pipeline.index_plan import Rules
from pipeline.keys import Keys
from pipeline.lease import Lease
from pipeline.progress import Progress
from pipeline.settings import IndexSettings
from schemas.errors import ArchiveError, InputError, SpaceMismatch
from schemas.records import Part, VideoRow

STANDING = ["status", "fingerprint", "revision", "indexed_at"]
BYTES_PER_FILE = 256 << 20  # before compression
NO_UNITS = Keys([])
UNIT_COLUMNS = ["unit_id", "video_id", "revision"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeReport:
    """What merging did. `videos` are those taken over, retired and failed ones too; `clips` are those copied."""

    archive: str
    run_id: str
    space: str
    merged: tuple[str, ...]
    videos: int
    unchanged: int  # that the archive had already, so or later
    clips: int
    wall_s: float
    footage_s: float = 0.0  # none is decoded: the rate of runs is not to be reckoned by this


@dataclass(frozen=True, slots=True)
class _News:
    """What an archive has that is to be taken over."""

    rows: tuple[VideoRow, ...]
    revisions: Keys  # whose clips are needed
    unchanged: int


def merge(
    folder: str | Path,
    others: Sequence[str | Path],
    *,
    wait_s: float = 0.0,
    watch: Callable[[Progress], None] | None = None,
) -> MergeReport:
    """Takes what archives have of the space that serves them into the archive at `folder`, made if it is not there.

    Raises SpaceMismatch where spaces differ, ArchiveError where two archives have different contents of one revision of
    a video or one holds damage, ArchiveBusy while another run is at work on `folder`. Then nothing of that archive was
    taken over; those before it were.
    """
    began = time.perf_counter()
    opened = [Archive.open(other) for other in others]
    target = Archive(folder)
    if any(other.folder == target.folder for other in opened):
        raise InputError(f"{folder} cannot be merged into itself; expected other archives")
    last = [runs.serving_run(other) for other in opened]
    _check_spaces(target, opened, last)
    Archive.create(folder)
    watch = watch or (lambda _: None)
    run_id = runs.new_id()
    waiting = partial(_show_waiting, watch, wait_s)
    with (
        lease.held(target.folder, run_id, wait_s=wait_s, watch=waiting) as held,
        room.needed(target.folder),
    ):
        archive = Archive(folder, held.term)
        settings = _settings(archive, last)
        _log(archive, run_id, settings, last[-1], None)
        report = MergeReport(
            archive=str(archive.folder),
            run_id=run_id,
            space=last[-1]["space"],
            merged=tuple(str(other.folder) for other in opened),
            videos=0,
            unchanged=0,
            clips=0,
            wall_s=0.0,
        )
        for number, other in enumerate(opened, start=1):
            report = _take_over(archive, held, other, report)
            watch(Progress("merge", number, len(opened)))
        _index(archive, last[-1])
        report = replace(report, wall_s=time.perf_counter() - began)
        _log(archive, run_id, settings, last[-1], report)
    return report


def _show_waiting(watch: Callable[[Progress], None], wait_s: float, waited_s: float) -> None:
    """Tells the watcher how long merging has waited for another run."""
    watch(Progress("wait", waited_s, wait_s))


def _check_spaces(target: Archive, others: Sequence[Archive], last: Sequence[runs.Run]) -> None:
    """Raises SpaceMismatch unless all archives serve the same space."""
    serving = {str(other.folder): run["space"] for other, run in zip(others, last, strict=True)}
    if target.exists() and target.runs():
        serving = {str(target.folder): runs.serving_run(target)["space"], **serving}
    (first, space), *rest = serving.items()
    for folder, other in rest:
        if other != space:
            raise SpaceMismatch(
                f"{folder} serves the space {other}, and {first} the space {space}: index them with the same model, "
                "window and sampling"
            )


def _settings(archive: Archive, last: Sequence[runs.Run]) -> dict[str, Any]:
    """What the run says of itself: as the last one merged, of all places, and of all their videos."""
    said = last[-1]["settings"]
    places = dict.fromkeys(place for run in last for place in run["settings"].get("places", ()))
    whole = {**said.get("policy", {}), "portion": None}
    tables = delta_log.versions(archive)
    return {**said, "policy": whole, "places": list(places), "forgets": [], "keeps": [], "tables": tables}


def _log(archive: Archive, run_id: str, settings: dict[str, Any], like: runs.Run, report: MergeReport | None) -> None:
    """Writes the run down."""
    archive.log_run(
        {
            "run_id": run_id,
            "state": "finished" if report else "started",
            "space": like["space"],
            "at": datetime.now(UTC),
            "settings": json.dumps(settings),
            "versions": json.dumps(like["versions"]),
            "report": json.dumps(asdict(report)) if report else None,
        }
    )


def _take_over(archive: Archive, held: Lease, other: Archive, report: MergeReport) -> MergeReport:
    """Commits what one archive has: clips, then the dead-letter, then the rows that they explain."""
    space = report.space
    news = _news(archive, other, space)
    held.check()
    copied = _copied(archive, other, space, news.revisions)
    held.check()
    archive.commit_parts(copied)
    known = archive.letters(space)
    archive.commit_letters(
        letter
        for place, letter in other.letters(space).items()
        if place not in known or known[place].last_seen < letter.last_seen
    )
    archive.commit_videos(news.rows)
    return replace(
        report,
        videos=report.videos + len(news.rows),
        unchanged=report.unchanged + news.unchanged,
        clips=report.clips + sum(part.row_count for part in copied),
    )


def _news(archive: Archive, other: Archive, space: str) -> _News:
    """Which videos of another archive are new here, or later than here. Raises ArchiveError where they contradict."""
    theirs = other.current_videos(space)
    mine = archive.current_videos(space, STANDING).drop_columns(["uri"])
    both = theirs.join(mine, "video_id", join_type="left outer", right_suffix="_here")
    is_new = pc.is_null(both["revision_here"])
    is_same = pc.fill_null(pc.equal(both["revision"], both["revision_here"]), False)
    is_other = pc.and_(is_same, pc.not_equal(both["fingerprint"], both["fingerprint_here"]))
    if pc.any(pc.fill_null(is_other, False)).as_py():
        example = both.filter(is_other)["uri"][0].as_py()
        raise ArchiveError(
            f"{archive.folder} and {other.folder} have different contents of the same revision of {example}, because "
            "each was kept up to date by itself; merge into a new archive"
        )
    is_later = pc.or_(
        pc.greater(both["revision"], both["revision_here"]),
        pc.and_(is_same, pc.greater(both["indexed_at"], both["indexed_at_here"])),
    )
    taken = both.filter(pc.or_(is_new, pc.fill_null(is_later, False)))
    is_shown = pc.is_in(taken["status"], pa.array(SHOWN))
    has_none = pc.fill_null(pc.not_equal(taken["revision"], taken["revision_here"]), True)
    needed = taken.filter(pc.and_(is_shown, has_none))
    rows = taken.select(theirs.column_names).to_pylist()
    return _News(
        tuple(VideoRow(**row) for row in rows), Keys([keys.of_revisions(needed)]), theirs.num_rows - taken.num_rows
    )


def _copied(archive: Archive, other: Archive, space: str, wanted: Keys) -> list[Part]:
    """The clips of some revisions, written here and not committed; without what an interrupted merge has committed."""
    if not len(wanted):
        return []
    files = [file for file in delta_log.files(other, "clips") if file.partition["space"] == space]
    mine = [file for file in delta_log.files(archive, "clips") if file.partition["space"] == space]
    there = _units(delta_log.rows(archive, "clips", mine, UNIT_COLUMNS), wanted)
    theirs = _units(delta_log.rows(other, "clips", files, UNIT_COLUMNS), wanted) if len(there) else there
    if len(there | theirs) > len(theirs):
        raise ArchiveError(
            f"{archive.folder} holds clips of an interrupted run that are not those of {other.folder}; finish that run "
            f"first: footage reindex {archive.folder}"
        )
    batches = _wanted(delta_log.rows(other, "clips", files), wanted, there)
    return [_written(archive, space, lot) for lot in _lots(batches)]


def _units(batches: Iterable[pa.RecordBatch], wanted: Keys) -> Keys:
    """The units of the clips of some revisions."""
    return Keys(keys.of_ids(batch["unit_id"]) for batch in _wanted(batches, wanted))


def _wanted(batches: Iterable[pa.RecordBatch], wanted: Keys, but: Keys = NO_UNITS) -> Iterator[pa.RecordBatch]:
    """The rows of some revisions, without some units."""
    for batch in batches:
        found = batch.filter(wanted.has(keys.of_revisions(batch)))
        found = found.filter(pc.invert(but.has(keys.of_ids(found["unit_id"]))))
        if found.num_rows:
            yield found


def _lots(batches: Iterable[pa.RecordBatch]) -> Iterator[Iterator[pa.RecordBatch]]:
    """Batches for one file after the other; each lot is to be used up before the next."""
    source = iter(batches)
    for first in source:
        yield _lot(first, source)


def _lot(first: pa.RecordBatch, source: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """So many batches as make a file."""
    size_bytes = first.nbytes
    yield first
    while size_bytes < BYTES_PER_FILE and (batch := next(source, None)) is not None:
        size_bytes += batch.nbytes
        yield batch


def _written(archive: Archive, space: str, batches: Iterable[pa.RecordBatch]) -> Part:
    """A file of clips in the archive."""
    path = f"space={space}/part-{uuid.uuid4().hex}.parquet"
    file = archive.folder / "clips" / path
    stores.make_folder(file.parent)
    count = parts.write_batches(file, parts.file_schema("clips"), batches)
    return Part(path, file.stat().st_size, count, space, ())


def _index(archive: Archive, run: runs.Run) -> None:
    """Brings the vector index up to what is committed."""
    texts = recall_texts.by_settings(IndexSettings.stored(run["settings"]["index"]))
    width = run["settings"]["space"]["model"]["embed_dim"]
    indexes.ensure(archive, run["space"], width, rules=Rules(texts=texts))
