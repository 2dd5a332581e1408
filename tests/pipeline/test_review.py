"""The look before the first step: what it refuses, what it warns of, and what it holds out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.feed import Unread
from pipeline.labelled import Example
from pipeline.protocols import FinetuneSettings, schedule_of
from pipeline.review import Split, directional, few_shots, hold_out, is_flipped, review
from schemas.errors import InputError

SETTINGS = FinetuneSettings(batch=4)


def examples(**counts: int) -> tuple[Example, ...]:
    return tuple(Example(Path(f"/{label}/{n}.mp4"), label) for label, count in counts.items() for n in range(count))


def warnings(split: Split, settings: FinetuneSettings = SETTINGS, unread: tuple[Unread, ...] = ()) -> str:
    return "\n".join(review(split, unread, settings, schedule_of(settings, len(split.train))).warnings)


def test_few_shots_are_so_many_of_every_label_by_seed():
    everything = examples(run=9, sit=4)
    found = few_shots(everything, 3, seed=0)
    assert Counter(example.label for example in found.train) == {"run": 3, "sit": 3}
    assert found.held_out == ()
    assert list(found.train) == [example for example in everything if example in found.train]
    assert few_shots(everything, 3, seed=0) == found
    assert any(few_shots(everything, 3, seed=seed) != found for seed in (1, 2, 3))


def test_fewer_videos_than_shots_is_an_error():
    with pytest.raises(InputError, match="'sit' have fewer"):
        few_shots(examples(run=9, sit=2), 3, seed=0)


def test_a_tenth_of_every_label_is_held_out_by_seed() -> None:
    everything = examples(run=40, sit=12, wave=4, fall=3)
    split = hold_out(everything, seed=0)
    assert Counter(e.label for e in split.held_out) == {"run": 4, "sit": 1, "wave": 1}
    assert sorted(map(str, (*split.train, *split.held_out))) == sorted(map(str, everything))
    assert hold_out(everything, seed=0) == split
    assert hold_out(everything, seed=1) != split


@pytest.mark.parametrize(
    "label", ["left", "turn Left", "TurnLeft", "turn_right", "pan-left", "counter-clockwise", "anticlockwise spin"]
)
def test_labels_with_sides_are_noticed(label: str) -> None:
    assert directional([label]) == [label]


@pytest.mark.parametrize("label", ["cleft palate", "brightness", "upright", "copyright", "leftover", "ApplyEyeMakeup"])
def test_other_labels_are_not(label: str) -> None:
    assert directional([label]) == []


def test_sides_must_be_decided_on() -> None:
    with pytest.raises(InputError, match=r"labels such as 'left' tell left from right.*say --no-flip, or --flip"):
        is_flipped(SETTINGS, ["left", "up"])
    assert not is_flipped(replace(SETTINGS, flip=False), ["left", "up"])
    assert is_flipped(replace(SETTINGS, flip=True), ["left", "up"])
    assert is_flipped(SETTINGS, ["up", "down"])


def test_the_table_counts_what_there_is() -> None:
    split = hold_out(examples(run=20, sit=10), seed=0)
    rows = dict(review(split, (), SETTINGS, schedule_of(SETTINGS, len(split.train))).rows)
    assert rows["training examples"] == "27 of 2 labels"
    assert rows["per label"] == "9 to 18, median 18"
    assert rows["validation examples"] == "3 of 2 labels"
    assert rows["batch"] == "4 clips, 4 at a time"
    assert rows["steps"] == "180 in 30 epochs, 30 of them warm-up"


def test_nothing_odd_is_nothing_to_warn_of() -> None:
    assert warnings(hold_out(examples(run=20, sit=10), seed=0)) == ""


def test_what_may_be_a_mistake_is_said() -> None:
    train = examples(run=40, sit=1, wave=2)
    split = Split(train, train[:1])
    found = warnings(split, unread=(Unread("/x.mp4", "empty"),))
    assert "1 videos cannot be read and are left out: '/x.mp4'" in found
    assert "labels with a single example: 'sit'" in found
    assert "out of balance: 1 to 40 examples" in found
    assert "1 videos are in training and in validation" in found


def test_a_run_without_validation_says_what_that_means() -> None:
    assert "the last model is kept and not the best" in warnings(Split(examples(a=4, b=4), ()))


def test_a_batch_that_shrank_is_said() -> None:
    settings = FinetuneSettings()
    assert "the protocol's batch of 256 is more than there are examples; 8 are used" in warnings(
        Split(examples(a=4, b=4), examples(a=1)), settings
    )


def test_mirroring_sides_on_purpose_is_said() -> None:
    settings = replace(SETTINGS, flip=True)
    assert "--flip mirrors clips of labels that tell left from right: 'left'" in warnings(
        Split(examples(left=4, up=4), examples(up=1)), settings
    )


def test_frames_that_are_not_the_protocols_are_said() -> None:
    """All warnings there are: one of frames that the paper has says nothing."""
    split = hold_out(examples(run=20, sit=10), seed=0)
    zero = replace(SETTINGS, protocol="zero")
    assert warnings(split, replace(zero, frames=8)) == (
        "the protocol 'zero' has 32 frames per clip, and here there are 8 (--frames)"
    )
    assert warnings(split, replace(zero, frames=32)) == ""
    assert warnings(split, replace(SETTINGS, frames=16)) == ""


def test_few_shots_of_all_videos_are_said() -> None:
    few, split = replace(SETTINGS, protocol="few"), hold_out(examples(run=20, sit=10), seed=0)
    assert "the protocol 'few' trains on 2 to 16 videos of each label" in warnings(split, few)
    assert "2 to 16 videos" not in warnings(split, replace(few, shots=4))


def test_one_label_cannot_be_learnt() -> None:
    with pytest.raises(InputError, match="all 5 training examples have the same label"):
        warnings(Split(examples(a=5), ()))


def test_labels_of_validation_alone_cannot_be_learnt() -> None:
    with pytest.raises(InputError, match="validation has labels that training does not: 'c'"):
        warnings(Split(examples(a=4, b=4), examples(c=1)))
