"""Finding out what a run has to do: compares files with rows, reads what may have changed once, plans its units.

Runs on the engine like everything that opens files: a file that kills its reader ends as a failure, not the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import costs, decode, demux, engine, packet_cache, plan, relink, sources, unfinished
from pipeline.archive import Archive
from pipeline.engine import Stage
from pipeline.ledger import COLUMNS, Ledger, VideoIds, read_before
from pipeline.plan import VideoPlan
from pipeline.progress import Progress
from pipeline.relink import Evidence, Relinked
from pipeline.settings import IndexSettings, Policy, Space
from schemas.records import (
    DecodeCost,
    Failed,
    HashedFile,
    InspectedVideo,
    LettersByUri,
    PacketsPart,
    SourceFile,
    VideoRow,
)

WORKER_DIED = "worker_died"
READERS = {"compare": "fingerprint", "inspect": "inspect"}  # the stage that opens files, by phase


def _never(_video_id: str) -> bool:
    """No id is taken."""
    return False


@dataclass(frozen=True, slots=True)
class Job:
    """What all steps of one run share. `known` are the archive's current rows that this run has to do with, by uri."""

    archive: Archive
    settings: IndexSettings
    space: Space
    run_id: str
    known: Mapping[str, VideoRow]
    watch: Callable[[Progress], None]
    notes: tuple[str, ...] = ()  # what a user must know of the model
    letters: LettersByUri = field(default_factory=dict)  # the dead-letter as it was before
    policy: Policy = field(default_factory=Policy)
    is_taken: Callable[[str], bool] = _never  # whether a video id is known
    places: tuple[str, ...] = ()  # what the run was asked to look at
    folders: tuple[str, ...] = ()  # below which what is not there is gone
    keeps: tuple[str, ...] = ()  # spaces that tidying must leave alone
    weights: Mapping[str, list[float]] = field(default_factory=dict)  # size and time of the model's files
    costs: costs.Costs = field(default_factory=dict)  # of decoding here, as an earlier run of the space had them
    explain: bool = False  # how every unit is decoded is to be told


@dataclass(frozen=True, slots=True)
class Stock:
    """What there is, before any file is opened: the files of an inventory beside what the archive knows."""

    to_read: tuple[SourceFile, ...]  # in the order of their uris
    problems: tuple[Failed, ...]
    unchanged: int
    missing: tuple[VideoRow, ...]  # videos whose files are not there
    known: Mapping[str, VideoRow]  # the rows of all these, and of files that may be copies of them
    live: int  # how many files the archive accounted for
    is_taken: Callable[[str], bool] = _never

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do at all."""
        return not (self.to_read or self.problems or self.missing)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a run has to do. Files found = `plans` + `failures` + copies + `unchanged` + moved + duplicates."""

    job: Job  # with the rows of `known` as they are once videos have moved
    plans: tuple[VideoPlan, ...]
    failures: tuple[Failed, ...]
    links: Relinked
    read: frozenset[str]  # uris whose content was looked at
    unchanged: int
    missing: tuple[VideoRow, ...]
    live: int

    @property
    def copies(self) -> Mapping[str, tuple[HashedFile, ...]]:
        """By fingerprint, further files of what is planned."""
        return self.links.copies

    @property
    def footage_s(self) -> float:
        """Length of everything that will be decoded."""
        return sum(item.video.profile.duration_s for item in self.plans)

    @property
    def moved(self) -> int:
        """How many files are known ones at another place; a duplicate that becomes the holder is none."""
        return sum(file.uri in self.read for _, file in self.links.moved)

    @property
    def vanished(self) -> int:
        """How many files are gone and not merely elsewhere."""
        found_again = {row.uri for row, file in self.links.moved if file.uri in self.read}
        return sum(row.uri not in found_again for row in self.missing)

    @property
    def gone(self) -> tuple[VideoRow, ...]:
        """The rows to retire, with none of which clips disappear that a file still holds."""
        if self.job.policy.keep_gone:
            return self.links.retired
        away = self.links.moved_ids | {row.video_id for row in self.links.retired}
        return (*(row for row in self.missing if row.video_id not in away), *self.links.retired)


def take_stock(
    archive: Archive, space: str, inventory: Iterable[SourceFile | Failed], folders: tuple[str, ...], policy: Policy
) -> Stock:
    """Compares the files with the rows of a space. Only what differs is kept; no file is opened."""
    batches = partial(archive.video_batches, space) if archive.exists() else lambda _columns: ()
    problems: list[Failed] = []
    portion = policy.portion
    count = 0

    def sound() -> Iterator[SourceFile]:
        nonlocal count
        for found in inventory:
            if isinstance(found, Failed):
                problems.append(found)
            elif portion is None or portion.has(found.uri):
                count += 1
                yield found

    with Ledger() as ledger:
        ledger.know(batches(COLUMNS), folders, portion)
        ledger.see(sound())
        lost = [plan.source_of(failed).file.uri for failed in problems]
        ledger.mark_seen(lost)
        different = ledger.difference(trust_nothing=policy.rehash, anywhere=policy.whole_archive)
        rows = archive.rows_of(space, [*different.known, *different.missing])
        sizes = {file.size_bytes for file in different.to_read} | {row.size_bytes for row in rows.values()}
        twins = ledger.of_sizes(sizes) if sizes else ()
    rows |= archive.rows_of(space, [video_id for video_id in twins if video_id not in rows])
    # What could not be looked into may be a folder with files of any portion; told of it is by one.
    ours = (failed for failed in problems if portion is None or portion.has(plan.source_of(failed).file.uri))
    missing = (rows[video_id] for video_id in different.missing)
    return Stock(
        to_read=tuple(sorted(different.to_read, key=_place)),
        problems=tuple(ours),
        unchanged=count - len(different.to_read),
        missing=tuple(row for row in missing if _is_missing(row, folders, lost)),
        known={row.uri: row for row in rows.values()},
        live=different.live,
        is_taken=VideoIds(batches(["video_id"])).has,
    )


def _is_missing(row: VideoRow, folders: tuple[str, ...], lost: list[str]) -> bool:
    """Whether a file that was not seen is not there, rather than in a folder that could not be looked into."""
    if any(sources.is_below(row.uri, problem) for problem in lost):
        return False
    return (
        any(row.uri == folder or sources.is_below(row.uri, folder) for folder in folders)
        or sources.now_at(row.uri) is None
    )


def survey(job: Job, stock: Stock, scratch: Path) -> Survey:
    """Reads what must be read, finds out what is only elsewhere, and plans the rest.

    A file whose size no other has can be nobody's copy: it is read and inspected in one go. The others are read first,
    and only those inspected whose content is new. What another space has read of a file that looks the same is taken
    from there, and of the packets that were kept; only who holds the lease keeps more.
    """
    stock = _without_left_alone(job, stock)
    left = {row.uri for row in stock.missing}
    new = [file for file in stock.to_read if not _is_live(stock.known.get(file.uri))]
    unread = relink.trusted(new, stock.known.values(), left) if job.policy.trust_mtime else []
    moved_unread = {source.file.uri for source in unread}
    rest = [file for file in stock.to_read if file.uri not in moved_unread]
    unread += _read_before(job, rest)
    twins, alone = _by_size(rest, stock.known.values(), {source.file.uri for source in unread})
    read, lost = _read(job, "compare", twins, scratch)
    left |= {file.uri for file in rest if (row := stock.known.get(file.uri)) and row.size_bytes != file.size_bytes}
    sources_read = tuple(sorted([*unread, *read], key=lambda source: source.file.uri))
    links = relink.relink(Evidence(stock.known, sources_read, left, sources.now_at))
    known = {uri: row for uri, row in stock.known.items() if row.video_id not in links.moved_ids}
    job = replace(job, known=known, is_taken=stock.is_taken)
    fresh: list[SourceFile | HashedFile] = [*alone, *links.fresh]
    fresh.sort(key=_place)
    job = _probed(job, fresh, scratch)
    inspected, bad = _inspected(job, fresh, scratch)
    return Survey(
        job=job,
        plans=_plans(job, inspected),
        failures=(*stock.problems, *lost, *_with_copies(bad, links.copies)),
        links=links,
        read=frozenset(source.file.uri for source in sources_read) - {file.uri for _, file in links.same},
        unchanged=stock.unchanged + len(links.same),
        missing=stock.missing,
        live=stock.live,
    )


def _place(record: SourceFile | HashedFile | InspectedVideo) -> list[str]:
    """Where files come in the order in which they are worked on."""
    return plan.file_of(record).uri.split("/")


def _read_before(job: Job, files: Sequence[SourceFile]) -> list[HashedFile]:
    """Files whose content some space knows, by their look."""
    if job.policy.rehash or not files or not job.archive.exists():
        return []
    return read_before(partial(job.archive.video_batches, None), files)


def _without_left_alone(job: Job, stock: Stock) -> Stock:
    """The stock without the files that have failed too often as they are."""
    to_read = tuple(f for f in stock.to_read if not plan.is_left_alone(f, job.letters.get(f.uri, {}).get(None)))
    return replace(stock, to_read=to_read, unchanged=stock.unchanged + len(stock.to_read) - len(to_read))


def _is_live(row: VideoRow | None) -> bool:
    return row is not None and row.status != "gone"


def _by_size(
    files: list[SourceFile], known: Iterable[VideoRow], unread: set[str]
) -> tuple[list[SourceFile], list[SourceFile]]:
    """Files that may hold what another file holds, or what the archive knows; and those that cannot.

    Of those at the uris `unread` it is known what they hold.
    """
    counts = Counter(file.size_bytes for file in files)
    counts.update({row.size_bytes for row in known if row.status != "gone"})
    unknown = [file for file in files if file.uri not in unread]
    twins = [file for file in unknown if counts[file.size_bytes] > 1]
    return twins, [file for file in unknown if counts[file.size_bytes] == 1]


def _with_copies(failures: Iterable[Failed], copies: Mapping[str, tuple[HashedFile, ...]]) -> Iterator[Failed]:
    """Failures, each followed by those of the copies of its file, which nobody need open."""
    for failed in failures:
        yield failed
        yield from (replace(failed, record=copy) for copy in copies.get(plan.source_of(failed).fingerprint, ()))


def _probed(job: Job, files: list[SourceFile | HashedFile], scratch: Path) -> Job:
    """The job with what decoding costs, if that is not known and worth finding out."""
    size_bytes = sum(plan.file_of(file).size_bytes for file in files)
    if job.costs or not files or (size_bytes < costs.PROBE_BYTES and not job.explain):
        return job
    stage = Stage(
        name="probe",
        work=partial(decode.calibrate_files, job.space.model.image_size),
        deadline_s=_deadline_s,
        memory_bytes=plan.MEMORY_BYTES,
        hostile=True,
        resource=job.settings.decode_resource,
    )
    results = engine.run([stage], costs.sample(files), engine=job.settings.engine, scratch=scratch)
    # A file that cannot be probed tells why when it is inspected.
    return replace(job, costs=costs.by_codec(cost for cost in results if isinstance(cost, DecodeCost)))


def _inspected(
    job: Job, files: list[SourceFile | HashedFile], scratch: Path
) -> tuple[list[InspectedVideo], list[Failed]]:
    """Videos of files by what is kept of their packets, or else by opening them; and those that are none, in order."""
    recalled = _recalled(job, files, scratch)
    known = {video.source.file.uri for video in recalled}
    rest = [file for file in files if plan.file_of(file).uri not in known]
    inspected, bad = _read(job, "inspect", rest, scratch, done=len(recalled))
    # Workers finish in any order; plans, and with them ids and reports, must not depend on it.
    return sorted([*recalled, *inspected], key=_place), bad


def _recalled(job: Job, files: list[SourceFile | HashedFile], scratch: Path) -> list[InspectedVideo]:
    """Those videos whose packets are kept."""
    read = [file for file in files if isinstance(file, HashedFile)]
    lots = packet_cache.lots(job.archive, read) if read and job.archive.exists() else []
    work = partial(packet_cache.recall, job.archive.folder, job.space.sampling, job.costs)
    stage = Stage(name="recall", work=work)
    results = engine.run([stage], lots, engine=job.settings.engine, scratch=scratch) if lots else iter(())
    found = []
    for number, video in enumerate(results, start=1):
        found.append(video)
        job.watch(Progress("inspect", number, len(files)))
    return found


def _read(
    job: Job, phase: str, files: Sequence[Any], scratch: Path, *, done: int = 0
) -> tuple[list[Any], list[Failed]]:
    """Files with their fingerprints (`compare`) or packet indexes (`inspect`), and those that have none, in order.

    `done` are files that were seen to already.
    """
    results = _run(job, phase, files, scratch) if files else iter(())
    found: list[Any] = []
    failures: list[Failed] = []
    parts: list[PacketsPart] = []
    for result in results:
        if isinstance(result, PacketsPart):
            parts.append(result)
            continue
        # A run that may not write, because it is dry, keeps nothing.
        if isinstance(result, Failed):
            failures.append(result)
        else:
            found.append(replace(result, packets=None) if isinstance(result, InspectedVideo) else result)
        job.watch(Progress(phase, done + len(found) + len(failures), done + len(files)))
    job.archive.commit_packets(parts)
    # As in `_inspected`: in the order of the files.
    order = {plan.file_of(file).uri: place for place, file in enumerate(files)}
    seen = {plan.file_of(record).uri for record in found} | {plan.source_of(failed).file.uri for failed in failures}
    lost = [file for file in files if plan.file_of(file).uri not in seen]
    failures += [died(file, READERS[phase], _deadline_s(file)) for file in lost]
    found.sort(key=lambda record: order[plan.file_of(record).uri])
    failures.sort(key=lambda failed: order[plan.source_of(failed).file.uri])
    return found, failures


def _run(job: Job, phase: str, files: Sequence[Any], scratch: Path) -> Iterator[Any]:
    """What the stages of a phase make of files."""
    where = job.settings.decode_resource
    stages = [
        Stage(name="fingerprint", work=sources.fingerprint_files, deadline_s=_deadline_s, hostile=True, resource=where)
    ]
    if phase == "inspect":
        stages.append(
            Stage(
                name="inspect",
                work=partial(demux.inspect_files, job.space.sampling, job.costs),
                deadline_s=_deadline_s,
                memory_bytes=plan.MEMORY_BYTES,
                hostile=True,
                resource=where,
            )
        )
        if job.archive.term is not None:
            stages.append(_keep(job, len(files)))
    return engine.run(stages, files, engine=job.settings.engine, scratch=scratch)


def _keep(job: Job, count: int) -> Stage:
    """The stage that puts the packets of so many videos into the archive."""
    return Stage(
        name="keep",
        work=partial(packet_cache.keep, job.archive.folder),
        batch_size=packet_cache.together(count),
        num_cpus=0.5,
    )


def _deadline_s(record: Any) -> float:
    return plan.inspect_deadline_s(plan.file_of(record))


def died(record: Any, stage: str, deadline_s: float) -> Failed:
    """The failure of a record that was lost without a trace, with its machine perhaps."""
    error = f"its worker was lost twice, within its deadline of {deadline_s:.0f} s or not"
    return Failed(record, WORKER_DIED, error, stage, permanent=False)


def _plans(job: Job, videos: list[InspectedVideo]) -> tuple[VideoPlan, ...]:
    """Units of all new and changed videos, minus what an interrupted run has committed and what is to be left alone."""
    is_any = videos and job.archive.exists()
    pending, revisions = unfinished.pending_units(job.archive, job.space.id) if is_any else ({}, {})
    per_unit = plan.windows_per_unit(job.space.sampling)
    plans = []
    for video in videos:
        known = job.known.get(video.source.file.uri)
        video_id = known.video_id if known else plan.new_video_id(video.source, job.is_taken)
        revision = revisions.get(video_id, 0)
        item = plan.plan_video(video, known, pending, revision, job.space.id, video_id=video_id, per_unit=per_unit)
        letters = job.letters.get(video.source.file.uri, {})
        plans.append(replace(item, left=plan.left_alone(item, letters)))
    return tuple(plans)
