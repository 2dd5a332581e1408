"""CLIP models for tests: tiny, random, in the layouts in which CLIP is published."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from tests.models import TINY, State, to_hf
from xclip_core import XClipConfig


def openclip_config(config: XClipConfig = TINY) -> dict:
    """open_clip's words for our sizes: heads 64 wide, QuickGELU."""
    vision = {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "width": config.vision_width,
        "layers": config.vision_layers,
    }
    text = {
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "width": config.text_width,
        "heads": config.text_width // 64,
        "layers": config.text_layers,
    }
    return {"embed_dim": config.embed_dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}


def openclip_model(config: XClipConfig = TINY, *, kind: type[nn.Module] = CLIP, seed: int = 4) -> nn.Module:
    """open_clip's CLIP of our sizes, every parameter random, float32."""
    model = kind(**openclip_config(config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 1 + 0.3 * noise)
    return model.eval()


def register(name: str, config: XClipConfig, folder: Path) -> str:
    """Makes open_clip know an architecture of our sizes; returns its name."""
    (folder / f"{name}.json").write_text(json.dumps(openclip_config(config)))
    open_clip.add_model_config(folder / f"{name}.json")
    return name


def save_openclip(folder: Path, config: XClipConfig = TINY) -> Path:
    """What open_clip's training writes: the state dict in a container, from a data-parallel wrapper."""
    state = {f"module.{name}": tensor for name, tensor in openclip_model(config).state_dict().items()}
    torch.save({"epoch": 3, "name": "a run", "state_dict": state}, path := folder / "epoch_3.pt")
    return path


def save_custom_text(folder: Path, config: XClipConfig = TINY) -> Path:
    """open_clip's other class, in which the text tower has a name; the same values."""
    model = openclip_model(config, kind=CustomTextCLIP)
    model.load_state_dict(convert_to_custom_text_state_dict(openclip_model(config).state_dict()))
    torch.save(model.state_dict(), path := folder / "custom_text.pt")
    return path


def save_openai(folder: Path, config: XClipConfig = TINY) -> Path:
    """OpenAI's archive: TorchScript, half precision, three sizes among the tensors; the same values, halved."""
    model = openclip_model(config)
    sizes = {
        "input_resolution": config.image_size,
        "context_length": config.context_length,
        "vocab_size": config.vocab_size,
    }
    for name, value in sizes.items():
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    example = {
        "encode_image": torch.zeros(1, 3, config.image_size, config.image_size),
        "encode_text": torch.zeros(1, config.context_length, dtype=torch.int64),
    }
    with warnings.catch_warnings():  # torch would rather see torch.export; OpenAI's files are what they are
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace_module(model, example).half(), path := folder / "ViT-T-8.pt")
    return path


def save_hf_clip(folder: Path, config: XClipConfig = TINY) -> Path:
    """A HuggingFace folder with a CLIPModel of the same values, and the position buffers of old times."""
    model = CLIPModel(CLIPConfig(**_hf_config(config))).eval()
    model.load_state_dict(_hf_words(openclip_model(config).state_dict()), strict=True)
    model.save_pretrained(folder)
    return folder


def _hf_config(config: XClipConfig) -> dict:
    def tower(width: int, layers: int) -> dict:
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": config.embed_dim}
        return sizes | {"num_hidden_layers": layers, "num_attention_heads": width // 64}

    text = {"vocab_size": config.vocab_size, "max_position_embeddings": config.context_length}
    # Told that the end is token 2, which it never is in tests, CLIPModel looks for the largest token as CLIP does.
    text |= {"eos_token_id": 2}
    vision = {"image_size": config.image_size, "patch_size": config.patch_size}
    return {
        "text_config": tower(config.text_width, config.text_layers) | text,
        "vision_config": tower(config.vision_width, config.vision_layers) | vision,
        "projection_dim": config.embed_dim,
    }


def _hf_words(state: State) -> State:
    """Written without a look at the loader: transformers' own strict loading checks it."""
    return {name.replace("pre_layernorm", "pre_layrnorm"): tensor for name, tensor in to_hf(state).items()}


def frame_mean(model: nn.Module, pixels: Tensor) -> Tensor:
    """The mean of open_clip's own frame vectors: clips B x T x 3 x S x S to B x E."""
    return torch.stack([model.encode_image(clip).mean(dim=0) for clip in pixels])


CLIP_LAYOUTS = {
    "clip-openai": save_openai,
    "clip-openclip": save_openclip,
    "clip-openclip, text tower named": save_custom_text,
    "clip-hf": save_hf_clip,
}
