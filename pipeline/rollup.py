"""Clips' tags rolled up to their video: how high a label comes, how much of the video it has, and where. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.label_sets import NONE
from pipeline.tagged import Tag, TaggedClip, TaggedVideo

# Clips this close follow one another: windows are cut by floats, and shots to the frame.
TOUCHING_S = 0.05

Span = tuple[float, float]  # start and end, in seconds


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a video that has a label: neighbouring clips are one. Figures are the highest of those clips'."""

    start_s: float
    end_s: float
    max_probability: float | None
    max_score: float | None


@dataclass(frozen=True, slots=True)
class LabelOfVideo:
    """What a label has of a video. Probabilities are of the kind that `basis` says, None where there are none.

    The mean is over all tagged clips, by their length; a clip that was not given the label counts as 0.
    """

    video_id: str
    uri: str
    label: str
    max_probability: float | None
    mean_probability: float | None
    max_score: float | None
    share_of_time: float  # of the tagged time of the video, overlaps counted once
    segments: tuple[Segment, ...]  # in the order of time
    basis: str


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in the order of time, those that overlap or touch made one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1] + TOUCHING_S:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple(found)


def length_s(spans: Iterable[Span]) -> float:
    """How long spans are together."""
    return sum(end - start for start, end in spans)


def by_label(video: TaggedVideo, *, first_only: bool = False) -> tuple[LabelOfVideo, ...]:
    """The labels of a video, those that have most of its time first; then by their highest score, then by name.

    `first_only` takes the best label of each clip alone, as is meant where labels exclude each other.
    """
    tagged = [clip for clip in video.clips if clip.tags]
    having: dict[str, list[TaggedClip]] = defaultdict(list)
    for clip in tagged:
        for tag in clip.tags[:1] if first_only else clip.tags:
            having[tag.label].append(clip)
    total_s = length_s(merged((clip.start_s, clip.end_s) for clip in tagged))
    weight_s = sum(clip.end_s - clip.start_s for clip in tagged)
    found = [_line(video, label, clips, total_s, weight_s) for label, clips in having.items()]
    return tuple(sorted(found, key=lambda line: (-line.share_of_time, -(line.max_score or 0.0), line.label)))


def _line(video: TaggedVideo, label: str, clips: list[TaggedClip], total_s: float, weight_s: float) -> LabelOfVideo:
    """A label of a video, by the clips that have it."""
    pairs = [(clip, tag) for clip in clips for tag in clip.tags if tag.label == label]
    known = [(clip.end_s - clip.start_s, tag.probability) for clip, tag in pairs if tag.probability is not None]
    spans = merged((clip.start_s, clip.end_s) for clip in clips)
    return LabelOfVideo(
        video_id=video.video_id,
        uri=video.uri,
        label=label,
        max_probability=_highest(tag.probability for _, tag in pairs),
        mean_probability=sum(s * p for s, p in known) / weight_s if known and weight_s else None,
        max_score=_highest(tag.score for _, tag in pairs),
        share_of_time=length_s(spans) / total_s if total_s else 0.0,
        segments=tuple(_segment(span, pairs) for span in spans),
        basis=pairs[0][1].basis,
    )


def _segment(span: Span, pairs: list[tuple[TaggedClip, Tag]]) -> Segment:
    """A span with the figures of the clips in it."""
    inside = [tag for clip, tag in pairs if span[0] <= clip.start_s and clip.end_s <= span[1]]
    return Segment(*span, _highest(tag.probability for tag in inside), _highest(tag.score for tag in inside))


def _highest(values: Iterable[float | None]) -> float | None:
    """The highest of those that are there."""
    return max((value for value in values if value is not None), default=None)


def labels_of(video: TaggedVideo) -> tuple[LabelOfVideo, ...]:
    """The labels that a video has: of labels that exclude each other the best of each clip, and no "none of these"."""
    is_exclusive = any(tag.basis.startswith("softmax") for tag in video.tags)
    return tuple(line for line in by_label(video, first_only=is_exclusive) if line.label != NONE)
