"""An archive opened to be asked by many at a time: what `footage serve` is a thin skin over.

Every question is answered out of one snapshot of the archive, and a newer one is opened beside it and takes its place
by one assignment: what is under way goes on with the one it began with. The model is loaded once for each space.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import filters, index_files, logs, runs, search, serving, tag_rows, tagging
from pipeline.archive import Archive
from pipeline.current import SHOWN
from pipeline.embed import device_named
from pipeline.filters import Filter
from pipeline.gpu_index import GpuCopies
from pipeline.index_files import VectorIndex
from pipeline.label_scores import Rule, choose
from pipeline.label_sets import NONE, Label, LabelSet, checked
from pipeline.probes import memory_bytes
from pipeline.queries import Query
from pipeline.search import Answer, Corpus, SearchSettings
from pipeline.serving import OpenSpace
from pipeline.tagging import Score, TagSettings
from pipeline.text_batches import TextEncoder
from schemas.errors import InputError, NotFound
from schemas.records import VideoRow
from xclip_core import encode_text_raw

VIDEO_COLUMNS = ["uri", "duration_s", "width", "height", "codec", "clip_count", "status", "rotation", "indexed_at"]
TAG_COLUMNS = ["clip_id", "label_set", "label", "probability", "score", "basis", "tagged_at"]
# Kept of a snapshot: conditions, since the pages of one answer ask for the same; pictures of hits, a few kB each, which
# the page asks for one by one, each out of a row group of its own; and label sets, encoded.
MOST_FILTERS = 64
MOST_PICTURES = 4_096
MOST_LABEL_SETS = 16
Value = TypeVar("Value")
# What browsers play of a container, by its codec; all else is shown as a preview.
PLAYED = {".mp4": {"h264", "av1"}, ".m4v": {"h264"}, ".mov": {"h264"}, ".webm": {"vp8", "vp9", "av1"}}


class Kept(Generic[Value]):
    """Values by key, made when they are asked for; beyond so many, all are forgotten. Threads may share it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[Hashable, Value] = {}

    def of(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key. Raises what making it does."""
        found = self._found.get(key)
        return self.put(key, make()) if found is None else found

    def put(self, key: Hashable, value: Value) -> Value:
        """Keeps a value, and gives it back."""
        if len(self._found) >= self._most:
            self._found.clear()
        self._found[key] = value
        return value


@dataclass(frozen=True)
class Snapshot:
    """An archive as one version of its tables has it."""

    opened: OpenSpace
    version: tuple[str, int, int, int]  # space, and versions of videos, clips and tags
    corpus: Corpus
    videos: pa.Table  # current rows that are shown or gone, in uri order
    _filters: Kept[Filter] = field(default_factory=lambda: Kept(MOST_FILTERS))
    _pictures: Kept[bytes] = field(default_factory=lambda: Kept(MOST_PICTURES))
    _scorers: Kept[tuple[LabelSet, Rule, Score]] = field(default_factory=lambda: Kept(MOST_LABEL_SETS))

    @cached_property
    def labels(self) -> list[dict[str, Any]]:
        """How many clips and videos have each label as their first, most clips first."""
        columns = ["video_id", "label_set", "label", "rank"]
        batches = [b.filter(pc.equal(b["rank"], 1)) for b in tag_rows.that_count(self._archive, self._space, columns)]
        if not any(batch.num_rows for batch in batches):
            return []
        of_video = (
            pa.Table.from_batches(batches).group_by(["label_set", "label", "video_id"]).aggregate([("clip", "count")])
        )
        counted = of_video.group_by(["label_set", "label"]).aggregate([("clip_count", "sum"), ("video_id", "count")])
        counted = counted.rename_columns({"clip_count_sum": "clips", "video_id_count": "videos"})
        found: list[dict[str, Any]] = counted.sort_by([("clips", "descending"), ("label", "ascending")]).to_pylist()
        return [row for row in found if row["label"] != NONE]

    @cached_property
    def stats(self) -> dict[str, Any]:
        """How much there is, and what it was indexed with."""
        shown = self.videos.filter(pc.is_in(self.videos["status"], pa.array([*SHOWN])))
        last = pc.max(self.videos["indexed_at"]).as_py()
        return {
            "videos": shown.num_rows,
            "clips": self.corpus.index.count,
            "footage_s": pc.sum(shown["duration_s"]).as_py() or 0.0,
            "size_bytes": sum(self._archive.size_bytes().values()),
            "model": self.opened.model.provenance.source if self.opened.model.provenance else "",
            "space": self._space,
            "searched_by": self.corpus.searched_by,
            "indexed_at": last.isoformat() if last else None,
        }

    @property
    def _archive(self) -> Archive:
        return self.opened.archive

    @property
    def _space(self) -> str:
        return self.opened.space

    def filter(self, condition: str) -> Filter:
        """The filter that a condition is. Raises InputError."""
        return self._filters.of(condition, lambda: filters.of_condition(self._archive, self._space, condition))

    def ask(self, query: Query, settings: SearchSettings, where: str | None = None) -> Answer:
        """The answer to a query. Raises InputError for what cannot be asked."""
        answer = search.ask(self.opened, query, settings, self.filter(where) if where else None, self.corpus)
        for hit, picture in zip(answer.hits, answer.thumbnails, strict=True):
            self._pictures.put(hit.clip_id, picture)
        return answer

    def video(self, video_id: str) -> VideoRow:
        """The current row of a video. Raises NotFound."""
        row = self._archive.rows_of(self._space, [video_id]).get(video_id)
        if row is None or row.status not in (*SHOWN, "gone"):
            raise NotFound(f"the archive has no video {video_id}; expected an id that /videos lists")
        return row

    def page_of_videos(self, part: str, page: int, top: int) -> tuple[list[dict[str, Any]], int]:
        """Rows of videos whose place has `part` in it, newest first, of one page; and how many there are."""
        found = self.videos
        if part:
            found = found.filter(pc.match_substring(found["uri"], part, ignore_case=True))
        found = found.sort_by([("indexed_at", "descending"), ("uri", "ascending")])
        return found.slice((page - 1) * top, top).to_pylist(), found.num_rows

    def first_clips(self, video_ids: list[str]) -> dict[str, str]:
        """A clip of each of some videos, for its picture; a video without clips has none."""
        return self._archive.first_clips(self._space, video_ids)

    def clips_of(self, video: VideoRow) -> list[dict[str, Any]]:
        """The clips of a video: id, start and end in seconds, in time order."""
        columns = ["clip_id", "start_s", "end_s"]
        found = self._archive.clips_of(self._space, video.video_id, video.revision, columns)
        clips: list[dict[str, Any]] = found.to_pylist()
        return clips

    def tags_of(self, clips: Iterable[Mapping[str, Any]], video_id: str) -> list[dict[str, Any]]:
        """The tags of a video's clips that count, each with the clip's span, in time order."""
        spans = {clip["clip_id"]: clip for clip in clips}
        rows = tag_rows.of_video(self._archive, self._space, video_id, TAG_COLUMNS).to_pylist()
        shown = [row | spans[row["clip_id"]] for row in rows if row["clip_id"] in spans and row["label"] != NONE]
        return sorted(shown, key=lambda row: (row["start_s"], -row["score"], row["label"]))

    def thumbnail(self, clip_id: str) -> bytes:
        """The picture of a clip, WebP. Raises NotFound."""
        return self._pictures.of(clip_id, lambda: self._read_picture(clip_id))

    def _read_picture(self, clip_id: str) -> bytes:
        row = self.corpus.reader.rows([clip_id], ["thumbnail"]).get(clip_id)
        if row is None:
            raise NotFound(f"the archive has no clip {clip_id}")
        picture: bytes = row["thumbnail"]
        return picture

    def classify(self, labels: LabelSet, clip_ids: list[str]) -> list[dict[str, Any]]:
        """Labels of some clips together, best first: mean logits, and softmax over the labels and the background."""
        rows = self.corpus.reader.rows(clip_ids, ["embedding", "context"])
        if not rows:
            raise NotFound("the archive has none of these clips; expected ids that /videos/{id} lists")
        asked, rule, score = self._scorers.of(labels, lambda: self._scorer(labels))
        clips = pa.RecordBatch.from_pylist([{k: row[k] for k in ("embedding", "context")} for row in rows.values()])
        scores_BK, none_B = tagging.label_scores(self.opened, clips, score, asked)
        none_1 = None if none_B is None else none_B.mean(keepdims=True)
        best = choose(scores_BK.mean(axis=0, keepdims=True), none_1, asked, rule, top=0)
        names = [*asked.names, NONE]
        found = zip(best.place_R.tolist(), best.probability_R.tolist(), best.score_R.tolist(), strict=True)
        return [{"label": names[place], "probability": share, "score": logit} for place, share, logit in found]

    def _scorer(self, labels: LabelSet) -> tuple[LabelSet, Rule, Score]:
        """A label set with a background, the rule that its scores are judged by, and what scores clips by it."""
        asked, rule = tagging.prepared(labels, TagSettings(background=True), self._space)
        return asked, rule, tagging.text_scorer(self.opened, asked, "float32")


def name_of(uri: str) -> str:
    """What people call a video: the last part of its place."""
    return PurePosixPath(uri.replace("\\", "/")).name or uri


def plays(uri: str, codec: str) -> bool:
    """Whether browsers play the file as it is."""
    return codec in PLAYED.get(PurePosixPath(uri).suffix.lower(), ())


class Service:
    """The newest snapshot of an archive, which `refresh` replaces."""

    def __init__(
        self,
        folder: str | Path,
        *,
        model: str | None = None,
        device: str = "auto",
        encode: TextEncoder = encode_text_raw,
    ) -> None:
        """Opens the archive and its model, as `serving.open_space` does and with its errors.

        `encode` is what texts of queries are encoded by; threads call it at the same time.
        """
        self._folder, self._model, self._device, self._encode = folder, model, device, encode
        self._lock = threading.Lock()
        on = device_named(device)
        self._copies = GpuCopies(on) if on.startswith("cuda") else None
        self._read: frozenset[str] = frozenset()  # segments that need not be read again
        self.current = self._open(self._opened())

    def refresh(self) -> bool:
        """Whether there was a newer version to open; who asks meanwhile is answered from the one before."""
        with self._lock:
            opened = self.current.opened
            if _version(opened.archive) == self.current.version:
                return False
            if runs.run_of_space(opened.archive, None)["space"] != opened.space:
                opened = self._opened()
            self.current = self._open(opened)
            return True

    def _opened(self) -> OpenSpace:
        opened = serving.open_space(self._folder, self._model, device=self._device)
        return replace(opened, encode_texts=self._encode)

    def _open(self, opened: OpenSpace) -> Snapshot:
        version = _version(opened.archive)
        rows = opened.archive.current_videos(opened.space, VIDEO_COLUMNS)
        shown = rows.filter(pc.is_in(rows["status"], pa.array([*SHOWN, "gone"])))
        # What indexes and readers open is of their own moment: at least as new as the version that is named here.
        corpus = search.corpus(opened, self._copies)
        logs.logger("service").info("searched by %s", corpus.searched_by, extra=logs.fields(space=opened.space))
        if isinstance(corpus.index, VectorIndex):
            self._read_ahead(opened, corpus.index)
        return Snapshot(opened, version, corpus, shown)

    def _read_ahead(self, opened: OpenSpace, index: VectorIndex) -> None:
        """Reads what is new of an index in the background: searches of files that are not in memory wait for a disk."""
        folder = opened.archive.index_folder(opened.space) / str(index.videos_version)
        if isinstance(folder, Path):  # copies of what lies in a store were written just now
            names = frozenset(segment.name for segment in index.segments)
            threading.Thread(target=self._read_new, args=(folder, names), name="read-ahead", daemon=True).start()

    def _read_new(self, folder: Path, names: frozenset[str]) -> None:
        """Reads segments that were not read before, and says so; what there is no room for now is tried again later."""
        with suppress(OSError):  # a newer version has taken their place, and is read next
            if size_bytes := index_files.read_ahead(folder, names - self._read, memory_bytes()):
                self._read = names
                logs.logger("service").info("read ahead of searches", extra=logs.fields(size_bytes=size_bytes))


def _version(archive: Archive) -> tuple[str, int, int, int]:
    """What changes with anything that an answer depends on."""
    space = runs.run_of_space(archive, None)["space"]
    return space, *(archive.version(name) for name in ("videos", "clips", "tags"))


def checked_labels(names: list[str]) -> LabelSet:
    """A label set of plain names, each its own wording. Raises InputError."""
    if any(not name.strip() for name in names):
        raise InputError("a label is empty; expected words")
    return checked(LabelSet(tuple(Label(name, (name,)) for name in names)), "the request")
