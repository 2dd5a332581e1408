"""Rows of the `videos` table: what one run found out about one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pipeline import plan
from pipeline.plan import VideoPlan
from pipeline.relink import SHOWN
from pipeline.survey import Job, Survey
from schemas.records import Failed, HashedFile, SourceFile, UnitOutcome, VideoProfile, VideoRow

INTACT_FRACTION = 0.999
UNKNOWN_PROFILE = VideoProfile(0.0, 0, 0, 0.0, "", 0, 0)
NEVER_S = -1.0  # a time of change that no file has


def indexed(job: Job, item: VideoPlan, outcomes: Sequence[UnitOutcome], failures: Sequence[Failed]) -> VideoRow:
    """The row of a video whose units are all accounted for: ok, partial or failed."""
    clip_count = sum(outcome.clip_count for outcome in outcomes)
    fraction, is_complete = _intact(job, item, outcomes)
    row = _row(job, item.video.source, item.video_id, item.revision, item.video.profile)
    row = replace(row, clip_count=clip_count, decoded_fraction=fraction, attempts=item.attempts)
    if is_complete and fraction >= INTACT_FRACTION:
        return row
    first = next(iter(failures), None)
    # Not a stage's failure: some packets did not decode, or their frames came out flagged.
    missing = f"{1 - fraction:.0%} of the wanted frames are missing or damaged"
    return replace(
        row,
        status="partial" if clip_count else "failed",
        error_kind=first.kind if first else "damaged",
        error=first.error if first else missing,
        stage=first.stage if first else "decode",
        # Damage in the content is permanent (all of nothing is true); a worker that died may have been unlucky.
        permanent=all(failed.permanent for failed in failures),
    )


def _intact(job: Job, item: VideoPlan, outcomes: Sequence[UnitOutcome]) -> tuple[float, bool]:
    """How much of what was planned is intact, 0 to 1, and whether no clip is missing.

    By samples, which where windows follow shots weigh as much as their clips are long: how many clips there would be
    nobody knew before.
    """
    windows = item.video.windows
    if job.space.sampling.shots is not None:
        planned_s = sum((window.end_s - window.start_s) * len(window.frame_times_s) for window in windows)
        # A single frame without a duration is a span of no length, which is there or not.
        is_there = any(outcome.clip_count for outcome in outcomes)
        found_s = sum(outcome.sample_s for outcome in outcomes)
        return min(1.0, found_s / planned_s) if planned_s else float(is_there), is_there
    samples = sum(len(window.frame_times_s) for window in windows)
    fraction = sum(outcome.intact_samples for outcome in outcomes) / samples if samples else 0.0
    return fraction, sum(outcome.clip_count for outcome in outcomes) == len(windows)


def kept(job: Job, source: HashedFile, row: VideoRow) -> VideoRow | None:
    """The row that goes on showing a file's clips, because bad luck left the try that ended as `row` with less.

    None when `row` is to be shown. Of the same content what is better stays, with the try counted; of changed content
    anything is better than what is out of date, and nothing is not.
    """
    shown = job.known.get(source.file.uri)
    if shown is None or shown.status not in SHOWN or row.status not in ("failed", "partial") or row.permanent:
        return None
    if shown.fingerprint != source.fingerprint:
        return _outdated(shown, source.file) if row.status == "failed" else None
    if row.decoded_fraction >= shown.decoded_fraction:
        return None
    return replace(now_at(shown, source.file), attempts=row.attempts)


def _outdated(shown: VideoRow, file: SourceFile) -> VideoRow:
    """The row on show of a file that holds something else by now, with a look by which the next run reads it again."""
    # Content may change under the same size and time, which only --rehash finds out.
    mtime_s = NEVER_S if _look(file) == (shown.size_bytes, shown.mtime_s) else shown.mtime_s
    return replace(shown, mtime_s=mtime_s, indexed_at=datetime.now(UTC))


def _row(job: Job, source: HashedFile, video_id: str, revision: int, profile: VideoProfile) -> VideoRow:
    """A row for a sound video with no clips yet; the others are made from it."""
    return VideoRow(
        video_id=video_id,
        uri=source.file.uri,
        size_bytes=source.file.size_bytes,
        mtime_s=source.file.mtime_s,
        fingerprint=source.fingerprint,
        revision=revision,
        space=job.space.id,
        duration_s=profile.duration_s,
        width=profile.width,
        height=profile.height,
        rate_hz=profile.rate_hz,
        codec=profile.codec,
        rotation=profile.rotation,
        clip_count=0,
        decoded_fraction=0.0,
        status="ok",
        error_kind=None,
        error=None,
        stage=None,
        permanent=False,
        attempts=1,
        run_id=job.run_id,
        indexed_at=datetime.now(UTC),
    )


def unreadable(job: Job, failed: Failed) -> VideoRow | None:
    """The row of a file that has no packets to index.

    When a good revision is there and the failure may pass (a lost disk), what was indexed stays visible: None where its
    row can stay as it is.
    """
    source = plan.source_of(failed)
    known = job.known.get(source.file.uri)
    if known is not None and known.status in SHOWN and not failed.permanent:
        return _outdated(known, source.file) if source.fingerprint not in ("", known.fingerprint) else None
    row = _successor(job, source, UNKNOWN_PROFILE)
    same = known is not None and plan.is_same_try(source, known)
    return replace(
        row,
        status="failed",
        error_kind=failed.kind,
        error=failed.error,
        stage=failed.stage,
        permanent=failed.permanent,
        attempts=known.attempts + 1 if known and same else 1,
    )


def _successor(job: Job, source: HashedFile, profile: VideoProfile) -> VideoRow:
    """A row for the file that hides whatever was shown of it: the next revision of its video, or a new video."""
    known = job.known.get(source.file.uri)
    video_id = known.video_id if known else plan.new_video_id(source, job.is_taken)
    return _row(job, source, video_id, known.revision + 1 if known else 1, profile)


def now_at(row: VideoRow, file: SourceFile) -> VideoRow:
    """The same revision, and so the same clips, with the file as it is now: touched, moved or renamed."""
    return replace(row, uri=file.uri, size_bytes=file.size_bytes, mtime_s=file.mtime_s, indexed_at=datetime.now(UTC))


def duplicate(job: Job, source: HashedFile, holder: VideoRow) -> VideoRow:
    """The row of a file whose content another video holds; it has no clips of its own."""
    profile = VideoProfile(
        holder.duration_s, holder.width, holder.height, holder.rate_hz, holder.codec, holder.rotation, 0
    )
    row = _successor(job, source, profile)
    return replace(row, status="duplicate", decoded_fraction=holder.decoded_fraction)


def follower(job: Job, source: HashedFile, row: VideoRow) -> VideoRow:
    """The row of a copy of a video that this run indexed or failed to: a duplicate, or failed for the same reason."""
    if row.status != "failed":
        return duplicate(job, source, row)
    reason = {name: getattr(row, name) for name in ("status", "error_kind", "error", "stage", "permanent", "attempts")}
    return replace(_successor(job, source, UNKNOWN_PROFILE), **reason)


def gone(job: Job, video: VideoRow) -> VideoRow:
    """The row that retires a vanished video."""
    return replace(
        video,
        revision=video.revision + 1,
        clip_count=0,
        decoded_fraction=0.0,
        status="gone",
        error_kind=None,
        error=None,
        stage=None,
        run_id=job.run_id,
        indexed_at=datetime.now(UTC),
    )


def settled(job: Job, found: Survey) -> list[VideoRow]:
    """The rows of a run that need no clips: failed, touched, moved, duplicates and gone, visible in one step."""
    touched = ((row, file) for row, file in found.links.same if (row.size_bytes, row.mtime_s) != _look(file))
    return [
        *(row for failed in found.failures if (row := unreadable(job, failed)) is not None),
        *(now_at(row, file) for row, file in (*found.links.moved, *touched)),
        *(duplicate(job, source, holder) for source, holder in found.links.duplicates),
        *(gone(job, row) for row in found.gone),
    ]


def _look(file: SourceFile) -> tuple[int, float]:
    """What tells whether a file must be read."""
    return file.size_bytes, file.mtime_s
