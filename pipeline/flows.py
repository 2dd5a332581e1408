"""The main job: from a pile of videos to a searchable archive. Plans, runs the stages, commits what comes out.

Every file ends as exactly one of indexed, failed, unchanged or gone. Clips become visible video by video while the
run goes on; a killed run is finished by running it again.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import decode, engine, interrupts, lease, plan, revisions, room, sources, vectors
from pipeline.archive import Archive, write_part
from pipeline.embed import CLIPS_PER_PASS, Embed, device_named
from pipeline.engine import Stage
from pipeline.lease import Lease
from pipeline.plan import VideoPlan
from pipeline.settings import IndexSettings, Space, space_of
from pipeline.survey import Job, Progress, Survey, died, survey
from pipeline.versions import versions
from schemas.records import (
    Failed,
    Failure,
    Part,
    Unit,
    UnitOutcome,
    VideoRow,
)
from xclip_core import canonical_source, load_encoder

COMMIT_EVERY_S = 2.0  # a lost run loses at most this much committed work; each commit is a file in the log


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What a run did, or with `dry_run` what it would do. Counts are of videos; `planned` = `indexed` + `failed`."""

    run_id: str
    space: str
    dry_run: bool
    planned: int
    indexed: int = 0
    partial: int = 0  # of those indexed, how many have damaged or missing stretches
    unchanged: int = 0
    failed: int = 0
    gone: int = 0
    clips: int = 0
    footage_s: float = 0.0
    wall_s: float = 0.0
    expected_s: float | None = None  # of a dry run: by the rate of the last run; None when there was none
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()  # what a user must know of the model


def index(
    videos: str | Path,
    folder: str | Path,
    settings: IndexSettings,
    *,
    dry_run: bool = False,
    watch: Callable[[Progress], None] | None = None,
) -> IndexReport:
    """Brings the archive at `folder` up to date with `videos`. Raises FootageError when nothing can be done at all.

    One run at a time: ArchiveBusy when another does not end within the `wait_s` of the settings.
    """
    began = time.perf_counter()
    inventory = sources.take_inventory(videos)
    space, notes = _space(settings)
    # What is stored must mean the same from any folder and on any worker.
    settings = replace(settings, model=canonical_source(settings.model), device=device_named(settings.device))
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    folder = Path(folder).absolute()
    job = Job(Archive(folder), settings, space, run_id, {}, watch or (lambda _: None), notes)
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="footage-") as outside:
            job = _informed(job)
            return _dry_run_report(job, survey(job, inventory, Path(outside)), began)
    with room.needed(folder):
        Archive.create(folder)
        waiting = partial(_show_waiting, job)
        with lease.held(folder, run_id, wait_s=settings.wait_s, watch=waiting) as held:
            return _work(_informed(job, held.term), held, inventory, began)


def _work(job: Job, held: Lease, inventory: sources.Inventory, began: float) -> IndexReport:
    """The run itself, by who holds the lease."""
    job.archive.sweep_scratch()
    scratch = job.archive.scratch(job.run_id)
    try:
        return _execute(job, held, survey(job, inventory, scratch), scratch, began)
    finally:
        job.archive.drop_scratch(job.run_id)


def _show_waiting(job: Job, waited_s: float) -> None:
    """Tells the watcher how long the run has waited for another."""
    job.watch(Progress("wait", waited_s, job.settings.wait_s))


def _informed(job: Job, term: int | None = None) -> Job:
    """The job with what the archive holds now, and the term under which it may write."""
    archive = Archive(job.archive.folder, term)
    return replace(job, archive=archive, known=archive.known_videos(job.space.id) if archive.exists() else {})


def _space(settings: IndexSettings) -> tuple[Space, tuple[str, ...]]:
    """The space of a run and what is to be said of its model, which is loaded, understood and forgotten."""
    model = load_encoder(settings.model, frames=settings.frames, image_size=settings.image_size)
    assert model.provenance is not None, "models come from xclip_core.load_encoder"
    return space_of(model, settings), model.provenance.notes


def _dry_run_report(job: Job, found: Survey, began: float) -> IndexReport:
    """What would be done, with the time it would take at the last run's rate."""
    reports = [run["report"] for run in job.archive.runs() if run["report"]] if job.archive.exists() else []
    rates = [report["footage_s"] / report["wall_s"] for report in reports if report["footage_s"] and report["wall_s"]]
    return IndexReport(
        run_id=job.run_id,
        space=job.space.id,
        dry_run=True,
        planned=len(found.plans) + len(found.failures),
        unchanged=found.unchanged,
        failed=len(found.failures),
        gone=len(found.gone),
        clips=sum(len(item.video.windows) for item in found.plans),
        footage_s=found.footage_s,
        wall_s=time.perf_counter() - began,
        expected_s=found.footage_s / rates[-1] if rates else None,
        failures=_reported(found.failures),
        notes=job.notes,
    )


# --- doing it


@dataclass
class _Tally:
    """What has come back for one video so far."""

    plan: VideoPlan
    outcomes: list[UnitOutcome] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether every unit is accounted for."""
        return len(self.outcomes) + len(self.failures) == len(self.plan.units)


def _execute(job: Job, held: Lease, found: Survey, scratch: Path, began: float) -> IndexReport:
    """Runs the plan, commits as results come, builds the index, and logs the run."""
    _log(job, "started", None)  # before anything is written: a killed run leaves its settings behind
    settled = [row for failed in found.failures if (row := revisions.unreadable(job, failed)) is not None]
    settled += [revisions.touched(job, source) for source in found.touched]
    settled += [revisions.gone(job, video) for video in found.gone]
    job.archive.commit_videos(settled)
    try:
        rows = _index_units(job, held, found, scratch)
    except interrupts.Stopped:
        _log(job, "stopped", None)
        raise
    # The index is derived: should this be the instant of a crash, the next search builds it.
    vectors.build(job.archive, job.space.id, job.space.model.embed_dim)
    shown = [row for row in rows if row.status != "failed"]
    broken = [row for row in rows if row.status == "failed"]
    report = IndexReport(
        run_id=job.run_id,
        space=job.space.id,
        dry_run=False,
        planned=len(found.plans) + len(found.failures),
        indexed=len(shown),
        partial=sum(row.status == "partial" for row in shown),
        unchanged=found.unchanged,
        failed=len(found.failures) + len(broken),
        gone=len(found.gone),
        clips=sum(row.clip_count for row in shown),
        footage_s=sum(row.duration_s * row.decoded_fraction for row in shown),
        wall_s=time.perf_counter() - began,
        failures=(
            *_reported(found.failures),
            *(Failure(row.uri, row.error_kind or "", row.error or "") for row in broken),
        ),
        notes=job.notes,
    )
    _log(job, "finished", report)
    return report


def _index_units(job: Job, held: Lease, found: Survey, scratch: Path) -> list[VideoRow]:
    """Runs all units and commits parts and finished videos; the row of each video, once."""
    tallies = {item.video_id: _Tally(item, list(item.done)) for item in found.plans}
    owners = {unit.unit_id: item.video_id for item in found.plans for unit in item.units}
    units = [unit for item in found.plans for unit in item.todo]
    total_s, done_s = sum(map(_length_s, units)), 0.0
    lengths = {unit.unit_id: _length_s(unit) for unit in units}
    unfinished = dict(tallies)  # a video leaves it when its row is committed; what is left at the end was lost
    rows: list[VideoRow] = []
    with interrupts.held() as hold:
        results = engine.run(_stages(job, units), units, engine=job.settings.engine, scratch=scratch) if units else ()
        for batch in _every(COMMIT_EVERY_S, hold.listen(results)):
            held.check()
            parts = [result for result in batch if isinstance(result, Part)]
            job.archive.commit_parts(parts)  # before the rows of the videos they complete: never the other way round
            for unit_id in _account(batch, tallies, owners):
                done_s += lengths[unit_id]
            rows += _commit_finished(job, unfinished)
            job.watch(Progress("index", done_s, total_s))
        if hold.signum is None:  # else the rest is not lost but not done, and the next run's
            room.check(job.archive.folder, has_losses=bool(unfinished))
            _bury_lost(unfinished)
        rows += _commit_finished(job, unfinished)
        if hold.signum is not None:
            done = f"{len(rows)} of the {len(found.plans)} videos of this run are in the archive"
            raise interrupts.Stopped(hold.signum, f"stopped: {done}; {interrupts.GO_ON}")
    return rows


def _length_s(unit: Unit) -> float:
    """Seconds of footage in a unit."""
    return sum(window.end_s - window.start_s for window in unit.windows)


def _account(batch: list[Any], tallies: Mapping[str, _Tally], owners: Mapping[str, str]) -> Iterator[str]:
    """Enters results into the tallies of their videos; yields the ids of the units they settle."""
    for result in batch:
        if isinstance(result, Failed):
            unit_id = result.record.unit_id
            tallies[owners[unit_id]].failures.append(result)
            yield unit_id
            continue
        for outcome in result.outcomes:
            tallies[outcome.video_id].outcomes.append(outcome)
            yield outcome.unit_id


def _bury_lost(unfinished: Mapping[str, _Tally]) -> None:
    """Enters the units that never came back, because their worker died, as failures."""
    for tally in unfinished.values():
        seen = {outcome.unit_id for outcome in tally.outcomes} | {failed.record.unit_id for failed in tally.failures}
        lost = [unit for unit in tally.plan.units if unit.unit_id not in seen]
        tally.failures += [died(unit, "decode", unit.deadline_s) for unit in lost]


def _commit_finished(job: Job, unfinished: dict[str, _Tally]) -> list[VideoRow]:
    """Commits the rows of all videos that are complete and takes them off the list."""
    complete = [video_id for video_id, tally in unfinished.items() if tally.is_complete]
    tallies = [unfinished.pop(video_id) for video_id in complete]
    rows = [revisions.indexed(job, tally.plan, tally.outcomes, tally.failures) for tally in tallies]
    job.archive.commit_videos(rows)
    return rows


def _every(seconds: float, results: Iterable[Any]) -> Iterator[list[Any]]:
    """Results gathered into lists, one for each stretch of time, the rest at the end."""
    batch: list[Any] = []
    since = time.monotonic()
    for result in results:
        batch.append(result)
        if time.monotonic() - since >= seconds:
            yield batch
            batch, since = [], time.monotonic()
    if batch:
        yield batch


def _stages(job: Job, units: list[Unit]) -> list[Stage]:
    """Decode, embed, write."""
    # Units of short videos share a forward pass; a unit of 64 clips fills several alone.
    mean_clips = sum(len(unit.windows) for unit in units) / len(units)
    together = max(1, round(CLIPS_PER_PASS / mean_clips))
    settings = job.settings
    on_gpu = settings.device.startswith("cuda")
    return [
        Stage(
            name="decode",
            work=partial(decode.decode_units, job.space.model.image_size),
            deadline_s=lambda unit: unit.deadline_s,
        ),
        Stage(
            name="embed",
            work=Embed(settings.model, settings.context, settings.device, settings.frames, settings.image_size),
            batch_size=together,
            resident=True,
            num_cpus=0.5,  # with the writer's half, one logical CPU of four: the rest decode
            num_gpus=1.0 if on_gpu else 0.0,
        ),
        Stage(
            name="write",
            work=partial(write_part, folder=job.archive.folder),
            batch_size=together,
            resident=True,
            num_cpus=0.5,
        ),
    ]


def _reported(failures: Iterable[Failed]) -> tuple[Failure, ...]:
    """Failures of files as they are reported."""
    return tuple(Failure(plan.source_of(failed).file.uri, failed.kind, failed.error) for failed in failures)


def _log(job: Job, state: str, report: IndexReport | None) -> None:
    """Writes the run down, with everything that decides numbers."""
    job.archive.log_run(
        {
            "run_id": job.run_id,
            "state": state,
            "space": job.space.id,
            "at": datetime.now(UTC),
            "settings": json.dumps({"index": asdict(job.settings), "space": asdict(job.space)}),
            "versions": json.dumps(versions()),
            "report": json.dumps(asdict(report)) if report else None,
        }
    )
