"""The paper's table, and how examples become steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.protocols import PROTOCOLS, FinetuneSettings, other_frames, schedule_of
from schemas.errors import InputError

FULL = FinetuneSettings(protocol="full")


@pytest.mark.parametrize(
    ("protocol", "lr", "epochs", "batch"), [("full", 8e-6, 30, 256), ("few", 2e-6, 50, 64), ("zero", 8e-6, 10, 256)]
)
def test_the_table_is_the_papers(protocol, lr, epochs, batch) -> None:
    row = PROTOCOLS[protocol]
    assert (row.lr, row.epochs, row.batch, row.warmup_epochs) == (lr, epochs, batch, 5)


@pytest.mark.parametrize(("protocol", "frames"), [("full", 8), ("full", 16), ("few", 32), ("zero", 32)])
def test_of_the_papers_frames_there_is_nothing_to_say(protocol, frames) -> None:
    assert other_frames(protocol, frames) == ()


@pytest.mark.parametrize(("protocol", "paper"), [("full", "8 or 16"), ("few", "32"), ("zero", "32")])
def test_other_frames_are_named_with_the_papers(protocol, paper) -> None:
    (said,) = other_frames(protocol, 12)
    assert f"the protocol '{protocol}' has {paper} frames per clip, and here there are 12" in said


def test_the_paper_on_kinetics() -> None:
    """240,000 videos: 937 steps an epoch, the rest of a batch left out, warm-up over 5 of 30 epochs."""
    schedule = schedule_of(FULL, 240_000)
    assert (schedule.steps_per_epoch, schedule.steps) == (937, 28_110)
    assert schedule.warmup_steps == 5 * 937
    assert schedule.lr == 8e-6


def test_micro_batches_are_shared_between_accumulation_and_workers() -> None:
    schedule = schedule_of(replace(FULL, batch=24, accumulate=3, workers=2), 100)
    assert (schedule.batch, schedule.micro_batch, schedule.steps_per_epoch) == (24, 4, 4)


def test_warm_up_keeps_its_share_of_other_epochs() -> None:
    assert schedule_of(replace(FULL, epochs=6, batch=10), 100).warmup_steps == 10  # one of six epochs
    assert schedule_of(replace(FULL, epochs=1, batch=100), 100).warmup_steps == 0


def test_a_batch_nobody_asked_for_shrinks_to_what_there_is() -> None:
    assert schedule_of(FULL, 50).batch == 50
    assert schedule_of(replace(FULL, accumulate=4), 50).batch == 48


def test_a_batch_that_was_asked_for_must_be_filled() -> None:
    with pytest.raises(InputError, match="50 examples do not fill a batch of 64"):
        schedule_of(replace(FULL, batch=64), 50)
    with pytest.raises(InputError, match="3 examples do not fill a batch of 4"):
        schedule_of(replace(FULL, accumulate=4), 3)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"epochs": 0}, "--epochs 0: expected 1 or more"),
        ({"workers": -1}, "--workers -1"),
        ({"lr": 0.0}, "--lr 0.0: expected more than 0"),
        ({"batch": 10, "accumulate": 3}, "multiple of 3"),
    ],
)
def test_impossible_settings_are_refused(wrong, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        replace(FULL, **wrong)
