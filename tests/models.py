"""Tiny random X-CLIP weights in every layout: for any test that needs a model, with no download and no training.

Every parameter is random, LayerNorm weights, biases, position tables and alpha included: at their usual initial
values (1, 0, 0.1) those hide mistakes. The way to HuggingFace's layout is written here a second time, from the
table in the specification, so that it shares no line with the loader it checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from xclip_core import XClip, XClipConfig
from xclip_core.weights import official_name

State = dict[str, Tensor]

# All widths differ, so that a transposed matrix cannot fit, and no head count is the usual 8. N = 9 patches.
TINY = XClipConfig(
    frames=5,
    image_size=24,
    patch_size=8,
    embed_dim=128,
    vision_width=192,
    vision_layers=2,
    text_width=256,
    text_layers=2,
    vocab_size=99,
    context_length=12,
    mit_layers=2,
    prompt_layers=2,
)
# All widths are equal, so that a transposed matrix fits and only the numbers can tell.
SQUARE = replace(TINY, embed_dim=128, vision_width=128, text_width=128)
# Takes the ids of the real tokeniser: for tests that start from words.
WORDED = replace(TINY, text_width=64, vocab_size=49408, context_length=77)


def random_state(config: XClipConfig = TINY, *, seed: int = 0) -> State:
    """Official-layout weights, float32, the same for the same seed."""
    with torch.device("meta"):
        shapes = {official_name(name): tensor.shape for name, tensor in XClip(config).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    return {name: _random(name, shapes[name], generator) for name in sorted(shapes)}


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if name == "logit_scale":
        return math.log(60) + 0.1 * noise  # CLIP's is near ln 100
    if len(shape) > 1:
        return noise / math.sqrt(math.prod(shape[1:]))
    is_norm_weight = name.endswith(".weight")
    return 1 + 0.3 * noise if is_norm_weight else 0.3 * noise


def random_inputs(
    config: XClipConfig = TINY, *, clips: int = 3, texts: int = 4, seed: int = 1
) -> tuple[Tensor, Tensor]:
    """Normalised float64 pixels B x T x 3 x S x S, and token ids K x C: 2 to K + 1 words, end token, zeros."""
    generator = torch.Generator().manual_seed(1)
    S, end = config.image_size, config.vocab_size - 1
    pixels = torch.randn(clips, config.frames, 3, S, S, generator=generator, dtype=torch.float64)
    token_ids = torch.zeros(texts, config.context_length, dtype=torch.int64)
    for k in range(texts):
        token_ids[k, : k + 3] = torch.randint(1, end, (k + 3,), generator=generator)
        token_ids[k, k + 3] = end
    return pixels, token_ids


def random_frames(config: XClipConfig = TINY, *, clips: int = 3, seed: int = 2) -> Tensor:
    """Frames B x T x S x S x 3, uint8: as `encode_video` takes them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (clips, config.frames, config.image_size, config.image_size, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


HF_STARTS = {
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.": "text_model.final_layer_norm.",
    "text_projection": "text_projection.weight",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.": "vision_model.embeddings.patch_embedding.",
    "visual.ln_pre.": "vision_model.pre_layernorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.proj": "visual_projection.weight",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "mit.resblocks.": "mit.encoder.layers.",
    "mit.positional_embedding": "mit.position_embedding",
    "prompts_generator.norm.": "prompts_generator.layernorm.",
    "prompts_visual_ln.": "prompts_visual_layernorm.",
    "prompts_visual_proj": "prompts_visual_projection",
}
HF_MIDDLES = {
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    ".attn.": ".self_attn.",
}


def hf_name(name: str) -> str:
    """An official key in HuggingFace's words; packed attention keeps its `in_proj_` for `to_hf` to split."""
    for official, hf in HF_STARTS.items():
        if name.startswith(official):
            name = hf + name.removeprefix(official)
            break
    for official, hf in HF_MIDDLES.items():
        name = name.replace(official, hf)
    return name


def to_hf(official: State) -> State:
    """Official-layout weights in HuggingFace's layout."""
    state: State = {}
    for name, tensor in official.items():
        if ".in_proj_" in name:
            for letter, rows in zip("qkv", tensor.chunk(3), strict=True):
                state[hf_name(name).replace("in_proj_", f"{letter}_proj.")] = rows.clone()
        elif name in ("text_projection", "visual.proj"):
            state[hf_name(name)] = tensor.T.contiguous()
        else:
            state[hf_name(name)] = tensor
    return state


def save_pth(official: State, folder: Path) -> Path:
    """The official container: weights under `model`, beside what training left there."""
    torch.save({"model": official, "epoch": 29, "max_accuracy": 80.4}, path := folder / "official.pth")
    return path


def save_parallel_pth(official: State, folder: Path) -> Path:
    """As `save_pth`, written from a data-parallel wrapper."""
    return save_pth({f"module.{name}": tensor for name, tensor in official.items()}, folder)


def save_bare_pth(official: State, folder: Path) -> Path:
    """Official names with nothing round them."""
    torch.save(official, path := folder / "bare.pth")
    return path


def save_safetensors(official: State, folder: Path) -> Path:
    """Official names in a safetensors file."""
    save_file(official, path := folder / "official.safetensors")
    return path


def save_hf_file(official: State, folder: Path) -> Path:
    """HuggingFace names in a safetensors file."""
    save_file(to_hf(official), path := folder / "model.safetensors")
    return path


def save_hf_folder(official: State, folder: Path) -> Path:
    """A HuggingFace folder with model.safetensors."""
    return save_hf_file(official, folder).parent


def save_hf_bin_folder(official: State, folder: Path) -> Path:
    """An old HuggingFace folder: pytorch_model.bin, with the position buffers of that time."""
    buffers = {
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "vision_model.embeddings.position_ids": torch.arange(10)[None],
    }
    torch.save(to_hf(official) | buffers, folder / "pytorch_model.bin")
    return folder


LAYOUTS: dict[str, Callable[[State, Path], Path]] = {
    "official-pth": save_pth,
    "official-pth-parallel": save_parallel_pth,
    "official-pth-bare": save_bare_pth,
    "official-safetensors": save_safetensors,
    "hf-file": save_hf_file,
    "hf-folder": save_hf_folder,
    "hf-folder-bin": save_hf_bin_folder,
}
