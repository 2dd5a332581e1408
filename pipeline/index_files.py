"""A vector index in its folder: segments, which of their clips can be found, where clips lie, and a manifest.

It is written beside the old one and published by a rename, or by its manifest, which comes last, where nothing can be
renamed: in an object store, and in the place of one of the same version. Segments of the index before are taken over as
links or copies within the store. Readers keep what they opened: files are mapped, and one that is swept lives on until
it is closed.
"""

# N clips, E joint dimension, M results

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import keys, places, stores, vectors
from pipeline.places import PLACES_FILE, Places
from pipeline.stores import AnyPath
from pipeline.vector_kinds import Kind
from pipeline.vectors import Allowed, Segment, Vectors

MANIFEST = "manifest.json"
DRAFT = ".draft-"
FORMAT = 3  # 1 was one flat index; 2 had heads of another code
READ_AT_ONCE = 4 << 20
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
        """Whether cosines are those of the vectors as they are stored."""
        return all(segment.kind.is_exact for segment in self.segments)

    def search(self, query_E: Vectors, most: int, allowed: Allowed | None = None) -> list[tuple[str, float]]:
        """The clip ids nearest to a unit vector E, best first, with their cosines; at most `most`.

        `allowed` is asked of each segment which of its clips, by their numbers and their revisions', may be found.
        Cosines are exact where `is_exact`, else those of coded vectors.
        """
        found: list[tuple[float, int]] = []
        for scores_1M, numbers_1M, are_1M in vectors.search_all(self.segments, query_E[None], most, allowed):
            found += zip((-scores_1M[are_1M]).tolist(), numbers_1M[are_1M].tolist(), strict=True)
        return best_of(found, most)


def best_of(found: Iterable[tuple[float, int]], most: int) -> list[tuple[str, float]]:
    """Of negated scores and clips' numbers the best, as ids with scores; of equal scores that of the lesser number."""
    return [(keys.to_id(number), -score) for score, number in sorted(found)[:most]]


# --- writing


@contextmanager
def draft(folder: AnyPath) -> Iterator[Path]:
    """A folder of this machine to make an index of a space in, beside the others if these are here."""
    if not isinstance(folder, Path):
        with tempfile.TemporaryDirectory(prefix="footage-") as name:
            yield Path(name)
        return
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{DRAFT}{uuid.uuid4().hex}"
    with ExitStack() as held:
        with _locked(folder):  # nobody sweeps it before it is held
            made.mkdir()
            held.enter_context(_locked(made))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)  # nothing is there once it is published


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a folder, as far as its file system knows locks; the system lets go of it when the process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def publish(made: VectorIndex, written: Path, folder: AnyPath, old: VectorIndex | None) -> None:
    """Makes an index, whose new segments lie in `written`, the one of its version in `folder`; older ones are dropped.

    One of the same version is replaced. Does nothing when another process has published a newer one meanwhile.
    """
    target = folder / str(made.videos_version)
    _write_rest(made, written)
    try:
        taken_over = _taken_over(made, folder, old)
        if isinstance(target, Path):
            _move(written, target, taken_over)
        else:
            for file in taken_over:
                stores.copy(file, target / file.name)
            for local in _manifest_last(written):
                stores.upload(local, target / local.name)
            _sweep(target)
    except OSError:
        if not _is_newer(target):  # who publishes a newer one drops the files of those before
            raise


def _move(written: Path, target: Path, taken_over: Iterable[AnyPath]) -> None:
    """Publishes an index on this machine, one process after the other."""
    for file in taken_over:
        stores.copy(file, written / file.name)
    with _locked(target.parent):
        if _is_newer(target):
            return
        if target.is_dir():
            _replace(written, target)
        else:
            written.rename(target)
        _sweep(target)


def _replace(written: Path, target: Path) -> None:
    """Puts an index in the place of one of the same version, whose other files go last."""
    named = [file.name for file in _manifest_last(written)]
    for name in named:
        (written / name).replace(target / name)
    for file in target.iterdir():
        if file.name not in named:
            file.unlink()


def _manifest_last(folder: Path) -> list[Path]:
    """Files in the order in which they may appear: an index is there once its manifest is."""
    return sorted(folder.iterdir(), key=lambda file: file.name == MANIFEST)


def versions(folder: AnyPath) -> list[int]:
    """The versions that have a folder for their index, newest first."""
    return sorted((int(name) for name in stores.folders(folder) if name.isdecimal()), reverse=True)


def _is_newer(target: AnyPath) -> bool:
    """Whether an index of a newer version than that of a folder is published."""
    newer = (version for version in versions(target.parent) if version > int(target.name))
    return any(is_published(target.parent / str(version)) for version in newer)


def drop_older(target: AnyPath) -> None:
    """Drops all indexes before one, and what died before it was one; a reader that has opened one keeps it."""
    with _locked(target.parent) if isinstance(target, Path) else nullcontext():
        _sweep(target)


def _sweep(target: AnyPath) -> None:
    """The same, for who holds the folder."""
    folder = target.parent
    for version in versions(folder):
        if version < int(target.name):
            stores.remove_tree(folder / str(version))
    for made in folder.glob(f"{DRAFT}*") if isinstance(folder, Path) else ():
        _drop_unless_held(made)


def _drop_unless_held(made: Path) -> None:
    """Drops a draft unless a process that lives makes an index in it."""
    with suppress(FileNotFoundError):
        descriptor = os.open(made, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(made, ignore_errors=True)
        except OSError:  # held, or the file system knows no locks
            return
        finally:
            os.close(descriptor)


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


# --- reading


def is_published(folder: AnyPath) -> bool:
    """Whether an index is there, whole as far as its publisher knew."""
    return (folder / MANIFEST).is_file()


def read(folder: AnyPath, only: Collection[str] | None = None) -> VectorIndex:
    """An index from its folder, or `only` the segments of some names. Raises one of UNREADABLE."""
    manifest = _read_manifest(folder)
    named = [said for said in manifest["segments"] if only is None or said["name"] in only]
    segments = tuple(_read_segment(folder, said) for said in named)
    recall = {said["name"]: said["recall"] for said in named if said["recall"]}
    return VectorIndex(segments, manifest["videos_version"], _read_places(folder), recall)


def segments_of(folder: AnyPath) -> list[dict[str, Any]]:
    """What the manifest of an index says of its segments: name, clips shown, ... Raises one of UNREADABLE."""
    said: list[dict[str, Any]] = _read_manifest(folder)["segments"]
    return said


def _read_manifest(folder: AnyPath) -> dict[str, Any]:
    """The manifest of an index. Raises one of UNREADABLE."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    if manifest.get("format") != FORMAT:
        raise ValueError(f"an index of format {manifest.get('format', 1)}; this version reads {FORMAT}")
    return manifest


def _read_segment(folder: AnyPath, said: dict[str, Any]) -> Segment:
    """A segment from its files."""
    with ExitStack() as stack:
        files = [stack.enter_context(stores.local_copy(folder / name)) for name in vectors.file_names(said["name"])]
        segment = vectors.load(said["name"], Kind(said["kind"], said["lists"]), said["probes"], *files)
        if said["shown"] == said["clips"]:
            return segment
        bits = np.load(stack.enter_context(stores.local_copy(folder / _live_file(said["name"]))))
        return segment.hiding(np.unpackbits(bits, count=said["clips"]).astype(np.bool_))


def read_ahead(folder: Path, names: Iterable[str], room_bytes: int) -> int:
    """Reads segments once, so that no search waits for their disk; returns the bytes read. Raises OSError.

    None are read if all together they take more than `room_bytes`: the first would have made way for the last.
    """
    with ExitStack() as stack:  # all are opened first: one that is swept meanwhile can be read to its end
        paths = [folder / file for name in names for file in vectors.file_names(name)]
        files = [stack.enter_context(path.open("rb", buffering=0)) for path in paths]
        if sum(os.fstat(file.fileno()).st_size for file in files) > room_bytes:
            return 0
        return sum(map(_read_once, files))


def _read_once(file: RawIOBase) -> int:
    """Reads a file from its beginning to its end into the system's cache; returns its bytes."""
    piece, total = bytearray(READ_AT_ONCE), 0
    while got := file.readinto(piece):
        total += got
    return total


def _read_places(folder: AnyPath) -> Places | None:
    """The places that an index keeps; None where they are damaged: a search finds them."""
    try:
        with stores.local_copy(folder / PLACES_FILE) as file:
            return places.load(file)
    except OSError:
        return None
