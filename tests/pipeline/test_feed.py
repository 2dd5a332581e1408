"""What a training sees: decided by seed, epoch and example alone, whoever decodes it and wherever it starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.feed import NO_LABEL, Clips, Decoded, Pick, TrainingPicks, Unread, View, generator, loader, read
from pipeline.feed import test_picks as validation_picks
from pipeline.labelled import Example
from pipeline.protocols import FinetuneSettings, schedule_of
from pipeline.sampling import train_indices
from tests.media import Picture, grey_number, make_video

VIEW = View(frames=5, size=24, seed=3, flip=True)
FRAMES = 40


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    folder = tmp_path_factory.mktemp("labelled")
    made = [Example(make_video(folder / f"{n}.mp4", frames=FRAMES), "ab"[n % 2]) for n in range(3)]
    (folder / "broken.mp4").write_text("no video")
    return [*made, Example(folder / "broken.mp4", "a")]


@pytest.fixture
def clips(examples: list[Example]) -> Clips:
    return Clips(examples, ("a", "b"), VIEW)


def steps(**changes) -> list[list[Pick]]:
    settings = FinetuneSettings(batch=4, epochs=2, accumulate=2)
    given = {"examples": 10, "schedule": schedule_of(settings, 10), "seed": 0, "first_step": 0} | changes
    return list(TrainingPicks(**given))


def test_the_test_view_is_the_middle_of_equal_parts(clips: Clips) -> None:
    clip = clips[Pick(1, None)]
    assert isinstance(clip, Decoded)
    assert clip.label == 1
    assert clip.frames_THWC.shape == (5, 24, 24, 3)
    assert [grey_number(frame.numpy()) for frame in clip.frames_THWC] == [4, 12, 20, 28, 36]


def test_the_training_view_takes_the_frames_that_the_reference_would(clips: Clips) -> None:
    """Grey frames survive crops and flips; only the jitter moves them, so views without it are looked at."""
    found = 0
    for epoch in range(40):
        rng = generator(1, VIEW.seed, epoch, 0)
        wanted = train_indices(FRAMES, 5, rng)
        frames = clips[Pick(0, epoch)].frames_THWC
        found += [grey_number(frame.numpy()) for frame in frames] == wanted.tolist()
    assert 3 <= found < 30


@pytest.mark.parametrize("flip", [True, False])
def test_clips_are_mirrored_only_where_that_is_asked_for(tmp_path: Path, flip) -> None:
    """Pictures that are bright on the left; crops and jitter leave them so."""

    def paint(number: int, size: tuple[int, int]) -> Picture:
        return np.broadcast_to(np.linspace(180, 40, size[0])[:, None], (size[1], size[0], 3)).astype(np.uint8)

    sloped = [Example(make_video(tmp_path / "slope.mp4", frames=5, paint=paint), "a")]
    clips = Clips(sloped, ("a",), replace(VIEW, flip=flip))
    seen = [clips[Pick(0, epoch)].frames_THWC.float().mean(dim=(0, 1, 3)) for epoch in range(20)]
    mirrored = [bool(row[:8].mean() < row[-8:].mean()) for row in seen]
    assert any(mirrored) is flip
    assert not all(mirrored)


def test_a_pick_gives_the_same_clip_again_and_another_epoch_another(clips: Clips, examples: list[Example]) -> None:
    again = Clips(examples, ("a", "b"), VIEW)
    again[Pick(2, 9)]  # what was drawn before does not matter
    assert torch.equal(clips[Pick(1, 4)].frames_THWC, again[Pick(1, 4)].frames_THWC)
    assert not torch.equal(clips[Pick(1, 4)].frames_THWC, clips[Pick(1, 5)].frames_THWC)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # torch forks; Python 3.12 on warns of threads
def test_background_processes_give_what_this_one_gives(clips: Clips) -> None:
    picks = [[Pick(0, 0), Pick(1, 0)], [Pick(2, 0), Pick(3, 0)]]
    here, there = (list(read(loader(clips, picks, processes=count))) for count in (0, 1))
    assert [batch.labels_B.tolist() for batch in there] == [[0, 1], [0]]
    assert all(torch.equal(a.frames_BTHWC, b.frames_BTHWC) for a, b in zip(here, there, strict=True))
    assert [batch.unread for batch in here] == [batch.unread for batch in there]


def test_a_video_that_does_not_decode_is_left_out_and_named(clips: Clips) -> None:
    batch = clips.gather([clips[Pick(3, 0)], clips[Pick(1, 0)]])
    assert batch.labels_B.tolist() == [1]
    (unread,) = batch.unread
    assert unread.uri.endswith("broken.mp4")
    assert "no video container" in unread.error


def test_a_batch_of_which_nothing_decodes_is_a_blank_without_a_label(clips: Clips) -> None:
    batch = clips.gather([Unread("a.mp4", "broken")])
    assert batch.labels_B.tolist() == [NO_LABEL]
    assert batch.frames_BTHWC.shape == (1, 5, 24, 24, 3)


def test_an_epoch_takes_every_example_at_most_once_in_an_order_of_its_own() -> None:
    """Ten examples in batches of four: two steps of two micro-batches, two examples left out."""
    picks = [[(pick.place, pick.epoch) for pick in batch] for batch in steps()]
    assert len(picks) == 2 * 2 * 2
    first, second = ([pick for batch in half for pick in batch] for half in (picks[:4], picks[4:]))
    assert {epoch for _, epoch in first} == {0}
    assert {epoch for _, epoch in second} == {1}
    assert len(set(first)) == len(set(second)) == 8
    assert [place for place, _ in first] != [place for place, _ in second]


def test_a_run_that_goes_on_takes_what_was_left() -> None:
    assert steps(first_step=3) == steps()[6:]


def test_workers_share_what_one_worker_would_accumulate() -> None:
    together = [steps(rank=rank, workers=2) for rank in range(2)]
    assert [batch for pair in zip(*together, strict=True) for batch in pair] == steps()


def test_every_held_out_example_is_seen_once() -> None:
    shares = [validation_picks(7, 2, rank, 2) for rank in range(2)]
    assert sorted(pick.place for share in shares for batch in share for pick in batch) == list(range(7))
    assert all(len(batch) <= 2 and pick.epoch is None for share in shares for batch in share for pick in batch)


def test_streams_of_numbers_do_not_depend_on_each_other() -> None:
    draws = [tuple(generator(purpose, 0, 1).random(3)) for purpose in range(3)]
    assert len(set(draws)) == 3
    assert np.array_equal(generator(0, 0, 1).random(3), draws[0])
