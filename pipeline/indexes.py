"""The life of a vector index: what it must hold, which segments are kept or made anew, when it is built and opened.

An index belongs to one version of the `videos` table. The next version keeps the segments it can, leaves out what is no
longer to be found, and adds segments of what is new. It can be rebuilt from the archive at any time.
"""

# N clips, E joint dimension, Q queries, S vectors of a sample

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline import index_files, index_plan, keys, recall_gate, stores, vectors
from pipeline.archive import Archive
from pipeline.index_files import UNREADABLE, VectorIndex
from pipeline.index_plan import Making, Rules
from pipeline.keys import Keys, Numbers
from pipeline.places import PLACES_FILE, ClipReader
from pipeline.recall_gate import Exact, Recall
from pipeline.vectors import Allowed, Lot, Mask, Segment, Vectors
from schemas.errors import ArchiveError, first_line

SEED = 0
READINGS = 2  # one that is replaced while it is read can be read the second time


@dataclass(frozen=True, slots=True)
class _Source:
    """Where vectors come from: some files of a space, of which some clips are wanted."""

    archive: Archive
    space: str
    width: int
    files: frozenset[str]
    wanted: Keys

    def lots(self, seed: int | None = None) -> Iterator[Lot]:
        """The wanted clips, some thousands at a time; with a seed in a random order of row groups."""
        for batch in self.archive.vector_batches(self.space, self.files, seed=seed):
            rows = batch.filter(self.wanted.has(keys.of_ids(batch["clip_id"])))
            if rows.num_rows:
                yield keys.of_ids(rows["clip_id"]), keys.of_revisions(rows), _matrix(rows["embedding"], self.width)

    def sample(self, size: int) -> Vectors:
        """So many of their vectors, S x E, of rows that lie together in many places; all if there are fewer."""
        found, count = [np.zeros((0, self.width), np.float32)], 0
        for _, _, vectors_NE in self.lots(SEED) if size else ():
            found.append(vectors_NE)
            count += len(vectors_NE)
            if count >= size:
                break
        return np.concatenate(found)[:size]


def build(archive: Archive, space: str, width: int, *, rules: Rules | None = None, anew: bool = True) -> VectorIndex:
    """Builds and publishes the index of a space for the videos committed now; vectors are `width` wide.

    All of it `anew`, or from the segments of the last one that can be read. Raises ArchiveError for vectors of another
    width.
    """
    version = archive.version("videos")  # read before the clips: what is committed meanwhile is the next index's
    shown = archive.shown_revisions(space)
    old = None if anew else _newest(archive, space)
    known = archive.places(space, old.places if old else None)
    kept, todo = index_plan.divide(old.segments if old else (), known.clips_N[as_mask(shown.has(known.videos_N))])
    recall = {each.name: old.recall[each.name] for each in kept if old and each.name in old.recall}
    with index_files.draft(archive.index_folder(space)) as folder:
        if len(todo):
            source = _Source(archive, space, width, frozenset(known.of_clips(todo)), Keys([todo]))
            made = index_plan.making(len(todo), width, rules or Rules())
            segments, measured = _segments(source, made, rules or Rules(), folder)
            kept, recall = [*kept, *segments], recall | measured
        index = VectorIndex(tuple(kept), version, known, recall)
        index_files.publish(index, folder, archive.index_folder(space), old)
    return index


def _segments(source: _Source, making: Making, rules: Rules, folder: Path) -> tuple[list[Segment], dict[str, Any]]:
    """New segments in a folder and their recalls; of a finer kind where that planned does not find enough."""
    made: list[Segment] = []
    recall: dict[str, Any] = {}
    sample_SE = source.sample(making.kind.sample_size)
    empty = vectors.trained(making.kind, source.width, sample_SE)
    fill = partial(vectors.filled, kind=making.kind, empty=empty)
    queries = _queries(sample_SE, rules) if making.kind.lists else {}
    del sample_SE  # segments need the memory
    for lots in recut(source.lots(), making.counts):
        exact = {name: Exact(queries_QE) for name, queries_QE in queries.items()}
        segment, found, is_enough = _segment(fill, _watched(lots, exact), exact, rules.recall, folder)
        made.append(segment)
        finer = None if is_enough else index_plan.finer(making, source.width, rules)
        if finer is not None:
            _forget(made, folder)
            return _segments(source, finer, rules, folder)
        recall |= {segment.name: {name: asdict(each) for name, each in found.items()}} if found else {}
    return made, recall


def _segment(
    fill: Callable[..., Segment], lots: Iterable[Lot], exact: dict[str, Exact], least: float, folder: Path
) -> tuple[Segment, dict[str, Recall], bool]:
    """A new segment as readers have it, from its file, so that the next one has the memory to itself; its recalls."""
    segment = fill(uuid.uuid4().hex[:8], lots=lots)
    segment, found, is_enough = recall_gate.tuned(segment, exact, least)
    vectors.save(segment, folder)
    files = (folder / name for name in vectors.file_names(segment.name))
    return vectors.load(segment.name, segment.kind, segment.probes, *files), found, is_enough


def _forget(segments: Iterable[Segment], folder: Path) -> None:
    """Deletes the files of segments that are not to be."""
    for segment in segments:
        for name in vectors.file_names(segment.name):
            (folder / name).unlink()


def _queries(sample_SE: Vectors, rules: Rules) -> dict[str, Vectors]:
    """Queries by which recall is measured, Q x E."""
    step = max(1, len(sample_SE) // recall_gate.CLIP_QUERIES)
    clips = {"clips": sample_SE[::step][: recall_gate.CLIP_QUERIES].copy()}  # and not the whole of it
    return clips if rules.texts is None else clips | {"texts": rules.texts()}


def _watched(lots: Iterable[Lot], exact: dict[str, Exact]) -> Iterator[Lot]:
    """Lots, seen by exact searches as they pass."""
    for clips_N, videos_N, vectors_NE in lots:
        for each in exact.values():
            each.see(clips_N, vectors_NE)
        yield clips_N, videos_N, vectors_NE


def recut(lots: Iterator[Lot], counts: list[int]) -> Iterator[Iterator[Lot]]:
    """Lots in groups of so many clips; each group must be used up before the next."""
    rest: list[Lot] = []

    def group(left: int) -> Iterator[Lot]:
        while left and (lot := rest.pop() if rest else next(lots, None)) is not None:
            clips_N, videos_N, vectors_NE = lot
            if len(clips_N) > left:
                rest.append((clips_N[left:], videos_N[left:], vectors_NE[left:]))
            yield clips_N[:left], videos_N[:left], vectors_NE[:left]
            left -= min(left, len(clips_N))

    for count in counts:
        yield group(count)


def as_mask(column: pa.BooleanArray) -> Mask:
    """A column of truths as an array."""
    mask: Mask = column.to_numpy(zero_copy_only=False)
    return mask


def _matrix(column: pa.Array, width: int) -> Vectors:
    """A column of lists as N x E float32."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if flat.size != len(column) * width:
        raise ArchiveError(f"{len(column)} clips hold {flat.size} values; expected {width} each")
    return np.ascontiguousarray(flat.reshape(-1, width), np.float32)


# --- opening


def _newest(archive: Archive, space: str) -> VectorIndex | None:
    """The last published index of a space that can be read, whatever its version; None if there is none."""
    folder = archive.index_folder(space)
    for version in index_files.versions(folder):
        try:
            return index_files.read(folder / str(version))
        except UNREADABLE:
            continue
    return None


def open_current(archive: Archive, space: str, width: int, *, rules: Rules | None = None) -> VectorIndex:
    """The index of the videos committed now; built from segments of the last one if there is none to be read."""
    version = archive.version("videos")
    folder = archive.index_folder(space) / str(version)
    for _ in range(READINGS if index_files.is_published(folder) else 0):
        # Cut short by a full disk or a power cut; of an earlier version of this package; or replaced in this instant.
        with suppress(*UNREADABLE):
            return index_files.read(folder)
    return build(archive, space, width, rules=rules, anew=False)


class Searchable(Protocol):
    """What can be asked as a `VectorIndex` can."""

    @property
    def count(self) -> int:
        """See `VectorIndex`."""

    @property
    def is_exact(self) -> bool:
        """See `VectorIndex`."""

    def search(self, query_E: Vectors, most: int, allowed: Allowed | None = None) -> list[tuple[str, float]]:
        """See `VectorIndex`."""


def nearest(
    index: Searchable, reader: ClipReader, query_E: Vectors, most: int, allowed: Allowed | None = None
) -> list[tuple[str, float]]:
    """What the index finds for a unit vector E, best first, with the cosines of vectors as they are stored.

    Those are read where the index has them only in codes, of more clips than are asked for: codes blur their order.
    """
    if index.is_exact:
        return index.search(query_E, most, allowed)
    found = index.search(query_E, max(most, recall_gate.CANDIDATES), allowed)
    rows = reader.rows([clip_id for clip_id, _ in found], ["embedding"])
    vectors_ME = np.array([row["embedding"] for row in rows.values()], np.float32).reshape(len(rows), len(query_E))
    scores_1M = vectors.cosines(query_E[None], vectors_ME, np.arange(len(rows))[None])
    scored = zip((-scores_1M[0]).tolist(), rows, strict=True)
    return [(clip_id, -score) for score, clip_id in sorted(scored)[:most]]


def ensure(archive: Archive, space: str, width: int, *, rules: Rules | None = None) -> None:
    """Brings the index up to the videos committed now unless that has been done: a run may have changed nothing."""
    if not index_files.is_published(archive.index_folder(space) / str(archive.version("videos"))):
        build(archive, space, width, rules=rules, anew=False)


def refresh(archive: Archive, space: str, width: int) -> None:
    """Leaves the index of the videos committed now, which knows where their clips lie now, and no other index."""
    found = open_current(archive, space, width)
    folder = archive.index_folder(space) / str(found.videos_version)
    if found.places is None or not archive.clip_files(space).issuperset(found.places.files):  # files were merged
        with tempfile.TemporaryDirectory(prefix="footage-") as name:
            archive.places(space).save(Path(name))
            stores.replace(Path(name, PLACES_FILE), folder / PLACES_FILE)
    index_files.drop_older(archive.index_folder(space) / str(archive.version("videos")))


def check(archive: Archive, space: str, version: int, ids_N: Numbers | None) -> str | None:
    """What is wrong with the index of a version of the videos; None if nothing is, or if there is none to be wrong.

    `ids_N` are the clips that it should hold, as numbers, or None where that is not known.
    """
    folder = archive.index_folder(space) / str(version)
    if not index_files.is_published(folder) and not folder.is_dir():
        return None
    try:
        index = index_files.read(folder)
    except UNREADABLE as error:
        if not folder.is_dir():  # a run has published a newer one in this instant
            return None
        return f"the index of version {version} cannot be read: {first_line(error)}"
    if index.videos_version != version:
        return f"the index of version {version} says that it is of version {index.videos_version}"
    held = np.sort(np.concatenate([np.zeros(0, np.uint64), *(segment.live_clips for segment in index.segments)]))
    if ids_N is not None and not np.array_equal(held, np.sort(ids_N)):
        return f"the index of version {version} holds {len(held)} clips that are not the {len(ids_N)} seen"
    return None
