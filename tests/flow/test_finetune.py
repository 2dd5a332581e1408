"""Fine-tuning as a job, on small videos of two colours: it learns, survives being killed, and shares its work."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from pipeline import fitting
from pipeline.finetune import FinetuneReport, Prepared, finetune, indistinct, prepare
from pipeline.progress import Progress
from pipeline.protocols import FinetuneSettings
from schemas.errors import EngineError, InputError
from tests.media import Picture, make_video
from tests.models import WORDED
from xclip_core import load
from xclip_core.frames import CrossFrameBlock

COLOURS = {"red": (220, 40, 40), "blue": (40, 40, 220)}
PER_LABEL = 7  # of which one is held out: twelve to train on, three steps of four an epoch
OPTIONS = {"epochs": 4, "batch": 4, "lr": 1e-4, "decoders": 0, "seed": 5}
ARGUMENTS = [part for name, value in OPTIONS.items() for part in (f"--{name}", str(value))]
STEPS = 12


def painter(colour: tuple[int, int, int], seed: int):
    """Pictures of one colour under noise that differs from video to video."""

    def paint(number: int, size: tuple[int, int]) -> Picture:
        noise = np.random.default_rng([seed, number]).integers(-30, 30, (size[1], size[0], 3))
        return (np.array(colour) + noise).clip(0, 255).astype(np.uint8)

    return paint


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class."""
    folder = tmp_path_factory.mktemp("labelled")
    for label, colour in COLOURS.items():
        (folder / label).mkdir()
        for n in range(PER_LABEL):
            make_video(folder / label / f"{n}.mp4", frames=12, paint=painter(colour, n))
    return folder


@pytest.fixture
def settings(tiny_weights: Path) -> FinetuneSettings:
    return FinetuneSettings(init=str(tiny_weights), **OPTIONS)


@pytest.fixture(scope="module")
def unbroken(labelled: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to. Not to be changed."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    run(labelled, out, FinetuneSettings(init=str(tiny_weights), **OPTIONS))
    return out


def run(labels: Path, out: Path, settings: FinetuneSettings, **more) -> FinetuneReport:
    return finetune(prepare(labels, out, settings, **more))


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def same_files(one: Path, two: Path) -> list[str]:
    names = ("metrics.jsonl", "model.safetensors", "last.safetensors")
    return [name for name in names if (one / name).read_bytes() == (two / name).read_bytes()]


ALL = ["metrics.jsonl", "model.safetensors", "last.safetensors"]


def test_it_learns_to_tell_the_colours_apart(labelled: Path, settings: FinetuneSettings, tmp_path: Path) -> None:
    """All fourteen videos: a model that guessed would get them right once in sixteen thousand runs."""
    report = run(labelled, tmp_path / "out", replace(settings, epochs=8, lr=1e-3), val=labelled)
    assert report.held_out == 14
    assert report.top1 == 1.0


def test_few_shots_train_on_so_many_of_every_label(labelled: Path, settings: FinetuneSettings, tmp_path: Path) -> None:
    prepared = prepare(labelled, tmp_path / "out", replace(settings, shots=2))
    assert sorted(example.label for example in prepared.run.train) == sorted(2 * list(COLOURS))
    assert prepared.run.held_out == ()
    assert "nothing is held out" in "\n".join(prepared.review.warnings)


def test_the_folder_is_a_model_with_everything_said_about_it(unbroken: Path, tiny_weights: Path) -> None:
    model, before = load(unbroken), load(tiny_weights)
    assert model.config == before.config
    assert torch.equal(model.text_encoder.token_embedding.weight, before.text_encoder.token_embedding.weight)
    assert not torch.equal(model.visual.conv1.weight, before.visual.conv1.weight)
    card = (unbroken / "model.md").read_text()
    assert "- blue\n- red" in card
    report = report_of(unbroken)
    assert f"{report['top1']:.3f}" in card
    assert (report["steps"], report["examples"], report["held_out"]) == (STEPS, 12, 2)
    assert json.loads((unbroken / "settings.json").read_text())["identity"]["schedule"]["batch"] == 4


def test_the_kept_model_is_that_of_the_best_validation(unbroken: Path) -> None:
    lines = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    scores = [line for line in lines if line["kind"] == "validation"]
    assert [score["epoch"] for score in scores] == [1, 2, 3, 4]
    best = max(scores, key=lambda score: (score["top1"], -score["loss"]))
    assert (report_of(unbroken)["best_epoch"], report_of(unbroken)["top1"]) == (best["epoch"], best["top1"])
    kept_last = (unbroken / "model.safetensors").read_bytes() == (unbroken / "last.safetensors").read_bytes()
    assert kept_last == (best["epoch"] == 4)


class Stopped(Exception):
    """What ends a run in the middle, in tests."""


def stopped_at(step: int):
    """A watch that ends a run after so many steps."""

    def stop(progress: Progress) -> None:
        if progress.phase == "train" and progress.done == step:
            raise Stopped

    return stop


def test_the_best_is_kept_where_later_ones_are_worse(labelled, settings, tmp_path: Path) -> None:
    """Validation has the labels the wrong way round: the more is learnt, the worse it gets."""
    other = {"red": "blue", "blue": "red"}
    rows = [f"{file},{other[file.parent.name]}" for file in sorted(labelled.rglob("*.mp4"))[::3]]
    (tmp_path / "val.csv").write_text("\n".join(["path,label", *rows]))
    wanted, whole, short = replace(settings, epochs=8, lr=1e-3), tmp_path / "whole", tmp_path / "short"
    report = run(labelled, whole, wanted, val=tmp_path / "val.csv")
    assert report.best_epoch < report.epochs
    assert report.last_top1 < report.top1
    assert (whole / "model.safetensors").read_bytes() != (whole / "last.safetensors").read_bytes()
    with pytest.raises(Stopped):
        finetune(prepare(labelled, short, wanted, val=tmp_path / "val.csv"), watch=stopped_at(3 * report.best_epoch))
    assert (whole / "model.safetensors").read_bytes() == (short / "model.safetensors").read_bytes()


def test_bfloat16_with_recomputed_layers_ends_with_a_usable_model(labelled, settings, tmp_path: Path) -> None:
    """As above all fourteen videos are right; and every layer was passed twice a step, in bfloat16."""
    wanted = replace(settings, epochs=8, lr=1e-3, precision="bf16", recompute=True)
    passes, kinds = Counter(), set()

    def count(module: torch.nn.Module, given: object) -> None:
        if isinstance(module, CrossFrameBlock):
            passes[module.training] += 1

    def note(module: torch.nn.Module, given: object, result: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Conv2d):
            kinds.add(result.dtype)

    handles = register_module_forward_pre_hook(count), register_module_forward_hook(note)
    try:
        report = run(labelled, tmp_path / "out", wanted, val=labelled)
    finally:
        for handle in handles:
            handle.remove()
    assert report.top1 == 1.0
    assert passes[True] == 2 * WORDED.vision_layers * report.steps
    assert kinds == {torch.bfloat16}
    assert "| precision | bfloat16, scores in float32 |" in (tmp_path / "out" / "model.md").read_text()
    model = load(tmp_path / "out")
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_the_same_run_gives_the_same_files(labelled, settings, unbroken: Path, tmp_path: Path) -> None:
    run(labelled, tmp_path / "out", settings)
    assert same_files(tmp_path / "out", unbroken) == ALL
    other = run(labelled, tmp_path / "other", replace(settings, seed=6))
    assert other.steps == STEPS
    assert same_files(tmp_path / "other", unbroken) == []


@pytest.mark.parametrize("step", [2, 7])
def test_a_run_that_ends_inside_an_epoch_goes_on_to_the_bit(labelled, settings, unbroken, tmp_path, step) -> None:
    """Checkpoints come with the clock, here at every step: also between two validations."""
    prepared = prepare(labelled, tmp_path / "out", settings)
    prepared = replace(prepared, run=replace(prepared.run, checkpoint_every_s=0.0))

    with pytest.raises(Stopped):
        finetune(prepared, watch=stopped_at(step))
    assert finetune(prepared).resumed_from == step
    assert same_files(tmp_path / "out", unbroken) == ALL


def test_a_run_killed_with_9_goes_on_to_the_bit(labelled, settings, unbroken, tiny_weights, tmp_path) -> None:
    """A real process, killed at a moment that nobody chose, through the command line."""
    out, lines = tmp_path / "out", random.Random(time.time()).randint(1, 9)
    command = [sys.executable, "-m", "jobs", "finetune", str(labelled), str(out), "--init", str(tiny_weights)]
    # As many threads as here: sums of floats depend on it.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen([*command, *ARGUMENTS, "--json"], env=environment) as process:
        while process.poll() is None:
            if (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_bytes().count(b"\n") >= lines:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
    assert process.returncode == -signal.SIGKILL
    report = run(labelled, out, settings)
    assert report.resumed_from < STEPS
    assert same_files(out, unbroken) == ALL, f"killed after {lines} lines, resumed from {report.resumed_from}"
    assert [file.name for file in out.glob("*.part")] == []


def test_a_finished_run_is_not_trained_again(labelled, settings, unbroken: Path) -> None:
    before = (unbroken / "checkpoint.pt").stat().st_mtime_ns
    report = run(labelled, unbroken, settings)
    assert report.resumed_from == STEPS
    assert (unbroken / "checkpoint.pt").stat().st_mtime_ns == before
    assert report.top1 == report_of(unbroken)["top1"]


def test_a_run_killed_after_its_last_step_is_completed(labelled, settings, unbroken: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(unbroken, tmp_path / "out"))
    (out / "last.safetensors").unlink()
    assert run(labelled, out, settings).resumed_from == STEPS
    assert same_files(out, unbroken) == ALL


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 6}, "seed was 5, is 6"),
        ({"flip": False}, "flip was true"),
        ({"frames": 3}, "frames was 5, is 3"),
        ({"image_size": 16}, "image_size was 24, is 16"),
    ],
)
def test_a_folder_of_another_run_is_refused(labelled, settings, unbroken, change, said) -> None:
    with pytest.raises(InputError, match=f"holds a run with other settings .*{said}"):
        prepare(labelled, unbroken, replace(settings, **change))


def test_the_models_own_sizes_may_be_said_or_left_out(labelled, settings, unbroken: Path) -> None:
    own = replace(settings, frames=WORDED.frames, image_size=WORDED.image_size)
    assert prepare(labelled, unbroken, own).identity == prepare(labelled, unbroken, settings).identity


def test_a_run_that_did_not_write_its_sizes_down_goes_on_with_the_same_ones(labelled, settings, unbroken, tmp_path):
    out = Path(shutil.copytree(unbroken, tmp_path / "out"))
    described = json.loads((out / "settings.json").read_text())
    for name in ("frames", "image_size"):
        del described["identity"][name]
    (out / "settings.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="frames was 5, is 3; image_size was 24, is 16"):
        prepare(labelled, out, replace(settings, frames=3, image_size=16))
    assert run(labelled, out, settings).resumed_from == STEPS
    assert json.loads((out / "settings.json").read_text())["identity"]["frames"] == 5


def test_a_folder_of_other_things_is_refused(labelled, settings, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="is not empty and holds no fine-tuning run"):
        prepare(labelled, tmp_path, settings)


def test_a_video_that_breaks_on_the_way_is_left_out_and_the_run_goes_on(labelled, settings, tmp_path: Path) -> None:
    prepared = prepare(labelled, tmp_path / "out", replace(settings, epochs=1))
    moved = replace(prepared.run.train[0], path=tmp_path / "gone.mp4")
    broken: Prepared = replace(prepared, run=replace(prepared.run, train=(moved, *prepared.run.train[1:])))
    report = finetune(broken)
    assert report.steps == 3
    assert [item.uri for item in report.unread] == [str(tmp_path / "gone.mp4")]


def test_an_epoch_of_nothing_but_broken_videos_changes_no_weights_for_the_worse(labelled, settings, tmp_path) -> None:
    prepared = prepare(labelled, tmp_path / "out", replace(settings, epochs=1))
    gone = tuple(replace(e, path=tmp_path / f"{n}.mp4") for n, e in enumerate(prepared.run.train))
    report = finetune(replace(prepared, run=replace(prepared.run, train=gone)))
    assert report.loss == 0
    assert len(report.unread) == 12
    assert all(torch.isfinite(tensor).all() for tensor in load(tmp_path / "out").state_dict().values())


def test_a_training_that_comes_apart_stops_and_says_what_to_do(labelled, settings, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"the loss is (nan|inf) at step \d+: training has come apart. Lower --lr"):
        run(labelled, tmp_path / "out", replace(settings, lr=1e12))


def test_unreadable_videos_are_found_before_the_first_step(labelled, settings, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    table = tmp_path / "labels.csv"
    rows = [f"{file},{file.parent.name}" for file in sorted(labelled.rglob("*.mp4"))]
    table.write_text("\n".join(["path,label", *rows, "empty.mp4,red"]))
    prepared = prepare(table, tmp_path / "out", settings)
    assert [Path(item.uri).name for item in prepared.unread] == ["empty.mp4"]
    assert len(prepared.run.train) == 12


def test_labels_that_a_model_cannot_tell_apart_are_named(tiny_model) -> None:
    """To footage-tiny every word it never saw is the same word; a model with a full vocabulary knows better."""
    labels = ["hugging", "red circle", "yoga"]
    assert indistinct(load("footage-tiny"), labels) == [("hugging", "yoga")]
    assert indistinct(tiny_model, labels) == []


def test_validation_can_be_given(labelled, settings, tmp_path: Path) -> None:
    report = run(labelled, tmp_path / "out", replace(settings, epochs=1), val=labelled)
    assert (report.examples, report.held_out) == (14, 14)


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    yield
    import ray

    ray.shutdown()


@pytest.mark.ray
def test_two_workers_are_one_that_accumulates(labelled, settings, tiny_weights, tmp_path: Path, on_ray) -> None:
    short = replace(settings, epochs=1)
    one = run(labelled, tmp_path / "one", replace(short, accumulate=2))
    two = run(labelled, tmp_path / "two", replace(short, workers=2))
    assert two.loss == pytest.approx(one.loss, rel=1e-4)
    assert (two.top1, two.best_epoch) == (one.top1, one.best_epoch)
    before, single, shared = (load(path).state_dict() for path in (tiny_weights, tmp_path / "one", tmp_path / "two"))
    moved = max((single[name] - before[name]).abs().max() for name in single)
    apart = max((single[name] - shared[name]).abs().max() for name in single)
    assert apart < 0.01 * moved
    assert [path.name for path in (tmp_path / "two").glob("ray-*")] == []
    assert fitting.CHECKPOINT in [path.name for path in (tmp_path / "two").iterdir()]


def test_other_frame_counts_and_sizes_train_and_load(labelled, settings, tmp_path: Path) -> None:
    run(labelled, tmp_path / "out", replace(settings, epochs=1, frames=3, image_size=16))
    config = load(tmp_path / "out" / "model.safetensors").config
    assert (config.frames, config.image_size) == (3, 16)
