"""Decoding by shots on real encoded video: clips start at cuts, show one shot, damage costs what it damages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline import decode, decode_shots, demux, plan, sampling
from pipeline.settings import IndexSettings, Sampling
from schemas.errors import UndecodableVideo
from schemas.records import DecodedUnit, Unit
from tests.media import Picture, damage_packets, make_video
from tests.pipeline.steps import SIZE, source

RATE_HZ = 10
SETTINGS = IndexSettings(segment="shots", window_s=4.0).sampling(4)
FRAME_S = 1 / RATE_HZ


def scenes(*lengths: int, texture: int = 6):
    """A painter of scenes of so many frames: each another pattern, which moves."""
    edges = np.cumsum(lengths)

    def paint(number: int, size: tuple[int, int]) -> Picture:
        scene = int(np.searchsorted(edges, number, side="right"))
        coarse = np.random.default_rng(scene).integers(0, 256, (texture, texture, 3), np.uint8)
        fine = np.kron(coarse, np.ones((size[1] // texture + 1, size[0] // texture + 1, 1), np.uint8))
        return np.roll(fine, number, axis=1)[: size[1], : size[0]]

    return paint


def film(path: Path, *lengths: int, **options) -> Path:
    """A video of such scenes."""
    return make_video(
        path, **{"frames": sum(lengths), "rate_hz": RATE_HZ, "paint": scenes(*lengths), "gop": 20, **options}
    )


def units(path: Path, settings: Sampling = SETTINGS) -> tuple[Unit, ...]:
    """A file's units."""
    video = demux.inspect(source(path), settings)
    return plan.plan_video(video, None, {}, 0, "space", per_unit=plan.windows_per_unit(settings)).units


def cut(path: Path, settings: Sampling = SETTINGS) -> list[DecodedUnit]:
    """All of a file."""
    return decode_shots.decode_by_shots(SIZE, settings, list(units(path, settings)))


def spans(found: list[DecodedUnit]) -> list[tuple[float, float]]:
    """Start and end of each clip."""
    return [(window.start_s, window.end_s) for unit in found for window in unit.windows]


def near(expected: list[tuple[float, float]]):
    """Spans that are these within a frame."""
    return [pytest.approx(span, abs=FRAME_S) for span in expected]


STREAMS = {
    "h264.mp4": {"options": {"crf": "18", "preset": "veryfast"}, "gop": 250},
    "h264, B-frames.mkv": {"b_frames": 2},
    "h264, B-frames out of order.avi": {"b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4"},
    "late.ts": {"start_s": 3.0},
    "large.mp4": {"size": (960, 540)},
    "turned.mp4": {"rotation": 90},
}


@pytest.mark.parametrize("name", STREAMS)
def test_clips_start_at_the_cuts_of_every_kind_of_stream(tmp_path: Path, name: str) -> None:
    found = cut(film(tmp_path / name, 25, 32, 20, **STREAMS[name]))
    (unit,) = found
    began_s = unit.windows[0].start_s  # an AVI with B-frames starts a frame late
    shifted = [(start_s - began_s, end_s - began_s) for start_s, end_s in spans(found)]
    assert shifted == near([(0.0, 2.5), (2.5, 5.7), (5.7, 7.7)])
    assert unit.frames_NTHWC.shape == (3, 4, SIZE, SIZE, 3)
    assert unit.intact_samples == (4, 4, 4)
    for window in unit.windows:
        moments_s = sampling.centres(window.start_s, window.end_s, 4)
        assert np.abs(moments_s - window.frame_times_s).max() <= sampling.STEP_PART * sampling.step_s(window) + FRAME_S


@pytest.mark.parametrize("size", [(64, 48), (960, 540)])
def test_the_frames_of_a_clip_are_those_at_their_times(tmp_path: Path, size: tuple[int, int]) -> None:
    path = film(tmp_path / "a.mp4", 25, 32, size=size)
    (unit,) = cut(path)
    for window, frames_THWC in zip(unit.windows, unit.frames_NTHWC, strict=True):
        whole = decode.short_side_frames(str(path), window.frame_times_s, SIZE)
        middle = (whole.shape[2] - SIZE) // 2
        # Not the same scaling, but the same moment: a frame further on would be off by much more.
        apart = np.abs(frames_THWC.astype(int) - whole[:, :SIZE, middle : middle + SIZE].astype(int)).mean()
        assert apart < 25
        assert np.abs(frames_THWC.astype(int) - whole[::-1, :SIZE, middle : middle + SIZE].astype(int)).mean() > apart


def test_a_long_shot_is_cut_in_equal_windows_and_a_short_one_joins_a_neighbour(tmp_path: Path) -> None:
    found = spans(cut(film(tmp_path / "a.mp4", 90, 5, 30)))
    assert found == near([(0, 19 / 6), (19 / 6, 19 / 3), (19 / 3, 9.5), (9.5, 12.5)])


def test_units_after_the_first_begin_where_they_were_planned_and_find_the_same_cuts(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 210, 210, 210, 210, gop=50)
    planned = units(path)
    assert len(planned) == 2
    border_s = planned[1].windows[0].start_s
    found = spans(cut(path))
    starts = [span[0] for span in found]
    assert {21.0, 42.0, 63.0} <= {round(start_s, 6) for start_s in starts}
    assert border_s in starts
    assert [start for start, _ in found[1:]] == pytest.approx([end for _, end in found[:-1]])
    assert found[-1][1] == pytest.approx(84.0)


def test_variable_frame_rates_are_cut_by_time(tmp_path: Path) -> None:
    times_s = [*np.arange(0, 2, 0.05), *np.arange(2, 5, 0.25), *np.arange(5, 7, 0.1)]
    path = film(tmp_path / "a.mkv", 40, 12, 20, times_s=[float(time_s) for time_s in times_s])
    (unit,) = cut(path)
    assert spans([unit]) == near([(0, 2), (2, 5), (5, 7)])
    assert unit.intact_samples == (4, 4, 4)
    taken = [time_s for window in unit.windows for time_s in window.frame_times_s]
    assert all(np.abs(np.array(times_s) - time_s).min() < 0.0015 for time_s in taken)


def test_time_stamps_that_jump_by_hours_leave_nothing_between(tmp_path: Path) -> None:
    times_s = [n / RATE_HZ for n in range(40)] + [7200 + n / RATE_HZ for n in range(40)]
    (unit,) = cut(film(tmp_path / "a.mkv", 40, 40, times_s=times_s))
    assert spans([unit]) == near([(0, 4), (7200, 7204)])
    assert unit.intact_samples == (4, 4)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        pytest.param(42, [(0.0, 4.0, 4), (8.0, 12.0, 4)], id="nearly a whole shot"),
        pytest.param(50, [(0.0, 4.0, 4), (4.0, 8.0, 1), (8.0, 12.0, 4)], id="the rest of a shot"),
        pytest.param(70, [(0.0, 4.0, 4), (4.0, 8.0, 3), (8.0, 12.0, 4)], id="its end"),
    ],
)
def test_a_damaged_stretch_costs_its_samples_and_no_others(tmp_path: Path, first: int, expected) -> None:
    path = film(tmp_path / "a.mp4", 40, 40, 40, gop=10)
    (unit,) = cut(damage_packets(path, range(first, 80)))
    found = [(w.start_s, w.end_s, n) for w, n in zip(unit.windows, unit.intact_samples, strict=True)]
    assert found == [pytest.approx(clip) for clip in expected]


def test_a_file_of_which_nothing_decodes_says_so(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 20)
    (unit,) = units(path)
    damage_packets(path, range(20))
    with pytest.raises(UndecodableVideo, match="no intact frame"):
        decode_shots.shots_of(unit, SIZE, SETTINGS)


def test_a_single_frame_is_a_clip(tmp_path: Path) -> None:
    (unit,) = cut(film(tmp_path / "a.mp4", 1))
    assert unit.frames_NTHWC.shape == (1, 4, SIZE, SIZE, 3)
    assert unit.intact_samples == (4,)


def test_one_pass_is_all_that_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4", 40, 40)
    (unit,) = units(path)
    assert unit.steps is None
    frames = decode.intact_frames
    count = 0

    def counted(*args):
        nonlocal count
        for shot in frames(*args):
            count += 1
            yield shot

    monkeypatch.setattr(decode, "intact_frames", counted)
    decode_shots.shots_of(unit, SIZE, SETTINGS)
    assert count == 80


def test_a_seek_that_lands_behind_the_start_begins_again_from_the_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "a.mp4", 100, 100)
    (unit,) = units(path)
    later = replace(unit, windows=unit.windows[2:])
    expected = spans([decode_shots.shots_of(later, SIZE, SETTINGS)])

    def too_far(container: av.container.InputContainer, stream: av.video.stream.VideoStream, stamp: int) -> None:
        container.seek(stamp + int(5 / stream.time_base), stream=stream)

    monkeypatch.setattr(decode, "seek_to", too_far)
    assert spans([decode_shots.shots_of(later, SIZE, SETTINGS)]) == expected
