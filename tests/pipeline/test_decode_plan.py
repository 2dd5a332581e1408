"""The planner against every other way to decode: never wrong, never dearer, and the same where nothing can be saved."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import decode_plan, sampling
from pipeline.decode_plan import CostModel, PacketIndex, plan, starts
from schemas.records import Window

TICKS = 10  # per second


def index_of(kinds: str, times: list[int] | None = None, sizes: list[int] | None = None) -> PacketIndex:
    """Packets in file order: K a key frame, P one that others need, b one that nobody needs; times in ticks."""
    stamp_n = np.array(list(range(len(kinds))) if times is None else times, np.int64)
    return PacketIndex(
        stamp_n,
        stamp_n / TICKS,
        np.array([1] * len(kinds) if sizes is None else sizes, np.int64),
        np.array([kind == "K" for kind in kinds]),
        np.array([kind != "b" for kind in kinds]),
    )


def moments(index: PacketIndex, *ticks: int) -> np.ndarray:
    """Moments of frames, from ticks."""
    return np.array(ticks) / TICKS


def test_frames_that_nobody_needs_are_decoded_where_they_are_taken_and_nowhere_else() -> None:
    index = index_of("KPbbPbbPbb")
    found = plan(index, moments(index, 6, 8))
    assert (found.feed.tolist(), found.restarts.tolist(), found.chosen_m.tolist()) == ([0, 1, 4, 6, 7, 8], [], [6, 8])
    assert found.cost_s == 6


def test_decoding_stops_at_the_last_frame_taken_and_begins_again_at_the_next_key_frame() -> None:
    index = index_of("KPPPPPKPPPPPKPPPPP")
    found = plan(index, moments(index, 1, 13))
    assert (found.feed.tolist(), found.restarts.tolist()) == ([0, 1, 12, 13], [12])


def test_a_key_frame_within_tolerance_costs_itself_alone() -> None:
    index = index_of("KPPPPPKPPPPP")
    assert plan(index, moments(index, 5), 0.0).feed.tolist() == [0, 1, 2, 3, 4, 5]
    found = plan(index, moments(index, 5), 0.1)
    assert (found.feed.tolist(), found.chosen_m.tolist()) == ([6], [6])


def test_without_a_key_frame_within_tolerance_decoding_ends_with_the_first_frame_near_enough() -> None:
    index = index_of("KPPPPPPPPP")
    found = plan(index, moments(index, 4, 8), np.array([0.2, 0.1]))
    assert found.feed.tolist() == list(range(8))
    assert found.chosen_m.tolist() == [4, 7]  # the very frame where decoding comes by it anyway


def test_a_moment_is_shown_by_the_nearest_frame_that_is_decoded_anyway() -> None:
    index = index_of("KPPbPPPKPPP")
    found = plan(index, moments(index, 3, 5), np.array([0.2, 0.0]))
    assert found.feed.tolist() == [0, 1, 2, 4, 5]  # without frame 3, which nobody predicts from
    assert found.chosen_m[0] in (2, 4)
    assert found.chosen_m[1] == 5


def test_a_frame_that_decoding_cannot_make_is_not_taken_for_being_near() -> None:
    # Frame 4 is shown before the key frame 3 and needs what lies before it: after a seek to 3 it comes out broken.
    index = index_of("KPPKPPP", times=[0, 1, 2, 4, 3, 5, 6])
    found = plan(index, moments(index, 3, 5), np.array([0.1, 0.0]))
    assert (found.feed.tolist(), found.chosen_m.tolist()) == ([3, 4, 5], [3, 5])


def test_an_emptied_decoder_is_worth_it_where_it_saves_more_than_it_costs() -> None:
    index = index_of("KPPKPP")
    wanted = moments(index, 0, 3)
    assert plan(index, wanted, model=CostModel(restart_s=1.0)).restarts.tolist() == [3]
    whole = plan(index, wanted, model=CostModel(restart_s=3.0))
    assert (whole.feed.tolist(), whole.restarts.tolist(), whole.cost_s) == ([0, 1, 2, 3], [], 4)


def test_a_frame_shown_before_its_key_frame_is_predicted_from_the_group_before() -> None:
    index = index_of("KPPKbPP", [0, 1, 2, 4, 3, 5, 6])
    assert starts(index).tolist() == [0, 0, 0, 3, 0, 3, 3]
    assert plan(index, moments(index, 3)).feed.tolist() == [0, 1, 2, 3, 4]


def test_a_frame_that_shows_two_moments_is_decoded_once() -> None:
    index = index_of("KPbP")
    assert plan(index, moments(index, 2, 2)).feed.tolist() == [0, 1, 2]


def test_a_moment_without_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no frame near 0\.5 s"):
        plan(index_of("KP"), np.array([0.5]))


def test_columns_of_different_lengths_are_refused() -> None:
    whole = index_of("KPP")
    with pytest.raises(ValueError, match=r"columns of \[2, 3\] packets"):
        PacketIndex(whole.stamp_n[:2], whole.time_n, whole.size_n, whole.key_n, whole.reference_n)


@pytest.mark.parametrize(
    ("index", "is_plain"),
    [
        (index_of("KPP"), True),
        (index_of(""), False),
        (index_of("PKP"), False),
        (index_of("KPP", [0, 1, 1]), False),
    ],
)
def test_only_packets_that_are_one_frame_each_can_be_planned(
    index: PacketIndex,
    is_plain: bool,  # noqa: FBT001  # a column of a table
) -> None:
    assert index.is_plain == is_plain
    window = Window(0.0, 0.1 * max(1, len(index.stamp_n)), (0.0,))
    assert (decode_plan.steps(index, [window], 0.0) is not None) == is_plain


# --- against everything that could be done instead


@st.composite
def streams(draw: st.DrawFn) -> PacketIndex:
    """A short stream with frames out of order, as encoders make them: what nobody needs is shown before its anchor."""
    kinds = "K" + draw(st.text("KPPbb", min_size=3, max_size=14))
    times = list(range(len(kinds)))
    for at in range(1, len(kinds)):
        if kinds[at] == "b" and kinds[at - 1] != "b" and draw(st.booleans()):
            times[at - 1], times[at] = times[at], times[at - 1]
    return index_of(kinds, times, draw(st.lists(st.integers(1, 9), min_size=len(kinds), max_size=len(kinds))))


def least_cost(index: PacketIndex, chosen: tuple[int, ...], model: CostModel) -> float:
    """The cost of the cheapest way to decode given frames, found by trying every way to join their stretches."""
    stretches: list[list[int]] = []
    for start, last in sorted((int(starts(index)[frame]), frame) for frame in chosen):
        if stretches and start <= stretches[-1][1] + 1:
            stretches[-1][1] = max(stretches[-1][1], last)
        else:
            stretches.append([start, last])
    costs = []
    for joins in product([False, True], repeat=len(stretches) - 1):
        inside = np.zeros(len(index.stamp_n), bool)
        for start, last in stretches:
            inside[start : last + 1] = True
        for join, (before, after) in zip(joins, pairwise(stretches), strict=True):
            inside[before[1] : after[0]] |= join
        fed = inside & index.reference_n
        fed[list(chosen)] = True
        costs.append(model.of(index.size_n)[fed].sum() + model.restart_s * (len(joins) - sum(joins)))
    return float(min(costs))


@given(
    index=streams(),
    step=st.integers(3, 6),
    tolerance_ticks=st.integers(0, 1),
    byte_s=st.sampled_from([0.0, 0.1]),
    restart_s=st.sampled_from([0.0, 0.5, 3.0]),
)
def test_no_way_to_show_the_moments_is_cheaper(
    index: PacketIndex, step: int, tolerance_ticks: int, byte_s: float, restart_s: float
) -> None:
    model = CostModel(byte_s=byte_s, restart_s=restart_s)
    wanted = np.sort(index.time_n)[1::step]
    tolerance_s = tolerance_ticks / TICKS
    found = plan(index, wanted, tolerance_s, model)
    assert (np.abs(index.time_n[found.chosen_m] - wanted) <= tolerance_s + 1e-6).all()
    near = [np.flatnonzero(np.abs(index.time_n - moment) <= tolerance_s + 1e-6).tolist() for moment in wanted]
    assert found.cost_s == pytest.approx(min(least_cost(index, chosen, model) for chosen in product(*near)))


@given(index=streams(), step=st.integers(1, 5), tolerance_ticks=st.integers(0, 2))
def test_what_a_frame_needs_is_fed_before_it(index: PacketIndex, step: int, tolerance_ticks: int) -> None:
    found = plan(index, np.sort(index.time_n)[::step], tolerance_ticks / TICKS)
    fed, breaks = set(found.feed.tolist()), set(found.restarts.tolist())
    for frame in found.chosen_m.tolist():
        start = int(starts(index)[frame])
        needed = [n for n in range(start, frame) if index.reference_n[n]]
        assert fed.issuperset([*needed, frame])
        assert not breaks.intersection(range(start + 1, frame + 1)), "nothing is forgotten on the way"


# --- windows


def test_a_quarter_of_the_step_is_allowed_by_default_and_the_smallest_where_windows_share_a_moment() -> None:
    windows = [Window(0.0, 8.0, (1.0, 3.0, 5.0, 7.0)), Window(5.0, 7.0, (5.25, 5.75, 6.25, 7.0))]
    moments_s, limits_s = sampling.moments(windows, None)
    assert moments_s.tolist() == [1.0, 3.0, 5.0, 5.25, 5.75, 6.25, 7.0]
    assert limits_s.tolist() == [0.5, 0.5, 0.5, 0.125, 0.125, 0.125, 0.125]
    assert sampling.moments(windows, 0.2)[1].tolist() == [0.2] * 7
