"""The ten traps of loading X-CLIP (spec §8), a test each. Those of the two layouts have more in `test_weights.py`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from schemas.errors import ShapeError
from tests.clips import openclip_model, save_hf_clip, save_openai
from tests.models import (
    TINY,
    WORDED,
    hf_name,
    random_frames,
    random_inputs,
    random_state,
    save_hf_bin_folder,
    save_hf_folder,
    save_safetensors,
)
from tests.xclip_core.reference import hf_model, hf_outputs
from xclip_core import encode_video, load
from xclip_core.blocks import attend
from xclip_core.convert import hf_config
from xclip_core.hub import open_checkpoint
from xclip_core.released import RELEASED

STATE = random_state()
# An L/14's joint space, 768 = 12 heads of 64, with little else.
LARGE = replace(TINY, embed_dim=768, vision_width=64, text_width=64, vision_layers=1, text_layers=1, mit_layers=1)


@pytest.mark.parametrize("module", ["mit", "prompt"])
def test_1_huggingfaces_large_files_say_8_heads_where_12_are_right(module, tmp_path):
    """The same weights read with 8 heads of 96 are another model, and a config.json that says so is not believed."""
    state = random_state(LARGE)
    pixels, token_ids = random_inputs(LARGE)
    right = hf_model(LARGE, state).double()
    wrong = hf_model(LARGE, state).double()
    parts = [layer.self_attn for layer in wrong.mit.encoder.layers]
    if module == "prompt":
        parts = [layer.cross_attn for layer in wrong.prompts_generator.decoder]
    for part in parts:
        part.num_heads, part.head_dim, part.scale = 8, 96, 96**-0.5

    folder = save_hf_folder(state, tmp_path)
    config = hf_config(LARGE, state) | {"prompt_num_attention_heads": 8}
    config["vision_config"]["mit_num_attention_heads"] = 8
    (folder / "config.json").write_text(json.dumps(config))
    model = load(folder, dtype=torch.float64)
    video, context = model.video(pixels)
    logits = model.score(video, context, model.text(token_ids))

    as_official, as_converted = (hf_outputs(hf, pixels, token_ids)["logits"] for hf in (right, wrong))
    torch.testing.assert_close(logits, as_official, atol=1e-9, rtol=0)
    assert (logits - as_converted).abs().max() > 1e-3, "the heads make no difference, and this test proved nothing"


def test_1_every_released_model_has_heads_of_64():
    for released in RELEASED.values():
        config = hf_config(released.config, {"logit_scale": torch.zeros(())})
        heads = {"B": 8, "L": 12}[released.architecture[0]]
        assert config["prompt_num_attention_heads"] == config["vision_config"]["mit_num_attention_heads"] == heads


def test_2_position_ids_of_old_files_are_ignored(tmp_path):
    assert open_checkpoint(save_hf_bin_folder(STATE, tmp_path)).official.keys() == STATE.keys()


def test_3_message_attention_is_not_taken_for_attention_and_rows_are_query_key_value(tmp_path):
    official = open_checkpoint(save_hf_folder(STATE, tmp_path)).official
    for kind in ("attn", "message_attn"):
        name = f"visual.transformer.resblocks.1.{kind}.in_proj_weight"
        assert torch.equal(official[name], STATE[name])
    assert load(tmp_path).config.vision_layers == TINY.vision_layers


def test_4_two_projections_are_turned_one_is_not_and_the_prompt_has_no_biases(tmp_path):
    hf = hf_model(TINY, STATE).state_dict()
    official = open_checkpoint(save_hf_folder(STATE, tmp_path)).official
    for name in ("text_projection", "visual.proj"):
        assert torch.equal(official[name], hf[hf_name(name)].T)
    assert torch.equal(official["prompts_visual_proj"], hf["prompts_visual_projection"])
    assert not any(".cross_attn." in name and "_proj.bias" in name for name in official)


def test_5_one_frame_in_a_batch_that_t_divides_is_refused_and_not_mixed(tmp_path):
    """The reference takes T clips of one frame for one clip of T frames, and mixes their messages."""
    model = load(save_safetensors(STATE, tmp_path))
    pixels = torch.randn(TINY.frames, 1, 3, TINY.image_size, TINY.image_size)
    with pytest.raises(ShapeError, match=rf"this model takes \(clips, {TINY.frames} frames"):
        model.video(pixels)
    with pytest.raises(ShapeError, match=rf"this model takes \(clips, {TINY.frames} frames"):
        model.video(pixels.transpose(0, 1)[:, :-1])


def test_6_another_picture_size_needs_a_table_and_is_only_resampled_on_request(tmp_path):
    """336 pixels have a table of their own, 577 rows; the sizes come from it and not from a config."""
    assert {model.config.patches + 1 for model in RELEASED.values() if model.image_size == 336} == {577}
    file = save_safetensors(STATE, tmp_path)
    larger = replace(TINY, image_size=2 * TINY.image_size)
    frames = random_frames(larger)
    with pytest.raises(ShapeError, match="this model takes uint8 RGB"):
        encode_video(load(file), frames)
    assert encode_video(load(file, image_size=larger.image_size), frames).isfinite().all()


def test_7_half_precision_of_openais_archive_arrives_to_the_bit(tmp_path):
    """Linear and attention weights are stored as float16: widened, not rounded again, and float16 holds them again."""
    official = open_checkpoint(save_openai(tmp_path)).official
    for name, tensor in openclip_model().state_dict().items():
        assert official[name].dtype == torch.float16
        assert torch.equal(official[name].float().half(), tensor.half())
    assert {parameter.dtype for parameter in load(tmp_path / "ViT-T-8.pt").parameters()} == {torch.float32}


def test_8_a_float64_model_attends_in_float64():
    """HuggingFace's eager kernel takes its softmax in float32, which leaves 1e-7 of noise."""
    q, k, v = torch.randn(3, 2, 5, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    heads = [x.unflatten(-1, (2, 64)).transpose(1, 2) for x in (q, k, v)]
    weights = (heads[0] @ heads[1].transpose(-1, -2) / 8).softmax(dim=-1)
    expected = (weights @ heads[2]).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(attend(q, k, v), expected, atol=1e-14, rtol=0)


def test_9_raw_texts_are_what_the_score_wants_and_unit_texts_are_another_score(tmp_path):
    """Feature getters differ in what they normalise. The prompt generator was trained on raw texts."""
    model = load(save_safetensors(STATE, tmp_path), dtype=torch.float64)
    pixels, token_ids = random_inputs()
    video, context = model.video(pixels)
    text = model.text(token_ids)
    expected = hf_outputs(hf_model(TINY, STATE).double(), pixels, token_ids)
    torch.testing.assert_close(text, expected["text"], atol=1e-9, rtol=0)
    torch.testing.assert_close(video, expected["video"], atol=1e-9, rtol=0)
    torch.testing.assert_close(model.score(3 * video, context, text), expected["logits"], atol=1e-9, rtol=0)
    unit = torch.nn.functional.normalize(text, dim=-1)
    assert (model.score(video, context, unit) - expected["logits"]).abs().max() > 1e-2


def test_10_no_processors_file_decides_what_pixels_are(tmp_path):
    """Processors of the hub changed from version to version; mean 0.5 is the default of the one X-CLIP names."""
    folder = save_hf_folder(random_state(WORDED), tmp_path)
    frames = random_frames(WORDED)
    expected = encode_video(load(folder), frames)
    processor = {"image_processor_type": "VideoMAEImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    assert torch.equal(encode_video(load(folder), frames), expected)


def test_huggingfaces_clip_misspells_one_name_and_its_x_clip_does_not(tmp_path):
    clip = open_checkpoint(save_hf_clip(tmp_path)).official
    assert torch.equal(clip["visual.ln_pre.weight"], openclip_model().state_dict()["visual.ln_pre.weight"])
    assert hf_name("visual.ln_pre.weight") == "vision_model.pre_layernorm.weight"
