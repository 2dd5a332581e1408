"""Frames to pixels as the reference's single-view test pipeline does it (spec §1)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ShapeError
from xclip_core.geometry import crop_offset, resized_shape
from xclip_core.preprocess import MEAN, STD, normalise, resize_and_crop

lengths = st.integers(1, 5000)
sizes = st.sampled_from([24, 32, 64, 112, 224, 336]) | st.integers(8, 512)


# Sizes and offsets


@pytest.mark.parametrize(
    ("given_shape", "size", "expected"),
    [
        ((240, 320), 224, (256, 341)),
        ((320, 240), 224, (341, 256)),
        ((1080, 1920), 224, (256, 455)),
        ((720, 1280), 336, (384, 683)),
        ((256, 256), 224, (256, 256)),
        ((100, 100), 224, (256, 256)),
        ((2160, 4096), 32, (36, 68)),
    ],
)
def test_short_side_becomes_256_of_224(given_shape, size, expected):
    assert resized_shape(*given_shape, size) == expected


@given(lengths, lengths, sizes)
def test_resize_keeps_the_aspect_and_covers_the_crop(height, width, size):
    short = int(256 / 224 * size)
    new_height, new_width = resized_shape(height, width, size)
    assert min(new_height, new_width) == short >= size
    scale = short / min(height, width)
    assert abs(new_height - height * scale) <= 0.5 + 1e-6
    assert abs(new_width - width * scale) <= 0.5 + 1e-6


@given(lengths, lengths, sizes)
def test_resize_treats_height_and_width_alike(height, width, size):
    assert resized_shape(height, width, size) == resized_shape(width, height, size)[::-1]


@pytest.mark.parametrize(
    ("length", "size", "expected"), [(256, 224, 16), (341, 224, 58), (257, 224, 16), (455, 224, 115), (224, 224, 0)]
)
def test_crop_starts_at_half_the_rest_rounded_down(length, size, expected):
    assert crop_offset(length, size) == expected


@given(st.integers(8, 512), st.integers(0, 5000))
def test_crop_is_in_the_middle_and_inside(size, rest):
    length = size + rest
    before = crop_offset(length, size)
    after = length - size - before
    assert after - before in (0, 1)
    assert before >= 0


# Resampling


def bilinear(picture, height, width):
    """Bilinear resampling in float64, pixel centres at half, edges repeated, no antialiasing: OpenCV's definition."""

    def taps(length, new_length):
        place = (np.arange(new_length) + 0.5) * length / new_length - 0.5
        low = np.floor(place).astype(int)
        return np.clip(low, 0, length - 1), np.clip(low + 1, 0, length - 1), place - low

    top, bottom, down = taps(picture.shape[0], height)
    left, right, across = taps(picture.shape[1], width)
    rows = picture[top] * (1 - down)[:, None, None] + picture[bottom] * down[:, None, None]
    return rows[:, left] * (1 - across)[:, None] + rows[:, right] * across[:, None]


def resize_and_crop_in_numpy(picture, size):
    height, width = resized_shape(*picture.shape[:2], size)
    top, left = crop_offset(height, size), crop_offset(width, size)
    return bilinear(picture.astype(np.float64), height, width)[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(50, 80), (80, 50), (37, 37), (300, 411), (28, 28), (8, 9)], ids=str)
@pytest.mark.parametrize("size", [24, 56])
def test_resized_and_cropped_frames_agree_with_the_formula(shape, size):
    frames = np.random.default_rng(5).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    got = resize_and_crop(torch.from_numpy(frames), size)
    expected = np.stack([resize_and_crop_in_numpy(frame, size) for frame in frames])
    assert got.shape == (3, size, size, 3)
    assert got.dtype == torch.uint8
    assert np.abs(got.numpy() - expected).max() <= 0.51  # rounded to whole levels, otherwise equal


def test_shrinking_does_not_antialias():
    # 4 times smaller than a pattern of black and white columns: samples lie between columns 4 i + 1 and 4 i + 2.
    frames = torch.zeros(1, 4 * 32, 4 * 32, 3, dtype=torch.uint8)
    frames[:, :, 1::4] = 255
    frames[:, :, 2::4] = 255
    assert (resize_and_crop(frames, 28) == 255).all()


def test_hand_made_picture_is_cut_where_the_formula_says():
    # 32 x 48 stays as it is for a model of 28 pixels (256/224 * 28 = 32), so every pixel can be followed.
    row, column = torch.meshgrid(torch.arange(32), torch.arange(48), indexing="ij")
    picture = torch.stack([row, column, row + column], dim=-1).to(torch.uint8)
    got = resize_and_crop(picture[None], 28)[0]
    assert torch.equal(got, picture[2:30, 10:38])


def test_frames_do_not_mix():
    frames = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 40, 60, 3)
    assert resize_and_crop(frames, 24).float().mean(dim=(1, 2, 3)).tolist() == [0, 1, 2, 3, 4]


def test_result_does_not_share_memory_and_is_contiguous():
    frames = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    got = resize_and_crop(frames, 28)
    assert got.is_contiguous()
    got += 1
    assert not frames.any()


@pytest.mark.parametrize(
    "frames",
    [
        torch.zeros(2, 3, 40, 60, dtype=torch.uint8),
        torch.zeros(40, 60, 3, dtype=torch.uint8),
        torch.zeros(2, 40, 60, 4, dtype=torch.uint8),
        torch.zeros(2, 40, 60, 3),
    ],
    ids=["channels first", "no frames axis", "four channels", "float"],
)
def test_frames_of_another_shape_or_dtype_are_refused(frames):
    with pytest.raises(ShapeError, match=r"expected uint8 RGB \(frames, height, width, 3\)"):
        resize_and_crop(frames, 24)


# Normalisation


def test_constants_are_imagenets_on_the_scale_of_255():
    assert pytest.approx([0.485, 0.456, 0.406]) == [x / 255 for x in MEAN]
    assert pytest.approx([0.229, 0.224, 0.225]) == [x / 255 for x in STD]


def test_normalised_pixels_of_a_hand_made_picture():
    frames = torch.zeros(1, 2, 1, 2, 3, dtype=torch.uint8)
    frames[0, 1, 0, 1] = torch.tensor([255, 128, 1])
    pixels = normalise(frames, torch.float32)
    assert pixels.shape == (1, 2, 3, 1, 2)
    assert pixels[0, 1, :, 0, 1].tolist() == pytest.approx([2.2489083, 0.2051821, -1.7870153], abs=1e-6)
    assert pixels[0, 0, :, 0, 0].tolist() == pytest.approx([-2.1179039, -2.0357143, -1.8044444], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_pixels_are_of_the_dtype_asked_for_and_rounded_once(dtype):
    frames = torch.arange(256, dtype=torch.uint8).repeat_interleave(3).view(1, 1, 16, 16, 3)
    pixels = normalise(frames, dtype)
    assert pixels.dtype == dtype
    assert pixels.is_contiguous()
    expected = (frames.double() - torch.tensor(MEAN).double()) / torch.tensor(STD).double()
    torch.testing.assert_close(pixels, expected.movedim(-1, 2).to(dtype), atol=1e-6, rtol=torch.finfo(dtype).eps)


def test_frames_given_are_not_changed():
    frames = torch.full((1, 1, 2, 2, 3), 7, dtype=torch.uint8)
    normalise(frames, torch.float32)
    assert (frames == 7).all()
