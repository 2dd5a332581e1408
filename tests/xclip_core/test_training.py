"""Training: the recipe's groups and rates exactly, a loss that falls, and the file that ships."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch

from xclip_core import XClip, XClipConfig, encode_text_raw, load
from xclip_core.captions import training_words
from xclip_core.guides import Guides
from xclip_core.hub import EMBEDDED
from xclip_core.initialise import ALPHA
from xclip_core.objective import Batch, Choice, choice_loss, clip_loss, frame_loss, soft_cross_entropy
from xclip_core.pictures import read_library
from xclip_core.pretrain import TINY as SHIPPED
from xclip_core.pretrain import Plan, export, new_model, pretrain
from xclip_core.rehearsal import Rehearsal
from xclip_core.synthetic import Recipe, batches
from xclip_core.tokenise import tokenise
from xclip_core.training import Training, TrainSettings, learning_rate, parameter_groups, train
from xclip_core.validate import film_full, validate
from xclip_core.validate_shots import validate_shots
from xclip_core.vocabulary import UNKNOWN, Vocabulary, vocabulary_of

CONFIG = XClipConfig(
    frames=4,
    image_size=32,
    patch_size=16,
    embed_dim=64,
    vision_width=64,
    vision_layers=1,
    text_width=64,
    text_layers=1,
    prompt_layers=1,
)
RECIPE = Recipe(frames=4, size=32, clips=8, captions=4, label_sets=0)
SHORT = TrainSettings(steps=2, lr=1e-3, train_text=True)
# A whole pretraining in a second.
QUICK = Plan(
    seed=5,
    config=CONFIG,
    rehearsal=Rehearsal(steps=4, warmup_steps=2, pool=8, batch=4),
    frames=SHORT,
    clips=SHORT,
    shots=SHORT,
    evened=SHORT,
    frame_recipe=replace(RECIPE, frames=1, clips=4, label_sets=1),
    clip_recipe=replace(RECIPE, clips=4),
    shot_recipe=replace(RECIPE, clips=4, shots=0.5),
    evened_recipe=replace(RECIPE, clips=4, shots=0.5, evened=True),
)
SETTINGS = TrainSettings(steps=100, lr=8e-6, warmup_steps=20)
SHIPPED_FILE = EMBEDDED["footage-tiny"]
MAX_FILE_BYTES = 16_000_000


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return vocabulary_of(training_words())


@pytest.fixture
def model(vocabulary: Vocabulary) -> XClip:
    return new_model(vocabulary, seed=0, config=CONFIG)


@pytest.fixture(scope="module")
def shipped() -> XClip:
    return load("footage-tiny")


# Groups and schedule: spec §7.


def names_by_group(model: XClip, settings: TrainSettings) -> dict[tuple[float, float], set[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        (g["factor"], g["weight_decay"]): {names[id(p)] for p in g["params"]} for g in parameter_groups(model, settings)
    }


def test_paper_recipe_freezes_text_and_temperature_and_nothing_else(model):
    trained = set().union(*names_by_group(model, SETTINGS).values())
    assert {n for n, _ in model.named_parameters()} - trained == {
        n for n, _ in model.named_parameters() if n.startswith("text_encoder.") or n == "logit_scale"
    }
    assert not model.logit_scale.requires_grad


def test_new_parts_learn_ten_times_faster_and_matrices_alone_decay(model):
    groups = names_by_group(model, SETTINGS)
    assert groups.keys() == {(1.0, 0.0), (1.0, 1e-3), (10.0, 0.0), (10.0, 1e-3)}
    block = "visual.transformer.resblocks.0."
    assert groups[1.0, 1e-3] == {
        "visual.conv1.weight",
        "visual.proj",
        *(f"{block}{part}.weight" for part in ("attn.out_proj", "mlp.c_fc", "mlp.c_proj")),
        f"{block}attn.in_proj_weight",
    }
    assert {"visual.class_embedding", "visual.positional_embedding", f"{block}ln_1.weight"} <= groups[1.0, 0.0]
    assert {f"{block}message_fc.weight", "prompts_visual_proj", "mit.resblocks.0.mlp.c_fc.weight"} <= groups[10.0, 1e-3]
    undecayed = groups[10.0, 0.0]
    assert {"prompts_generator.alpha", "mit.positional_embedding", f"{block}message_ln.bias"} <= undecayed


def test_every_parameter_is_in_exactly_one_group(model):
    groups = parameter_groups(model, replace(SETTINGS, train_text=True))
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())


def test_the_optimiser_is_the_papers(model):
    optimiser = Training(model, SETTINGS).optimiser
    assert type(optimiser) is torch.optim.AdamW
    for group in optimiser.param_groups:
        assert (group["betas"], group["eps"], group["amsgrad"]) == ((0.9, 0.98), 1e-8, False)


def test_schedule_warms_up_drops_and_ends_at_a_hundredth():
    assert learning_rate(0, SETTINGS) == 0
    assert learning_rate(10, SETTINGS) == pytest.approx(4e-6)
    after = 8e-8 + (8e-6 - 8e-8) * (1 + math.cos(math.pi * 0.2)) / 2  # the warm-up is not subtracted
    assert learning_rate(20, SETTINGS) == pytest.approx(after)
    assert learning_rate(100, SETTINGS) == pytest.approx(8e-8)


def test_schedule_matches_the_official_rates_round_the_end_of_warm_up():
    official = TrainSettings(steps=3000, lr=8e-6, warmup_steps=500)  # 5 of 30 epochs
    assert learning_rate(499, official) == pytest.approx(7.98e-6, abs=5e-9)
    assert learning_rate(500, official) == pytest.approx(7.47e-6, abs=5e-9)


def test_groups_share_one_floor():
    assert learning_rate(10, SETTINGS, 10.0) == pytest.approx(10 * learning_rate(10, SETTINGS))
    assert learning_rate(100, SETTINGS, 10.0) == pytest.approx(learning_rate(100, SETTINGS))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"warmup_steps": 100}, {"lr": 0.0}, {"new_parts_factor": -1.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        replace(SETTINGS, **wrong)


# The loss.


def test_soft_targets_are_spread_over_all_true_texts():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    truth = torch.tensor([[True, True, False], [False, False, True]])
    log_p = logits.log_softmax(-1)
    expected = -((log_p[0, 0] + log_p[0, 1]) / 2 + log_p[1, 2]) / 2
    assert soft_cross_entropy(logits, truth) == pytest.approx(expected.item())


def test_clips_of_which_nothing_is_true_do_not_count():
    logits = torch.tensor([[2.0, 1.0], [5.0, -5.0]])
    truth = torch.tensor([[True, False], [False, False]])
    assert soft_cross_entropy(logits, truth) == soft_cross_entropy(logits[:1], truth[:1])
    assert soft_cross_entropy(logits, torch.zeros_like(truth)) == 0


def test_choices_are_separate_and_weighted():
    frames, truth = torch.zeros(2, 1, 1, 1, 3, dtype=torch.uint8), torch.eye(2, 4, dtype=torch.bool)
    truth[:, 2] = True
    batch = Batch(frames, tuple("abcd"), truth, (Choice(0, 2, both_ways=True), Choice(2, 4, weight=3.0)))
    logits = torch.tensor([[1.0, 0.0, 9.0, 9.0], [0.0, 1.0, 9.0, 9.0]])
    sure = math.log(1 + math.exp(-1))
    assert choice_loss(logits, batch) == pytest.approx((sure + 3 * math.log(2)) / 4)


def test_what_is_common_in_training_is_not_what_is_answered():
    # Nothing can be seen, and nine clips of ten are of the first text: the best answer is none.
    truth_BK = torch.tensor([[True, False]] * 9 + [[False, True]])
    frames = torch.zeros(10, 1, 8, 8, 3, dtype=torch.uint8)
    choice = Choice(0, 2, shares=(0.9, 0.1))
    batch = Batch(frames, ("a", "b"), truth_BK, (choice,))
    logits_BK = torch.zeros(10, 2, requires_grad=True)
    choice_loss(logits_BK, batch).backward()
    assert logits_BK.grad.sum(dim=0).abs().max() < 1e-6
    plain_BK = torch.zeros(10, 2, requires_grad=True)
    choice_loss(plain_BK, replace(batch, choices=(Choice(0, 2),))).backward()
    assert plain_BK.grad.sum(dim=0)[0] < -0.3


def test_truth_must_fit_the_batch():
    with pytest.raises(ValueError, match="truth has shape"):
        Batch(torch.zeros(2, 1, 1, 1, 3), ("a",), torch.ones(1, 2, dtype=torch.bool), ())


# Initial values and the small vocabulary.


def test_every_parameter_gets_a_finite_initial_value_from_the_seed(vocabulary):
    one, two = (new_model(vocabulary, seed=3, config=CONFIG).state_dict() for _ in range(2))
    assert all(torch.isfinite(tensor).all() for tensor in one.values())
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = new_model(vocabulary, seed=4, config=CONFIG).state_dict()
    assert not torch.equal(one["prompts_visual_proj"], other["prompts_visual_proj"])


def test_initial_values_of_what_xclip_adds(vocabulary):
    state = new_model(vocabulary, seed=0, config=replace(CONFIG, embed_dim=256, vision_width=256)).state_dict()
    assert (state["prompts_generator.alpha"] == ALPHA).all()
    assert state["prompts_visual_proj"].std() == pytest.approx(1.0, abs=0.02)
    assert state["mit.resblocks.0.mlp.c_fc.weight"].std() == pytest.approx(0.02, abs=0.002)
    assert state["mit.resblocks.0.attn.in_proj_weight"].std() == pytest.approx(math.sqrt(2 / (4 * 256)), abs=0.002)
    message = state["visual.transformer.resblocks.0.message_fc.weight"]
    assert message.abs().max() <= 1 / math.sqrt(256)
    assert message.std() == pytest.approx(1 / math.sqrt(3 * 256), abs=0.002)
    assert (state["visual.transformer.resblocks.0.message_attn.in_proj_bias"] == 0).all()


def test_small_vocabulary_is_the_full_one_renumbered(vocabulary):
    texts = ["a small red circle moves slowly to the left", "an orange plus sign", "black and white"]
    own, full = vocabulary.tokenise(texts), tokenise(texts)
    assert torch.equal(vocabulary.used_U[own], full)
    assert torch.equal(own.argmax(dim=-1), full.argmax(dim=-1))


def test_foreign_words_become_the_unknown_one(vocabulary):
    known, foreign = vocabulary.tokenise(["a red circle", "a crimson circle"])
    assert foreign[2] == UNKNOWN
    assert known[3] == foreign[3]


def test_unknown_words_are_put_inside_texts(vocabulary):
    rng = np.random.default_rng(0)
    rows = vocabulary.tokenise(["a red circle"] * 50, rng, unknown_rate=0.5)
    lengths = (rows > UNKNOWN).sum(dim=-1)
    ends = rows.argmax(dim=-1)
    assert (lengths == 5).all()  # no word is lost
    assert 10 < (ends == 5).sum() < 40  # and some texts are one longer
    assert (rows[:, 0] == rows[0, 0]).all()


def test_export_gives_every_word_a_vector_and_unknown_ones_the_same(vocabulary, model, tmp_path):
    export(model, vocabulary, tmp_path / "model.safetensors")
    table = load(tmp_path / "model.safetensors").text_encoder.token_embedding.weight
    rows = model.text_encoder.token_embedding.weight.detach()
    assert table.shape == (CONFIG.vocab_size, CONFIG.text_width)
    assert torch.equal(table[vocabulary.used_U], rows.half().float())
    foreign = [token for word in ("zebra", "juggling") for token in tokenise([word])[0, 1:-1].tolist()]
    assert torch.equal(table[foreign], rows[[UNKNOWN] * len(foreign)].half().float())
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


# The loop.


def test_short_training_learns_a_handful_of_clips(vocabulary, model):
    batch = next(batches(RECIPE, 0))
    settings = TrainSettings(steps=60, lr=1e-3, warmup_steps=5, new_parts_factor=2.0, train_text=True)
    losses = train(model, repeat(batch), lambda b: clip_loss(model, b, vocabulary.tokenise), settings)
    assert losses[0] > 1.5
    assert losses[-1] < 0.5
    assert not model.training


def test_guide_is_trained_with_the_model(vocabulary, model):
    guides, batch = Guides(CONFIG.embed_dim, seed=0), next(batches(RECIPE, 0))
    settings = TrainSettings(steps=30, lr=1e-3, new_parts_factor=2.0, train_text=True)
    before = guides.numbers.weight.detach().clone()
    losses = train(
        model, repeat(batch), lambda b: clip_loss(model, b, vocabulary.tokenise, guides=guides), settings, guide=guides
    )
    assert not torch.equal(guides.numbers.weight, before)
    assert losses[-1] < losses[0] / 2


def test_frozen_text_tower_is_not_touched(vocabulary, model):
    batch = next(batches(RECIPE, 0))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = TrainSettings(steps=2, lr=1e-3)
    train(model, repeat(batch), lambda b: clip_loss(model, b, vocabulary.tokenise, plain_weight=0.5), settings)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith(("text_encoder.", "logit_scale")) for name in changed)
    assert {"visual.conv1.weight", "prompts_generator.alpha", "mit.positional_embedding"} <= changed


def test_frames_train_vision_and_text_alike(vocabulary, model):
    batch = next(batches(replace(RECIPE, frames=1, label_sets=3), 0))
    frame_loss(model, batch, vocabulary.tokenise).backward()
    assert model.visual.conv1.weight.grad.abs().sum() > 0
    assert model.text_encoder.token_embedding.weight.grad.abs().sum() > 0
    assert model.mit.positional_embedding.grad is None


def test_temperature_stays_under_clips_bound(vocabulary, model):
    model.logit_scale.data.fill_(9.0)
    settings = TrainSettings(steps=1, lr=1e-4, train_text=True)
    train(model, repeat(next(batches(RECIPE, 0))), lambda b: clip_loss(model, b, vocabulary.tokenise), settings)
    assert model.logit_scale.exp() <= 100.001


def test_same_plan_gives_the_same_model():
    one, two = pretrain(QUICK), pretrain(QUICK)
    assert [stage.loss for stage in one.stages] == [stage.loss for stage in two.stages]
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))


def test_a_killed_pretraining_goes_on_with_the_stage_it_was_in(tmp_path):
    unbroken = pretrain(QUICK, tmp_path)
    kept = sorted(tmp_path.glob("*.pt"))
    assert len(kept) == 5
    next(file for file in kept if file.name.startswith("evened")).unlink()  # the last stage had not ended
    seconds = [stage.seconds for stage in unbroken.stages]
    resumed = pretrain(QUICK, tmp_path)
    assert [stage.seconds for stage in resumed.stages][:4] == seconds[:4]  # read, not run again
    assert all(torch.equal(a, b) for a, b in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True))


def test_scaled_plan_keeps_its_proportions():
    plan = Plan().scaled(0.1)
    assert plan.clips.steps == round(Plan().clips.steps / 10)
    assert plan.frames.warmup_steps == Plan().frames.warmup_steps // 10
    assert plan.rehearsal.steps == round(Plan().rehearsal.steps / 10)
    assert Plan().scaled(1e-6).rehearsal.steps == 4


# What ships.


def test_shipped_file_is_small_float16_and_plain(shipped):
    assert SHIPPED_FILE.stat().st_size <= MAX_FILE_BYTES
    with SHIPPED_FILE.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F16"}
    assert shipped.config == SHIPPED


def test_shipped_model_tells_the_nine_motions_apart_in_any_words(shipped):
    figures = validate(shipped, seed=77, clips=180)
    assert figures["nine motions, labels"] >= 0.95
    assert figures["nine motions, held-out wordings"] >= 0.95
    assert 0.35 <= figures["opposite directions, frames shuffled"] <= 0.65
    assert figures["opposite directions"] >= 0.97


def test_shipped_model_reads_cameras_over_pictures_it_never_saw(shipped):
    figures = validate_shots(shipped, read_library(None, held_out=True, seed=78), seed=78, clips=160)
    assert figures["camera motions, labels"] >= 0.92  # of 160 clips; the card has 0.97 of 600
    assert figures["camera motions, held-out wordings"] >= 0.92
    assert figures["mirrored: left and right swap"] >= 0.9
    assert figures["backwards: in and out swap"] >= 0.9
    assert figures["own label above 8 foreign texts"] >= 0.95


def test_shipped_model_reads_footage_as_files_hold_it(shipped):
    assert validate(shipped, seed=78, clips=90, film=film_full)["nine motions, labels"] >= 0.95


def test_unknown_words_hardly_move_a_text(shipped):
    plain, padded = (encode_text_raw(shipped, [text])[0] for text in ("a red circle", "a zebra red circle"))
    assert torch.cosine_similarity(plain, padded, dim=0) > 0.9


def test_card_states_the_figures_of_the_file():
    card = Path(SHIPPED_FILE).with_suffix(".md").read_text(encoding="utf-8")
    assert f"{SHIPPED_FILE.stat().st_size:,} bytes" in card
    assert "held-out wordings" in card
