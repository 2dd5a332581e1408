"""Mixing and soft targets: the paper's numbers, and pixels and labels mixed in the same proportion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xclip_core.mixing import Box, Mix, draw_mix, mix_pixels, mix_targets, smooth_targets

SIZE = 32


def mixes(count: int = 2000, clips: int = 4) -> list[Mix]:
    return [draw_mix(np.random.default_rng(seed), clips, SIZE) for seed in range(count)]


def flat_clips(*levels: float) -> torch.Tensor:
    """Clips of two frames, each of one level: B x 2 x 3 x S x S."""
    return torch.tensor(levels).view(-1, 1, 1, 1, 1).expand(-1, 2, 3, SIZE, SIZE).contiguous()


def test_smoothing_gives_the_label_nine_tenths_and_its_share() -> None:
    targets = smooth_targets(torch.tensor([2, 0]), 4)
    assert targets.tolist() == [
        pytest.approx([0.025, 0.025, 0.925, 0.025]),
        pytest.approx([0.925, 0.025, 0.025, 0.025]),
    ]


def test_half_of_all_mixes_are_cut_and_the_rest_blended() -> None:
    cut = np.mean([mix.box is not None for mix in mixes()])
    assert cut == pytest.approx(0.5, abs=0.04)


def test_blending_follows_beta_of_eight_tenths() -> None:
    kept = np.array([mix.kept for mix in mixes() if mix.box is None])
    assert kept.mean() == pytest.approx(0.5, abs=0.03)
    assert kept.var() == pytest.approx(0.25 / 2.6, abs=0.006)  # of Beta(a, a): 1 / (4 (2a + 1)); Beta(1, 1) has 0.083


def test_what_a_cut_keeps_is_the_area_outside_its_box() -> None:
    """Boxes at the border are cut off, so the mean is above the half that Beta(1, 1) would give."""
    cuts = [mix for mix in mixes() if mix.box]
    for mix in cuts:
        inside = (mix.box.bottom - mix.box.top) * (mix.box.right - mix.box.left)
        assert mix.kept == 1 - inside / SIZE**2
        assert 0 <= mix.box.top <= mix.box.bottom <= SIZE
    assert 0.6 < np.mean([mix.kept for mix in cuts]) < 0.75


def test_a_box_is_the_same_in_all_frames_and_holds_the_partner() -> None:
    mixed = mix_pixels(flat_clips(1.0, 5.0), Mix(0.75, (1, 0), Box(4, 20, 8, 24)))
    assert (mixed[0, :, :, 4:20, 8:24] == 5).all()
    assert (mixed[1, :, :, 4:20, 8:24] == 1).all()
    assert (mixed[0] == 5).float().mean() == 0.25


@pytest.mark.parametrize("mix", [Mix(0.3, (1, 2, 0)), Mix(0.75, (1, 2, 0), Box(0, 16, 0, 16))])
def test_pixels_and_labels_are_mixed_in_the_same_proportion(mix: Mix) -> None:
    """With the label number as the level, the mean level of a clip is the mean label of its target."""
    targets = mix_targets(torch.eye(3), mix)
    means = mix_pixels(flat_clips(0.0, 1.0, 2.0), mix).mean(dim=(1, 2, 3, 4))
    assert torch.allclose(means, targets @ torch.arange(3.0))
    assert torch.allclose(targets.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("seed", range(6))
def test_one_clip_alone_is_not_mixed(seed: int) -> None:
    clip = torch.rand(1, 2, 3, SIZE, SIZE)
    mix = draw_mix(np.random.default_rng(seed), 1, SIZE)
    assert torch.allclose(mix_pixels(clip, mix), clip)
    assert torch.allclose(mix_targets(torch.eye(1, 3), mix), torch.eye(1, 3))


def test_mixing_leaves_its_arguments_alone() -> None:
    clips = flat_clips(1.0, 5.0)
    mix_pixels(clips, Mix(0.75, (1, 0), Box(0, 16, 0, 16)))
    assert torch.equal(clips, flat_clips(1.0, 5.0))
