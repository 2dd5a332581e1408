"""Cuts, and what is kept of shots: found where they are, never at a flash or a fade, samples near their moments."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import cuts, plan, sampling
from pipeline.cuts import LUMA_SHAPE, Reservoir, Seen
from pipeline.settings import IndexSettings, Sampling, ShotRules
from schemas.records import Window
from tests.pipeline.factories import windows

RULES = ShotRules()
RATE_HZ = 25
SAMPLING = Sampling(window_s=10.0, stride_s=10.0, frames=8, tolerance_s=None, shots=RULES)


def scene(seed: int, count: int, *, moves: int = 1, noise: float = 2.0) -> list[np.ndarray]:
    """Frames of one shot: a smooth picture that goes past, with noise."""
    draws = np.random.default_rng(seed)
    coarse = draws.uniform(0, 255, (4, 9))
    wide = np.kron(coarse, np.ones((5, 12)))[: LUMA_SHAPE[0]]
    return [
        np.clip(np.roll(wide, number * moves, axis=1)[:, : LUMA_SHAPE[1]] + draws.normal(0, noise, LUMA_SHAPE), 0, 255)
        .astype(np.uint8)
        for number in range(count)
    ]  # fmt: skip


def seen(lumas: list[np.ndarray], *, rate_hz: float = RATE_HZ, start_s: float = 0.0, keys: tuple[int, ...] = ()):
    """The frames as the detector sees them; `frame` is the frame's number."""
    return [Seen(start_s + n / rate_hz, luma, n in keys, n) for n, luma in enumerate(lumas)]


def found(frames: list[Seen]) -> list[int]:
    """Numbers of the frames that start a shot."""
    return [frame.frame for frame, is_start in cuts.marked(frames, RULES) if is_start]


# A cut is told by what is usual around it: of more than two others in the 25 frames before it, that is a cut too.
@given(lengths=st.lists(st.integers(13, 60), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_shots_start_at_their_first_frame_and_nowhere_else(lengths: list[int], seed: int) -> None:
    lumas = [luma for number, count in enumerate(lengths) for luma in scene(10 * seed + number, count)]
    frames = list(cuts.marked(seen(lumas), RULES))
    assert [frame.frame for frame, _ in frames] == list(range(len(lumas))), "every frame, in its order"
    assert [frame.frame for frame, is_start in frames if is_start] == [0, *np.cumsum(lengths)[:-1].tolist()]


def test_no_frames_have_no_shots() -> None:
    assert found([]) == []
    assert found(seen(scene(1, 1))) == [0]


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_starts_no_shot(length: int) -> None:
    lumas = scene(1, 60)
    for number in range(30, 30 + length):
        lumas[number] = np.full(LUMA_SHAPE, 255, np.uint8)
    assert found(seen(lumas)) == [0]


def test_a_fade_starts_no_shot() -> None:
    lumas = [(luma * (1 - n / 75)).astype(np.uint8) for n, luma in enumerate(scene(1, 75))]
    assert found(seen(lumas)) == [0]


def test_wild_movement_hides_no_cut_into_it_and_makes_none() -> None:
    assert found(seen(scene(1, 40) + scene(2, 60, moves=7, noise=10))) == [0, 40]


def test_pictures_stored_several_times_start_no_shots_once_there_are_some() -> None:
    repeated = [luma for luma in scene(1, 40, moves=4) for _ in range(5)]
    assert max(found(seen(repeated))) < RATE_HZ


def test_a_flash_hides_no_cut() -> None:
    lumas = scene(1, 30) + scene(2, 30)
    lumas[20] = np.full(LUMA_SHAPE, 255, np.uint8)
    assert found(seen(lumas)) == [0, 30]


def test_a_key_frame_needs_to_stand_out_less() -> None:
    lumas = scene(1, 60, moves=2, noise=0)
    lumas[30:] = [np.clip(luma.astype(int) + 60, 0, 255).astype(np.uint8) for luma in lumas[30:]]
    strengths = [cuts.difference(one, other, RULES.histogram)[1] for one, other in pairwise(lumas)]
    ratio = strengths[29] / sorted(strengths[4:29])[-3]
    rules = ShotRules(ratio=ratio * 1.1, key_ratio=ratio * 0.9)
    for keys, expected in (((0,), [0]), ((0, 30), [0, 30])):
        assert [f.frame for f, is_start in cuts.marked(seen(lumas, keys=keys), rules) if is_start] == expected


def test_the_difference_is_of_two_parts_and_symmetrical() -> None:
    dark, light = np.zeros(LUMA_SHAPE, np.uint8), np.full(LUMA_SHAPE, 255, np.uint8)
    assert cuts.difference(dark, light, 100.0) == cuts.difference(light, dark, 100.0) == (255.0, 355.0)
    assert cuts.difference(dark, dark, 100.0) == (0.0, 0.0)


# --- reservoirs

gaps_s = st.lists(st.floats(0.001, 0.5), min_size=1, max_size=400)


@given(gaps_s=gaps_s, room=st.integers(2, 60), widest_s=st.floats(0.02, 2.0))
def test_a_reservoir_holds_a_frame_close_before_every_frame(gaps_s: list[float], room: int, widest_s: float) -> None:
    times_s = np.cumsum(gaps_s).tolist()
    held: Reservoir[float] = Reservoir(times_s[0], widest_s, room)
    made: list[float] = []
    for time_s in times_s:
        held.offer(time_s, lambda time_s=time_s: made.append(time_s) or time_s)
    assert held.pictures == held.times_s == sorted(set(held.times_s))
    assert held.times_s[0] == times_s[0]
    assert set(held.times_s) <= set(made) <= set(times_s)
    assert len(held.times_s) <= room or held.spacing_s == widest_s
    before = np.array(held.times_s)[np.searchsorted(held.times_s, times_s, side="right") - 1]
    assert (np.array(times_s) - before <= held.spacing_s * 1.001).all()


def test_a_reservoir_makes_few_pictures_of_a_long_shot() -> None:
    held: Reservoir[int] = Reservoir(0.0, 10 / 64, 48)
    made: list[int] = []
    for number in range(300):
        held.offer(number / 30, lambda number=number: made.append(number) or number)
    assert 24 <= len(held.times_s) <= 65
    assert len(made) < 150


# --- clips


def cut(lengths: list[int], *, rate_hz: float = RATE_HZ, settings: Sampling = SAMPLING, start_s: float = 0.0):
    """The clips of shots of so many frames."""
    lumas = [luma for number, count in enumerate(lengths) for luma in scene(number, count)]
    end_s = start_s + len(lumas) / rate_hz
    frames = seen(lumas, rate_hz=rate_hz, start_s=start_s)
    return list(cuts.clips_of(frames, start_s, end_s, settings, lambda number: number)), end_s


@given(
    lengths=st.lists(st.integers(4, 300), min_size=1, max_size=5),
    rate_hz=st.sampled_from([5.0, 25.0, 60.0]),
    frames=st.sampled_from([1, 4, 8]),
    start_s=st.sampled_from([0.0, 640.0]),
)
def test_clips_cover_a_stretch_with_samples_at_their_moments(lengths, rate_hz, frames, start_s) -> None:
    settings = Sampling(window_s=4.0, stride_s=4.0, frames=frames, tolerance_s=None, shots=RULES)
    clips, end_s = cut(lengths, rate_hz=rate_hz, settings=settings, start_s=start_s)
    spans = [(clip.window.start_s, clip.window.end_s) for clip in clips]
    assert [span[0] for span in spans] == pytest.approx([start_s, *(span[1] for span in spans[:-1])])
    assert spans[-1][1] == pytest.approx(end_s)
    for clip in clips:
        length_s = clip.window.end_s - clip.window.start_s
        assert length_s <= settings.window_s + 1e-6
        assert length_s >= min(1.0, end_s - start_s) - 1e-6
        assert [start_s + number / rate_hz for number in clip.pictures] == pytest.approx(clip.window.frame_times_s)
        off_s = np.abs(sampling.centres(*spans[clips.index(clip)], frames) - clip.window.frame_times_s)
        assert (off_s <= sampling.STEP_PART * length_s / frames + 1 / rate_hz + 1e-6).all()


@given(lengths=st.lists(st.integers(25, 300), min_size=1, max_size=5))
def test_no_clip_shows_two_shots_that_last_a_second(lengths: list[int]) -> None:
    clips, _ = cut(lengths)
    edges = [0, *np.cumsum(lengths).tolist()]
    for clip in clips:
        shots = np.searchsorted(edges, clip.pictures, side="right")
        assert len(set(shots.tolist())) == 1, "the samples are of one shot"
    assert {round(clip.window.start_s * RATE_HZ) for clip in clips} >= set(edges[:-1]), "each shot starts a clip"


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        pytest.param([50, 10, 50], [0.0, 2.4], id="joins the one before"),
        pytest.param([10, 50], [0.0], id="the first joins the one after"),
        pytest.param([50, 10], [0.0], id="the last joins the one before"),
        pytest.param([50, 10, 20, 20, 50], [0.0, 2.4, 4.0], id="not more than one second joins"),
        pytest.param([10], [0.0], id="all there is"),
        pytest.param([750], [0.0, 10.0, 20.0], id="whole windows"),
        pytest.param([260], [0.0, 5.2], id="a long one in equal parts"),
    ],
)
def test_short_shots_join_a_neighbour_and_long_ones_are_cut(lengths: list[int], expected: list[float]) -> None:
    clips, _ = cut(lengths)
    assert [clip.window.start_s for clip in clips] == pytest.approx(expected)


def test_few_pictures_are_alive_at_a_time() -> None:
    alive, most = 0, 0

    class Picture:
        def __init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def frames() -> Iterator[Seen]:
        for number in range(20):
            yield from seen(scene(number, 100), start_s=4.0 * number)

    count = sum(1 for _ in cuts.clips_of(frames(), 0.0, 80.0, SAMPLING, lambda _: Picture()))
    assert count == 20
    assert most <= 3 * (cuts.ROOM_PER_SAMPLE * SAMPLING.frames + 1)


def test_the_nearest_frame_is_taken_unless_it_is_far_ahead() -> None:
    wanted_s = np.array([0.5, 1.5, 2.5, 3.5])
    assert cuts.nearest(np.array([0.0, 0.6, 1.4, 2.7, 4.0]), wanted_s).tolist() == [1, 2, 3, 3]
    assert cuts.nearest(np.array([9.0]), wanted_s).tolist() == [0, 0, 0, 0]


# --- units


def test_windows_with_a_jump_between_them_are_two_stretches() -> None:
    first = windows(3)
    later = tuple(Window(w.start_s + 7200, w.end_s + 7200, w.frame_times_s) for w in windows(2))
    assert cuts.stretches(first) == [(0.0, 30.0)]
    assert cuts.stretches([*first, *later]) == [(0.0, 30.0), (7200.0, 7220.0)]


def test_what_no_intact_clip_covers_is_told() -> None:
    assert cuts.uncovered(windows(3), [(0.0, 30.0)]) == []
    assert cuts.uncovered(windows(3), []) == [(0.0, 30.0)]
    assert cuts.uncovered(windows(3), [(0.0, 4.0), (7.0, 20.0)]) == [(4.0, 7.0), (20.0, 30.0)]


def test_samples_are_intact_where_the_frames_that_were_planned_came_out() -> None:
    planned = windows(2, frames=4)  # moments 1.25, 3.75, ...
    clips = [Window(0.0, 7.0, (0.0,) * 4), Window(7.0, 20.0, (0.0,) * 4)]
    everything = np.arange(0, 20, 0.04)
    assert cuts.intact_counts(clips, planned, everything) == [4, 4]
    assert cuts.intact_counts(clips, planned, everything[(everything < 2) | (everything > 10)]) == [1, 3]
    assert cuts.intact_counts(clips, planned, everything[everything > 30 / 4]) == [0, 4]


@pytest.mark.parametrize(
    ("window_s", "shortest_s", "per_unit"), [(0.5, 0.25, 32), (2.0, 1.0, 32), (10.0, 1.0, 6), (640.0, 10.0, 1)]
)
def test_a_unit_holds_no_more_clips_than_ever(window_s: float, shortest_s: float, per_unit: int) -> None:
    by_shots = IndexSettings(segment="shots", window_s=window_s).sampling(8)
    assert cuts.shortest_s(by_shots) == shortest_s
    assert plan.windows_per_unit(by_shots) == per_unit
    assert per_unit * window_s / shortest_s <= plan.CLIPS_PER_UNIT
    assert plan.windows_per_unit(IndexSettings(window_s=window_s).sampling(8)) == plan.CLIPS_PER_UNIT
