"""The tags of an archive joined with clips and videos, a video at a time: what exports and roll-ups start from.

Tags, clips and videos lie in three tables in no order. Clips and tags are put on heaps by their video, so that memory
holds one heap of 64 and not the archive; videos are held, as everywhere.
"""

# R rows

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import keys, tag_rows
from pipeline.archive import Archive
from pipeline.current import SHOWN, shown_keys
from pipeline.heaps import Heaps
from pipeline.progress import Progress
from schemas import tables
from schemas.errors import InputError

VIDEO_COLUMNS = ["status", "duration_s", "width", "height", "rate_hz"]
_CLIPS = pa.schema([("video", pa.uint64()), ("clip", pa.uint64()), ("start_s", pa.float64()), ("end_s", pa.float64())])
_TAG_COLUMNS = ["clip_id", "video_id", "label_set", "label", "rank", "probability", "score", "tagged_at", "basis"]
_TAGS = pa.schema(
    [
        ("video", pa.uint64()),
        ("clip", pa.uint64()),
        *(tables.TAGS.field(name) for name in ("label", "rank", "probability", "score", "tagged_at", "basis")),
    ]
)


@dataclass(frozen=True, slots=True)
class Tag:
    """One label of one clip. `probability` is of the kind that `basis` says, `score` the model's logit; None: none."""

    clip_id: str
    video_id: str
    uri: str
    start_s: float
    end_s: float
    rank: int
    label: str
    probability: float | None
    score: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class TaggedClip:
    """A clip and its tags, best first; none where it was not tagged."""

    clip_id: str
    start_s: float
    end_s: float
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class TaggedVideo:
    """A video that can be seen, and its clips in the order of time."""

    video_id: str
    uri: str
    duration_s: float
    width: int
    height: int
    rate_hz: float
    clips: tuple[TaggedClip, ...]

    @property
    def tags(self) -> Iterator[Tag]:
        """All tags, clip by clip, best first."""
        return (tag for clip in self.clips for tag in clip.tags)


def label_sets(archive: Archive, space: str) -> dict[str, Any]:
    """When each label set of a space was tagged with last, in that order."""
    last: dict[str, Any] = {}
    for batch in archive.tag_batches(space, ["label_set", "tagged_at"]):
        rows = pa.Table.from_batches([batch]).group_by("label_set").aggregate([("tagged_at", "max")])
        for row in rows.to_pylist():
            known = (last.get(row["label_set"]), row["tagged_at_max"])
            last[row["label_set"]] = max((at for at in known if at is not None), default=None)
    return dict(sorted(last.items(), key=lambda pair: (pair[1] is not None, pair[1])))


def chosen_set(archive: Archive, space: str, asked: str | None) -> str:
    """The label set asked for, or the one that was tagged with last. Raises InputError where there are no such tags."""
    found = label_sets(archive, space)
    if asked is None and found:
        return list(found)[-1]
    if asked not in found:
        what = "no tags" if asked is None else f"no tags of the label set {asked}"
        known = f"; it has those of {', '.join(found)}" if found else ""
        raise InputError(f"{archive.folder} has {what}{known}; tag first: footage tag {archive.folder} LABELS")
    return asked


def videos(
    archive: Archive, space: str, label_set: str, watch: Callable[[Progress], None] | None = None
) -> Iterator[TaggedVideo]:
    """Every video that can be seen, with the newest tags that its clips have of a label set."""
    current = archive.current_videos(space, VIDEO_COLUMNS)
    rows = current.filter(pc.is_in(current["status"], pa.array(SHOWN)))
    order = np.argsort(number_N := keys.of_ids(rows["video_id"]), kind="stable")
    with ExitStack() as stack:
        clips, tags = (stack.enter_context(Heaps(schema, "video")) for schema in (_CLIPS, _TAGS))
        total = 0
        for batch in archive.visible_batches(space, ["video_id", "clip_id", "start_s", "end_s"], shown_keys(current)):
            clips.add(_numbered(batch, _CLIPS))
            total += batch.num_rows
        for batch in archive.tag_batches(space, _TAG_COLUMNS):
            tags.add(_numbered(batch.filter(pc.equal(batch["label_set"], label_set)), _TAGS))
        done = 0
        for some, theirs in zip(clips, tags, strict=True):
            tags_of = _by_clip(theirs)
            for video, found in _by_video(some):
                place = int(order[np.searchsorted(number_N, np.uint64(video), sorter=order)])
                yield _video(rows.slice(place, 1).to_pylist()[0], found, tags_of)
            done += some.num_rows
            if watch is not None:
                watch(Progress("export", done, total))


def _numbered(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Rows with their ids as numbers."""
    numbers = {"video": pa.array(keys.of_ids(batch["video_id"])), "clip": pa.array(keys.of_ids(batch["clip_id"]))}
    columns = [numbers[name] if name in numbers else batch[name] for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _by_video(clips: pa.RecordBatch) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The clips of a heap by the number of their video, in the order of time."""
    rows = clips.sort_by([("video", "ascending"), ("start_s", "ascending"), ("clip", "ascending")]).to_pylist()
    for video, found in groupby(rows, key=lambda row: row["video"]):
        yield video, list(found)


def _by_clip(tags: pa.RecordBatch) -> dict[int, list[dict[str, Any]]]:
    """The newest tags of the clips of a heap, best first, by the clip's number."""
    found: dict[int, list[dict[str, Any]]] = {}
    newest = tag_rows.newest(tags, "clip").sort_by([("clip", "ascending"), ("rank", "ascending")])
    for row in newest.to_pylist():
        found.setdefault(row["clip"], []).append(row)
    return found


def _video(row: dict[str, Any], clips: list[dict[str, Any]], tags_of: dict[int, list[dict[str, Any]]]) -> TaggedVideo:
    """A video with its clips and their tags."""
    return TaggedVideo(
        video_id=row["video_id"],
        uri=row["uri"],
        duration_s=row["duration_s"],
        width=row["width"],
        height=row["height"],
        rate_hz=row["rate_hz"],
        clips=tuple(_clip(row, clip, tags_of.get(clip["clip"], [])) for clip in clips),
    )


def _clip(video: dict[str, Any], clip: dict[str, Any], tags: list[dict[str, Any]]) -> TaggedClip:
    """A clip with its tags."""
    clip_id, start_s, end_s = f"{clip['clip']:016x}", clip["start_s"], clip["end_s"]
    return TaggedClip(
        clip_id,
        start_s,
        end_s,
        tuple(
            Tag(
                clip_id=clip_id,
                video_id=video["video_id"],
                uri=video["uri"],
                start_s=start_s,
                end_s=end_s,
                rank=tag["rank"],
                label=tag["label"],
                probability=tag["probability"],
                score=tag["score"],
                basis=tag["basis"] or "softmax, uncalibrated",  # of an earlier version, which had no other
            )
            for tag in tags
        ),
    )
