"""The ablation: each variant is what its name says, a killed run goes on, and the documented table is of kept runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from torch.nn import functional as F

from benchmarks import ablation
from benchmarks.ablation import CLIP, LADDER, PLAN, VARIANTS, Variant, build, run_all, table
from tests.models import TINY, WORDED, random_inputs, random_state
from xclip_core import XClip, XClipConfig
from xclip_core.pretrain import Plan
from xclip_core.scenes import NINE_MOTIONS, OPPOSITE
from xclip_core.training import TrainSettings
from xclip_core.validate import Clips
from xclip_core.weights import official_name
from xclip_core.wordings import LABELS

DOCS = Path(__file__).parents[2] / "docs"
PIXELS, TOKEN_IDS = random_inputs(TINY)
BACKWARDS = PIXELS.flip(dims=[1])
WITHOUT_PROMPT = LADDER[:3]
CCT, MIT, WHOLE = LADDER[1:]
ASIDE = VARIANTS[-1]
QUICK = Plan(
    frames=replace(PLAN.frames, steps=2, warmup_steps=0),
    clips=replace(PLAN.clips, steps=2, warmup_steps=0),
    frame_recipe=replace(PLAN.frame_recipe, size=WORDED.image_size, clips=4, captions=2),
    clip_recipe=replace(PLAN.clip_recipe, frames=WORDED.frames, size=WORDED.image_size, clips=4, captions=2),
    config=WORDED,
)


def variant_model(variant: Variant) -> XClip:
    state = random_state(TINY)
    names = XClip(TINY).state_dict()
    return build(variant, TINY, {name: state[official_name(name)] for name in names})[1].double().eval()


def by_name(variant: Variant) -> str:
    return variant.name


@torch.inference_mode()
def logits(model: XClip, pixels: torch.Tensor) -> torch.Tensor:
    return model.score(*model.video(pixels), model.text(TOKEN_IDS))


# Each variant is what its name says.


@torch.inference_mode()
def test_baseline_is_the_mean_of_what_open_clip_sees_in_each_frame():
    clip = open_clip_model(TINY)
    video, _ = variant_model(CLIP).video(PIXELS)
    expected = clip.encode_image(PIXELS.flatten(0, 1)).unflatten(0, PIXELS.shape[:2]).mean(dim=1)
    torch.testing.assert_close(video, expected, atol=1e-9, rtol=0)


def open_clip_model(config: XClipConfig) -> torch.nn.Module:
    """CLIP of the same sizes and weights by open_clip, whose names are the official ones."""
    vision = {
        "layers": config.vision_layers,
        "width": config.vision_width,
        "patch_size": config.patch_size,
        "image_size": config.image_size,
    }
    text = {
        "layers": config.text_layers,
        "width": config.text_width,
        "heads": config.text_width // 64,
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
    }
    clip = open_clip.model.CLIP(config.embed_dim, vision, text, quick_gelu=True)
    added = ("mit.", "prompts_")
    state = {
        name: tensor
        for name, tensor in random_state(config).items()
        if not name.startswith(added) and "message_" not in name
    }
    clip.load_state_dict(state)
    return clip.double().eval()


@pytest.mark.parametrize("variant", WITHOUT_PROMPT, ids=by_name)
@torch.inference_mode()
def test_score_without_a_prompt_is_the_cosine(variant):
    model = variant_model(variant)
    cosines = F.normalize(model.video(PIXELS)[0], dim=-1) @ F.normalize(model.text(TOKEN_IDS), dim=-1).T
    torch.testing.assert_close(logits(model, PIXELS), model.logit_scale.exp() * cosines, atol=1e-9, rtol=0)


def test_last_variant_is_the_whole_model():
    model = XClip(TINY)
    model.load_state_dict(variant_model(WHOLE).state_dict())
    assert torch.equal(logits(variant_model(WHOLE), PIXELS), logits(model.double(), PIXELS))


@pytest.mark.parametrize(("variant", "hears"), [(CLIP, False), (CCT, True), (ASIDE, False)])
@torch.inference_mode()
def test_frames_hear_of_each_other_through_messages_alone(variant, hears):
    other_end = torch.cat([PIXELS[:, :-1], PIXELS[:, -1:] + 1], dim=1)
    visual = variant_model(variant).visual
    first, changed = (visual(pixels)[0][:, 0] for pixels in (PIXELS, other_end))
    assert torch.equal(first, changed) != hears


@pytest.mark.parametrize("variant", VARIANTS, ids=by_name)
def test_only_integration_can_tell_a_clip_from_its_reverse(variant):
    model = variant_model(variant)
    difference = (logits(model, PIXELS) - logits(model, BACKWARDS)).abs().max().item()
    assert difference > 1e-3 if variant.integration else difference < 1e-9


@torch.inference_mode()
def test_what_the_prompt_reads_of_a_clip_is_the_same_backwards():
    model = variant_model(WHOLE)
    (video, context), (reversed_video, reversed_context) = model.video(PIXELS), model.video(BACKWARDS)
    torch.testing.assert_close(context, reversed_context, atol=1e-9, rtol=0)
    assert (video - reversed_video).abs().max() > 1e-3


# What is measured.


def answers_opposite(_model, clips, texts):
    """An oracle of axes that takes every direction for its opposite, and knows nothing else."""
    answers = [LABELS["motion", OPPOSITE.get(truth["motion"], truth["motion"])] for truth in clips.truths]
    return torch.tensor([[float(text == answer) for text in texts] for answer in answers])


def clips_of(*truths: dict[str, str]) -> Clips:
    return Clips(truths, torch.zeros(len(truths), 2), torch.zeros(len(truths), 1, 2))


def test_axis_and_direction_are_measured_apart():
    nine = clips_of(*({"motion": motion} for motion in NINE_MOTIONS))
    anything = clips_of({"motion": "growing"}, {"motion": "left", "speed": "slow"})
    figures = ablation.motion_figures(None, nine, nine, anything, answers_opposite)
    assert figures["axis of motion, or still"] == 1
    assert figures["a direction or its opposite"] == 0
    assert figures["nine motions"] == pytest.approx(1 / 9)


# Runs: what is done is kept, what is kept is used.


def run(runs: Path, variants: tuple[Variant, ...], plan: Plan = QUICK) -> list[dict]:
    run_all(runs, plan, (4,), variants, clips=24)
    return ablation.read_runs(runs)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> list[dict]:
    return run(tmp_path_factory.mktemp("unbroken") / "runs.jsonl", LADDER)


def without_times(record: dict) -> dict:
    return {name: value for name, value in record.items() if name not in ("wall_s", "cpu_s")}


def test_every_variant_goes_on_from_one_start_and_sees_as_many_clips(unbroken):
    assert [record["variant"] for record in unbroken] == [variant.name for variant in LADDER]
    assert {record["clips_seen"] for record in unbroken} == {8}
    assert len({record["loss"] for record in unbroken}) == len(LADDER)
    assert all(0 <= value <= 1 for record in unbroken for value in record["figures"].values())


def test_a_killed_run_goes_on_where_it_stopped(unbroken, tmp_path):
    run(runs := tmp_path / "runs.jsonl", LADDER[:2])
    first_lines = runs.read_bytes()
    resumed = run(runs, LADDER)
    assert runs.read_bytes().startswith(first_lines)
    assert list(map(without_times, resumed)) == list(map(without_times, unbroken))


def test_a_start_is_trained_once(tmp_path, monkeypatch):
    run(runs := tmp_path / "runs.jsonl", (CLIP,))
    monkeypatch.delattr(ablation, "train_clip")
    assert len(run(runs, (CLIP, MIT))) == 2


def test_runs_of_two_plans_are_not_mixed(tmp_path):
    run(runs := tmp_path / "runs.jsonl", (CLIP,))
    with pytest.raises(SystemExit, match="another plan"):
        run(runs, LADDER, replace(QUICK, clips=TrainSettings(steps=3, lr=1e-3)))


# The table.


def record(variant: Variant, seed: int, accuracy: float) -> dict:
    return {"variant": variant.name, "plan": {"seed": seed}, "loss": 1.0, "cpu_s": 60.0, "figures": {"nine": accuracy}}


def test_table_has_mean_and_spread_over_seeds():
    lines = table([record(CLIP, 0, 0.4), record(CLIP, 1, 0.5), record(CLIP, 2, 0.6), record(WHOLE, 0, 0.9)]).split("\n")
    assert lines[0] == "| per cent | frame-mean CLIP | + prompt |"
    assert lines[2] == "| nine | 50.0 ± 10.0 | 90.0 |"
    assert lines[-1] == "| seeds | 3 | 1 |"


def test_documented_table_is_that_of_the_kept_runs():
    kept = [json.loads(line) for line in (DOCS / "ablation.jsonl").read_text("utf-8").splitlines()]
    assert {(r["variant"], r["plan"]["seed"]) for r in kept} >= {(v.name, seed) for v in LADDER for seed in (0, 1, 2)}
    assert table(kept) in (DOCS / "ablation.md").read_text("utf-8")
