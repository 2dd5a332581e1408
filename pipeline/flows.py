"""The main job: from a pile of videos to a searchable archive. Plans, runs the stages, commits what comes out.

Every file ends as exactly one of indexed, failed, unchanged or gone. Clips become visible video by video while the
run goes on; a killed run is finished by running it again.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import decode, engine, plan, retire, revisions, runs, sources, vectors
from pipeline.archive import Archive, write_part
from pipeline.engine import Stage
from pipeline.plan import VideoPlan
from pipeline.relink import SHOWN
from pipeline.runs import Remembered
from pipeline.settings import IndexSettings, Policy, space_of
from pipeline.survey import Job, Progress, Stock, Survey, died, survey, take_stock
from pipeline.versions import versions
from schemas.errors import MissingPlace
from schemas.records import (
    Failed,
    Failure,
    HashedFile,
    Part,
    Unit,
    UnitOutcome,
    VideoRow,
)

COMMIT_EVERY_S = 2.0  # a lost run loses at most this much committed work; each commit is a file in the log


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What a run did, or with `dry_run` what it would do. Counts are of videos; `planned` = `indexed` + `failed`.

    Files found = `planned` + `unchanged` + `moved` + `duplicates`.
    """

    run_id: str
    space: str
    dry_run: bool
    planned: int
    indexed: int = 0
    partial: int = 0  # of those indexed, how many have damaged or missing stretches
    unchanged: int = 0
    moved: int = 0  # known content at another place: linked anew, not decoded
    duplicates: int = 0  # new copies of content that is there: accounted for, not decoded
    failed: int = 0
    gone: int = 0
    kept: int = 0  # vanished, and left visible because of keep_gone
    clips: int = 0
    footage_s: float = 0.0
    wall_s: float = 0.0
    expected_s: float | None = None  # of a dry run: by the rate of the last run; None when there was none
    asks_for_yes: bool = False  # of a dry run: so much would be retired that the run would refuse
    serves: bool = True  # whether search and tag use this space from now on
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()  # what a user must know of the model


def index(  # noqa: PLR0913  # what, where, how, and three ways to ask for it
    videos: str | Path | Sequence[str | Path],
    folder: str | Path,
    settings: IndexSettings,
    *,
    policy: Policy | None = None,
    dry_run: bool = False,
    watch: Callable[[Progress], None] | None = None,
) -> IndexReport:
    """Brings the archive at `folder` up to date with `videos`. Raises FootageError when nothing can be done at all.

    Raises RefusedToRetire when a place is missing that the archive knows videos of, or too much would be retired.
    """
    began = time.perf_counter()
    archive = Archive(folder)
    job, stock = _begin(archive, videos, settings, policy or Policy(), watch)
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="footage-") as outside:
            return _dry_run_report(survey(job, stock, Path(outside)), began)
    Archive.create(folder)
    if stock.is_idle:  # no folder for workers that will not be
        return _execute(survey(job, stock, archive.folder), archive.folder, began)
    scratch = archive.scratch(job.run_id)
    try:
        found = survey(job, stock, scratch)
        retire.check(found)
        return _execute(found, scratch, began)
    finally:
        archive.drop_scratch(job.run_id)


def _begin(
    archive: Archive,
    videos: str | Path | Sequence[str | Path],
    settings: IndexSettings,
    policy: Policy,
    watch: Callable[[Progress], None] | None,
) -> tuple[Job, Stock]:
    """What a run is to do and what there is to do it with."""
    try:
        inventory = sources.take_inventory(*([videos] if isinstance(videos, (str, Path)) else videos))
        model = runs.remember(archive, settings) or _loaded(settings)
        folders = (*inventory.folders, *policy.forget)
        stock = take_stock(archive, model.space.id, inventory, folders, policy)
    except MissingPlace as error:
        raise retire.explained(error, archive) from error
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    job = Job(
        archive=archive,
        settings=model.settings,
        space=model.space,
        run_id=run_id,
        known={},
        watch=watch or (lambda _: None),
        notes=model.notes,
        policy=policy,
        places=inventory.places,
        folders=folders,
        keeps=_serving(archive) if policy.keep_space else (),
        weights=model.weights,
    )
    return job, stock


def _serving(archive: Archive) -> tuple[str, ...]:
    """The space that serves now, if any does."""
    return tuple(line.space for line in runs.spaces(archive) if line.state == "serves") if archive.exists() else ()


def _loaded(settings: IndexSettings) -> Remembered:
    """The space of a run and what is to be said of its model, which is loaded, understood and forgotten."""
    # These import torch, which takes seconds that a run with nothing to do does not have.
    from pipeline.embed import device_named
    from xclip_core import canonical_source, load_encoder, weights_file

    model = load_encoder(settings.model, frames=settings.frames, image_size=settings.image_size)
    assert model.provenance is not None, "models come from xclip_core.load_encoder"
    file = weights_file(settings.model)
    space = space_of(model, settings)
    # What is stored must mean the same from any folder and on any worker.
    settings = replace(settings, model=canonical_source(settings.model), device=device_named(settings.device))
    return Remembered(settings, space, model.provenance.notes, runs.stamp(file) if file else {})


def _dry_run_report(found: Survey, began: float) -> IndexReport:
    """What would be done, with the time it would take at the last run's rate."""
    archive = found.job.archive
    reports = [run["report"] for run in archive.runs() if run["report"]] if archive.exists() else []
    rates = [report["footage_s"] / report["wall_s"] for report in reports if report["footage_s"] and report["wall_s"]]
    return IndexReport(
        **_counts(found),
        dry_run=True,
        planned=len(found.plans) + len(found.failures),
        failed=len(found.failures),
        duplicates=len(found.links.duplicates) + sum(map(len, found.copies.values())),
        clips=sum(len(item.video.windows) for item in found.plans),
        footage_s=found.footage_s,
        wall_s=time.perf_counter() - began,
        expected_s=found.footage_s / rates[-1] if rates else None,
        asks_for_yes=retire.asks_for_yes(found),
        failures=_reported(found.failures),
    )


def _counts(found: Survey) -> dict[str, Any]:
    """What a report says of a plan, whether it is carried out or not."""
    keep = found.job.policy.keep_gone
    return {
        "run_id": found.job.run_id,
        "space": found.job.space.id,
        "unchanged": found.unchanged,
        "moved": found.moved,
        "gone": 0 if keep else found.vanished,
        "kept": found.vanished if keep else 0,
        "notes": found.job.notes,
    }


# --- doing it


@dataclass
class _Tally:
    """What has come back for one video so far."""

    plan: VideoPlan
    outcomes: list[UnitOutcome] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    copies: tuple[HashedFile, ...] = ()  # files of the same content

    @property
    def is_complete(self) -> bool:
        """Whether every unit is accounted for."""
        return len(self.outcomes) + len(self.failures) == len(self.plan.units)


def _execute(found: Survey, scratch: Path, began: float) -> IndexReport:
    """Runs the plan, commits as results come, builds the index, and logs the run."""
    job = _resolved(found.job) if found.plans else found.job
    _log(job, "started", None)  # before anything is written: a killed run leaves its settings behind
    job.archive.commit_videos(revisions.settled(job, found))
    rows = list(_index_units(job, found, scratch))
    # The index is derived: should this be the instant of a crash, the next search builds it.
    vectors.ensure(job.archive, job.space.id, job.space.model.embed_dim)
    shown = [row for row in rows if row.status in SHOWN]
    broken = [row for row in rows if row.status == "failed"]
    failed = len(found.failures) + len(broken)
    report = IndexReport(
        **_counts(found),
        dry_run=False,
        planned=len(shown) + failed,
        indexed=len(shown),
        partial=sum(row.status == "partial" for row in shown),
        duplicates=len(found.links.duplicates) + sum(row.status == "duplicate" for row in rows),
        failed=failed,
        clips=sum(row.clip_count for row in shown),
        footage_s=sum(row.duration_s * row.decoded_fraction for row in shown),
        wall_s=time.perf_counter() - began,
        serves=runs.covers(job.archive, job.space.id, job.folders, everywhere=job.policy.whole_archive),
        failures=(
            *_reported(found.failures),
            *(Failure(row.uri, row.error_kind or "", row.error or "") for row in broken),
        ),
    )
    _log(job, "finished", report)
    return report


def _resolved(job: Job) -> Job:
    """The job on a device that is there: it may have been remembered from another machine."""
    from pipeline.embed import device_named

    return replace(job, settings=replace(job.settings, device=device_named(job.settings.device)))


def _index_units(job: Job, found: Survey, scratch: Path) -> Iterator[VideoRow]:
    """Runs all units and commits parts and finished videos; yields the row of each video and copy, once."""
    tallies = {
        item.video_id: _Tally(item, list(item.done), copies=found.copies.get(item.video.source.fingerprint, ()))
        for item in found.plans
    }
    owners = {unit.unit_id: item.video_id for item in found.plans for unit in item.units}
    units = [unit for item in found.plans for unit in item.todo]
    total_s, done_s = sum(map(_length_s, units)), 0.0
    lengths = {unit.unit_id: _length_s(unit) for unit in units}
    unfinished = dict(tallies)  # a video leaves it when its row is committed; what is left at the end was lost
    results = engine.run(_stages(job, units), units, engine=job.settings.engine, scratch=scratch) if units else iter(())
    for batch in _every(COMMIT_EVERY_S, results):
        parts = [result for result in batch if isinstance(result, Part)]
        job.archive.commit_parts(parts)  # before the rows of the videos they complete: never the other way round
        for unit_id in _account(batch, tallies, owners):
            done_s += lengths[unit_id]
        yield from _commit_finished(job, unfinished)
        job.watch(Progress("index", done_s, total_s))
    _bury_lost(unfinished)
    yield from _commit_finished(job, unfinished)


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


def _commit_finished(job: Job, unfinished: dict[str, _Tally]) -> Iterator[VideoRow]:
    """Commits the rows of all videos that are complete and takes them off the list."""
    complete = [video_id for video_id, tally in unfinished.items() if tally.is_complete]
    tallies = [unfinished.pop(video_id) for video_id in complete]
    rows = [row for tally in tallies for row in _rows(job, tally)]
    job.archive.commit_videos(rows)
    yield from rows


def _rows(job: Job, tally: _Tally) -> Iterator[VideoRow]:
    """The row of a video that is complete, and those of its copies."""
    row = revisions.indexed(job, tally.plan, tally.outcomes, tally.failures)
    yield row
    yield from (revisions.follower(job, copy, row) for copy in tally.copies)


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
    from pipeline.embed import CLIPS_PER_PASS, Embed

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
            "settings": json.dumps(
                {
                    "index": asdict(job.settings),
                    "space": asdict(job.space),
                    "policy": asdict(job.policy),
                    "places": job.places,
                    "forgets": job.policy.forget,
                    "keeps": job.keeps,
                    "weights": job.weights,
                    "notes": job.notes,
                }
            ),
            "versions": json.dumps(versions()),
            "report": json.dumps(asdict(report)) if report else None,
        }
    )
