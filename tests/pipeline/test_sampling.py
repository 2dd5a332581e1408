"""Windows and samples: the rules of the design, and what must hold for every video."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import sampling
from pipeline.settings import Sampling
from schemas.errors import InputError
from schemas.records import Window

TEN = Sampling(window_s=10, stride_s=10, frames=8)


@pytest.mark.parametrize(
    ("length_s", "expected"),
    [
        pytest.param(30, [(0, 10), (10, 20), (20, 30)], id="whole windows"),
        pytest.param(26, [(0, 10), (10, 20), (20, 26)], id="a last piece of more than half stands alone"),
        pytest.param(25, [(0, 10), (10, 20), (20, 25)], id="a last piece of exactly half stands alone"),
        pytest.param(24.9, [(0, 10), (10, 24.9)], id="a shorter last piece joins the one before"),
        pytest.param(14, [(0, 14)], id="one window and a short piece are one clip"),
        pytest.param(10, [(0, 10)], id="exactly one window"),
        pytest.param(9, [(0, 9)], id="a shorter video is one clip of its true length"),
        pytest.param(3, [(0, 3)], id="so is one shorter than half a window"),
        pytest.param(0.04, [(0, 0.04)], id="so is a single frame"),
    ],
)
def test_windows_follow_the_design(length_s, expected) -> None:
    assert sampling.spans(0, length_s, TEN) == [pytest.approx(span) for span in expected]


@pytest.mark.parametrize(
    ("stride_s", "length_s", "expected"),
    [
        pytest.param(5, 23, [(0, 10), (5, 15), (10, 20), (15, 23)], id="overlapping, last one cut"),
        pytest.param(5, 20, [(0, 10), (5, 15), (10, 20)], id="overlapping, none begins after the end is covered"),
        pytest.param(5, 22, [(0, 10), (5, 15), (10, 20), (15, 22)], id="overlapping, last one of seven seconds"),
        pytest.param(20, 43, [(0, 10), (20, 30)], id="apart, a short last piece has nothing to join"),
        pytest.param(20, 47, [(0, 10), (20, 30), (40, 47)], id="apart, a long last piece"),
        pytest.param(20, 33, [(0, 10), (20, 33)], id="apart, a short rest joins"),
        pytest.param(20, 19, [(0, 10)], id="apart, nothing of the second is there"),
    ],
)
def test_strides_other_than_the_window(stride_s, length_s, expected) -> None:
    found = sampling.spans(0, length_s, Sampling(window_s=10, stride_s=stride_s, frames=8))
    assert found == [pytest.approx(span) for span in expected]


lengths = st.floats(0.02, 4000)
windows_s = st.floats(0.5, 60)
starts = st.floats(-5, 5000)


@given(start_s=starts, length_s=lengths, window_s=windows_s)
def test_windows_without_overlap_cover_the_video_without_gaps(start_s, length_s, window_s) -> None:
    end_s = start_s + length_s
    found = sampling.spans(start_s, end_s, Sampling(window_s=window_s, stride_s=window_s, frames=8))
    assert (found[0][0], found[-1][1]) == (start_s, end_s)
    for (_, stop), (start, _) in pairwise(found):
        assert stop == pytest.approx(start, abs=1e-6)


@given(start_s=starts, length_s=lengths, window_s=windows_s, ratio=st.floats(0.1, 4))
def test_windows_ascend_inside_the_video_and_none_is_too_short_or_too_long(start_s, length_s, window_s, ratio) -> None:
    end_s = start_s + length_s
    found = sampling.spans(start_s, end_s, Sampling(window_s=window_s, stride_s=max(0.1, ratio * window_s), frames=8))
    assert found == sorted(set(found))
    assert all(start_s <= start < stop <= end_s for start, stop in found)
    shortest, longest = min(length_s, 0.5 * window_s), 1.5 * window_s
    assert all(shortest - 1e-6 <= stop - start <= longest + 1e-6 for start, stop in found)


@given(length_s=lengths, window_s=windows_s, parts=st.integers(2, 5))
def test_overlapping_windows_leave_no_gap(length_s, window_s, parts) -> None:
    found = sampling.spans(0, length_s, Sampling(window_s=window_s, stride_s=max(0.1, window_s / parts), frames=8))
    assert (found[0][0], found[-1][1]) == (0, length_s)
    assert all(start <= stop for (_, stop), (start, _) in pairwise(found))


@pytest.mark.parametrize("rate_hz", [25, 24, 30000 / 1001, 120, 1])
@pytest.mark.parametrize("frames", [1, 5, 8, 16, 32])
def test_samples_are_those_of_the_reference_for_constant_rates(rate_hz: float, frames: int) -> None:
    for count in [*range(1, 140), 300, 999, 1000, 9999]:
        times_s = np.arange(count) / rate_hz
        whole = Sampling(window_s=86_400, stride_s=86_400, frames=frames)
        (window,) = sampling.windows(times_s, count / rate_hz, whole)
        expected = [(2 * i * count + count) // (2 * frames) for i in range(frames)]  # floor(i n / T + n / 2T), exactly
        assert [round(time_s * rate_hz) for time_s in window.frame_times_s] == expected, count


def test_the_example_of_the_specification() -> None:
    (window,) = sampling.windows(np.arange(300) / 30, 10.0, TEN)
    assert [round(time_s * 30) for time_s in window.frame_times_s] == [18, 56, 93, 131, 168, 206, 243, 281]


def test_three_frames_are_repeated_to_fill_a_clip() -> None:
    (window,) = sampling.windows(np.arange(3) / 25, 3 / 25, TEN)
    assert [round(time_s * 25) for time_s in window.frame_times_s] == [0, 0, 0, 1, 1, 2, 2, 2]


@given(
    gaps=st.lists(st.floats(0.001, 20), min_size=0, max_size=60),
    start_s=st.floats(0, 100),
    window_s=st.floats(0.5, 15),
    ratio=st.floats(0.3, 3),
    frames=st.integers(1, 8),
)
def test_samples_are_frames_that_exist_in_order_and_on_screen(gaps, start_s, window_s, ratio, frames) -> None:
    times_s = start_s + np.cumsum([0.0, *gaps])
    end_s = float(times_s[-1]) + 0.04
    chosen = sampling.windows(
        times_s, end_s, Sampling(window_s=window_s, stride_s=max(0.1, ratio * window_s), frames=frames)
    )
    for window in chosen:
        assert len(window.frame_times_s) == frames
        assert list(window.frame_times_s) == sorted(window.frame_times_s)
        assert set(window.frame_times_s) <= set(times_s.tolist())
        wanted_s = sampling.centres(window.start_s, window.end_s, frames)
        for moment_s, shown_s in zip(wanted_s, window.frame_times_s, strict=True):
            assert shown_s <= moment_s + sampling.SAME_TIME_S
            assert not np.any((times_s > shown_s + 2e-6) & (times_s <= moment_s)), "a later frame was on the screen"


def test_a_jump_in_the_time_stamps_makes_no_windows_of_nothing() -> None:
    times_s = np.concatenate([np.arange(250) / 25, 7200 + np.arange(250) / 25])
    found = sampling.windows(times_s, 7210.0, TEN)
    assert [(window.start_s, window.end_s) for window in found] == [(0, 10), (7200, 7210)]


def test_a_still_picture_on_the_screen_for_long_keeps_the_windows_it_starts_in() -> None:
    found = sampling.windows(np.array([0.0, 1.0, 34.0]), 40.0, TEN)
    assert [(window.start_s, window.end_s) for window in found] == [(0, 10), (30, 40)]
    assert found[1].frame_times_s == (1.0, 1.0, 1.0, 34.0, 34.0, 34.0, 34.0, 34.0)


def test_no_frames_make_no_windows() -> None:
    assert sampling.windows(np.zeros(0), 0.0, TEN) == ()


def test_one_frame_without_a_duration_is_one_window() -> None:
    (window,) = sampling.windows(np.array([3.0]), 3.0, TEN)
    assert window == Window(3.0, 3.0, (3.0,) * 8)


@pytest.mark.parametrize(("length_s", "expected_s"), [(10, 0.3125), (1, 0.1), (100, 3.125)])
def test_tolerance_is_a_quarter_of_the_sampling_step_and_never_under_a_tenth_of_a_second(length_s, expected_s) -> None:
    assert sampling.tolerance_s(Window(0, length_s, (0.0,) * 8)) == pytest.approx(expected_s)


@pytest.mark.parametrize("value", [0, -1, 0.05, 86_401, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["window", "stride"])
def test_lengths_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"a {name} of .* s is not usable; expected 0.1 to 86400 seconds"):
        Sampling(**{"window_s": 10, "stride_s": 10, f"{name}_s": value})


# --- by number, as the reference does it


@pytest.mark.parametrize(
    ("n", "T", "expected"),
    [
        (300, 8, [18, 56, 93, 131, 168, 206, 243, 281]),
        (3, 8, [0, 0, 0, 1, 1, 2, 2, 2]),
        (1, 4, [0, 0, 0, 0]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_a_single_view_has_the_frames_of_the_specification(n: int, T: int, expected: list[int]) -> None:
    assert sampling.test_indices(n, T).tolist() == expected


@given(n=st.integers(1, 10_000), T=st.sampled_from([8, 16, 32]))
def test_a_single_view_is_the_references_formula(n: int, T: int) -> None:
    assert sampling.test_indices(n, T).tolist() == [int(i * n / T + n / (2 * T)) for i in range(T)]


@given(n=st.integers(1, 2000), T=st.integers(1, 32), seed=st.integers(0, 99))
def test_training_draws_a_frame_of_each_part_and_none_of_the_rest(n: int, T: int, seed: int) -> None:
    found = sampling.train_indices(n, T, np.random.default_rng(seed))
    part = n // T
    if part:
        assert (found // part).tolist() == list(range(T)), "sample i lies in part i; the last n mod T are in none"
    else:
        assert found.tolist() == [round(i * n / T) % n for i in range(T)], "round is half-even in Python too"


def test_few_frames_are_repeated_and_come_round_to_the_first_as_in_the_reference() -> None:
    assert sampling.train_indices(3, 8, np.random.default_rng(0)).tolist() == [0, 0, 1, 1, 2, 2, 2, 0]


def test_every_frame_of_a_part_is_drawn_and_the_seed_decides_which() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([sampling.train_indices(13, 4, rng) for _ in range(200)])
    assert [sorted(set(column)) for column in drawn.T.tolist()] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    again = [sampling.train_indices(1000, 8, np.random.default_rng(5)).tolist() for _ in range(2)]
    assert again[0] == again[1]
