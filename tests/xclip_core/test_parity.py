"""Numbers agree with transformers' XCLIPModel, an implementation that shares no code with ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.xclip_core.reference import Reference, assert_parity, outputs
from xclip_core import load

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.fixture(scope="module", params=["model.safetensors", "pytorch_model.bin"])
def folder(request: pytest.FixtureRequest, reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference as HuggingFace saves it now, and as it did when X-CLIP was released."""
    path = tmp_path_factory.mktemp("hf")
    if request.param == "model.safetensors":
        reference.hf.save_pretrained(path)
    else:
        torch.save(reference.hf.state_dict(), path / request.param)
    return path


def test_reference_uses_the_attention_kernel_that_keeps_float64(reference):
    configs = {m.config._attn_implementation for m in reference.hf.modules() if hasattr(m, "config")}
    assert configs == {"sdpa"}


def test_sizes_in_play_are_all_different(reference):
    clips, frames = reference.pixels.shape[:2]
    texts, patches = len(reference.token_ids), reference.expected["context"].shape[1]
    assert len({clips, frames, texts, patches}) == 4


@pytest.mark.parametrize("device", DEVICES)
def test_float64_agrees_to_1e_9(folder, reference, device):
    model = load(folder, device=device, dtype=torch.float64)
    assert_parity(outputs(model, reference.pixels, reference.token_ids), reference.expected)


def test_float32_agrees_to_2e_5_of_scale(folder, reference):
    model = load(folder)
    assert model.dtype == torch.float32
    assert_parity(outputs(model, reference.pixels, reference.token_ids), reference.expected)


def test_released_layers_and_heads_are_read_from_the_shapes(folder, reference):
    config = load(folder).config
    vision = reference.hf.config.vision_config
    assert (config.frames, config.image_size, config.patch_size) == (vision.num_frames, vision.image_size, 8)
    assert (config.vision_layers, config.text_layers, config.mit_layers, config.prompt_layers) == (2, 2, 2, 2)
