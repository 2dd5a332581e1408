"""The training loop: what it gives the model and the core's training is what the run asks for, and what it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.testing import assert_close

from pipeline import feed
from pipeline.finetune import prepare
from pipeline.fitting import LAST, Run, Score, fit, train_settings
from pipeline.protocols import FinetuneSettings
from tests.media import Picture, make_video
from tests.models import WORDED
from xclip_core import load
from xclip_core.mixing import SMOOTHING, draw_mix, mix_pixels, mix_targets, smooth_targets
from xclip_core.objective import Classifier
from xclip_core.preprocess import normalise
from xclip_core.training import TrainSettings

SETTINGS = FinetuneSettings(epochs=4, batch=4, lr=1e-4, decoders=0, seed=5, device="cpu")
SCORE = Score(epoch=3, top1=0.5, top5=0.8, loss=1.0)
STEPS = 12


def slope(number: int, size: tuple[int, int]) -> Picture:
    """Bright on the left, darker to the right: shows whether it was mirrored."""
    return np.broadcast_to(np.linspace(180, 40 + number, size[0])[None, :, None], (size[1], size[0], 3)).astype(
        np.uint8
    )


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve examples to train on, of two labels: three steps an epoch."""
    folder = tmp_path_factory.mktemp("labelled")
    for label in ("falling", "rising"):
        (folder / label).mkdir()
        for n in range(7):
            make_video(folder / label / f"{n}.mp4", frames=8, paint=slope)
    return folder


@pytest.fixture
def run_of(labelled: Path, tiny_weights: Path, tmp_path: Path):
    """The run that some settings make, its folder there."""

    def make(**changes) -> Run:
        run = prepare(labelled, tmp_path / "out", replace(SETTINGS, init=str(tiny_weights), **changes)).run
        run.folder.mkdir()
        return run

    return make


@contextmanager
def training_batches() -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What training gives the classifier meanwhile: pixels B x T x 3 x S x S and targets B x K."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = register_module_forward_pre_hook(
        lambda module, given: seen.append(given[0]) if isinstance(module, Classifier) else None
    )
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("flip", [True, False])
def test_training_sees_clips_mixed_and_their_smoothed_targets_mixed_alike(run_of, flip) -> None:
    run: Run = run_of(flip=flip)
    with training_batches() as seen:
        fit(run, device="cpu")
    view = feed.View(frames=WORDED.frames, size=WORDED.image_size, seed=SETTINGS.seed, flip=flip)
    picks = feed.TrainingPicks(examples=len(run.train), schedule=run.schedule, seed=SETTINGS.seed, first_step=0)
    plain = feed.read(feed.loader(feed.Clips(run.train, run.labels, view), picks, processes=0))
    kinds = set()
    for number, ((pixels, target), batch) in enumerate(zip(seen, plain, strict=True)):
        mix = draw_mix(feed.generator(feed.MIX, SETTINGS.seed, number), len(pixels), WORDED.image_size)
        kinds.add("cut" if mix.box else "blended")
        assert_close(pixels, mix_pixels(normalise(batch.frames_BTHWC, torch.float32), mix))
        assert_close(target, mix_targets(smooth_targets(batch.labels_B, 2), mix))
        assert_close(target.sum(dim=1), torch.ones(len(target)))
        assert target.min() >= SMOOTHING / 2 - 1e-6
    assert kinds == {"cut", "blended"}
    assert len(seen) == STEPS
    assert any(((target > 0.1) & (target < 0.4)).any() for _, target in seen), "no target was mixed"


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_the_cores_training_is_given_what_the_run_asks_for(run_of, clip_norm: float | None) -> None:
    """Five of the paper's thirty epochs are warm-up: two of twelve steps."""
    run = run_of(accumulate=2, clip_norm=clip_norm)
    assert train_settings(run) == TrainSettings(steps=STEPS, lr=1e-4, warmup_steps=2, clip_norm=clip_norm, accumulate=2)


def test_gradients_are_limited_where_that_is_asked_for(run_of, tiny_weights: Path) -> None:
    """Shortened to nothing they move nothing: AdamW divides by their size, but not by less than 1e-8."""
    run = run_of(epochs=1, clip_norm=1e-13)
    fit(run, device="cpu")
    before, after = load(tiny_weights).state_dict(), load(run.folder / LAST).state_dict()
    assert max((after[name] - before[name]).abs().max() for name in before) < 0.01 * SETTINGS.lr


@pytest.mark.parametrize(("precision", "bf16"), [("auto", False), ("float32", False), ("bf16", True)])
def test_bfloat16_runs_where_it_is_asked_for_and_not_on_a_cpu_of_itself(run_of, precision, bf16) -> None:
    assert run_of(precision=precision).bf16 is bf16


@pytest.mark.parametrize(
    ("change", "better"),
    [
        ({"top1": 0.6, "loss": 9.0}, True),
        ({"top1": 0.4, "top5": 1.0, "loss": 0.1}, False),
        ({"loss": 0.9}, True),
        ({"loss": 1.1}, False),
        ({"epoch": 4, "top5": 1.0}, False),
    ],
)
def test_a_better_model_has_more_top_1_or_as_much_at_a_lower_loss(change, better) -> None:
    assert replace(SCORE, **change).is_better(SCORE) is better


def test_any_score_is_better_than_none() -> None:
    assert replace(SCORE, top1=0.0).is_better(None)
