"""Running a plan: units through the stages, parts committed as they come, a video's row when its units are through.

The order of commits is what a crash may rely on: clips before the rows that show them, the dead-letter before the rows
that it explains. A signal is held back while something is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import deadletter, decode, decode_shots, decoders, engine, interrupts, plan, pools, revisions, room
from pipeline.decoders import Choice
from pipeline.engine import Stage
from pipeline.lease import Lease
from pipeline.meters import Meters
from pipeline.parts import write_part
from pipeline.plan import VideoPlan
from pipeline.pools import Machines, Pools
from pipeline.progress import Progress
from pipeline.settings import IndexSettings, Space
from pipeline.survey import Job, Survey, died
from schemas.records import DecodedUnit, Failed, HashedFile, Letter, Part, Unit, UnitOutcome, UnitTime, VideoRow

COMMIT_EVERY_S = 2.0  # a lost run loses at most this much committed work; each commit is a file in the log


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


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What becomes of one file."""

    found: VideoRow  # what came of this run: to be reported
    row: VideoRow  # what the archive says from now on
    letters: list[Letter]


@dataclass
class Effort:
    """What working on units took, of those that came back."""

    is_explained: bool = False
    decode_s: float = 0.0  # of all workers together
    embed_s: float = 0.0
    slowest: UnitTime | None = None  # the unit that came nearest to its deadline
    encoders: dict[str, None] = field(default_factory=dict)  # how clips were embedded
    pools: list[Pools] = field(default_factory=list)  # one after the other
    decoders: tuple[Choice, ...] = ()  # where units are decoded
    fell_back: dict[str, tuple[int, str]] = field(default_factory=dict)  # by codec, how many units, and the first why
    placement: str = ""  # on which nodes of a cluster, if that was asked for
    took_s: dict[str, float] = field(default_factory=dict)  # to decode, by unit, where that is to be explained

    def add(self, parts: list[Part], units: Mapping[str, Unit]) -> None:
        """Counts some parts in."""
        for part in parts:
            self.decode_s += sum(outcome.decode_s for outcome in part.outcomes)
            self.embed_s += sum(outcome.embed_s for outcome in part.outcomes)
            self.encoders[part.encoder] = None
            for outcome in part.outcomes:
                self._add_fallback(outcome, units)
            if self.is_explained:
                self.took_s |= {outcome.unit_id: outcome.decode_s for outcome in part.outcomes}
        known = () if self.slowest is None else (self.slowest,)
        self.slowest = max((*known, *_times(parts, units)), key=lambda time: time.share, default=None)

    def _add_fallback(self, outcome: UnitOutcome, units: Mapping[str, Unit]) -> None:
        """Counts a unit in if a CPU had to decode it."""
        if outcome.fallback:
            codec = units[outcome.unit_id].codec
            count, why = self.fell_back.get(codec, (0, outcome.fallback))
            self.fell_back[codec] = (count + 1, why)


def index_units(job: Job, held: Lease, found: Survey, scratch: Path) -> tuple[list[VideoRow], Effort]:
    """Runs all units and commits parts and finished videos; the row of each video and copy, once, and the effort."""
    tallies = {
        item.video_id: _Tally(
            item, list(item.done), list(item.left), found.copies.get(item.video.source.fingerprint, ())
        )
        for item in found.plans
    }
    owners = {unit.unit_id: item.video_id for item in found.plans for unit in item.units}
    units = [unit for item in found.plans for unit in item.todo]
    total_s, done_s = sum(map(_length_s, units)), 0.0
    by_id = {unit.unit_id: unit for unit in units}
    effort, meters = Effort(job.explain), Meters()
    unfinished = dict(tallies)  # a video leaves it when its row is committed; what is left at the end was lost
    rows: list[VideoRow] = []
    with interrupts.held() as hold:
        results = _results(job, units, effort, scratch) if units else iter(())
        for batch in _every(COMMIT_EVERY_S, hold.listen(results)):
            held.check()
            parts = [result for result in batch if isinstance(result, Part)]
            job.archive.commit_parts(parts)  # before the rows of the videos they complete: never the other way round
            for unit_id in _account(batch, tallies, owners):
                done_s += _length_s(by_id[unit_id])
            effort.add(parts, by_id)
            meters.add(batch, by_id, effort.pools[-1].embedders)
            rows += _commit_finished(job, unfinished)
            job.watch(Progress("index", done_s, total_s))
        if hold.signum is None:  # else the rest is not lost but not done, and the next run's
            room.check(job.archive.folder, has_losses=bool(unfinished))
            _bury_lost(unfinished)
        rows += _commit_finished(job, unfinished)
        if hold.signum is not None:
            done = (
                f"{len(found.plans) - len(unfinished)} of the {len(found.plans)} videos of this run are in the archive"
            )
            raise interrupts.Stopped(hold.signum, f"stopped: {done}; {interrupts.GO_ON}")
    return rows, effort


def device_of(settings: IndexSettings) -> str:
    """The device that embeds. On a cluster its nodes say: this process may well be on a head node without a GPU."""
    if settings.device == "auto" and settings.engine == "ray" and engine.is_cluster():
        return "cuda" if engine.machines("ray", settings.embed_resource).gpus else "cpu"
    from pipeline.embed import device_named

    return device_named(settings.device)


def _results(job: Job, units: list[Unit], effort: Effort, scratch: Path) -> Iterator[Any]:
    """Parts and failures of units; where GPUs embed many, the pools of most are sized by the first ones."""
    settings = job.settings
    decoding = engine.machines(settings.engine, settings.decode_resource)
    embedding = engine.machines(settings.engine, settings.embed_resource)
    effort.placement = _placement(job, decoding, embedding)
    on_gpu = settings.device.startswith("cuda")
    machines = replace(decoding, gpus=embedding.gpus)  # what feeds, and what is fed
    effort.decoders = _choices(job, units, decoding, machines, scratch)
    is_probed = on_gpu and settings.engine == "ray" and len(units) >= pools.WORTH_PROBING
    first = units[: pools.PROBE_UNITS] if is_probed else units
    outcomes: list[UnitOutcome] = []
    for result in _run(job, first, pools.before_probe() if on_gpu else pools.on_cpus(embedding), effort, scratch):
        outcomes += result.outcomes if isinstance(result, Part) else ()
        yield result
    if rest := units[len(first) :]:
        feeding = pools.decoding(machines) if decoders.on_gpu(effort.decoders) else machines
        yield from _run(job, rest, pools.on_gpus(feeding, outcomes), effort, scratch)


def _choices(job: Job, units: list[Unit], decoding: Machines, machines: Machines, scratch: Path) -> tuple[Choice, ...]:
    """Where each codec is decoded: on CPUs where the nodes that decode have nothing else."""
    if job.settings.decode_resource is None or decoding.gpus:
        return decoders.choices(job, units, machines, scratch)
    return decoders.on_cpus(job, units)


def _placement(job: Job, decoding: Machines, embedding: Machines) -> str:
    """On which nodes of a cluster the stages work; empty where nobody said."""
    names = {"decode": (job.settings.decode_resource, decoding), "embed": (job.settings.embed_resource, embedding)}
    if job.settings.engine == "local" or not any(name for name, _ in names.values()):
        return ""
    parts = (
        f"{stage} on {f'the {has.nodes} nodes that offer {name!r}' if name else 'any node'} ({has.cpus} CPUs, "
        f"{has.gpus} GPUs)"
        for stage, (name, has) in names.items()
    )
    return "; ".join(parts)


def _run(job: Job, units: list[Unit], sizes: Pools, effort: Effort, scratch: Path) -> Iterator[Any]:
    """Parts and failures of units, with pools of some sizes, which share GPUs where these decode too."""
    if decoders.on_gpu(effort.decoders):
        sizes = pools.shared(sizes)
    effort.pools.append(sizes)
    yield from engine.run(
        _stages(job, units, sizes, effort.decoders), units, engine=job.settings.engine, scratch=scratch
    )


def _length_s(unit: Unit) -> float:
    """Seconds of footage in a unit."""
    return sum(window.end_s - window.start_s for window in unit.windows)


def _times(parts: list[Part], units: Mapping[str, Unit]) -> Iterator[UnitTime]:
    """How long decoding took the units of some parts."""
    for outcome in (outcome for part in parts for outcome in part.outcomes):
        unit = units[outcome.unit_id]
        yield UnitTime(unit.uri, unit.windows[0].start_s, outcome.decode_s, unit.deadline_s)


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
    """Commits the rows of all videos that are complete and takes them off the list; the rows to report."""
    complete = [video_id for video_id, tally in unfinished.items() if tally.is_complete]
    tallies = [unfinished.pop(video_id) for video_id in complete]
    verdicts = [verdict for tally in tallies for verdict in _verdicts(job, tally)]
    deadletter.commit(job, (letter for verdict in verdicts for letter in verdict.letters))
    job.archive.commit_videos(verdict.row for verdict in verdicts)
    return [verdict.found for verdict in verdicts]


def _verdicts(job: Job, tally: _Tally) -> Iterator[_Verdict]:
    """What there is to say of a video, and of each copy of it."""
    row = revisions.indexed(job, tally.plan, tally.outcomes, tally.failures)
    letters = deadletter.of_video(job, tally.plan, row, tally.failures)
    yield _verdict(job, tally.plan.video.source, row, letters)
    for copy in tally.copies:
        follower = revisions.follower(job, copy, row)
        yield _verdict(job, copy, follower, deadletter.of_whole(job, copy, follower))


def _verdict(job: Job, source: HashedFile, row: VideoRow, letters: list[Letter]) -> _Verdict:
    """What there is to say of a file that came out as `row`, which may be worse than what is shown of it."""
    shown = revisions.kept(job, source, row)
    if shown is None:
        return _Verdict(row, row, letters)
    if shown.fingerprint != source.fingerprint:
        letters = deadletter.of_whole(job, source, row)
    return _Verdict(replace(row, status="failed"), shown, letters)


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


def _decoding(space: Space) -> Callable[[list[Unit]], list[DecodedUnit]]:
    """The work of the stage that decodes."""
    if space.sampling.shots is not None:
        return partial(decode_shots.decode_by_shots, space.model.image_size, space.sampling)
    return partial(decode.decode_units, space.model.image_size)


def _decode_stage(job: Job, sizes: Pools, chosen: tuple[Choice, ...]) -> Stage:
    """The stage that decodes; its workers import torch where a GPU is to do some of it, and nowhere else."""
    stage = Stage(
        name="decode",
        work=_decoding(job.space),
        deadline_s=lambda unit: unit.deadline_s,
        memory_bytes=plan.MEMORY_BYTES,
        hostile=True,
        resource=job.settings.decode_resource,
    )
    codecs, device = decoders.on_gpu(chosen), job.settings.device
    if not codecs:
        return stage
    from pipeline import nvdec

    work = partial(nvdec.decode_units, job.space.model.image_size, device, codecs)
    return replace(stage, work=work, wake=partial(nvdec.woken, device), num_gpus=sizes.decode_gpus)


def _stages(job: Job, units: list[Unit], sizes: Pools, chosen: tuple[Choice, ...]) -> list[Stage]:
    """Decode, embed, write."""
    from pipeline.embed import Embed, clips_per_call

    settings = job.settings
    # Units of short videos share a call; one of 64 clips is a call alone on a few cores.
    clips = sum(len(unit.windows) for unit in units)
    together = max(1, round(clips_per_call(settings.device, sizes.threads) * len(units) / clips))
    return [
        _decode_stage(job, sizes, chosen),
        Stage(
            name="embed",
            work=Embed(
                settings.model,
                settings.context,
                settings.device,
                settings.frames,
                settings.image_size,
                settings.precision,
                sizes.threads,
                clips,
            ),
            batch_size=together,
            resident=True,
            workers=sizes.embedders,
            num_cpus=0.5,  # with the writer's half, one logical CPU of four: the rest decode
            num_gpus=sizes.embed_gpus,
            resource=settings.embed_resource,
        ),
        Stage(
            name="write",
            work=partial(write_part, folder=job.archive.folder),
            batch_size=together,
            num_cpus=0.5,
        ),
    ]
