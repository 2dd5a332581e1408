"""The training view: the reference's crops, to the pixel, and random choices that a generator alone decides."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from xclip_core.augment import Crop, draw_crop, jitter, training_view

SIZE = 224


class Chosen(np.random.Generator):
    """A generator whose coins fall as told: (flip, jitter, grey)."""

    def __init__(self, *coins: bool) -> None:
        super().__init__(np.random.PCG64(0))
        self.coins = np.array([0.0 if coin else 1.0 for coin in coins])

    def random(self, size: int) -> np.ndarray:
        return self.coins[:size]

    def integers(self, high: int) -> int:
        return 0


def noise(frames: int = 3, height: int = 73, width: int = 97) -> torch.Tensor:
    return torch.randint(
        0, 256, (frames, height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def crops(height: int, width: int) -> Counter[Crop]:
    rng = np.random.default_rng(0)
    return Counter(draw_crop(height, width, SIZE, rng) for _ in range(4000))


def test_crop_sides_are_the_references_and_at_most_one_step_apart() -> None:
    """256: 256, 224, 192, 168 (int(256 * .66)); ten pairs of the sixteen."""
    sides = {(crop.height, crop.width) for crop in crops(256, 340)}
    steps = [256, 224, 192, 168]
    assert sides == {(h, w) for i, h in enumerate(steps) for j, w in enumerate(steps) if abs(i - j) <= 1}


def test_a_crop_within_three_pixels_of_the_model_is_snapped_to_it() -> None:
    """253 * .875 is 221 and stays 221; 254 * .875 is 222 and becomes 224."""
    assert {224, 221} & {crop.height for crop in crops(253, 253)} == {221}
    assert {224, 222} & {crop.height for crop in crops(254, 254)} == {224}


def test_crops_lie_at_the_corners_and_the_centre_on_a_grid_of_quarters() -> None:
    found = {(crop.top, crop.left) for crop in crops(256, 340) if (crop.height, crop.width) == (224, 224)}
    assert found == {(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)}


def test_every_crop_is_as_likely_as_the_others() -> None:
    counts = crops(256, 341)
    places = Counter({(c.top > 0, c.left > 0): n for c, n in counts.items() if (c.height, c.width) == (192, 168)})
    assert len(counts) == 10 * 5 - 2 * 2  # at full height top and bottom are one: 5 places become 3, for two pairs
    assert min(places.values()) > 40


def test_crops_stay_inside_even_where_the_picture_is_hardly_larger_than_the_model() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        crop = draw_crop(27, 31, 24, rng)
        assert 0 <= crop.top <= 27 - crop.height
        assert 0 <= crop.left <= 31 - crop.width


def test_the_same_generator_gives_the_same_view_and_no_other_does() -> None:
    one, two, other = (training_view(noise(), 64, np.random.default_rng(seed), flip=True) for seed in (7, 7, 8))
    assert one.shape == (3, 64, 64, 3)
    assert one.dtype == torch.uint8
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    training_view(noise(), 64, np.random.default_rng(0), flip=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_clip_is_mirrored_as_a_whole_and_never_where_that_is_forbidden() -> None:
    plain, mirrored, forbidden = (
        training_view(noise(), 64, Chosen(coin, False, False), flip=flip)
        for coin, flip in ((False, True), (True, True), (True, False))
    )
    assert torch.equal(mirrored, plain.flip(2))
    assert torch.equal(forbidden, plain)


def test_grey_is_grey_in_every_frame() -> None:
    grey = training_view(noise(), 64, Chosen(False, False, True), flip=True)
    assert torch.equal(grey[..., 0], grey[..., 1])
    assert torch.equal(grey[..., 0], grey[..., 2])
    assert grey.float().std() > 1


def test_colours_jitter_from_frame_to_frame() -> None:
    still = noise(frames=1).expand(3, -1, -1, -1)
    view = training_view(still, 64, Chosen(False, True, False), flip=False)
    assert not torch.equal(view[0], view[1])
    calm = training_view(still, 64, Chosen(False, False, False), flip=False)
    assert torch.equal(calm[0], calm[1])


def test_jitter_keeps_brightness_within_its_range() -> None:
    """On a grey picture contrast, saturation and hue change nothing: what is left is a factor of 0.6 to 1.4."""
    grey = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    levels = [jitter(grey, np.random.default_rng(seed)).float().mean().item() for seed in range(200)]
    assert 58 <= min(levels) < 70
    assert 130 < max(levels) <= 141


class Extreme(np.random.Generator):
    """A generator that leaves all jitter out but one, whose factor is at an end of its range."""

    def __init__(self, place: int, *, upper: bool) -> None:
        super().__init__(np.random.PCG64(0))
        self.place, self.upper, self.draws = place, upper, 0

    def permutation(self, count: int) -> np.ndarray:
        return np.arange(count)

    def uniform(self, low: float, high: float) -> float:
        self.draws += 1
        end = high if self.upper else low
        return end if self.draws == self.place + 1 else (low + high) / 2


@pytest.mark.parametrize(
    ("place", "upper", "expected"),
    [
        (0, False, [[60, 60, 60], [120, 120, 120]]),
        (0, True, [[140, 140, 140], [255, 255, 255]]),
        (1, False, [[120, 120, 120], [180, 180, 180]]),  # the mean is 150
        (1, True, [[80, 80, 80], [220, 220, 220]]),
    ],
)
def test_brightness_and_contrast_change_by_up_to_two_fifths(place, upper, expected) -> None:
    greys = torch.tensor([[100, 100, 100], [200, 200, 200]], dtype=torch.uint8).T.unsqueeze(1)
    assert_near(jitter(greys, Extreme(place, upper=upper)), expected)


@pytest.mark.parametrize(("upper", "expected"), [(False, [172, 12, 12]), (True, [228, 0, 0])])
def test_saturation_changes_by_up_to_a_fifth(upper, expected) -> None:
    """Grey of the same lightness is 0.299 * 200, nearly 60, of which a fifth comes in or is taken out."""
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).reshape(3, 1, 1)
    assert_near(jitter(red, Extreme(2, upper=upper)), [expected])


@pytest.mark.parametrize(("upper", "expected"), [(False, [255, 0, 153]), (True, [255, 153, 0])])
def test_hue_turns_by_up_to_a_tenth_of_the_circle(upper, expected) -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).reshape(3, 1, 1)
    assert_near(jitter(red, Extreme(3, upper=upper)), [expected])


def assert_near(frame_CHW: torch.Tensor, pixels: list[list[int]]) -> None:
    """A picture one pixel high has these colours, but for rounding."""
    found = frame_CHW.squeeze(1).T.int()
    assert (found - torch.tensor(pixels)).abs().max() <= 1, found.tolist()


@pytest.mark.parametrize("shares", [(0.5, 0.8, 0.2)])
def test_coins_fall_as_often_as_the_paper_says(shares: tuple[float, ...]) -> None:
    """Grey views are counted; a flip and a jitter by what they leave of a picture with a bright left half."""
    frames = torch.zeros(1, 73, 73, 3, dtype=torch.uint8)
    frames[:, :, :36] = torch.tensor([200, 100, 50], dtype=torch.uint8)
    views = [training_view(frames, 64, np.random.default_rng(seed), flip=True)[0].float() for seed in range(400)]
    flipped = np.mean([bool(view[:, 48:].mean() > view[:, :16].mean()) for view in views])
    grey = np.mean([bool((view[..., 0] == view[..., 2]).all()) for view in views])
    plain = np.mean([bool((view.amax(dim=(0, 1)) == torch.tensor([200.0, 100.0, 50.0])).all()) for view in views])
    assert flipped == pytest.approx(shares[0], abs=0.08)
    assert grey == pytest.approx(shares[2], abs=0.06)
    assert plain == pytest.approx((1 - shares[1]) * (1 - shares[2]), abs=0.06)
