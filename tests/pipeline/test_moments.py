"""Clips to moments: every clip is in one place, moments are runs of neighbours, and better ones come first."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.moments import Grouping, Moment, capped, each, folded, grouped, merged, rank_key, touch
from schemas.errors import InputError
from schemas.records import ScoredClip


def clip(name: str, start_s: float, score: float, *, video: str = "v", length_s: float = 10.0) -> ScoredClip:
    return ScoredClip(name, video, start_s, start_s + length_s, score, score / 100)


@st.composite
def found(draw: st.DrawFn) -> list[ScoredClip]:
    """Clips of up to three videos: windows on a grid with holes, some overlapping, in any order."""
    places = draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), unique=True, max_size=25))
    stride_s = draw(st.sampled_from([5.0, 10.0, 12.0]))
    scores = draw(st.lists(st.integers(-6, 6), min_size=len(places), max_size=len(places)))
    return [
        clip(f"{number:016x}", stride_s * place, score / 2, video=video)
        for number, ((video, place), score) in enumerate(zip(places, scores, strict=True))
    ]


GAPS = st.sampled_from([0.0, 0.5, 3.0])
MARGINS = st.sampled_from([0.0, 1.0, 2.5, 100.0])


@given(found(), GAPS, MARGINS)
def test_every_clip_is_in_one_moment_and_better_moments_come_first(clips, gap_s, margin) -> None:
    moments = merged(clips, gap_s=gap_s, margin=margin)
    assert sorted(c.clip_id for m in moments for c in m.clips) == sorted(c.clip_id for c in clips)
    keys = [rank_key(moment.best) for moment in moments]
    assert keys == sorted(keys)
    if clips:
        assert moments[0].best == min(clips, key=rank_key)


@given(found(), GAPS, MARGINS)
def test_a_moment_is_a_run_of_neighbours_of_one_video_that_score_about_as_well(clips, gap_s, margin) -> None:
    for moment in merged(clips, gap_s=gap_s, margin=margin):
        assert {c.video_id for c in moment.clips} == {moment.best.video_id}
        starts = [c.start_s for c in moment.clips]
        assert starts == sorted(starts)
        assert all(touch(one, other, gap_s) for one, other in pairwise(moment.clips))
        assert all(c.score >= moment.best.score - margin for c in moment.clips)
        assert (moment.start_s, moment.end_s) == (starts[0], max(c.end_s for c in moment.clips))
        inside = [c for c in clips if c.video_id == moment.best.video_id and starts[0] <= c.start_s <= starts[-1]]
        assert len(inside) == len(moment.clips), "no clip in the middle of a moment is of another"


@given(found(), GAPS, MARGINS)
def test_nothing_that_could_have_joined_stands_beside_a_moment(clips, gap_s, margin) -> None:
    """A neighbour of the best moment of its video is another moment only for its score or its distance."""
    best = {}
    for moment in merged(clips, gap_s=gap_s, margin=margin):
        best.setdefault(moment.best.video_id, moment)
    for video, moment in best.items():
        others = [c for c in clips if c.video_id == video and c not in moment.clips]
        before = max((c for c in others if c.start_s < moment.clips[0].start_s), key=lambda c: c.start_s, default=None)
        after = min((c for c in others if c.start_s > moment.clips[-1].start_s), key=lambda c: c.start_s, default=None)
        for other, edge in ((before, moment.clips[0]), (after, moment.clips[-1])):
            assert other is None or other.score < moment.best.score - margin or not touch(other, edge, gap_s)


@given(found(), GAPS, MARGINS, st.randoms())
def test_the_order_in_which_clips_come_does_not_matter(clips, gap_s, margin, random) -> None:
    shuffled = random.sample(clips, len(clips))
    assert merged(shuffled, gap_s=gap_s, margin=margin) == merged(clips, gap_s=gap_s, margin=margin)


def test_a_score_that_falls_ends_a_moment_and_what_is_behind_is_another() -> None:
    clips = [clip(f"{n:016x}", 10.0 * n, score) for n, score in enumerate([5.0, 4.5, 1.0, 4.8, 4.9])]
    moments = merged(clips, gap_s=0.5, margin=1.0)
    assert [(m.start_s, m.end_s, m.best.score) for m in moments] == [(0, 20, 5.0), (30, 50, 4.9), (20, 30, 1.0)]


def test_windows_with_a_hole_between_them_are_two_moments() -> None:
    clips = [clip("0" * 16, 0.0, 1.0), clip("1" * 16, 10.4, 1.0), clip("2" * 16, 21.0, 1.0)]
    assert [len(m.clips) for m in merged(clips, gap_s=0.5, margin=1.0)] == [2, 1]


# --- folding


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def test_what_looks_the_same_elsewhere_is_listed_with_the_best() -> None:
    clips = [clip(name * 16, 0.0, score, video=name) for name, score in (("a", 3.0), ("b", 2.0), ("c", 1.0))]
    vectors = dict(zip((c.clip_id for c in clips), (unit(1, 0), unit(1, 0.01), unit(0, 1)), strict=True))
    kept = folded(each(clips), vectors, same=0.99, gap_s=0.5)
    assert [(m.best.video_id, [c.video_id for c in m.folded]) for m in kept] == [("a", ["b"]), ("c", [])]


def test_neighbours_in_one_video_are_not_copies_of_each_other_and_distant_places_are() -> None:
    clips = [clip("a" * 16, 0.0, 3.0), clip("b" * 16, 10.0, 1.0), clip("c" * 16, 50.0, 2.0)]
    vectors = dict.fromkeys((c.clip_id for c in clips), unit(1, 0))
    kept = folded(each(clips), vectors, same=0.99, gap_s=0.5)
    assert [[m.best.clip_id[0], *(c.clip_id[0] for c in m.folded)] for m in kept] == [["a", "c"], ["b"]]


@given(found(), st.integers(0, 2**32 - 1))
def test_folding_loses_no_moment_and_keeps_only_what_differs(clips, seed) -> None:
    moments = each(clips)
    directions = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    vectors = {c.clip_id: directions[number % 4] for number, c in enumerate(clips)}
    kept = folded(moments, vectors, same=0.999, gap_s=0.5)
    names = [c.clip_id for m in kept for c in (m.best, *m.folded)]
    assert sorted(names) == sorted(c.clip_id for c in clips)
    assert [m.best for m in kept] == sorted((m.best for m in kept), key=rank_key)
    for place, moment in enumerate(kept):
        for better in kept[:place]:
            cosine = float(vectors[better.best.clip_id] @ vectors[moment.best.clip_id])
            is_neighbour = better.best.video_id == moment.best.video_id and touch(better, moment, 0.5)
            assert cosine < 0.999 or is_neighbour


# --- the cap, and all together


@given(found(), st.integers(0, 4))
def test_a_cap_keeps_the_best_of_each_video(clips, per_video) -> None:
    moments = each(clips)
    kept = capped(moments, per_video)
    for video in {c.video_id for c in clips}:
        own = [m for m in moments if m.best.video_id == video]
        assert [m for m in kept if m.best.video_id == video] == (own[:per_video] if per_video else own)
    assert kept == sorted(kept, key=lambda m: rank_key(m.best))


@given(found())
def test_without_a_grouping_every_clip_is_a_hit(clips) -> None:
    moments, left_out = grouped(clips, {}, None)
    assert [m.clips for m in moments] == [(c,) for c in sorted(clips, key=rank_key)]
    assert left_out == 0


def test_what_the_cap_leaves_out_is_counted() -> None:
    clips = [clip(f"{n:016x}", 100.0 * n, float(n)) for n in range(5)]
    moments, left_out = grouped(clips, {}, Grouping(per_video=2, same=None))
    assert ([m.best.score for m in moments], left_out) == ([4.0, 3.0], 3)


def test_nothing_is_folded_into_a_moment_that_the_cap_leaves_out() -> None:
    clips = [clip("a" * 16, 0.0, 3.0), clip("b" * 16, 100.0, 2.0), clip("c" * 16, 0.0, 1.0, video="other")]
    vectors = {"a" * 16: unit(1, 0), "b" * 16: unit(0, 1), "c" * 16: unit(0, 1)}
    moments, left_out = grouped(clips, vectors, Grouping(per_video=1))
    assert [(m.best.clip_id[0], m.folded) for m in moments] == [("a", ()), ("c", ())]
    assert left_out == 1


def test_nothing_found_makes_no_moments() -> None:
    assert grouped([], {}, Grouping()) == ([], 0)


@pytest.mark.parametrize(
    "wrong",
    [{"gap_s": -1.0}, {"margin": -0.1}, {"per_video": -1}, {"same": 1.5}, {"same": -2.0}, {"margin": float("nan")}],
)
def test_a_grouping_that_makes_no_sense_is_refused(wrong) -> None:
    with pytest.raises(InputError, match="not usable"):
        Grouping(**wrong)


def test_a_moment_names_the_lowest_id_of_equals() -> None:
    assert Moment((clip("b" * 16, 0.0, 1.0), clip("a" * 16, 10.0, 1.0))).best.clip_id == "a" * 16
