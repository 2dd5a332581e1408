"""From any layout to any other and back: the same bits, whole files, and nothing overwritten unasked."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import XCLIPModel

from schemas.errors import InputError
from tests.clips import CLIP_LAYOUTS, openclip_model, save_hf_clip
from tests.models import LAYOUTS, TINY, random_inputs, random_state, save_safetensors, to_hf
from tests.xclip_core.reference import hf_outputs
from xclip_core import load
from xclip_core.convert import convert
from xclip_core.hub import open_checkpoint
from xclip_core.weights import read_tensors

STATE = random_state()
# A small model for tests that are about files: the bits do not care for widths.
SMALL = replace(TINY, embed_dim=64, vision_width=64, text_width=64, vision_layers=1, text_layers=1, mit_layers=1)
OUTS = [("a.safetensors", None), ("a.safetensors", "hf"), ("a.pth", None), ("a.bin", "hf"), ("folder", None)]

PAIRS = [pair for one, other in pairwise([*OUTS, OUTS[0]]) for pair in ((one, other), (other, one))]


def same_bits(one, other) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A tiny model, float32 but for two tensors: dtypes must survive, too."""
    state = random_state(SMALL)
    state["visual.proj"] = state["visual.proj"].half()
    state["token_embedding.weight"] = state["token_embedding.weight"].bfloat16()
    return save_safetensors(state, tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=str)
def test_there_and_back_is_the_same_bits(first, second, file, tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    out = tmp_path / "1" / first[0]
    again = tmp_path / "2" / second[0]
    convert(file, out, layout=first[1])
    written = convert(out, again, layout=second[1])
    convert(again, tmp_path / "back.safetensors")
    assert same_bits(load_file(tmp_path / "back.safetensors"), load_file(file))
    assert written.source.layout == (first[1] or ("hf" if first[0] == "folder" else "official"))
    assert written.source.weights_hash == open_checkpoint(file).provenance.weights_hash


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_converted(layout, tmp_path):
    (tmp_path / "in").mkdir()
    source = LAYOUTS[layout](STATE, tmp_path / "in")
    convert(source, tmp_path / "official.safetensors")
    convert(source, tmp_path / "hf.safetensors", layout="hf")
    assert same_bits(read_tensors(tmp_path / "official.safetensors"), STATE)
    assert same_bits(read_tensors(tmp_path / "hf.safetensors"), to_hf(STATE))


def test_an_official_container_holds_model(tmp_path, file):
    convert(file, tmp_path / "a.pth")
    assert torch.load(tmp_path / "a.pth", weights_only=True).keys() == {"model"}
    assert (tmp_path / "a.pth").stat().st_size < 1.1 * file.stat().st_size, "a view took its whole storage along"


# transformers reads it


def test_a_folder_is_what_transformers_loads_and_gives_the_same_logits(tmp_path):
    source = save_safetensors(STATE, tmp_path)
    convert(source, tmp_path / "folder")
    hf = XCLIPModel.from_pretrained(tmp_path / "folder", attn_implementation="sdpa").double().eval()
    model = load(source, dtype=torch.float64)
    pixels, token_ids = random_inputs()
    expected = hf_outputs(hf, pixels, token_ids)["logits"]
    video, context = model.video(pixels)
    torch.testing.assert_close(model.score(video, context, model.text(token_ids)), expected, atol=1e-9, rtol=0)


def test_config_json_has_the_true_heads(tmp_path):
    """Of an L/14's widths HuggingFace's own files say 8 where 12 is right."""
    large = replace(SMALL, embed_dim=768, text_width=768)
    save_file(random_state(large), tmp_path / "large.safetensors")
    convert(tmp_path / "large.safetensors", tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["prompt_num_attention_heads"] == config["vision_config"]["mit_num_attention_heads"] == 12
    assert config["text_config"]["num_attention_heads"] == 12


# CLIP becomes a start


@pytest.mark.parametrize("layout", ["clip-openclip", "clip-hf"])
def test_a_clip_is_converted_to_the_start_of_training(layout, tmp_path):
    (tmp_path / "in").mkdir()
    source = CLIP_LAYOUTS[layout](tmp_path / "in")
    written = convert(source, tmp_path / "start.safetensors")
    assert "not trained" in written.source.notes[0]
    assert same_bits(read_tensors(tmp_path / "start.safetensors"), dict(open_checkpoint(source).official))
    assert load(tmp_path / "start.safetensors").config.frames == 8


def test_an_openai_archive_keeps_its_half_precision_beside_new_tensors_of_full_precision(tmp_path):
    """No value is rounded on the way: neither CLIP's to more digits, nor the new ones to fewer."""
    (tmp_path / "in").mkdir()
    source = CLIP_LAYOUTS["clip-openai"](tmp_path / "in")
    written = convert(source, tmp_path / "start.safetensors")
    assert written.source.layout == "clip-openai"
    tensors = read_tensors(tmp_path / "start.safetensors")
    clip = {name: tensor.half() for name, tensor in openclip_model().state_dict().items()}
    new = {name: tensor for name, tensor in tensors.items() if name not in clip}
    assert same_bits({name: tensors[name] for name in clip}, clip)
    assert {tensor.dtype for tensor in new.values()} == {torch.float32}
    assert "mit.positional_embedding" in new
    assert any(not torch.equal(tensor, tensor.half().float()) for tensor in new.values())
    convert(tmp_path / "start.safetensors", tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "back.safetensors")
    assert same_bits(load_file(tmp_path / "back.safetensors"), tensors)
    assert same_bits(dict(open_checkpoint(source).official), tensors)


# Files


def test_files_are_whole_or_not_there(tmp_path, file, monkeypatch):
    def broken(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", broken)
    (tmp_path / "a.pth").write_text("what was there")
    with pytest.raises(OSError, match="no space left"):
        convert(file, tmp_path / "a.pth", force=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pth"]
    assert (tmp_path / "a.pth").read_text() == "what was there"


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "folder"])
def test_nothing_is_overwritten_without_force(name, tmp_path, file):
    convert(file, tmp_path / name)
    with pytest.raises(InputError, match=r"is there already; name another, or overwrite it with --force"):
        convert(file, tmp_path / name)
    convert(file, tmp_path / name, force=True)
    assert load(tmp_path / name).config == SMALL


def test_force_leaves_other_files_of_a_folder_alone(tmp_path, file):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("keep me")
    convert(file, tmp_path / "folder", force=True)
    assert (tmp_path / "folder" / "notes.txt").read_text() == "keep me"


def test_a_file_can_be_converted_onto_itself(tmp_path):
    path = save_safetensors(STATE, tmp_path)
    convert(path, path, layout="hf", force=True)
    assert same_bits(read_tensors(path), to_hf(STATE))


@pytest.mark.parametrize(
    ("name", "layout", "reason"),
    [
        ("folder", "official", r"is a folder, which is HuggingFace's layout; name a file"),
        ("nowhere/a.pth", None, "there is no folder .*nowhere to write a.pth into"),
        ("sub.pth", None, "is a folder; its name asks for the other"),
        ("file", None, "is a file; its name asks for the other"),
    ],
)
def test_outs_that_cannot_be_are_refused(name, layout, reason, tmp_path, file):
    (tmp_path / "sub.pth").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=reason):
        convert(file, tmp_path / name, layout=layout, force=True)


def test_what_cannot_be_read_writes_nothing(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as tensors"):
        convert(tmp_path / "bad.safetensors", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_clip_in_a_folder_is_read_as_any_other(tmp_path):
    (tmp_path / "in").mkdir()
    convert(save_hf_clip(tmp_path / "in"), tmp_path / "out")
    hf = XCLIPModel.from_pretrained(tmp_path / "out")
    assert hf.config.vision_config.num_frames == 8
