"""Tags in the forms that other tools read, one video after the other: chapters, and annotations of data sets.

WebVTT as the W3C has it; ActivityNet's JSON (`database` and `taxonomy`), the CSV of Kinetics, COCO's JSON for videos,
and FiftyOne's data set of temporal detections. A segment is neighbouring clips that have a label. Of labels that
exclude each other only the best of each clip counts; "none of these" is no label.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pipeline.label_sets import NONE
from pipeline.rollup import TOUCHING_S, labels_of
from pipeline.tagged import TaggedClip, TaggedVideo

Videos = Iterable[TaggedVideo]
Parents = Mapping[str, str]  # of labels that have one
GENERATOR = "footage tags 1"  # stands in each file that we write for a video, and tells it from others


# --- chapters


def vtt(video: TaggedVideo) -> str:
    """The chapters of a video as WebVTT: what its clips are called, neighbours of one name in one."""
    cues = [f"{_clock(start)} --> {_clock(end)}\n{_cue(title)}\n" for start, end, title in chapters(video)]
    return "\n".join([f"WEBVTT\n\nNOTE {GENERATOR}\n", *cues])


def chapters(video: TaggedVideo) -> Iterator[tuple[float, float, str]]:
    """Start, end and title of each chapter, in the order of time; a later one begins where the one before it ends."""
    start, end, title = 0.0, 0.0, ""
    for clip in video.clips:
        named = _title(clip)
        if named == title and clip.start_s <= end + TOUCHING_S:
            end = max(end, clip.end_s)
            continue
        if title and end > start:
            yield start, end, title
        start, end, title = max(clip.start_s, end if title else 0.0), clip.end_s, named
    if title and end > start:
        yield start, end, title


def _title(clip: TaggedClip) -> str:
    """What a clip is called: its best label, or all where several may hold at once; nothing for none."""
    labels = [tag.label for tag in clip.tags if tag.label != NONE]
    if clip.tags and clip.tags[0].basis.startswith("softmax"):
        return "" if clip.tags[0].label == NONE else labels[0]
    return ", ".join(labels)


def _clock(seconds: float) -> str:
    """A time as WebVTT writes it: hours with at least two digits, and milliseconds."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"


def _cue(title: str) -> str:
    """A text as a cue can hold it: one line, in which nothing is markup."""
    line = " ".join(title.split())
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- annotations


def activitynet(videos: Videos, file: Path, parents: Parents) -> None:
    """`database` by video id with segments in seconds, and `taxonomy` of the labels that were given and those above."""
    labels: dict[str, None] = {}
    with file.open("w", encoding="utf-8") as stream:
        stream.write(f'{{"version": {_json(GENERATOR)}, "database": {{')
        for number, video in enumerate(videos):
            found = labels_of(video)
            labels.update(dict.fromkeys(line.label for line in found))
            annotations = [
                {"label": line.label, "segment": [segment.start_s, segment.end_s]}
                for line in found
                for segment in line.segments
            ]
            entry = {
                "duration": video.duration_s,
                "resolution": f"{video.width}x{video.height}",
                "subset": "",
                "url": video.uri,
                "annotations": annotations,
            }
            stream.write(f"{_comma(number)}{_json(video.video_id)}: {_json(entry)}")
        stream.write(f'\n}}, "taxonomy": {_json(_taxonomy(labels, parents))}}}\n')


def _taxonomy(labels: Iterable[str], parents: Parents) -> list[dict[str, Any]]:
    """Labels as nodes under one root, each with its parent."""
    names = dict.fromkeys(labels)
    for name in list(names):
        while (name := parents.get(name, "")) and name not in names:  # up to the root
            names[name] = None
    number = {name: place for place, name in enumerate(names, start=1)} | {"Root": 0}
    root: dict[str, Any] = {"nodeId": 0, "nodeName": "Root", "parentId": None, "parentName": None}
    return [root] + [
        {
            "nodeId": place,
            "nodeName": name,
            "parentId": number[parents.get(name, "Root")],
            "parentName": parents.get(name, "Root"),
        }
        for place, name in enumerate(names, start=1)
    ]


def kinetics(videos: Videos, file: Path, _: Parents) -> None:
    """A row a segment with the columns of Kinetics, its id ours, and the file's place in one more; no split is made."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["label", "youtube_id", "time_start", "time_end", "split", "uri"])
        for video in videos:
            rows.writerows(
                [line.label, video.video_id, f"{segment.start_s:.3f}", f"{segment.end_s:.3f}", "", video.uri]
                for line in labels_of(video)
                for segment in line.segments
            )


def coco(videos: Videos, file: Path, parents: Parents) -> None:
    """`videos`, `categories` and `annotations` by number; times in seconds, for frames are not counted here.

    Each video stands among `images` too, by the same number: COCO's own library looks annotations up by `image_id`.
    """
    categories: dict[str, int] = {}
    count = 0
    with file.open("w", encoding="utf-8") as stream, _later() as images, _later() as annotations:
        stream.write(f'{{"info": {{"description": "tags of an archive", "version": {_json(GENERATOR)}}}, "videos": [')
        for number, video in enumerate(videos):
            shown = {"id": number + 1, "file_name": video.uri, "width": video.width, "height": video.height}
            images.write(_comma(number) + _json(shown))
            stream.write(_comma(number) + _json({**shown, "name": video.video_id, "duration": video.duration_s}))
            for found in _annotations(video, number + 1, categories):
                annotations.write(_comma(count) + _json({"id": count + 1, **found}))
                count += 1
        stream.write('\n], "images": [')
        _copy(images, stream)
        stream.write('\n], "annotations": [')
        _copy(annotations, stream)
        named = [{"id": at, "name": name, "supercategory": parents.get(name, "")} for name, at in categories.items()]
        stream.write(f'\n], "categories": {_json(named)}}}\n')


def _later() -> IO[str]:
    """A file without a name, for what comes later in another."""
    return tempfile.TemporaryFile("w+", encoding="utf-8")


def _annotations(video: TaggedVideo, number: int, categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The segments of a video; labels that are new get the next number."""
    for line in labels_of(video):
        category = categories.setdefault(line.label, len(categories) + 1)
        for segment in line.segments:
            yield {
                "video_id": number,
                "image_id": number,
                "category_id": category,
                "start_time": segment.start_s,
                "end_time": segment.end_s,
                **_probability(segment.max_probability, line.basis, calibrated="score"),
            }


def fiftyone(videos: Videos, folder: Path, _: Parents) -> None:
    """A `FiftyOneTemporalDetectionDataset`: labels.json, and data.json, which says where the videos lie.

    A probability is its `confidence` only if it is calibrated; otherwise it is an attribute that says what it is.
    """
    with (
        (folder / "labels.json").open("w", encoding="utf-8") as labels,
        (folder / "data.json").open("w", encoding="utf-8") as data,
    ):
        labels.write('{"labels": {')
        data.write("{")
        for number, video in enumerate(videos):
            found = list(_detections(video)) or None
            labels.write(f"{_comma(number)}{_json(video.video_id)}: {_json(found)}")
            data.write(f"{_comma(number)}{_json(video.video_id)}: {_json(video.uri)}")
        labels.write("\n}}\n")
        data.write("\n}\n")


def _detections(video: TaggedVideo) -> Iterator[dict[str, Any]]:
    """The segments of a video as FiftyOne names things."""
    for line in labels_of(video):
        for segment in line.segments:
            said = _probability(segment.max_probability, line.basis, calibrated="confidence")
            confidence = {name: said.pop(name) for name in ("confidence",) if name in said}
            attributes = {**said, "share_of_time": line.share_of_time, "max_score": segment.max_score}
            times = [segment.start_s, segment.end_s]
            yield {"label": line.label, "timestamps": times, **confidence, "attributes": attributes}


def _probability(value: float | None, basis: str, *, calibrated: str) -> dict[str, Any]:
    """A probability under a name that says whether it may be taken for one."""
    if value is None:
        return {"basis": basis}
    return {calibrated if basis.endswith(", calibrated") else "uncalibrated_probability": value, "basis": basis}


def _copy(source: IO[str], target: IO[str]) -> None:
    """Everything that was written to one stream, to another."""
    source.seek(0)
    while some := source.read(1 << 20):
        target.write(some)


def _comma(number: int) -> str:
    """What stands before the entry of that number: a line each."""
    return ",\n" if number else "\n"


def _json(value: Any) -> str:
    """JSON in one line."""
    return json.dumps(value, ensure_ascii=False)
