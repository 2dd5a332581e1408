"""A vector index in its folder: segments, which of their clips can be found, where clips lie, and a manifest.

It is written beside the old one and published by a rename, or in an object store, where nothing is renamed, by its
manifest, which comes last. Segments of the index before are taken over as links or copies within the store. Readers
keep what they opened: files are mapped, and one that is swept lives on until it is closed.
"""

# N clips, E joint dimension, M results

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import keys, places, stores, vectors
from pipeline.places import PLACES_FILE, Places
from pipeline.stores import AnyPath
from pipeline.vectors import Allowed, Kind, Segment, Vectors

MANIFEST = "manifest.json"
FORMAT = 2  # 1 was one flat index
# What reading an index that is damaged, cut short, swept or of another format ends with; the second is FAISS's.
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, EOFError)


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """An opened index and the clips it knows."""

    segments: tuple[Segment, ...]
    videos_version: int
    places: Places | None = None  # where the clips were when it was built
    recall: Mapping[str, Any] = field(default_factory=dict)  # of segments that are not exact, measured when made

    @property
    def count(self) -> int:
        """How many clips can be found."""
        return sum(segment.count for segment in self.segments)

    @property
    def is_exact(self) -> bool:
        """Whether scores are those of the vectors as they are stored."""
        return all(segment.kind.name == "flat" for segment in self.segments)

    def search(self, query_E: Vectors, most: int, allowed: Allowed | None = None) -> list[tuple[str, float]]:
        """The clip ids nearest to a unit vector E, best first, with their cosines; at most `most`.

        `allowed` is asked of each segment which of its clips, by their numbers and their revisions', may be found.
        Cosines are exact where `is_exact`, else those of coded vectors.
        """
        found: list[tuple[float, int]] = []
        for segment in self.segments:
            scores_1M, numbers_1M, are_1M = segment.search(query_E[None], most, allowed)
            found += zip((-scores_1M[are_1M]).tolist(), numbers_1M[are_1M].tolist(), strict=True)
        return [(keys.to_id(number), -score) for score, number in sorted(found)[:most]]


# --- writing


@contextmanager
def draft(folder: AnyPath) -> Iterator[Path]:
    """A folder of this machine to make an index of a space in, beside the others if these are here."""
    if not isinstance(folder, Path):
        with tempfile.TemporaryDirectory(prefix="footage-") as name:
            yield Path(name)
        return
    made = folder / f".draft-{uuid.uuid4().hex}"
    made.mkdir(parents=True)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)  # nothing is there once it is published


def publish(made: VectorIndex, written: Path, folder: AnyPath, old: VectorIndex | None) -> None:
    """Makes an index, whose new segments lie in `written`, the one of its version in `folder`; others are dropped.

    Does nothing when another process has published one of this version or a newer one meanwhile.
    """
    target = folder / str(made.videos_version)
    taken_over = _taken_over(made, folder, old)
    _write_rest(made, written)
    if isinstance(target, Path):
        if not _rename_into_place(written, target, taken_over):
            return
    else:
        for file in taken_over:
            stores.copy(file, target / file.name)
        for local in sorted(written.iterdir(), key=lambda file: file.name == MANIFEST):
            stores.upload(local, target / local.name)
    drop_others(target)


def _taken_over(made: VectorIndex, folder: AnyPath, old: VectorIndex | None) -> list[AnyPath]:
    """Files of segments that the index before has already."""
    if old is None:
        return []
    before = {segment.name for segment in old.segments}
    shared = (segment.name for segment in made.segments if segment.name in before)
    return [folder / str(old.videos_version) / file for name in shared for file in vectors.file_names(name)]


def _write_rest(made: VectorIndex, folder: Path) -> None:
    """All but the segments."""
    for segment in made.segments:
        if segment.live_N is not None:
            np.save(folder / _live_file(segment.name), np.packbits(segment.live_N))
    if made.places is not None:
        made.places.save(folder)
    (folder / MANIFEST).write_text(json.dumps(_manifest(made)))


def _live_file(name: str) -> str:
    """The bits of a segment that say which of its clips can be found."""
    return f"{name}.live.npy"


def _manifest(made: VectorIndex) -> dict[str, Any]:
    """What is to be known of an index before its files are opened."""
    segments = [
        {
            "name": segment.name,
            "kind": segment.kind.name,
            "lists": segment.kind.lists,
            "probes": segment.probes,
            "clips": len(segment.clips_N),
            "shown": segment.count,
            "recall": made.recall.get(segment.name),
        }
        for segment in made.segments
    ]
    return {"format": FORMAT, "videos_version": made.videos_version, "clips": made.count, "segments": segments}


def _rename_into_place(written: Path, target: Path, taken_over: Iterable[AnyPath]) -> bool:
    """Publishes an index on this machine; False when another process was faster."""
    try:
        for file in taken_over:
            stores.copy(file, written / file.name)
        os.replace(written, target)  # noqa: PTH105  # atomic, and says so
    except OSError:
        # Another process published meanwhile: this version (same table, same clips), or a newer one and swept this.
        if target.is_dir() or not written.is_dir():
            return False
        raise
    return True


def drop_others(target: AnyPath) -> None:
    """Drops all indexes beside one; a reader that has opened one keeps it."""
    for name in stores.folders(target.parent):
        if name != target.name:
            stores.remove_tree(target.parent / name)


# --- reading


def is_published(folder: AnyPath) -> bool:
    """Whether an index is there, whole as far as its publisher knew."""
    return (folder / MANIFEST).is_file()


def read(folder: AnyPath) -> VectorIndex:
    """An index from its folder. Raises one of UNREADABLE."""
    manifest = json.loads((folder / MANIFEST).read_text())
    if manifest.get("format") != FORMAT:
        raise ValueError(f"an index of format {manifest.get('format', 1)}; this version reads {FORMAT}")
    segments = tuple(_read_segment(folder, said) for said in manifest["segments"])
    recall = {said["name"]: said["recall"] for said in manifest["segments"] if said["recall"]}
    return VectorIndex(segments, manifest["videos_version"], _read_places(folder), recall)


def _read_segment(folder: AnyPath, said: dict[str, Any]) -> Segment:
    """A segment from its files."""
    with ExitStack() as stack:
        files = [stack.enter_context(stores.local_copy(folder / name)) for name in vectors.file_names(said["name"])]
        segment = vectors.load(said["name"], Kind(said["kind"], said["lists"]), said["probes"], *files)
        if said["shown"] == said["clips"]:
            return segment
        bits = np.load(stack.enter_context(stores.local_copy(folder / _live_file(said["name"]))))
        return segment.hiding(np.unpackbits(bits, count=said["clips"]).astype(np.bool_))


def _read_places(folder: AnyPath) -> Places | None:
    """The places that an index keeps; None where they are damaged: a search finds them."""
    try:
        with stores.local_copy(folder / PLACES_FILE) as file:
            return places.load(file)
    except OSError:
        return None
