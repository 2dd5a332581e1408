"""The living reference, transformers' XCLIPModel, and the comparison that parity, golden and mutation tests share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import XCLIPConfig, XCLIPModel, XCLIPTextConfig, XCLIPVisionConfig

from tests.models import State, random_inputs, random_state, to_hf
from xclip_core import XClip, XClipConfig

FLOAT64_TOLERANCE = 1e-9  # absolute; finds even a wrong LayerNorm epsilon
FLOAT32_TOLERANCE = 2e-5  # of the largest expected value, or of 1


@dataclass(frozen=True)
class Reference:
    """A reference model in float64, what it was given, and what it said."""

    hf: XCLIPModel
    pixels: Tensor
    token_ids: Tensor
    expected: dict[str, Tensor]


def make_reference(config: XClipConfig) -> Reference:
    """The reference with random weights of a seed of its own, and its outputs on random inputs."""
    hf = hf_model(config, random_state(config, seed=3)).double()
    pixels, token_ids = random_inputs(config)
    return Reference(hf, pixels, token_ids, hf_outputs(hf, pixels, token_ids))


def hf_model(config: XClipConfig, official: State) -> XCLIPModel:
    """XCLIPModel of our sizes. Its strict loading checks `to_hf`, so the two layouts meet in a third party."""
    text = XCLIPTextConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.text_width,
        intermediate_size=4 * config.text_width,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.text_width // 64,
        max_position_embeddings=config.context_length,
    )
    vision = XCLIPVisionConfig(
        hidden_size=config.vision_width,
        intermediate_size=4 * config.vision_width,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.vision_width // 64,
        mit_hidden_size=config.embed_dim,
        mit_intermediate_size=4 * config.embed_dim,
        mit_num_hidden_layers=config.mit_layers,
        mit_num_attention_heads=config.embed_dim // 64,  # HuggingFace's default is 8 whatever the width
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_frames=config.frames,
    )
    hf_config = XCLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=config.embed_dim,
        prompt_layers=config.prompt_layers,
        prompt_num_attention_heads=config.embed_dim // 64,
        attn_implementation="sdpa",  # the eager kernel takes its softmax in float32, even in a float64 model
    )
    hf = XCLIPModel(hf_config).eval()
    hf.load_state_dict(to_hf(official), strict=True)
    return hf


@torch.inference_mode()
def hf_outputs(hf: XCLIPModel, pixels: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
    """What the reference computes, under the names of `outputs`. Its z-bar is overheard on its way to the prompt."""
    overheard: list[Tensor] = []
    handle = hf.prompts_generator.register_forward_hook(lambda _module, inputs, _out: overheard.append(inputs[1]))
    said = hf(input_ids=token_ids, pixel_values=pixels)
    handle.remove()
    return {
        "video": hf.get_video_features(pixels).pooler_output,
        "context": overheard[0],
        "text": hf.get_text_features(token_ids).pooler_output,
        "prompted": said.text_embeds,
        "logits": said.logits_per_video,
    }


@torch.inference_mode()
def outputs(model: XClip, pixels: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
    """Everything our model computes: raw video, z-bar, raw text, unit prompted text, logits."""
    video, context = model.video(pixels.to(model.device, model.dtype))
    text = model.text(token_ids.to(model.device))
    prompted = F.normalize(model.prompts_generator(text, context), dim=-1)
    logits = model.score(video, context, text)
    return {"video": video, "context": context, "text": text, "prompted": prompted, "logits": logits}


def assert_parity(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Fails, naming the tensor, unless all agree to the tolerance of the dtype they were computed in."""
    for name, reference in expected.items():
        value = got[name]
        assert value.shape == reference.shape, f"{name}: {tuple(value.shape)}, not {tuple(reference.shape)}"
        scale = max(1.0, reference.abs().max().item())
        limit = FLOAT64_TOLERANCE if value.dtype == torch.float64 else FLOAT32_TOLERANCE * scale
        error = (value.double().cpu() - reference.double()).abs().max().item()
        assert error <= limit, f"{name} differs by {error:.2e}, more than {limit:.0e}"
