"""The vector index: exact inner product over all visible clips of a space. The only place that knows FAISS.

An index belongs to one version of the `videos` table, is built beside the old one and published by a rename, or in an
object store, where nothing is renamed, by its manifest, which comes last; it can be rebuilt from the archive at any
time. Ids are the clips' own 64 bits, never positions.
"""

# N clips, E joint dimension, Q queries, M results

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import keys, places, stores
from pipeline.archive import Archive
from pipeline.keys import Numbers
from pipeline.places import PLACES_FILE, Places
from pipeline.stores import AnyPath, Remote
from schemas.errors import ArchiveError, first_line

INDEX_FILE = "index.faiss"
MANIFEST = "manifest.json"

Allowed = Callable[[Numbers, Numbers], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """An opened index and the clips it knows."""

    index: faiss.Index
    videos_version: int
    places: Places | None = None  # where the clips were when it was built
    archive: Archive | None = None
    space: str = ""

    @property
    def count(self) -> int:
        """How many clips it holds."""
        return int(self.index.ntotal)

    def search(
        self, query_E: NDArray[np.float32], most: int, allowed: Allowed | None = None
    ) -> list[tuple[str, float]]:
        """The clip ids nearest to a unit vector E, best first, with their cosines; at most `most`.

        `allowed` says which clips may be found, from the numbers of their ids and of their (video, revision), N each.
        """
        if not self.count:
            return []
        selected = None
        if allowed is not None:
            selected = faiss.SearchParameters(sel=faiss.IDSelectorBatch(self._ids(allowed)))  # type: ignore[call-arg]
        most = min(most, self.count)
        scores_1M, ids_1M = self.index.search(np.ascontiguousarray(query_E[None], np.float32), most, params=selected)
        return [(from_faiss_id(i), float(s)) for i, s in zip(ids_1M[0], scores_1M[0], strict=True) if i != -1]

    def _ids(self, allowed: Allowed) -> NDArray[np.int64]:
        """The ids of the clips that pass, as FAISS has them."""
        assert self.archive is not None, "indexes come from `build` and `open_current`"
        found = [np.zeros(0, np.uint64)]
        for batch in self.archive.visible_batches(self.space, ["clip_id", "video_id", "revision"]):
            clips_N = keys.of_ids(batch["clip_id"])
            found.append(clips_N[allowed(clips_N, keys.of_revisions(batch))])
        return np.concatenate(found).view(np.int64)


def to_faiss_ids(clip_ids: list[str]) -> NDArray[np.int64]:
    """Clip ids of 16 hex digits as the same 64 bits, signed: N."""
    return keys.of_ids(pa.array(clip_ids, pa.string())).view(np.int64)


def from_faiss_id(number: np.int64) -> str:
    """A FAISS id as a clip id of 16 hex digits."""
    return f"{int(number) & 0xFFFF_FFFF_FFFF_FFFF:016x}"


def build(archive: Archive, space: str, width: int) -> VectorIndex:
    """Builds and publishes the index of a space for the videos committed now; vectors are `width` wide."""
    version = archive.version("videos")
    clips = archive.visible_clips(space, ["clip_id", "embedding"])
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(width))
    if clips.num_rows:
        index.add_with_ids(_matrix(clips["embedding"], width), to_faiss_ids(clips["clip_id"].to_pylist()))
    made = VectorIndex(index, version, archive.places(space), archive, space)
    _publish(made, archive.index_folder(space))
    return made


def _matrix(column: pa.ChunkedArray, width: int) -> NDArray[np.float32]:
    """A column of lists as N x E float32."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if flat.size != len(column) * width:
        raise ArchiveError(f"{len(column)} clips hold {flat.size} values; expected {width} each")
    return np.ascontiguousarray(flat.reshape(-1, width), np.float32)


def _publish(made: VectorIndex, folder: AnyPath) -> None:
    """Writes beside the old indexes, and drops all but the newest."""
    target = folder / str(made.videos_version)
    if isinstance(target, Path):
        if not _rename_into_place(made, target):
            return
    else:
        _upload(made, target)
    _drop_others(target)


def _upload(made: VectorIndex, target: Remote) -> None:
    """Puts an index into a store; two processes that do so at once write the same."""
    with tempfile.TemporaryDirectory(prefix="footage-") as name:
        _write(made, Path(name))
        for file in (INDEX_FILE, PLACES_FILE, MANIFEST):
            stores.upload(Path(name, file), target / file)


def _write(made: VectorIndex, folder: Path) -> None:
    """The files of an index."""
    faiss.write_index(made.index, str(folder / INDEX_FILE))
    if made.places is not None:
        made.places.save(folder)
    said = {"videos_version": made.videos_version, "clips": made.count, "type": "flat"}
    (folder / MANIFEST).write_text(json.dumps(said))


def _rename_into_place(made: VectorIndex, target: Path) -> bool:
    """Publishes an index on this machine; False when another process was faster."""
    draft = target.parent / f".draft-{uuid.uuid4().hex}"
    draft.mkdir(parents=True)
    try:
        _write(made, draft)
        os.replace(draft, target)  # noqa: PTH105  # atomic, and says so
    except (OSError, RuntimeError):  # FAISS raises the second where it cannot write
        # Another process published meanwhile: this version (same table, same index), or a newer one and swept this.
        is_overtaken = target.is_dir() or not draft.is_dir()
        shutil.rmtree(draft, ignore_errors=True)
        if not is_overtaken:
            raise
        return False
    return True


def _drop_others(target: AnyPath) -> None:
    """Drops all indexes beside one; a reader that has opened one keeps it."""
    for name in stores.folders(target.parent):
        if name != target.name:
            stores.remove_tree(target.parent / name)


def _published(folder: AnyPath) -> bool:
    """Whether an index is there, whole as far as its publisher knew."""
    return (folder / MANIFEST).is_file()


def _read(folder: AnyPath) -> faiss.Index:
    """An index from its folder. Raises OSError, or FAISS' RuntimeError for a file that is cut short.

    Its vectors stay in the file, which is mapped into memory: nobody changes a published index, and one that is swept
    lives on until it is closed, as does the copy of one in a store.
    """
    with stores.local_copy(folder / INDEX_FILE) as file:
        return faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)


def _read_places(folder: AnyPath) -> Places | None:
    """The places that an index keeps; None where it is older than such, or they are damaged: a search finds them."""
    try:
        with stores.local_copy(folder / PLACES_FILE) as file:
            return places.load(file)
    except OSError:
        return None


def check(archive: Archive, space: str, version: int, ids_N: NDArray[np.uint64] | None) -> str | None:
    """What is wrong with the index of a version of the videos; None if nothing is, or if there is none to be wrong.

    `ids_N` are the clips that it should hold, as numbers, or None where that is not known.
    """
    folder = archive.index_folder(space) / str(version)
    if not _published(folder) and not folder.is_dir():
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        index = _read(folder)
    except (OSError, ValueError, RuntimeError) as error:
        if not folder.is_dir():  # a run has published a newer one in this instant
            return None
        return f"the index of version {version} cannot be read: {first_line(error)}"
    if manifest.get("videos_version") != version:
        return f"the index of version {version} says that it is of version {manifest.get('videos_version')}"
    held = faiss.vector_to_array(getattr(index, "id_map"))  # noqa: B009  # only some kinds of index have one
    if ids_N is not None and not np.array_equal(np.sort(held), np.sort(ids_N.view(np.int64))):
        return f"the index of version {version} holds {index.ntotal} clips that are not the {len(ids_N)} seen"
    return None


def refresh(archive: Archive, space: str, width: int) -> None:
    """Leaves the index of the videos committed now, which knows where their clips lie now, and no other index."""
    found = open_current(archive, space, width)
    if found.places is None or not archive.clip_files(space).issuperset(found.places.files):  # files were merged
        stores.remove_tree(archive.index_folder(space) / str(found.videos_version))
        build(archive, space, width)
    _drop_others(archive.index_folder(space) / str(archive.version("videos")))


def ensure(archive: Archive, space: str, width: int) -> None:
    """Builds the index of the videos committed now unless that has been done: a run may have changed nothing."""
    if not _published(archive.index_folder(space) / str(archive.version("videos"))):
        build(archive, space, width)


def open_current(archive: Archive, space: str, width: int) -> VectorIndex:
    """The index of the videos committed now, rebuilt if the published one is of another version or damaged."""
    version = archive.version("videos")
    folder = archive.index_folder(space) / str(version)
    if _published(folder):
        try:
            return VectorIndex(_read(folder), version, _read_places(folder), archive, space)
        # Cut short by a full disk or a power cut, FAISS has no error of its own for that; or swept in this instant.
        except (RuntimeError, FileNotFoundError):
            stores.remove_tree(folder)
    return build(archive, space, width)
