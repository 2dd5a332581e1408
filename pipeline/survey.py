"""Finding out what a run has to do: reads every new or touched file once, lists its packets, plans its units.

Runs on the engine like everything that opens files: a file that kills its reader ends as a failure, not the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import decode, engine, plan, sources
from pipeline.archive import Archive
from pipeline.engine import Stage
from pipeline.plan import VideoPlan
from pipeline.settings import IndexSettings, Space
from schemas.records import Failed, HashedFile, InspectedVideo, Letter, Place, SourceFile, VideoRow

WORKER_DIED = "worker_died"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Done and total: inspect, evaluate: files; index: seconds of footage; train: steps."""

    phase: str
    done: float
    total: float


@dataclass(frozen=True, slots=True)
class Job:
    """What all steps of one run share. `known` are the archive's current rows by uri."""

    archive: Archive
    settings: IndexSettings
    space: Space
    run_id: str
    known: Mapping[str, VideoRow]
    watch: Callable[[Progress], None]
    notes: tuple[str, ...] = ()  # what a user must know of the model
    letters: Mapping[Place, Letter] = field(default_factory=dict)  # the dead-letter as it was before


@dataclass(frozen=True, slots=True)
class Survey:
    """What a run has to do."""

    plans: tuple[VideoPlan, ...]
    failures: tuple[Failed, ...]
    touched: tuple[HashedFile, ...]  # read because size or time changed, and found to hold the same
    unchanged: int
    gone: tuple[VideoRow, ...]

    @property
    def footage_s(self) -> float:
        """Length of everything that will be decoded."""
        return sum(item.video.profile.duration_s for item in self.plans)


def survey(job: Job, inventory: sources.Inventory, scratch: Path) -> Survey:
    """Reads what must be read and plans it."""
    found = plan.difference(inventory.files, job.known, inventory.root)
    to_read = tuple(file for file in found.to_read if not plan.is_left_alone(file, job.letters.get((file.uri, None))))
    inspected, failures = _inspect(job, to_read, scratch)
    same: list[InspectedVideo] = []
    changed: list[InspectedVideo] = []
    for video in inspected:
        is_same = plan.is_same_content(video.source, job.known.get(video.source.file.uri))
        (same if is_same else changed).append(video)
    return Survey(
        plans=_plans(job, changed),
        failures=(*inventory.problems, *failures),
        touched=tuple(video.source for video in same),
        unchanged=found.unchanged + len(found.to_read) - len(to_read) + len(same),
        gone=found.gone,
    )


def _inspect(job: Job, files: tuple[SourceFile, ...], scratch: Path) -> tuple[list[InspectedVideo], list[Failed]]:
    """Fingerprint and packet index of every file, and those that have none."""
    stages = [
        Stage(name="fingerprint", work=sources.fingerprint_files, deadline_s=plan.inspect_deadline_s),
        Stage(
            name="inspect",
            work=partial(decode.inspect_files, job.space.sampling),
            deadline_s=_inspect_deadline_s,
            memory_bytes=plan.MEMORY_BYTES,
        ),
    ]
    inspected: list[InspectedVideo] = []
    failures: list[Failed] = []
    results = engine.run(stages, files, engine=job.settings.engine, scratch=scratch) if files else iter(())
    for number, result in enumerate(results, start=1):
        (failures if isinstance(result, Failed) else inspected).append(result)
        job.watch(Progress("inspect", number, len(files)))
    seen = {video.source.file for video in inspected} | {plan.source_of(failed).file for failed in failures}
    failures += [died(file, "inspect", plan.inspect_deadline_s(file)) for file in files if file not in seen]
    # Workers finish in any order; plans, and with them ids and reports, must not depend on it.
    order = {file.uri: place for place, file in enumerate(files)}
    inspected.sort(key=lambda video: order[video.source.file.uri])
    return inspected, failures


def _inspect_deadline_s(file: HashedFile) -> float:
    return plan.inspect_deadline_s(file.file)


def died(record: Any, stage: str, deadline_s: float) -> Failed:
    """The failure of a record that was lost without a trace, with its machine perhaps."""
    error = f"its worker was lost twice, within its deadline of {deadline_s:.0f} s or not"
    return Failed(record, WORKER_DIED, error, stage, permanent=False)


def _plans(job: Job, videos: list[InspectedVideo]) -> tuple[VideoPlan, ...]:
    """Units of all new and changed videos, minus what an interrupted run has committed."""
    if videos:
        job.archive.fence()  # before looking at what is committed: nobody may add to it after that look
    pending, revisions = job.archive.pending_units(job.space.id) if job.archive.exists() else ({}, {})
    plans = []
    for video in videos:
        known = job.known.get(video.source.file.uri)
        video_id = known.video_id if known else plan.new_video_id(video.source)
        plans.append(plan.plan_video(video, known, pending, revisions.get(video_id, 0), job.space.id))
    return tuple(plans)
