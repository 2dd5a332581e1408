"""Checkpoints from one layout to another, to the bit: values keep their dtype, only names and packing change.

    OUT.safetensors        official names (this project's own format), or HuggingFace's with layout `hf`
    OUT.pth .pt .bin       official container, {"model": tensors}, or with `hf` bare tensors as pytorch_model.bin is
    OUT, a folder          config.json and model.safetensors, as transformers' XCLIPModel.from_pretrained takes it

A CLIP source becomes the untrained X-CLIP that training starts from. Files appear whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from schemas.errors import InputError
from xclip_core.config import HEAD_WIDTH, XClipConfig
from xclip_core.durable import save_tensors, write_whole
from xclip_core.hub import open_checkpoint
from xclip_core.initialise import ALPHA
from xclip_core.layouts import WRITERS, State
from xclip_core.model import Provenance

Target = Literal["official", "hf"]
Writer = Callable[[State, XClipConfig, Path, Target], None]


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written, and of what."""

    out: str
    layout: Target
    source: Provenance


def convert(source: str | Path, out: Path, *, layout: Target | None = None, force: bool = False) -> Converted:
    """Writes the model at `source` to `out`, whose ending decides the kind of file; no known ending is a folder.

    Raises InputError when `out` is there and not `force`, or cannot be of that layout.
    """
    write = WRITES.get(out.suffix.lower(), _write_folder)
    target: Target = layout or ("hf" if write is _write_folder else "official")
    if write is _write_folder and target != "hf":
        raise InputError(f"{out} is a folder, which is HuggingFace's layout; name a file: {', '.join(WRITES)}")
    _check_room(out, force=force)
    opened = open_checkpoint(source)
    write(WRITERS[target](opened.official), opened.config, out, target)
    return Converted(str(out), target, opened.provenance)


def _check_room(out: Path, *, force: bool) -> None:
    """Raises InputError when something would be overwritten that nobody said may be, or there is no place for it."""
    taken = any(out.iterdir()) if out.is_dir() else out.exists()
    if taken and not force:
        raise InputError(f"{out} is there already; name another, or overwrite it with --force")
    if out.exists() and out.is_dir() == (out.suffix.lower() in WRITES):
        raise InputError(f"{out} is a {'folder' if out.is_dir() else 'file'}; its name asks for the other")
    if not out.absolute().parent.is_dir():
        raise InputError(f"there is no folder {out.absolute().parent} to write {out.name} into")


def _write_safetensors(state: State, _: XClipConfig, out: Path, __: Target) -> None:
    """Tensors under the names of the layout."""
    save_tensors(state, out)


def _write_pickle(state: State, _: XClipConfig, out: Path, target: Target) -> None:
    """What torch.load(weights_only=True) reads. Copied: a view would take all that it is a view of along."""
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    content = {"model": tensors} if target == "official" else tensors
    write_whole(out, lambda draft: torch.save(content, draft))


def _write_folder(state: State, config: XClipConfig, out: Path, _: Target) -> None:
    """A HuggingFace folder; the weights come last, so that a folder with weights is complete."""
    out.mkdir(exist_ok=True)
    text = json.dumps(hf_config(config, state), indent=2) + "\n"
    write_whole(out / "config.json", lambda draft: draft.write_text(text, encoding="utf-8"))
    save_tensors(state, out / "model.safetensors")


WRITES: dict[str, Writer] = {
    ".safetensors": _write_safetensors,
    ".pth": _write_pickle,
    ".pt": _write_pickle,
    ".bin": _write_pickle,
}


def hf_config(config: XClipConfig, state: State) -> dict[str, Any]:
    """The config.json of XCLIPModel. Head counts are the true ones, where HuggingFace's own "large" files say 8."""
    E = config.embed_dim
    return {
        "architectures": ["XCLIPModel"],
        "model_type": "xclip",
        "dtype": str(state["logit_scale"].dtype).removeprefix("torch."),
        "projection_dim": E,
        "prompt_layers": config.prompt_layers,
        "prompt_num_attention_heads": E // HEAD_WIDTH,
        "prompt_alpha": ALPHA,
        "text_config": {
            **_tower(config.text_width, config.text_layers),
            "model_type": "xclip_text_model",
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.context_length,
        },
        "vision_config": {
            **_tower(config.vision_width, config.vision_layers),
            "model_type": "xclip_vision_model",
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "num_frames": config.frames,
            "mit_hidden_size": E,
            "mit_intermediate_size": 4 * E,
            "mit_num_hidden_layers": config.mit_layers,
            "mit_num_attention_heads": E // HEAD_WIDTH,
        },
    }


def _tower(width: int, layers: int) -> dict[str, Any]:
    """What both towers have in common, in HuggingFace's words."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD_WIDTH,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
