"""The main job: from a pile of videos to a searchable archive. Plans, runs the stages, commits what comes out.

Every file ends as exactly one of indexed, failed, unchanged or gone. Clips become visible video by video while the
run goes on; a killed run is finished by running it again.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import (
    costs,
    deadletter,
    decoders,
    delta_log,
    engine,
    explaining,
    index_plan,
    indexes,
    interrupts,
    lease,
    logs,
    plan,
    recall_texts,
    retire,
    revisions,
    room,
    runs,
    scratch,
    sources,
)
from pipeline.archive import Archive
from pipeline.index_files import VectorIndex
from pipeline.index_plan import Making, Rules
from pipeline.indexing import device_of, index_units
from pipeline.lease import Lease
from pipeline.progress import Progress
from pipeline.relink import SHOWN
from pipeline.runs import Remembered
from pipeline.settings import IndexSettings, Policy, space_of
from pipeline.survey import Job, Stock, Survey, survey, take_stock
from pipeline.versions import versions
from schemas.errors import MissingPlace
from schemas.records import (
    Failed,
    Failure,
    Letter,
    UnitExplained,
    UnitTime,
)

LOGGED = ("planned", "indexed", "failed", "gone", "clips", "wall_s")  # of a report, beside the end of the run
SHOTS_ARE_UNKNOWN = "clips are counted by windows of one length: shots are found when videos are decoded"


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
    slowest_unit: UnitTime | None = None  # to decode, as a share of its deadline
    decode_s: float = 0.0  # of all workers together, as embed_s
    embed_s: float = 0.0
    encoders: tuple[str, ...] = ()  # how clips were embedded: dtype, device, passes
    pools: tuple[str, ...] = ()  # how many workers there were, and why
    placement: str = ""  # which nodes of a cluster decoded and embedded, where that was asked for
    decoders: tuple[str, ...] = ()  # where each codec was decoded, and why
    fallbacks: tuple[str, ...] = ()  # what a GPU was to decode and a CPU did, and why
    expected_s: float | None = None  # of a dry run, by `runs.rate`; None before the first run
    asks_for_yes: bool = False  # of a dry run: so much would be retired that the run would refuse
    serves: bool = True  # whether search and tag use this space from now on
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()  # what a user must know of the model
    explained: tuple[UnitExplained, ...] = ()  # where asked for, and not in the run's row


def index(  # noqa: PLR0913  # what, where, how, and three ways to ask for it
    videos: str | Path | Sequence[str | Path],
    folder: str | Path,
    settings: IndexSettings,
    *,
    policy: Policy | None = None,
    dry_run: bool = False,
    explain: bool = False,
    watch: Callable[[Progress], None] | None = None,
) -> IndexReport:
    """Brings the archive at `folder` up to date with `videos`. Raises FootageError when nothing can be done at all.

    Raises RefusedToRetire when a place is missing that the archive knows videos of, or too much would be retired, and
    ArchiveBusy when another run does not end within the policy's `wait_s`: one at a time.
    """
    began = time.perf_counter()
    archive = Archive(folder)
    asked = [videos] if isinstance(videos, (str, Path)) else videos
    try:
        with room.needed(archive.folder):
            inventory = sources.take_inventory(*asked)
            job = replace(_job(archive, inventory, settings, policy or Policy(), watch), explain=explain)
            if dry_run:
                return _dry_run(_informed(job), inventory, began)
            if not archive.exists():
                _stock(job, inventory)  # what is wrong with the files must show before there is an archive of nothing
            return _run(job, inventory, began)
    except MissingPlace as error:
        raise retire.explained(error, archive) from error


def _run(job: Job, inventory: sources.Inventory, began: float) -> IndexReport:
    """The run with the archive to itself: what there is to do is looked up when nobody else can do it."""
    folder = job.archive.folder
    Archive.create(folder)
    waiting = partial(_show_waiting, job)
    with lease.held(folder, job.run_id, wait_s=job.policy.wait_s, watch=waiting) as held:
        return _work(_informed(job, held.term), held, inventory, began)


def _work(job: Job, held: Lease, inventory: sources.Inventory, began: float) -> IndexReport:
    """The run itself, by who holds the lease."""
    scratch.sweep(job.archive.folder)
    stock = _stock(job, inventory)
    if stock.is_idle:  # no folder for workers that will not be
        nowhere = Path(tempfile.gettempdir())
        return _execute(survey(job, stock, nowhere), held, nowhere, began)
    with scratch.private(job.archive.folder, job.run_id) as folder:
        found = survey(job, stock, folder)
        retire.check(found)
        return _execute(found, held, folder, began)


def _stock(job: Job, inventory: sources.Inventory) -> Stock:
    """What there is to do."""
    return take_stock(job.archive, job.space.id, inventory, job.folders, job.policy)


def _show_waiting(job: Job, waited_s: float) -> None:
    """Tells the watcher how long the run has waited for another."""
    job.watch(Progress("wait", waited_s, job.policy.wait_s))


def _informed(job: Job, term: int | None = None) -> Job:
    """The job with what the archive's dead-letter holds now, and the term under which it may write."""
    archive = Archive(job.archive.folder, term)
    letters = archive.letters(job.space.id).values() if archive.exists() else ()
    known = runs.costs_of(archive, job.space.id) if archive.exists() else {}
    return replace(job, archive=archive, letters=deadletter.by_uri(letters), costs=known)


def _job(
    archive: Archive,
    inventory: sources.Inventory,
    settings: IndexSettings,
    policy: Policy,
    watch: Callable[[Progress], None] | None,
) -> Job:
    """What a run is to do and how, before it is looked up what there is to do."""
    if settings.decoder == "cuda":  # before anything is done, though it takes torch to know
        decoders.check(settings.decoder, device_of(settings))
    if settings.precision == "int8":
        from pipeline.embed import check_precision

        check_precision(settings.precision, device_of(settings), is_here=not engine.is_cluster())
    model = runs.remember(archive, settings) or _loaded(settings)
    run_id = runs.new_id()
    return Job(
        archive=archive,
        settings=model.settings,
        space=model.space,
        run_id=run_id,
        known={},
        watch=watch or (lambda _: None),
        notes=model.notes,
        policy=policy,
        places=inventory.places,
        folders=(*inventory.folders, *policy.forget),
        keeps=_serving(archive) if policy.keep_space else (),
        weights=model.weights,
    )


def _serving(archive: Archive) -> tuple[str, ...]:
    """The space that serves now, if any does."""
    return tuple(line.space for line in runs.spaces(archive) if line.state == "serves") if archive.exists() else ()


def _loaded(settings: IndexSettings) -> Remembered:
    """The space of a run and what is to be said of its model, which is loaded, understood and forgotten."""
    # These import torch, which takes seconds that a run with nothing to do does not have.
    from xclip_core import canonical_source, load_encoder, weights_file

    model = load_encoder(settings.model, frames=settings.frames, image_size=settings.image_size)
    assert model.provenance is not None, "models come from xclip_core.load_encoder"
    file = weights_file(settings.model)
    space = space_of(model, settings)
    # What is stored must mean the same from any folder and on any worker.
    settings = replace(settings, model=canonical_source(settings.model))
    return Remembered(settings, space, model.provenance.notes, runs.stamp(file) if file else {})


def _dry_run(job: Job, inventory: sources.Inventory, began: float) -> IndexReport:
    """What a run would do, found out without writing to the archive."""
    with tempfile.TemporaryDirectory(prefix="footage-") as outside:
        return _dry_run_report(survey(job, _stock(job, inventory), Path(outside)), began)


def _dry_run_report(found: Survey, began: float) -> IndexReport:
    """What would be done, with the time it would take at the rate of an earlier run."""
    archive, sampling = found.job.archive, found.job.space.sampling
    rate = runs.rate(archive, found.job.space.id) if archive.exists() else None
    counts = _counts(found)
    if sampling.shots is not None:
        counts["notes"] = (*counts["notes"], SHOTS_ARE_UNKNOWN)
    return IndexReport(
        **counts,
        dry_run=True,
        planned=len(found.plans) + len(found.failures),
        failed=len(found.failures),
        duplicates=len(found.links.duplicates) + sum(map(len, found.copies.values())),
        clips=sum(len(item.video.windows) for item in found.plans),
        footage_s=found.footage_s,
        wall_s=time.perf_counter() - began,
        expected_s=found.footage_s / rate if rate else None,
        asks_for_yes=retire.asks_for_yes(found),
        **_explained(found, {}),
        failures=_reported(found.failures),
    )


def _explained(found: Survey, took_s: Mapping[str, float]) -> dict[str, Any]:
    """What a report says of each unit, if it is asked to."""
    job = found.job
    return {"explained": explaining.explained(found.plans, job.costs, took_s)} if job.explain else {}


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


def _execute(found: Survey, held: Lease, scratch: Path, began: float) -> IndexReport:
    """Runs the plan, commits as results come, builds the index, and logs the run."""
    job = _resolved(found.job) if found.plans else found.job
    _log(job, "started", None)  # before anything is written: a killed run leaves its settings behind
    deadletter.commit(job, _letters(job, found))
    job.archive.commit_videos(revisions.settled(job, found))
    try:
        rows, effort = index_units(job, held, found, scratch)
    except interrupts.Stopped:
        _log(job, "stopped", None)
        raise
    # The index is derived: should this be the instant of a crash, the next search builds it.
    rules = Rules(texts=recall_texts.by_settings(job.settings))
    indexes.ensure(job.archive, job.space.id, job.space.model.embed_dim, rules=rules)
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
        slowest_unit=effort.slowest,
        decode_s=effort.decode_s,
        embed_s=effort.embed_s,
        encoders=tuple(effort.encoders),
        pools=tuple(sizes.why for sizes in effort.pools),
        placement=effort.placement,
        decoders=tuple(map(str, effort.decoders)),
        fallbacks=decoders.fallbacks(effort.fell_back),
        **_explained(found, effort.took_s),
        serves=runs.covers(job.archive, job.space.id, job.folders, everywhere=job.policy.whole_archive),
        failures=(
            *_reported(found.failures),
            *(Failure(row.uri, row.error_kind or "", row.error or "") for row in broken),
        ),
    )
    _log(job, "finished", report)
    return report


def index_estimate(folder: str | Path, *, space: str | None = None, rules: Rules | None = None) -> Making:
    """What `build_index` would make, and what that takes. Raises as it does."""
    archive = Archive.open(folder)
    run = runs.run_of_space(archive, space)
    videos = archive.current_videos(run["space"], ["status", "clip_count"]).to_pylist()
    clips = sum(video["clip_count"] for video in videos if video["status"] in SHOWN)
    return index_plan.making(clips, run["settings"]["space"]["model"]["embed_dim"], rules or Rules())


def build_index(folder: str | Path, *, space: str | None = None, rules: Rules | None = None) -> VectorIndex:
    """Builds the vector index of an archive's serving space anew, or of the one named, and publishes it.

    Raises ArchiveError when there is no archive, and InputError for a space that it lacks.
    """
    archive = Archive.open(folder)
    run = runs.run_of_space(archive, space)
    settings = IndexSettings.stored(run["settings"]["index"])
    rules = replace(rules or Rules(), texts=recall_texts.by_settings(settings))
    return indexes.build(archive, run["space"], run["settings"]["space"]["model"]["embed_dim"], rules=rules)


def _resolved(job: Job) -> Job:
    """The job on a device that is there."""
    return replace(job, settings=replace(job.settings, device=device_of(job.settings)))


def _letters(job: Job, found: Survey) -> list[Letter]:
    """What the dead-letter is to say of files that have no units, and of those that are gone or copies."""
    failed = (letter for failed in found.failures for letter in deadletter.of_file(job, failed))
    ended = [*(row.uri for row in found.gone), *(source.file.uri for source, _ in found.links.duplicates)]
    return [*failed, *(letter for uri in ended for letter in deadletter.settled(job, uri))]


def _reported(failures: Iterable[Failed]) -> tuple[Failure, ...]:
    """Failures of files as they are reported."""
    return tuple(Failure(plan.source_of(failed).file.uri, failed.kind, failed.error) for failed in failures)


def _log(job: Job, state: str, report: IndexReport | None) -> None:
    """Writes the run down, with everything that decides numbers, and the versions to which it can be undone."""
    settings = {
        "index": asdict(job.settings),
        "space": asdict(job.space),
        "policy": asdict(job.policy),
        "places": job.places,
        "forgets": job.policy.forget,
        "keeps": job.keeps,
        "weights": job.weights,
        "costs": costs.stored(job.costs),
        "notes": job.notes,
        "tables": delta_log.versions(job.archive),
    }
    job.archive.log_run(
        {
            "run_id": job.run_id,
            "state": state,
            "space": job.space.id,
            "at": datetime.now(UTC),
            "settings": json.dumps(settings),
            "versions": json.dumps(versions()),
            "report": json.dumps(asdict(replace(report, explained=()))) if report else None,
        }
    )
    counts = {name: getattr(report, name) for name in LOGGED} if report else {}
    logs.run(job.run_id, state, space=job.space.id, archive=str(job.archive.folder), **counts)
