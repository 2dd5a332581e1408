"""Names and files: checkpoints of any known layout to one canonical state dict, or one clear error.

Canonical is the official layout (spec §8). The layout is recognised from the keys and the architecture from the
shapes, so no config file is trusted: HuggingFace's "large" configs carry a wrong head count. Loading is strict, and
tensors only: nothing in a file is ever executed.
"""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from schemas.errors import WeightsError
from xclip_core.config import XClipConfig

Layout = Literal["official", "hf"]
State = dict[str, Tensor]

# Files of a HuggingFace folder, best first.
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")

# Position buffers that old HuggingFace files carry; they hold 0, 1, 2, ... and no model reads them.
HF_DROPPED = re.compile(r"\.position_ids$")

# HuggingFace name to official name, tried in order; the first that matches applies, then the block names below.
HF_PREFIXES = (
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.pre_layernorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^mit\.encoder\.layers\.", "mit.resblocks."),
    (r"^mit\.position_embedding$", "mit.positional_embedding"),
    (r"^prompts_generator\.layernorm\.", "prompts_generator.norm."),
    (r"^prompts_visual_layernorm\.", "prompts_visual_ln."),
    (r"^prompts_visual_projection$", "prompts_visual_proj"),
)
HF_BLOCKS = (
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.", ".attn."),
)
# Stored (E, width) by HuggingFace and (width, E) officially. `prompts_visual_projection` is the same in both.
HF_TRANSPOSED = ("text_projection", "visual.proj")
# Query, key and value are packed in that order. The prompt's cross-attention is packed in neither layout.
HF_UNPACKED = re.compile(r"^(?P<owner>.*\.(?:attn|message_attn))\.[qkv]_proj\.(?P<kind>weight|bias)$")

# Official files carry their training settings in a yacs node: a dictionary, and read as one, so yacs is not needed.
SETTINGS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(OrderedDict, "yacs.config.CfgNode")]

# Official files keep the text tower at the top level; the model keeps it in a module of its own.
TOP_LEVEL = re.compile(r"^(visual\.|mit\.|prompts_|logit_scale$)")


def read_tensors(path: Path) -> State:
    """All tensors of a checkpoint file or HuggingFace folder. Raises WeightsError when it cannot be read."""
    if path.is_dir():
        path = _file_in_folder(path)
    if not path.is_file():
        raise WeightsError(f"there is no model file at {path}")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _read_torch(path)
    except Exception as error:  # the readers fail in as many ways as a file can be broken
        raise WeightsError(
            f"{path} cannot be read as tensors ({_reason(error)}); "
            "expected a .safetensors file, or a .pth or .bin of plain tensors (no code is unpickled)"
        ) from error
    return _state_in(content, path)


def _file_in_folder(folder: Path) -> Path:
    """The weights file of a HuggingFace folder."""
    found = [folder / name for name in FOLDER_FILES if (folder / name).is_file()]
    if not found:
        raise WeightsError(f"the folder {folder} holds none of {', '.join(FOLDER_FILES)}")
    return found[0]


def _read_torch(path: Path) -> Any:
    """What a .pth or .bin file holds; anything that is neither a tensor nor plain data is refused unread."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is incomplete, or torch.save of version 1.6 or later did not write it")
    with torch.serialization.safe_globals(SETTINGS):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _reason(error: Exception) -> str:
    """What is wrong with a file. torch's own words would advise to run the code in it."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    lines = str(error).splitlines() or [type(error).__name__]
    return f"it asks for {code[1]}, which is no tensor" if code else lines[0]


def _state_in(content: Any, path: Path) -> State:
    """The state dict of a file: all it holds, or what it holds under `model` as official files do."""
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} holds a {type(state).__name__}; expected a dictionary of tensors")
    strangers = sorted(str(k) for k, v in state.items() if not isinstance(v, Tensor))
    if strangers:
        raise WeightsError(f"{path} holds entries that are not tensors: {_listing(strangers)}")
    return _renamed(state, lambda name: str(name).removeprefix("module."))


def _renamed(state: Mapping[str, Tensor], rename: Callable[[str], str]) -> State:
    """A state dict under other names. Raises WeightsError where two names become one."""
    result: State = {}
    for name, tensor in state.items():
        if rename(name) in result:
            raise WeightsError(f"the checkpoint holds {rename(name)} twice, once as {name}")
        result[rename(name)] = tensor
    return result


def to_official(state: State) -> tuple[State, Layout]:
    """A state dict of either layout in the official one, and which layout it was."""
    if any(name.startswith("vision_model.") for name in state):
        official, layout = _from_hf(state), "hf"
    else:
        official, layout = state, "official"
    if any(name.startswith("visual.layer1.") for name in official):
        raise WeightsError("these are weights of a ResNet CLIP; X-CLIP needs a vision transformer")
    if not any(".message_fc." in name for name in official):
        sample = _listing(sorted(state))
        raise WeightsError(f"these are not X-CLIP weights: no layer has a `message_fc`; keys found: {sample}")
    return official, layout  # type: ignore[return-value]  # mypy widens the literals of a tuple


def _from_hf(state: State) -> State:
    """HuggingFace layout to official: renamed, packed and transposed."""
    kept = {name: tensor for name, tensor in state.items() if not HF_DROPPED.search(name)}
    packed = _pack_attention(_renamed(kept, _rename_hf))
    for name in HF_TRANSPOSED:
        if name in packed:
            packed[name] = packed[name].T.contiguous()
    return packed


def _rename_hf(name: str) -> str:
    """One HuggingFace key in official words; an unknown key stays as it is and is reported as surplus."""
    for pattern, replacement in HF_PREFIXES:
        name, count = re.subn(pattern, replacement, name)
        if count:
            break
    for pattern, replacement in HF_BLOCKS:
        name = re.sub(pattern, replacement, name)
    return name


def _pack_attention(state: State) -> State:
    """Separate query, key and value tensors joined into `in_proj_*`, wherever one of them is found."""
    packed = dict(state)
    found = [match.group("owner", "kind") for name in state if (match := HF_UNPACKED.match(name))]
    for owner, kind in dict.fromkeys(found):
        names = [f"{owner}.{letter}_proj.{kind}" for letter in "qkv"]
        missing = [name for name in names if name not in packed]
        if missing:
            raise WeightsError(f"the checkpoint lacks {_listing(missing)}")
        packed[f"{owner}.in_proj_{kind}"] = torch.cat([packed.pop(name) for name in names])
    return packed


def infer_config(official: State) -> XClipConfig:
    """The architecture, from the shapes alone (spec §8). Raises WeightsError when a telling tensor is absent."""
    tokens, vision_width = _sizes(official, "visual.positional_embedding", 2)
    patch_size = _sizes(official, "visual.conv1.weight", 4)[-1]
    vocab_size, text_width = _sizes(official, "token_embedding.weight", 2)
    return XClipConfig(
        frames=_sizes(official, "mit.positional_embedding", 3)[1],
        image_size=patch_size * _square_root(tokens - 1),
        patch_size=patch_size,
        embed_dim=_sizes(official, "text_projection", 2)[1],
        vision_width=vision_width,
        vision_layers=_count(official, r"^visual\.transformer\.resblocks\.(\d+)\."),
        text_width=text_width,
        text_layers=_count(official, r"^transformer\.resblocks\.(\d+)\."),
        vocab_size=vocab_size,
        context_length=_sizes(official, "positional_embedding", 2)[0],
        mit_layers=_count(official, r"^mit\.resblocks\.(\d+)\."),
        prompt_layers=_count(official, r"^prompts_generator\.decoder\.(\d+)\."),
    )


def _sizes(official: State, name: str, axes: int) -> torch.Size:
    """The shape of a tensor that tells the model's size."""
    if name not in official:
        raise WeightsError(f"the checkpoint lacks {name}, which tells the model's size")
    shape = official[name].shape
    if len(shape) != axes:
        raise WeightsError(f"{name} has shape {tuple(shape)}; expected {axes} axes, which tell the model's size")
    return shape


def _count(official: State, pattern: str) -> int:
    """How many layers carry a number that `pattern` captures."""
    numbers = {match[1] for name in official if (match := re.match(pattern, name))}
    return len(numbers)


def _square_root(patches: int) -> int:
    """The side of a square of `patches`."""
    side = math.isqrt(patches)
    if side * side != patches:
        raise WeightsError(f"the position table has {patches} patches, which is not a square")
    return side


def check_fit(official: State, expected: Mapping[str, torch.Size]) -> None:
    """Raises WeightsError that lists every missing key, surplus key and wrong shape."""
    missing = sorted(expected.keys() - official.keys())
    surplus = sorted(official.keys() - expected.keys())
    wrong = [
        f"{name} {tuple(official[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in official and official[name].shape != shape
    ]
    problems = [("missing", missing), ("surplus", surplus), ("wrong shape", wrong)]
    found = [f"{what}: {_listing(names)}" for what, names in problems if names]
    if found:
        raise WeightsError("the checkpoint does not fit X-CLIP; " + "; ".join(found))


def module_name(official_name: str) -> str:
    """An official key as the model's own parameter name."""
    return official_name if TOP_LEVEL.match(official_name) else f"text_encoder.{official_name}"


def official_name(name: str) -> str:
    """The model's own parameter name as an official key."""
    return name.removeprefix("text_encoder.")


def hash_weights(official: State) -> str:
    """Hex sha256 over names, shapes and float32 values, in name order: the same in every layout and file format."""
    digest = hashlib.sha256()
    for name in sorted(official):
        tensor = official[name].detach().to(device="cpu", dtype=torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _listing(names: list[str], limit: int = 12) -> str:
    """Names for a message, cut where they would fill the screen."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
