"""Checkpoints of every layout give one model; anything that does not fit is refused with its reason."""

from __future__ import annotations

import json
import os
import pickle
import random
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from schemas.errors import InputError, WeightsError
from tests.models import (
    LAYOUTS,
    SQUARE,
    TINY,
    hf_name,
    random_inputs,
    random_state,
    save_hf_folder,
    save_pth,
    save_safetensors,
    to_hf,
)
from tests.xclip_core.reference import hf_model, outputs
from xclip_core import XClip, load
from xclip_core.weights import read_tensors

STATE = random_state()
HF_STATE = to_hf(STATE)
# One layer of the least width in each tower: for tests that go through every key.
SMALL = random_state(
    replace(
        TINY,
        embed_dim=64,
        vision_width=64,
        text_width=64,
        vision_layers=1,
        text_layers=1,
        mit_layers=1,
        prompt_layers=1,
    )
)
HF_SMALL = to_hf(SMALL)


def without(state, name):
    return {key: tensor for key, tensor in state.items() if key != name}


def saved(state, folder):
    """A checkpoint in which anything may be wrong."""
    torch.save(state, path := folder / "checkpoint.pth")
    return path


def saved_tensors(state, folder):
    """The same, where all that may be wrong is names and shapes."""
    save_file(state, path := folder / "checkpoint.safetensors")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> XClip:
    return load(save_safetensors(STATE, tmp_path_factory.mktemp("model")))


# What is loaded


def test_every_value_arrives_where_its_name_says(model):
    own = {name.removeprefix("text_encoder."): tensor for name, tensor in model.state_dict().items()}
    assert own.keys() == STATE.keys()
    assert all(torch.equal(own[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_give_the_same_bits_and_the_same_hash(layout, model, tmp_path):
    other = load(LAYOUTS[layout](STATE, tmp_path))
    inputs = random_inputs()
    got, expected = outputs(other, *inputs), outputs(model, *inputs)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert other.config == model.config == TINY
    assert other.provenance.weights_hash == model.provenance.weights_hash
    assert other.provenance.layout == layout.split("-")[0]


def test_provenance_names_the_source_as_it_was_given(tmp_path):
    path = save_safetensors(STATE, tmp_path)
    assert load(str(path)).provenance.source == str(path)


def test_one_changed_value_changes_the_hash(model, tmp_path):
    state = STATE | {"logit_scale": STATE["logit_scale"] + 1e-6}
    assert load(save_safetensors(state, tmp_path)).provenance.weights_hash != model.provenance.weights_hash


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_hash_is_of_the_file_and_not_of_the_dtype_in_use(dtype, model, tmp_path):
    other = load(save_safetensors(STATE, tmp_path), dtype=dtype)
    assert other.dtype == dtype
    assert other.provenance.weights_hash == model.provenance.weights_hash


def test_half_precision_files_load_as_float32(tmp_path):
    halved = {name: tensor.half() for name, tensor in STATE.items()}
    model = load(save_safetensors(halved, tmp_path))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.visual.proj, halved["visual.proj"].float())


def test_model_is_frozen_and_in_evaluation_mode(model):
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("layout", ["official-pth", "official-safetensors", "hf-folder"])
def test_model_does_not_change_when_its_file_is_overwritten(layout, tmp_path):
    path = LAYOUTS[layout](STATE, tmp_path)
    model = load(path)
    file = path / "model.safetensors" if path.is_dir() else path
    with file.open("r+b") as stream:
        stream.write(bytes(file.stat().st_size))
    assert torch.equal(model.visual.proj, STATE["visual.proj"])


def test_safetensors_is_read_where_a_folder_also_holds_a_pickle(tmp_path):
    save_hf_folder(STATE, tmp_path)
    (tmp_path / "pytorch_model.bin").write_text("not read")
    assert load(tmp_path).config == TINY


# Traps of the two layouts


def test_heads_are_64_wide_whatever_config_json_says(model, tmp_path):
    folder = save_hf_folder(STATE, tmp_path)
    config = hf_model(TINY, STATE).config.to_dict()
    config["prompt_num_attention_heads"] = config["vision_config"]["mit_num_attention_heads"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    inputs = random_inputs()
    assert torch.equal(outputs(load(folder), *inputs)["logits"], outputs(model, *inputs)["logits"])


def test_message_attention_is_not_counted_as_layers_nor_taken_for_attention(model):
    assert model.config.vision_layers == TINY.vision_layers
    block = model.visual.transformer.resblocks[0]
    prefix = "visual.transformer.resblocks.0"
    assert torch.equal(block.attn.in_proj_weight, STATE[f"{prefix}.attn.in_proj_weight"])
    assert torch.equal(block.message_attn.in_proj_weight, STATE[f"{prefix}.message_attn.in_proj_weight"])


def test_two_projections_are_transposed_and_the_prompts_is_not(tmp_path):
    # All three are square here: only their values can tell.
    state = random_state(SQUARE)
    model = load(save_hf_folder(state, tmp_path))
    assert torch.equal(model.visual.proj, held_by_hf(state, "visual_projection.weight").T)
    assert torch.equal(model.text_encoder.text_projection, held_by_hf(state, "text_projection.weight").T)
    assert torch.equal(model.prompts_visual_proj, held_by_hf(state, "prompts_visual_projection"))


def held_by_hf(state, name):
    """A tensor as transformers itself holds it."""
    return hf_model(SQUARE, state).state_dict()[name]


def test_packed_rows_are_query_key_value(tmp_path):
    model = load(save_hf_folder(STATE, tmp_path))
    rows = model.mit.resblocks[0].attn.in_proj_weight.chunk(3)
    expected = [HF_STATE[f"mit.encoder.layers.0.self_attn.{letter}_proj.weight"] for letter in "qkv"]
    assert all(torch.equal(own, hf) for own, hf in zip(rows, expected, strict=True))


def test_saved_parallel_prefix_is_taken_off_names_only_at_the_start(tmp_path):
    odd = STATE | {"visual.module.extra": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"surplus: visual\.module\.extra"):
        load(saved({f"module.{name}": tensor for name, tensor in odd.items()}, tmp_path))


@pytest.fixture
def cfg_node(monkeypatch):
    """A stand-in for yacs' settings class, which official checkpoints hold; it is gone when they are read."""
    module = ModuleType("yacs.config")
    node = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    module.CfgNode = node
    monkeypatch.setitem(sys.modules, "yacs", ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return node


def test_official_checkpoint_loads_with_its_training_state_and_settings(cfg_node, model, tmp_path, monkeypatch):
    settings = cfg_node(DATA=cfg_node(ROOT="/data", NUM_FRAMES=8), BASE=[""], OUTPUT=None)
    settings.__dict__["__immutable__"] = True
    content = {
        "model": STATE,
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(4)}}, "param_groups": [{"betas": (0.9, 0.98)}]},
        "lr_scheduler": {"base_values": [8e-6]},
        "max_accuracy": 80.4,
        "epoch": 29,
        "config": settings,
    }
    path = saved(content, tmp_path)
    monkeypatch.delitem(sys.modules, "yacs.config")
    assert load(path).provenance.weights_hash == model.provenance.weights_hash


# What does not fit


@pytest.mark.parametrize("name", SMALL)
def test_missing_official_key_is_named(name, tmp_path):
    with pytest.raises(WeightsError, match=rf"(missing: |lacks ){name}\b"):
        load(saved_tensors(without(SMALL, name), tmp_path))


def hf_names(name):
    """HuggingFace's names for one official tensor, each with the words in which the loader reports it."""
    if "in_proj_" not in name:
        return [(hf_name(name), name)]
    return [tuple(x.replace("in_proj_", f"{letter}_proj.") for x in (hf_name(name), name)) for letter in "qkv"]


@pytest.mark.parametrize(("name", "reported"), [pair for name in SMALL for pair in hf_names(name)])
def test_missing_hf_key_is_named_in_official_words(name, reported, tmp_path):
    with pytest.raises(WeightsError, match=rf"(missing: |lacks ){reported}\b"):
        load(saved_tensors(without(HF_SMALL, name), tmp_path))


# Tensors that tell the model's size. One of the wrong size may be believed; then what disagrees with it is named.
TELLING = ("positional_embedding", "token_embedding.weight", "text_projection", "visual.positional_embedding")
TELLING_ONE_AXIS = ("visual.conv1.weight", "mit.positional_embedding")
LONGER_IS_LARGER = ("positional_embedding", "token_embedding.weight")


def wrong_shapes():
    for name, tensor in SMALL.items():
        if name in TELLING + TELLING_ONE_AXIS:
            yield pytest.param(name, tensor[None], id=f"{name}, an axis more")
            yield pytest.param(name, tensor[0], id=f"{name}, an axis less")
        if name not in LONGER_IS_LARGER:
            row = tensor[:1] if tensor.ndim else tensor[None]
            yield pytest.param(name, torch.cat([tensor.view(-1, *row.shape[1:]), row]), id=f"{name}, a row more")


@pytest.mark.parametrize(("name", "wrong"), list(wrong_shapes()))
def test_wrong_shape_is_refused_and_named(name, wrong, tmp_path):
    reason = rf"{name}\b.*expected|not a square" if name in TELLING else rf"{name} (has shape )?\(.*expected"
    with pytest.raises(WeightsError, match=reason):
        load(saved_tensors(SMALL | {name: wrong.clone()}, tmp_path))


@pytest.mark.parametrize(
    ("state", "extra"),
    [
        (STATE, "visual.extra"),
        (STATE, "mit.ln_final.weight"),
        (STATE, "input_resolution"),
        (HF_STATE, "vision_model.pre_layrnorm.weight"),
        (HF_STATE, "visual.extra"),
        (HF_STATE, "text_model.embeddings.position_ids.more"),
    ],
)
def test_surplus_key_is_named(state, extra, tmp_path):
    with pytest.raises(WeightsError, match=rf"surplus: {extra}"):
        load(saved({extra: torch.zeros(2)} | state, tmp_path))


@pytest.mark.parametrize(
    ("state", "extra"),
    [
        (HF_STATE, "visual.proj"),
        (HF_STATE, "mit.resblocks.0.ln_1.weight"),
        (STATE, "module.visual.proj"),
    ],
)
def test_key_that_says_the_same_in_other_words_is_refused(state, extra, tmp_path):
    name = extra.removeprefix("module.")
    for mixed in ({extra: torch.zeros(2)} | state, state | {extra: torch.zeros(2)}):
        with pytest.raises(WeightsError, match=rf"holds {name} twice"):
            load(saved(mixed, tmp_path))


def test_gap_between_layers_is_reported_as_missing_and_surplus(tmp_path):
    moved = {name.replace("mit.resblocks.1.", "mit.resblocks.2."): tensor for name, tensor in STATE.items()}
    with pytest.raises(WeightsError, match=r"missing: mit\.resblocks\.1\..*surplus: mit\.resblocks\.2\."):
        load(saved(moved, tmp_path))


def test_long_lists_of_keys_are_cut(tmp_path):
    with pytest.raises(WeightsError, match=r"and \d+ more") as raised:
        load(saved({name: STATE[name] for name in STATE if "resblocks.1." not in name or "mlp" in name}, tmp_path))
    assert len(str(raised.value)) < 2000


def text_tower(state):
    """Half of a CLIP: no X-CLIP, and nothing to start one from."""
    ours = ("vis", "mit.", "prompts_")
    return {name: tensor for name, tensor in state.items() if not name.startswith(ours)}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (text_tower(STATE), "not X-CLIP weights.*message_fc.*nor CLIP weights"),
        (text_tower(HF_STATE), "not X-CLIP weights.*message_fc.*nor CLIP weights"),
        (text_tower(STATE) | {"visual.layer1.0.conv1.weight": torch.zeros(1)}, "ResNet CLIP.*vision transformer"),
        ({"fc.weight": torch.zeros(1)}, r"not X-CLIP weights.*fc\.weight"),
        ({}, "not X-CLIP weights"),
    ],
    ids=["a text tower", "a text tower of HuggingFace", "ResNet CLIP", "another model", "nothing"],
)
def test_weights_of_another_model_are_refused_with_the_reason(state, reason, tmp_path):
    with pytest.raises(WeightsError, match=reason):
        load(saved(state, tmp_path))


# What cannot be read


class Code:
    """Runs when it is unpickled without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("place", ["whole", "model", "beside"])
def test_code_in_a_checkpoint_is_refused_and_not_run(place, tmp_path):
    code = Code(tmp_path / "was run")
    content = {"whole": code, "model": {"model": code}, "beside": {"model": STATE, "config": code}}[place]
    path = saved(content, tmp_path)
    with pytest.raises(WeightsError, match=r"cannot be read as tensors \(it asks for \w+\.mkdir") as raised:
        load(path)
    assert not code.mark.exists()
    assert "weights_only" not in str(raised.value), "torch's advice is to run the code"
    torch.load(path, weights_only=False)
    assert code.mark.exists(), "the file was harmless, and this test proved nothing"


def test_code_in_a_plain_pickle_is_refused_and_not_run(tmp_path):
    code = Code(tmp_path / "was run")
    (tmp_path / "model.pth").write_bytes(pickle.dumps(code))
    with pytest.raises(WeightsError, match="cannot be read as tensors"):
        load(tmp_path / "model.pth")
    assert not code.mark.exists()


@pytest.mark.parametrize("save", [save_pth, save_safetensors])
@pytest.mark.parametrize("share", [0, 1e-6, 0.001, 0.3, 0.999999])
def test_truncated_file_is_refused(save, share, tmp_path):
    path = save(STATE, tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(WeightsError, match=rf"{path.name} cannot be read as tensors \(.+\); expected"):
        load(path)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_pickle_never_raises_a_foreign_error(seed, tmp_path):
    """Bytes of the pickle inside the archive are changed at random: refused, or read where nothing that matters hit."""
    data = bytearray(saved({"epoch": 1, **text_tower(STATE)}, tmp_path).read_bytes())
    start = data.index(b"\x80\x02}")
    chance = random.Random(seed)
    for _ in range(3):
        data[start + chance.randrange(3000)] = chance.randrange(256)
    (tmp_path / "damaged.pth").write_bytes(data)
    with pytest.raises(WeightsError, match=r".+"):
        load(tmp_path / "damaged.pth")


@pytest.mark.parametrize("name", ["notes.pth", "pytorch_model.bin", "notes.safetensors"])
def test_text_file_is_refused(name, tmp_path):
    (tmp_path / name).write_text("hello, these are my notes\n" * 9)
    with pytest.raises(WeightsError, match=rf"{name} cannot be read as tensors"):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds a list; expected a dictionary of tensors"),
        ({"model": [1]}, "holds a list; expected a dictionary of tensors"),
        ({"weights": STATE}, "holds entries that are not tensors: weights"),
        ({"state_dict": [1]}, "holds a list; expected a dictionary of tensors"),
        (STATE | {"version": 3}, "holds entries that are not tensors: version"),
    ],
)
def test_contents_that_are_no_state_dict_are_named(content, reason, tmp_path):
    with pytest.raises(WeightsError, match=reason) as raised:
        load(saved(content, tmp_path))
    assert str(raised.value).count("expected") <= 1


def test_empty_folder_is_told_what_it_should_hold(tmp_path):
    with pytest.raises(WeightsError, match=r"holds none of model\.safetensors, pytorch_model\.bin"):
        load(tmp_path)


def test_missing_path_is_told_what_is_accepted(tmp_path):
    with pytest.raises(InputError, match=r"no model '.*nothing\.pth'.*embedded name.*footage models"):
        load(tmp_path / "nothing.pth")


def test_read_tensors_itself_reports_a_missing_file(tmp_path):
    with pytest.raises(WeightsError, match="there is no model file"):
        read_tensors(tmp_path / "nothing.pth")


def test_index_of_a_sharded_checkpoint_alone_is_not_enough(tmp_path):
    save_file(HF_STATE, tmp_path / "model-00001-of-00001.safetensors")
    with pytest.raises(WeightsError, match="holds none of"):
        load(tmp_path)
