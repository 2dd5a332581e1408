"""Tagged videos made by hand, for what is rolled up and exported."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.tagged import Tag, TaggedClip, TaggedVideo

SOFTMAX, SIGMOID, CALIBRATED = "softmax, uncalibrated", "sigmoid, uncalibrated", "sigmoid, calibrated"
HOSTILE = "a <b> & \"c\" --> 'd'\n]]> \x07 zażółć 🎉, e"
Given = dict[str, float | None]  # probabilities by label, best first


def video(
    clips: Sequence[Given],
    *,
    uri: str = "/videos/a.mp4",
    basis: str = SIGMOID,
    window_s: float = 10.0,
    stride_s: float | None = None,
    number: int = 1,
) -> TaggedVideo:
    """A video of windows one after the other, with what each was given. Scores are ten times the probabilities."""
    video_id = f"{number:016x}"
    stride_s = window_s if stride_s is None else stride_s

    def clip(place: int, given: Given) -> TaggedClip:
        clip_id, start_s = f"{1000 * number + place:016x}", place * stride_s
        end_s = start_s + window_s
        tags = (
            Tag(
                clip_id, video_id, uri, start_s, end_s, rank, label, share, None if share is None else 10 * share, basis
            )
            for rank, (label, share) in enumerate(given.items(), start=1)
        )
        return TaggedClip(clip_id, start_s, end_s, tuple(tags))

    made = tuple(clip(place, given) for place, given in enumerate(clips))
    return TaggedVideo(video_id, uri, made[-1].end_s if made else 0.0, 640, 360, 25.0, made)
