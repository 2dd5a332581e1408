"""What is to be done: inventory against archive, decided purely. Resuming is nothing but planning again.

Size and time decide whether a file must be read again; the fingerprint of its content decides whether it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xxhash

from pipeline import cuts
from pipeline.settings import Sampling
from schemas.records import Failed, HashedFile, InspectedVideo, Letter, SourceFile, Unit, UnitOutcome, VideoRow

CLIPS_PER_UNIT = 64
MAX_ATTEMPTS = 3  # runs that try a file which kills its worker; then it is left alone until its content changes

# What one record may take: a decoder's seventeen frames of 8192 x 8192 pixels, and the clips of a unit twice over.
MEMORY_BYTES = 4 << 30

# Deadlines catch hangs, not slowness: several times what one slow core needs for a frame of HEVC.
DEADLINE_BASE_S = 60.0
DEADLINE_PER_PACKET_S = 0.02
DEADLINE_PER_MEGAPIXEL_S = 0.1
DECODED_TO_REACH = 0.1  # of that for a packet before the unit: where seeking fails, they are decoded and thrown away
READ_BYTES_PER_S = 2e6  # slower than any disk or network worth indexing from


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """One video to index: its identity, its units, and what is known of some of them.

    `done` are those that an interrupted run has committed, `left` those that failed too often to be tried again.
    """

    video: InspectedVideo
    video_id: str
    revision: int
    attempts: int
    units: tuple[Unit, ...]
    done: tuple[UnitOutcome, ...]
    left: tuple[Failed, ...] = ()

    @property
    def todo(self) -> tuple[Unit, ...]:
        """The units that are neither committed nor left alone."""
        over = {outcome.unit_id for outcome in self.done} | {failed.record.unit_id for failed in self.left}
        return tuple(unit for unit in self.units if unit.unit_id not in over)


def is_settled(status: str, permanent: bool, attempts: int) -> bool:  # noqa: FBT001  # columns of a row
    """Whether a row says all there is to say about a file, for as long as the file stays what it is.

    A failure that may go away by itself (a crash, a lost disk) does not until it has been tried often enough.
    """
    if status in ("failed", "partial"):
        return permanent or attempts >= MAX_ATTEMPTS
    return status != "gone"


def is_left_alone(file: SourceFile, letter: Letter | None) -> bool:
    """Whether a file as it is now has failed too often already: one whose earlier content is still shown."""
    return (
        letter is not None
        and letter.state == "open"
        and letter.attempts >= MAX_ATTEMPTS
        and (letter.size_bytes, letter.mtime_s) == (file.size_bytes, file.mtime_s)
    )


def left_alone(item: VideoPlan, letters: Mapping[float | None, Letter]) -> tuple[Failed, ...]:
    """The units of a video that have failed too often already, or for good, by the letters about its file.

    They fail as they did before, permanently: there is nothing to be had of them until somebody asks for it.
    """
    return tuple(
        Failed(unit, letter.error_kind, letter.error, letter.stage, permanent=True)
        for unit in item.todo
        if (letter := letters.get(unit.windows[0].start_s)) is not None
        and letter.state == "open"
        and (letter.fingerprint, letter.end_s) == (item.video.source.fingerprint, unit.windows[-1].end_s)
        and is_settled("failed", letter.permanent, letter.attempts)
    )


def is_same_content(source: HashedFile, known: VideoRow | None) -> bool:
    """Whether a file that was read turns out to hold what the archive already has of it."""
    return (
        known is not None
        and known.fingerprint == source.fingerprint
        and is_settled(known.status, known.permanent, known.attempts)
    )


def is_same_try(source: HashedFile, known: VideoRow | Letter) -> bool:
    """Whether a file that failed is what failed before; where it could not be read, size and time tell."""
    if source.fingerprint or known.fingerprint:
        return source.fingerprint == known.fingerprint
    return (source.file.size_bytes, source.file.mtime_s) == (known.size_bytes, known.mtime_s)


def _never(_video_id: str) -> bool:
    """No id is taken."""
    return False


def new_video_id(source: HashedFile, is_taken: Callable[[str], bool] = _never) -> str:
    """Sixteen hex digits from where a video was first seen and what it held.

    The id may be taken: by this very content, which has moved away since, while a copy of it came back.
    """
    made = _digest(source.file.uri, source.fingerprint)
    while is_taken(made):
        made = _digest(made)
    return made


def windows_per_unit(settings: Sampling) -> int:
    """How many windows a unit is planned with: CLIPS_PER_UNIT, or so few that short shots make no more clips."""
    if settings.shots is None:
        return CLIPS_PER_UNIT
    return max(1, int(CLIPS_PER_UNIT * cuts.shortest_s(settings) / settings.window_s))


def plan_video(  # noqa: PLR0913  # what is known of one video, from four places
    video: InspectedVideo,
    known: VideoRow | None,
    pending: Mapping[str, UnitOutcome],
    pending_revision: int,
    space: str,
    *,
    video_id: str | None = None,
    per_unit: int | None = None,
) -> VideoPlan:
    """The units of a new or changed video; `video_id` is that of a new one whose usual id is taken.
    A unit has at most `per_unit` windows, CLIPS_PER_UNIT unless given.

    `pending` are committed units of an interrupted run whose video row was never written, by unit id, and
    `pending_revision` the highest revision among this video's. They are taken over if the content is still the same;
    if it is not, the next revision is used, so that clips of two contents never meet.
    """
    # A video keeps its id through changes of content; revisions tell them apart.
    video_id = known.video_id if known else video_id or new_video_id(video.source)
    base = known.revision + 1 if known else 1
    revision = max(base, pending_revision)
    per_unit = per_unit or CLIPS_PER_UNIT
    units = _units(video, video_id, revision, space, per_unit)
    done = tuple(pending[unit.unit_id] for unit in units if unit.unit_id in pending)
    # The interrupted run worked on other content: its clips must stay hidden for ever.
    if pending_revision >= base and not done:
        revision = pending_revision + 1
        units = _units(video, video_id, revision, space, per_unit)
    same = known is not None and known.fingerprint == video.source.fingerprint
    return VideoPlan(video, video_id, revision, known.attempts + 1 if known and same else 1, units, done)


def _units(video: InspectedVideo, video_id: str, revision: int, space: str, per_unit: int) -> tuple[Unit, ...]:
    """A video's windows in segments of at most `per_unit`."""
    starts = range(0, len(video.windows), per_unit)
    return tuple(
        Unit(
            unit_id=_digest(video_id, revision, space, video.source.fingerprint, segment),
            video_id=video_id,
            revision=revision,
            space=space,
            uri=video.source.file.uri,
            windows=video.windows[start : start + per_unit],
            deadline_s=_decode_deadline_s(video, start, per_unit),
            steps=video.steps[segment] if video.steps else None,
            codec=video.profile.codec,
        )
        for segment, start in enumerate(starts)
    )


def _decode_deadline_s(video: InspectedVideo, start: int, per_unit: int) -> float:
    """Longest time that decoding the unit whose first window is number `start` may take.

    Scaled to the unit's length, and a tenth of that for what lies before it.
    """
    per_packet_s = DEADLINE_PER_PACKET_S + DEADLINE_PER_MEGAPIXEL_S * video.profile.width * video.profile.height / 1e6
    # By windows and not by seconds: where time stamps jump there is time and no packet.
    own = min(per_unit, len(video.windows) - start)
    packets = video.profile.packet_count * (own + DECODED_TO_REACH * start) / len(video.windows)
    return DEADLINE_BASE_S + packets * per_packet_s


def inspect_deadline_s(file: SourceFile) -> float:
    """Longest time that reading and probing a file may take."""
    return DEADLINE_BASE_S + file.size_bytes / READ_BYTES_PER_S


def clip_id(unit: Unit, start_s: float) -> str:
    """Sixteen hex digits that name a clip for ever; FAISS uses the same 64 bits."""
    return _digest(unit.video_id, unit.revision, unit.space, f"{start_s:.6f}")


def _digest(*parts: Any) -> str:
    """Sixteen hex digits over the parts."""
    return xxhash.xxh3_64_hexdigest("\x1f".join(map(str, parts)).encode())


def file_of(record: SourceFile | HashedFile | InspectedVideo) -> SourceFile:
    """The file that a record is about."""
    if isinstance(record, InspectedVideo):
        return record.source.file
    return record.file if isinstance(record, HashedFile) else record


def source_of(failed: Failed) -> HashedFile:
    """The file a failure is about; its fingerprint is empty if the file was never read to the end."""
    record = failed.record
    if isinstance(record, SourceFile):
        return HashedFile(record, "")
    return record.source if isinstance(record, InspectedVideo) else record
