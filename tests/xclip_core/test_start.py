"""The start from CLIP: four layouts, exactly the listed parts new, and CLIP itself underneath."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace

import pytest
import torch
from open_clip.model import CLIP
from transformers import CLIPModel

from schemas.errors import InputError, WeightsError
from tests.clips import CLIP_LAYOUTS, frame_mean, openclip_model, save_hf_clip, save_openclip
from tests.models import TINY, random_inputs, random_state, save_safetensors
from xclip_core import load, torchscript
from xclip_core.ablation import PARTS, cut
from xclip_core.hub import open_checkpoint
from xclip_core.layouts import NEW
from xclip_core.model import shapes

CLIP_STATE = openclip_model().state_dict()
STARTED = replace(TINY, frames=8, mit_layers=1, prompt_layers=2)  # what the released models have in common
# The list of the specification, §7 and §8, in other words than the loader's.
NEW_PARTS = ("mit.", "prompts_generator.", "prompts_visual_ln.", "prompts_visual_proj")
MESSAGES = re.compile(r"visual\.transformer\.resblocks\.\d+\.message_(fc|ln|attn)\.")


def is_new(name: str) -> bool:
    return name.startswith(NEW_PARTS) or bool(MESSAGES.match(name))


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict:
    """A file or folder of every layout, with the same values."""
    return {name: save(tmp_path_factory.mktemp("clip")) for name, save in CLIP_LAYOUTS.items()}


# What comes of it


@pytest.mark.parametrize("layout", CLIP_LAYOUTS)
def test_every_value_of_clip_arrives_and_exactly_the_listed_parts_are_new(layout, sources):
    official = open_checkpoint(sources[layout]).official
    assert {name for name in official if not is_new(name)} == CLIP_STATE.keys()
    assert official.keys() == shapes(STARTED).keys()
    for name, tensor in CLIP_STATE.items():
        expected = tensor.half() if layout == "clip-openai" else tensor
        assert torch.equal(official[name].float(), expected.float()), name


def test_the_pattern_of_new_parts_is_the_specifications_list():
    assert {name for name in shapes(TINY) if NEW.match(name)} == {name for name in shapes(TINY) if is_new(name)}


@pytest.mark.parametrize("layout", CLIP_LAYOUTS)
def test_all_layouts_start_alike_and_say_that_they_are_not_trained(layout, sources):
    model = load(sources[layout])
    other = load(sources["clip-hf"])
    assert model.config == other.config == STARTED
    assert model.provenance.layout == layout.split(",")[0]
    assert any("not trained" in note for note in model.provenance.notes)
    fresh, again = (dict(x.state_dict()) for x in (model, other))
    assert all(torch.equal(fresh[name], again[name]) for name in fresh if is_new(name))
    assert {tensor.dtype for tensor in fresh.values()} == {torch.float32}


def test_x_clip_weights_have_no_such_note(tmp_path):
    assert load(save_safetensors(random_state(), tmp_path)).provenance.notes == ()


def test_the_hash_tells_clips_apart_and_not_their_layouts(sources, tmp_path):
    hashes = {name: load(path).provenance.weights_hash for name, path in sources.items()}
    assert len({hashes[name] for name in hashes if name != "clip-openai"}) == 1, "the same float32 values"
    torch.save(CLIP_STATE | {"logit_scale": torch.tensor(3.0)}, path := tmp_path / "other.pt")
    assert load(path).provenance.weights_hash not in hashes.values()


@pytest.mark.parametrize("frames", [1, 8, 32])
def test_any_number_of_frames_can_be_started_with(frames, sources):
    model = load(sources["clip-hf"], frames=frames)
    assert model.config.frames == frames
    assert model.mit.positional_embedding.shape == (1, frames, TINY.embed_dim)
    assert not any("resampled" in note for note in model.provenance.notes), "the table is new, not resampled"


def test_new_parts_have_the_official_initial_values(tmp_path):
    """Spec §7, each row of its table, on widths where a standard deviation can be told."""
    wide = replace(TINY, vision_width=256, embed_dim=256, text_width=64)
    model = load(save_openclip(tmp_path, wide))
    block = model.visual.transformer.resblocks[0]
    assert block.message_fc.weight.abs().max().item() == pytest.approx(1 / 16, rel=0.01)  # uniform, 1 / sqrt(D)
    assert block.message_fc.bias.abs().max().item() == pytest.approx(1 / 16, rel=0.05)
    assert block.message_attn.in_proj_weight.abs().max().item() == pytest.approx(math.sqrt(6 / (4 * 256)), rel=0.01)
    assert not block.message_attn.in_proj_bias.any()
    assert not block.message_attn.out_proj.bias.any()
    assert block.message_attn.out_proj.weight.std().item() == pytest.approx(1 / 16 / math.sqrt(3), rel=0.02)
    assert model.mit.positional_embedding.std().item() == pytest.approx(0.02, rel=0.1)
    mit = model.mit.resblocks[0]
    assert mit.attn.in_proj_weight.abs().max().item() == pytest.approx(math.sqrt(6 / (4 * 256)), rel=0.01)
    assert mit.mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not mit.mlp.c_fc.bias.any()
    assert model.prompts_visual_proj.std().item() == pytest.approx(1, rel=0.02)
    assert (model.prompts_generator.alpha == torch.tensor(0.1)).all()
    assert model.prompts_generator.decoder[1].cross_attn.q_proj.weight.std().item() == pytest.approx(0.02, rel=0.02)
    for norm in (block.message_ln, mit.ln_1, mit.ln_2, model.prompts_visual_ln, model.prompts_generator.norm):
        assert (norm.weight == 1).all()
        assert not norm.bias.any()


def test_loading_leaves_the_callers_random_numbers_alone(sources):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(sources["clip-openclip"])
    assert torch.equal(torch.rand(3), expected)


# CLIP is still in there


@pytest.fixture(scope="module")
def started(sources):
    """The start from open_clip's file."""
    return load(sources["clip-openclip"], frames=TINY.frames)


@torch.inference_mode()
def test_without_temporal_parts_it_is_open_clips_frame_mean(started):
    pixels, token_ids = random_inputs()
    pixels, clip, rest = pixels.float(), openclip_model(), cut(started)
    video, context = rest.video(pixels)
    torch.testing.assert_close(video, frame_mean(clip, pixels), atol=1e-5, rtol=0)
    text = rest.text(token_ids)
    torch.testing.assert_close(text, clip.encode_text(token_ids), atol=1e-5, rtol=0)
    cosines = torch.nn.functional.cosine_similarity(video[:, None], text[None], dim=-1)
    torch.testing.assert_close(rest.score(video, context, text), clip.logit_scale.exp() * cosines, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_without_temporal_parts_it_is_transformers_clip(tmp_path):
    folder = save_hf_clip(tmp_path)
    pixels, token_ids = random_inputs()
    pixels, rest = pixels.float(), cut(load(folder, frames=TINY.frames))
    hf = CLIPModel.from_pretrained(folder).eval()
    frames = [hf.get_image_features(clip).pooler_output.mean(dim=0) for clip in pixels]
    torch.testing.assert_close(rest.video(pixels)[0], torch.stack(frames), atol=1e-5, rtol=0)
    text = hf.get_text_features(token_ids).pooler_output
    torch.testing.assert_close(rest.text(token_ids), text, atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("part", PARTS)
def test_each_part_left_in_moves_something(part, started):
    """Otherwise cutting it would prove nothing."""
    inputs = [x.float() if x.is_floating_point() else x for x in random_inputs()]

    def logits(model):
        return model.score(*model.video(inputs[0]), model.text(inputs[1]))

    bare = logits(cut(started))
    assert (logits(cut(started, [other for other in PARTS if other != part])) - bare).abs().max() > 1e-3


def test_what_is_left_is_shared_with_the_whole(started):
    rest = cut(started)
    assert rest.visual.proj is started.visual.proj
    assert rest.visual.transformer.resblocks[1].attn.in_proj_weight is (
        started.visual.transformer.resblocks[1].attn.in_proj_weight
    )
    assert not any("message_" in name or name.startswith("mit.") for name, _ in rest.named_parameters())
    assert any("message_" in name for name, _ in started.named_parameters()), "the whole stays whole"


def test_a_part_that_there_is_not_is_refused(started):
    with pytest.raises(InputError, match=r"no part memory; expected some of messages, integration, prompt"):
        cut(started, ["memory"])


# What does not fit


@pytest.mark.parametrize("name", ["ln_final.weight", "visual.ln_pre.bias", "transformer.resblocks.1.mlp.c_fc.weight"])
def test_a_missing_key_of_clip_is_named(name, tmp_path):
    torch.save({key: tensor for key, tensor in CLIP_STATE.items() if key != name}, path := tmp_path / "clip.pt")
    with pytest.raises(WeightsError, match=rf"missing: {name}"):
        load(path)


@pytest.mark.parametrize(
    "name", ["logit_bias", "visual.attn_pool.query", "mit.positional_embedding", "prompts_generator.alpha"]
)
def test_a_key_that_is_not_clips_is_surplus_even_if_x_clip_has_it(name, tmp_path):
    torch.save(CLIP_STATE | {name: torch.zeros(2)}, path := tmp_path / "clip.pt")
    with pytest.raises(WeightsError, match=rf"surplus: {name}"):
        load(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("visual.layer1.0.conv1.weight", "ResNet CLIP; X-CLIP needs a vision transformer"),
        ("visual.trunk.blocks.0.attn.qkv.weight", "timm vision tower; use it as openclip:ARCH=FILE"),
    ],
)
def test_clips_of_another_kind_are_refused_with_the_reason(name, reason, tmp_path):
    state = {key: tensor for key, tensor in CLIP_STATE.items() if not key.startswith("visual.")}
    torch.save(state | {name: torch.zeros(2)}, path := tmp_path / "clip.pt")
    with pytest.raises(WeightsError, match=reason):
        load(path)


def test_towers_whose_heads_are_not_64_wide_are_refused(tmp_path):
    """ViT-H is 1280 wide with heads of 80; 1280 divides by 64, so that nothing else would notice."""
    huge = {
        "visual.positional_embedding": torch.zeros(10, 1280),
        "visual.conv1.weight": torch.zeros(1280, 3, 8, 8),
        "visual.proj": torch.zeros(1280, 128),
    }
    torch.save(CLIP_STATE | huge, path := tmp_path / "huge.pt")
    with pytest.raises(WeightsError, match=r"1280 wide vision layers, ViT-H \(80\).*expected ViT-B or ViT-L"):
        load(path)


def test_masks_and_sizes_of_the_archive_are_dropped_and_nothing_else(sources):
    path = sources["clip-openai"]
    with warnings.catch_warnings():  # torch would rather see torch.export
        warnings.simplefilter("ignore")
        archive = torch.jit.load(path)
    kept = open_checkpoint(path).official
    dropped = {"input_resolution", "context_length", "vocab_size", "attn_mask"}
    assert {name for name in kept if not is_new(name)} == archive.state_dict().keys() - dropped
    assert "attn_mask" in torchscript.read(path), "nothing was there to drop"


def test_open_clip_reads_the_same_model_from_the_custom_class(sources):
    assert isinstance(openclip_model(), CLIP)
    one, other = (open_checkpoint(sources[name]).official for name in CLIP_LAYOUTS if "openclip" in name)
    assert all(torch.equal(one[name], other[name]) for name in one)
