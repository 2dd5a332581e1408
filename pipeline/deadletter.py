"""The dead-letter: one row for each unit or file that failed, until it succeeds, changes or goes.

A table of its own and not a view of `videos`: that has one row and one error a video, and none for a changed file that
kills its reader while the revision before it is still shown. Letters are written before the rows they explain.

After three runs (`plan.MAX_ATTEMPTS`) nothing is tried again until its content changes or `retry` asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline import cuts, decode, lease, logs, plan, unfinished
from pipeline.archive import Archive
from pipeline.plan import VideoPlan
from pipeline.survey import Job
from schemas.errors import InputError
from schemas.records import Failed, HashedFile, Letter, LettersByUri, Place, Unit, VideoRow

OPEN = ("open", "retry")
BROKEN = ("failed", "partial")  # videos that have a letter
GAPS_NAMED = 8

logger = logs.logger("dead_letter")


def by_uri(letters: Iterable[Letter]) -> LettersByUri:
    """Letters where a run that comes to a file finds all of that file, and no others."""
    found: dict[str, dict[float | None, Letter]] = {}
    for letter in letters:
        found.setdefault(letter.uri, {})[letter.start_s] = letter
    return found


def commit(job: Job, letters: Iterable[Letter]) -> None:
    """Writes letters down, and says which are new or were tried again."""
    job.archive.commit_letters(_said(letters))


def _said(letters: Iterable[Letter]) -> Iterator[Letter]:
    """The same letters, each that is open told to the log as it passes."""
    for letter in letters:
        if letter.state == "open":
            told = logs.fields(
                run_id=letter.run_id,
                uri=letter.uri,
                kind=letter.error_kind,
                stage=letter.stage,
                start_s=letter.start_s,
                attempts=letter.attempts,
            )
            logger.info("failed: %s: %s", letter.uri, letter.error, extra=told)
        yield letter


def of_video(job: Job, item: VideoPlan, row: VideoRow, failures: Sequence[Failed]) -> list[Letter]:
    """What to write down of a video whose units are all accounted for: its failures, and the end of earlier ones."""
    tried = [failed for failed in failures if failed not in item.left]
    fresh = [_letter(job, row.uri, item.video.source, failed, failed.record) for failed in tried]
    if not failures and row.error_kind:  # no stage failed: packets did not decode, or their frames came out damaged
        assert row.error is not None, "a row with a kind has a sentence"
        error = (
            row.error + _named(gaps(job.archive, item, by_shots=job.space.sampling.shots is not None))
            if row.clip_count
            else row.error
        )
        damage = Failed(item.video, row.error_kind, error, row.stage or "decode", permanent=row.permanent)
        fresh = [_letter(job, row.uri, item.video.source, damage, None)]
    standing = {(row.uri, failed.record.windows[0].start_s) for failed in item.left}
    return [*fresh, *_settled(job, row.uri, standing | {letter.place for letter in fresh})]


def of_file(job: Job, failed: Failed) -> list[Letter]:
    """What to write down of a file that has no units."""
    source = plan.source_of(failed)
    letter = _letter(job, source.file.uri, source, failed, None)
    return [letter, *_settled(job, letter.uri, {letter.place})]


def of_whole(job: Job, source: HashedFile, row: VideoRow) -> list[Letter]:
    """What to write down of a file as a whole, of which `row` was had: its failure, or the end of earlier ones.

    For copies, which have no units of their own, and for changed files whose earlier content is still shown: by one
    letter about the file a run knows when to leave it alone.
    """
    if row.status != "failed":
        return settled(job, row.uri)
    failed = Failed(source, row.error_kind or "", row.error or "", row.stage or "", permanent=row.permanent)
    return of_file(job, failed)


def settled(job: Job, uri: str) -> list[Letter]:
    """The end of all letters of a file that is gone, or accounted for without a look at it."""
    return list(_settled(job, uri, set()))


def _letter(job: Job, uri: str, source: HashedFile, failed: Failed, unit: Unit | None) -> Letter:
    """A failure as a row; it goes on from the letter before it, if that is about the same content."""
    now = datetime.now(UTC)
    before = job.letters.get(uri, {}).get(unit.windows[0].start_s if unit else None)
    again = before is not None and before.state in OPEN and plan.is_same_try(source, before)
    return Letter(
        space=job.space.id,
        uri=uri,
        fingerprint=source.fingerprint,
        size_bytes=source.file.size_bytes,
        mtime_s=source.file.mtime_s,
        unit_id=unit.unit_id if unit else None,
        start_s=unit.windows[0].start_s if unit else None,
        end_s=unit.windows[-1].end_s if unit else None,
        stage=failed.stage,
        error_kind=failed.kind,
        error=failed.error,
        permanent=failed.permanent,
        attempts=before.attempts + 1 if before and again else 1,
        first_seen=before.first_seen if before and again else now,
        last_seen=now,
        run_id=job.run_id,
        decoder=decode.decoder(),
        state="open",
    )


def _settled(job: Job, uri: str, but: set[Place]) -> Iterator[Letter]:
    """The end of a uri's open letters, but for those at some places."""
    for letter in job.letters.get(uri, {}).values():
        if letter.state in OPEN and letter.place not in but:
            yield replace(letter, state="settled", last_seen=datetime.now(UTC), run_id=job.run_id)


# --- gaps


def gaps(archive: Archive, item: VideoPlan, *, by_shots: bool = False) -> list[tuple[float, float]]:
    """Where a video's clips are missing or damaged, as spans in seconds; its clips are committed.

    `by_shots` says that they follow shots, and not the windows that were planned.
    """
    if by_shots:
        whole = unfinished.intact_spans(archive, item.video_id, item.revision, item.units[0].space)
        return cuts.uncovered(item.video.windows, whole)
    intact = unfinished.intact_samples(archive, item.video_id, item.revision, item.units[0].space)
    spans: list[tuple[float, float]] = []
    for window in item.video.windows:
        if intact.get(window.start_s, 0) == len(window.frame_times_s):
            continue
        if spans and window.start_s <= spans[-1][1]:
            spans[-1] = (spans[-1][0], window.end_s)
        else:
            spans.append((window.start_s, window.end_s))
    return spans


def _named(spans: Sequence[tuple[float, float]]) -> str:
    """Spans as the end of a sentence: `, at 40-60 s and 100-110 s`."""
    words = [f"{start_s:.0f}-{end_s:.0f} s" for start_s, end_s in spans[:GAPS_NAMED]]
    more = [f"{len(spans) - GAPS_NAMED} more"] if len(spans) > GAPS_NAMED else []
    return f", at {', '.join([*words, *more])}" if words else ""


# --- what is asked of it


def failures(folder: str | Path, kind: str | None = None) -> list[Letter]:
    """Everything that failed and is not settled, of one kind if asked for, in the order of uris and times."""
    archive = Archive.open(folder)
    spaces = {run["space"] for run in archive.runs()}
    found = [letter for space in spaces for letter in _open_letters(archive, space)]
    return sorted(
        (letter for letter in found if kind in (None, letter.error_kind)),
        key=lambda letter: (letter.uri, letter.start_s or 0.0, letter.space),
    )


def _open_letters(archive: Archive, space: str) -> Iterator[Letter]:
    """The open letters of a space, and one for each failed row that has none: archives of schema version 1."""
    letters = archive.letters(space)
    yield from (letter for letter in letters.values() if letter.state in OPEN)
    told = {letter.uri for letter in letters.values()}
    yield from (_from_row(row) for row in archive.known_videos(space, BROKEN).values() if row.uri not in told)


def _from_row(row: VideoRow) -> Letter:
    """The letter of a failed or partial row."""
    return Letter(
        space=row.space,
        uri=row.uri,
        fingerprint=row.fingerprint,
        size_bytes=row.size_bytes,
        mtime_s=row.mtime_s,
        unit_id=None,
        start_s=None,
        end_s=None,
        stage=row.stage or "",
        error_kind=row.error_kind or "",
        error=row.error or "",
        permanent=row.permanent,
        attempts=row.attempts,
        first_seen=row.indexed_at,
        last_seen=row.indexed_at,
        run_id=row.run_id,
        decoder="",
        state="open",
    )


def retry(folder: str | Path, kind: str | None = None) -> list[Letter]:
    """Makes the next run try again what failed, of one kind if asked for; returns those letters.

    Raises InputError when there is no such kind among the failures, ArchiveBusy while a run is at work.
    """
    archive = Archive.open(folder)
    with lease.held(archive.folder, "retry") as held:  # a run at work would overwrite what is asked for here
        return _retried(Archive(folder, held.term), kind)


def _retried(archive: Archive, kind: str | None) -> list[Letter]:
    """`retry` in an archive that nobody else writes."""
    everything = failures(str(archive.folder))
    asked = [letter for letter in everything if kind in (None, letter.error_kind)]
    if kind is not None and not asked:
        kinds = ", ".join(sorted({letter.error_kind for letter in everything})) or "no failures at all"
        raise InputError(f"there is no failure of the kind {kind!r}; there are: {kinds}")
    now = datetime.now(UTC)
    again = [replace(letter, state="retry", attempts=0, last_seen=now) for letter in asked]
    Archive.create(archive.folder)  # one of schema version 1 has no table of failures
    archive.commit_letters(again)
    archive.commit_videos(_untried(archive, again, now))
    return again


def _untried(archive: Archive, letters: Iterable[Letter], now: datetime) -> list[VideoRow]:
    """The rows of failed and partial videos as though nobody had tried them yet: the next run reads those files."""
    uris: dict[str, set[str]] = {}
    for letter in letters:
        uris.setdefault(letter.space, set()).add(letter.uri)
    return [
        replace(row, permanent=False, attempts=0, indexed_at=now)
        for space, wanted in uris.items()
        for row in archive.known_videos(space, BROKEN).values()
        if row.uri in wanted
    ]
