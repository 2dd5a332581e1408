"""What the API takes and gives, as OpenAPI tells it, and how records become that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.search import Answer
from pipeline.service import Snapshot, name_of, plays
from schemas.records import Hit, VideoRow

Seconds = Annotated[float, Field(ge=0, description="Seconds from the beginning of the video.")]

CLIP_ID = r"^[0-9a-f]{16}$"
VIDEO_ID = r"^[0-9A-Za-z_-]{1,64}$"


class Model(BaseModel):
    """Unknown fields are errors: a misspelt one would change nothing, and nobody would know."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "--top 0 asks ..."}]
        }
    )


class Same(Model):
    """A moment that looks the same as a hit and is not shown by itself."""

    clip_id: str
    video_id: str
    name: str
    start_s: float
    end_s: float


class FoundMoment(Model):
    """A moment of a video, of one or more clips."""

    rank: int
    score: float = Field(description="The model's logit of the query for the best clip.")
    plain_score: float = Field(description="The same without the clip's own prompt, by cosine.")
    clip_id: str = Field(description="Of the best clip.", examples=["9f3a11c05e7d2b46"])
    video_id: str
    name: str
    uri: str
    start_s: float
    end_s: float
    peak_s: float = Field(description="The middle of the best clip.")
    thumbnail: str
    clips: list[str]
    folded: list[Same]


class SearchAnswer(Model):
    """A page of moments, best first."""

    query: str
    page: int
    has_more: bool
    searched: int = Field(description="Clips in the index.")
    reranked: bool
    took_s: float
    left_out: int = Field(description="Moments left out since their video has so many better ones.")
    hits: list[FoundMoment]


class Video(Model):
    """A video of the archive."""

    video_id: str
    name: str
    uri: str
    duration_s: float
    width: int
    height: int
    codec: str
    clip_count: int
    status: str
    thumbnail: str | None


class VideoPage(Model):
    """A page of videos, newest first."""

    total: int
    page: int
    has_more: bool
    videos: list[Video]


class ClipOfVideo(Model):
    """A window of a video."""

    clip_id: str
    start_s: float
    end_s: float
    thumbnail: str


class TagOfClip(Model):
    """A label of a clip."""

    clip_id: str
    label: str
    label_set: str
    start_s: float
    end_s: float
    probability: float | None
    score: float
    basis: str | None


class WholeVideo(Video):
    """A video with its clips and tags."""

    gone: bool
    plays: bool = Field(description="Whether browsers play the file as it is; else there is the preview.")
    media: str
    preview: str
    clips: list[ClipOfVideo]
    tags: list[TagOfClip]


class LabelCount(Model):
    """How many clips and videos have a label first."""

    label: str
    label_set: str
    clips: int
    videos: int


class Labels(Model):
    """All labels, most clips first."""

    labels: list[LabelCount]


class Stats(Model):
    """What the archive holds."""

    videos: int
    clips: int
    footage_s: float
    size_bytes: int
    model: str
    space: str
    version: str
    searched_by: str = Field(description="What compares vectors; where there is a GPU, what decided it.")
    indexed_at: str | None
    columns: list[str] = Field(description="What `where` may name.")


class ClassifyRequest(Model):
    """Labels, in the request or by the name of a set that the server knows, for a clip, a video, or a part of one."""

    labels: list[str] | None = Field(None, min_length=1, max_length=1_000)
    set: str | None = None
    clip_id: str | None = Field(None, pattern=CLIP_ID)
    video_id: str | None = Field(None, pattern=VIDEO_ID)
    start_s: Seconds | None = None
    end_s: Seconds | None = None
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"labels": ["juggling", "cooking"], "clip_id": "9f3a11c05e7d2b46"}]},
    )


class LabelScore(Model):
    """A label, its share by softmax over all labels and a background, and its logit."""

    label: str
    probability: float
    score: float


class Classified(Model):
    """Labels, best first."""

    labels: list[LabelScore]


class SessionRequest(Model):
    """The server's token."""

    token: str


def found_moment(hit: Hit, answer: Answer) -> FoundMoment:
    """A hit as the API tells it."""
    best = next((clip for clip in hit.clips if clip.clip_id == hit.clip_id), None)
    middle_s = (best.start_s + best.end_s) / 2 if best else (hit.start_s + hit.end_s) / 2
    return FoundMoment(
        rank=hit.rank,
        score=hit.score,
        plain_score=hit.plain_score,
        clip_id=hit.clip_id,
        video_id=hit.video_id,
        name=name_of(hit.uri),
        uri=hit.uri,
        start_s=hit.start_s,
        end_s=hit.end_s,
        peak_s=middle_s,
        thumbnail=thumbnail(hit.clip_id),
        clips=[clip.clip_id for clip in hit.clips],
        folded=[
            Same(
                clip_id=clip.clip_id,
                video_id=clip.video_id,
                name=name_of(answer.uris.get(clip.video_id, "")),
                start_s=clip.start_s,
                end_s=clip.end_s,
            )
            for clip in hit.folded
        ],
    )


def search_answer(answer: Answer) -> SearchAnswer:
    """An answer as the API tells it."""
    return SearchAnswer(
        query=answer.text,
        page=answer.page,
        has_more=answer.has_more,
        searched=answer.searched,
        reranked=answer.reranked,
        took_s=answer.took_s,
        left_out=answer.left_out,
        hits=[found_moment(hit, answer) for hit in answer.hits],
    )


def thumbnail(clip_id: str) -> str:
    """Where the picture of a clip is."""
    return f"/thumbnails/{clip_id}"


def _fields(row: Mapping[str, Any], first_clip: str | None) -> dict[str, Any]:
    """What is told of every video."""
    names = ("video_id", "uri", "duration_s", "width", "height", "codec", "clip_count", "status")
    picture = thumbnail(first_clip) if first_clip else None
    return {name: row[name] for name in names} | {"name": name_of(row["uri"]), "thumbnail": picture}


def video(row: Mapping[str, Any], first_clip: str | None = None) -> Video:
    """A row of the snapshot's videos."""
    return Video(**_fields(row, first_clip))


def whole_video(snapshot: Snapshot, row: VideoRow) -> WholeVideo:
    """A video with its clips and tags."""
    clips = snapshot.clips_of(row)
    return WholeVideo(
        **_fields(asdict(row), clips[0]["clip_id"] if clips else None),
        gone=row.status == "gone",
        plays=plays(row.uri, row.codec),
        media=f"/media/{row.video_id}",
        preview=f"/preview/{row.video_id}",
        clips=[ClipOfVideo(**clip, thumbnail=thumbnail(clip["clip_id"])) for clip in clips],
        tags=[
            TagOfClip(**{name: tag[name] for name in TagOfClip.model_fields})
            for tag in snapshot.tags_of(clips, row.video_id)
        ],
    )
