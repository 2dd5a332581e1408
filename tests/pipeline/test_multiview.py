"""Views: the reference's frames and squares, the same for the same seed, from real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import sampling
from pipeline.multiview import Views, ViewStage, parse_views, sample_indices, squares
from schemas.errors import InputError, NotAVideo
from schemas.records import SourceFile
from tests.media import halves, halves_number, make_video
from tests.pipeline.steps import SIZE, decoded

T = 4


def view(path: Path, views: Views) -> np.ndarray:
    """All views of a file, V x T x S x S x 3."""
    stage = ViewStage(views=views, frames=T, image_size=SIZE)
    return stage([SourceFile(str(path), 0, 0.0)])[0].frames_VTHWC


@pytest.mark.parametrize(("text", "clips", "crops"), [("1x1", 1, 1), (" 4X3 ", 4, 3), ("100x1", 100, 1), ("1x3", 1, 3)])
def test_views_are_written_as_samples_times_crops(text: str, clips: int, crops: int) -> None:
    assert parse_views(text, 7) == Views(clips=clips, crops=crops, seed=7)
    assert str(parse_views(text)) == text.strip().lower()


@pytest.mark.parametrize("text", ["", "4", "4x", "x3", "4x2", "0x1", "101x1", "4x3x1", "-1x1", "4*3", "1000x1"])
def test_other_views_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"(--views '.*' --seed 0 is|views are) not usable; expected .*4x3"):
        parse_views(text)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="a seed from 0"):
        parse_views("4x3", -1)


def test_a_single_view_is_the_references_and_knows_no_seed() -> None:
    for seed in (0, 1):
        found = sample_indices(300, 8, Views(crops=3, seed=seed), Path("a.mp4"))
        assert found.tolist() == [[18, 56, 93, 131, 168, 206, 243, 281]]


def test_several_samples_are_training_samples_that_seed_and_name_decide() -> None:
    def drawn(seed: int, name: str) -> np.ndarray:
        return sample_indices(300, 8, Views(clips=5, seed=seed), Path(name))

    found = drawn(0, "/videos/a.mp4")
    assert found.shape == (5, 8)
    assert len({tuple(sample) for sample in found.tolist()}) == 5
    part = 300 // 8
    assert (found // part == np.arange(8)).all(), "sample i of every view lies in part i"
    np.testing.assert_array_equal(found, drawn(0, "/elsewhere/a.mp4"))
    assert (found != drawn(1, "/videos/a.mp4")).any()
    assert (found != drawn(0, "/videos/b.mp4")).any()
    assert drawn(0, "/videos/caf\udce9.mp4").shape == (5, 8), "a name that is not UTF-8 is a name"


def test_three_crops_are_first_last_and_middle_along_the_long_side() -> None:
    wide = np.arange(7, dtype=np.uint8) + np.zeros((1, 4, 1), np.uint8)  # every pixel holds its column
    wide = np.repeat(wide[..., None], 3, axis=-1)
    assert [crop[0, 0, 0, 0] for crop in squares(wide, 4, 3)] == [0, 3, 1]
    tall = wide.transpose(0, 2, 1, 3)
    assert [crop[0, 0, 0, 0] for crop in squares(tall, 4, 3)] == [0, 3, 1]
    assert {crop.shape for crop in squares(tall, 4, 3)} == {(1, 4, 4, 3)}
    (centre,) = squares(wide, 2, 1)
    assert centre.shape == (1, 2, 2, 3)
    assert centre[0, 0, 0, 0] == 2


def test_a_single_view_of_a_short_file_is_what_indexing_decodes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=25, size=(96, 64), paint=halves)
    np.testing.assert_array_equal(view(path, Views()), decoded(path, frames=T).frames_NTHWC)


def test_views_come_crop_by_crop_with_the_frames_that_were_drawn(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=90, size=(96, 64), paint=halves)
    views = Views(clips=3, crops=3, seed=5)
    found = view(path, views)
    assert found.shape == (9, T, SIZE, SIZE, 3)
    drawn = sample_indices(90, T, views, path).tolist()
    numbers = [[halves_number(frame) for frame in clip] for clip in found]
    assert numbers == drawn * 3, "the same three samples for each of the three crops"


def test_crops_show_the_left_the_right_and_the_middle_of_a_wide_picture(tmp_path: Path) -> None:
    def thirds(_: int, size: tuple[int, int]) -> np.ndarray:
        return np.repeat(np.repeat(np.uint8([[[0] * 3, [125] * 3, [250] * 3]]), size[0] // 3, axis=1), size[1], axis=0)

    path = make_video(tmp_path / "wide.mp4", frames=8, size=(144, 48), paint=thirds)
    left, right, middle = view(path, Views(crops=3)).mean(axis=(1, 2, 3, 4))
    assert [left, right, middle] == pytest.approx([0, 250, 125], abs=4)


def test_a_file_with_fewer_frames_than_a_view_repeats_them(tmp_path: Path) -> None:
    path = make_video(tmp_path / "short.mp4", frames=3, paint=halves)
    assert [halves_number(frame) for frame in view(path, Views())[0]] == sampling.test_indices(3, T).tolist()


def test_a_file_that_is_no_video_says_so(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is not a video")
    with pytest.raises(NotAVideo, match="no video container we read"):
        view(tmp_path / "text.mp4", Views())
