"""`footage finetune`: what it says before, what it prints after, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.media import make_video

OPTIONS = ("--epochs", 1, "--batch", 4, "--decoders", 0)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    for label in ("up", "turn left"):
        (folder / label).mkdir()
        for n in range(4):
            make_video(folder / label / f"{n}.mp4", frames=8)
    return folder


def test_a_run_says_what_it_will_do_and_what_came_out(footage, labelled: Path, tiny_weights: Path, tmp_path) -> None:
    out = tmp_path / "out"
    code, printed, said = footage("finetune", labelled, out, "--init", tiny_weights, "--no-flip", *OPTIONS)
    assert code == 0
    assert "6 of 2 labels" in said
    assert "1 in 1 epochs, 0 of them warm-up" in said
    assert "1 steps, 1 epochs" in printed
    assert "on 2 held-out videos" in printed

    code, printed, _ = footage("finetune", labelled, out, "--init", tiny_weights, "--no-flip", *OPTIONS, "--json")
    report = json.loads(printed)
    assert code == 0
    assert {"model", "steps", "top1", "top5", "best_epoch", "resumed_from", "unread", "loss"} <= report.keys()
    assert report["resumed_from"] == report["steps"] == 1


def test_what_is_asked_for_arrives_and_what_to_know_of_the_model_is_told(footage, labelled, tiny_weights, tmp_path):
    out = tmp_path / "out"
    asked = ("--frames", 3, "--clip-norm", 0.5, "--lr", 1e-3, "--seed", 3, "--precision", "bf16", "--recompute")
    code, _, said = footage("finetune", labelled, out, "--init", tiny_weights, "--no-flip", *OPTIONS, *asked, "--json")
    assert code == 0
    assert "note: the model's frame table was resampled from 5 to 3 frames" in said
    assert "warning: the protocol 'full' has 8 or 16 frames per clip, and here there are 3" in said
    found = json.loads((out / "settings.json").read_text())["settings"]
    assert (found["frames"], found["clip_norm"], found["lr"], found["seed"]) == (3, 0.5, 1e-3, 3)
    assert (found["flip"], found["precision"], found["recompute"]) == (False, "bf16", True)


def test_videos_left_out_end_the_command_with_3(footage, labelled: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_text("no video")
    rows = [f"{file},{file.parent.name}" for file in sorted(labelled.rglob("*.mp4"))]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows, "broken.mp4,up"]))
    code, printed, said = footage(
        "finetune", tmp_path / "labels.csv", tmp_path / "out", "--init", tiny_weights, "--no-flip", *OPTIONS
    )
    assert code == 3
    assert "warning: 1 videos cannot be read and are left out" in said
    assert "broken.mp4: this is no video container we read" in printed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "labels such as 'turn left' tell left from right"),
        (("--no-flip", "--batch", 100), "6 examples do not fill a batch of 100"),
        (("--no-flip", "--batch", 5, "--accumulate", 2), "a batch of 5 clips does not divide"),
        (("--no-flip", "--val", "/nowhere"), "there is nothing at /nowhere"),
        (("--no-flip", "--init", "no-such-model"), "there is no model 'no-such-model'"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(footage, labelled, tmp_path, options, sentence) -> None:
    code, printed, said = footage("finetune", labelled, tmp_path / "out", *options)
    assert (code, printed) == (1, "")
    assert sentence in said
    assert not (tmp_path / "out").exists()
