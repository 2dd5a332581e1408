"""The tags of a label set for other tools: which format, into which files, and what was left alone.

Videos stream through one at a time. A single file, or a folder of a data set, appears whole or not at all; of files a
video each does, and one that others wrote is kept.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from pipeline import rollup, sidecars, sources, stores, tag_files, tag_formats, tagged
from pipeline.archive import Archive
from pipeline.label_sets import LabelSet
from pipeline.progress import Progress
from pipeline.runs import run_of_space
from pipeline.tag_formats import Parents, Videos
from pipeline.tagged import TaggedVideo
from schemas.errors import InputError
from xclip_core.durable import write_text, write_whole

TagFormat = Literal["tags", "videos", "activitynet", "kinetics", "coco", "fiftyone", "vtt", "json-sidecar", "xmp"]
FORMATS: tuple[TagFormat, ...] = get_args(TagFormat)
FILES: dict[str, Callable[[Videos, Path, Parents], None]] = {
    "activitynet": tag_formats.activitynet,
    "kinetics": tag_formats.kinetics,
    "coco": tag_formats.coco,
}
# A file for each video, and how its name ends.
EACH: dict[str, tuple[Callable[[TaggedVideo], str], str]] = {
    "vtt": (tag_formats.vtt, ".vtt"),
    "json-sidecar": (sidecars.as_json, ".footage.json"),
    "xmp": (sidecars.as_xmp, ".xmp"),
}
BESIDE = ("json-sidecar", "xmp")
UNSAFE = re.compile(r"[^\w .()+,=@~-]")  # in the name of a file, whatever the system
LONGEST_NAME = 150  # bytes: with id, ending and what a draft adds it stays below the 255 of most disks
LEFT_SHOWN = 20


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A file that was not written."""

    uri: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TagExportReport:
    """What was written. `left` names the first few of the files that were not; `left_count` counts them."""

    out: str  # the file or folder; empty for files beside their videos
    label_set: str
    space: str
    videos: int
    files: int
    left_count: int
    left: tuple[LeftAlone, ...]
    wall_s: float


@dataclass(slots=True)
class _Tally:
    """Counts on the way."""

    videos: int = 0
    files: int = 0
    left_count: int = 0
    left: list[LeftAlone] = field(default_factory=list)

    def leave(self, uri: str, reason: str) -> None:
        """Notes a file that was not written."""
        self.left_count += 1
        if len(self.left) < LEFT_SHOWN:
            self.left.append(LeftAlone(uri, reason))

    def counted(self, videos: Videos) -> Iterator[TaggedVideo]:
        """Videos, counted as they pass."""
        for video in videos:
            self.videos += 1
            yield video


@dataclass(frozen=True, kw_only=True, slots=True)
class TagExport:
    """What is asked for: which tags, in which format."""

    kind: TagFormat
    label_set: str | None = None  # by its fingerprint; None: `labels`, or else the set that was tagged with last
    labels: LabelSet | None = None  # tells parents too
    space: str | None = None  # None: the one that serves
    force: bool = False  # a file that is there may be overwritten


def export_tags(
    folder: str | Path, out: Path | None, asked: TagExport, *, watch: Callable[[Progress], None] | None = None
) -> TagExportReport:
    """Writes the tags of a label set; without `out` sidecars go beside their videos.

    Raises InputError when there are no such tags, or a file is there that may not be overwritten.
    """
    began = time.perf_counter()
    kind, labels = asked.kind, asked.labels
    _check(out, kind, force=asked.force)
    archive = Archive.open(folder)
    space = run_of_space(archive, asked.space)["space"]
    chosen = tagged.chosen_set(archive, space, labels.id if labels and not asked.label_set else asked.label_set)
    tally = _Tally()
    videos = tally.counted(tagged.videos(archive, space, chosen, watch))
    parents = {label.name: label.parent for label in labels.labels if label.parent} if labels else {}
    _write(videos, out, kind, parents, tally)
    return TagExportReport(
        out="" if out is None else str(out.absolute()),
        label_set=chosen,
        space=space,
        videos=tally.videos,
        files=tally.files,
        left_count=tally.left_count,
        left=tuple(tally.left),
        wall_s=time.perf_counter() - began,
    )


def _check(out: Path | None, kind: TagFormat, *, force: bool) -> None:
    """Raises InputError unless what is asked for can and may be written."""
    if out is None:
        if kind not in BESIDE:
            raise InputError(f"--format {kind} needs a place to write to; only {' and '.join(BESIDE)} go beside videos")
        return
    if kind in ("tags", "videos"):
        tag_files.check(out)
    if not (parent := out.absolute().parent).is_dir():
        raise InputError(f"there is no folder {parent} to write {out.name} into")
    is_folder = kind in EACH or kind == "fiftyone"
    if out.exists() and (out.is_dir() != is_folder):
        raise InputError(f"{out} is there and is {'no ' if is_folder else 'a '}folder; name another place")
    if out.exists() and not force and kind not in EACH:
        raise InputError(f"{out} is there already; overwrite it with --force, or name another file")


def _write(videos: Videos, out: Path | None, kind: TagFormat, parents: Parents, tally: _Tally) -> None:
    """Writes all videos in one format."""
    if kind in EACH:
        _write_each(videos, out, kind, tally)
        return
    assert out is not None, "checked before"
    tally.files = 2 if kind == "fiftyone" else 1
    if kind == "tags":
        tag_files.write(chain.from_iterable(video.tags for video in videos), out)
    elif kind == "videos":
        tag_files.write(chain.from_iterable(map(rollup.labels_of, videos)), out, tag_files.VIDEOS)
    elif kind == "fiftyone":
        _write_folder(videos, out, parents)
    else:
        write_whole(out, lambda part: FILES[kind](videos, part, parents))


def _write_folder(videos: Videos, out: Path, parents: Parents) -> None:
    """A data set in a folder of its own. One that is there already keeps what else is in it."""
    draft = out.with_name(f"{out.name}.part")
    shutil.rmtree(draft, ignore_errors=True)  # what a killed export left
    draft.mkdir()
    try:
        tag_formats.fiftyone(videos, draft, parents)
        out.mkdir(exist_ok=True)
        for file in draft.iterdir():
            file.replace(out / file.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_each(videos: Videos, out: Path | None, kind: TagFormat, tally: _Tally) -> None:
    """A file for each video that has a label, in a folder or beside it."""
    text_of, ending = EACH[kind]
    if out is not None:
        out.mkdir(exist_ok=True)
    for video in videos:
        if not rollup.labels_of(video):
            continue
        file = _place(video, out, ending)
        reason = _why_not(file) if file else "the video is in a store: name a folder to write to"
        if file is None or reason:
            tally.leave(video.uri, reason)
            continue
        try:
            write_text(file, text_of(video))
            tally.files += 1
        except OSError as error:
            tally.leave(video.uri, f"{file} cannot be written: {error.strerror or error}")


def _place(video: TaggedVideo, out: Path | None, ending: str) -> Path | None:
    """Where the file of a video goes; None beside one that is not on this machine."""
    if out is None:
        path = None if stores.is_url(video.uri) else sources.to_path(video.uri)
        return path.with_name(path.name + ending) if isinstance(path, Path) else None
    # Videos of one name lie in several folders, and a name may hold anything: the id tells them apart.
    name = UNSAFE.sub("_", os.path.basename(video.uri))  # noqa: PTH119  # a URL is no Path
    short = name.encode()[:LONGEST_NAME].decode(errors="ignore")
    return out / f"{short}.{video.video_id}{ending}"


def _why_not(file: Path) -> str:
    """Why a file must not be written, in words; nothing if it may."""
    try:
        if not file.exists() or sidecars.is_ours(file):
            return ""
    except OSError as error:
        return f"{file} cannot be looked at: {error.strerror or error}"
    return f"{file} is there and is not ours: it was kept"
