"""Files and shapes: a checkpoint as tensors, the architecture they are of, and whether they fit it.

The architecture is inferred from the shapes, so no config file is trusted: HuggingFace's "large" configs carry a
wrong head count. Reading is tensors only: nothing in a file is ever executed. What tensors are called is the
business of `layouts`.
"""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from schemas.errors import WeightsError, first_line
from xclip_core import torchscript
from xclip_core.config import XClipConfig
from xclip_core.layouts import State, listing, renamed

# Files of a HuggingFace folder, best first; the last two are how open_clip calls them there.
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")

# Where a container keeps its state dict: official X-CLIP files, then what open_clip's training writes.
CONTAINERS = ("model", "state_dict")

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
            "expected a .safetensors file, a .pth or .bin of plain tensors, or a TorchScript archive (no code is run)"
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
    if torchscript.is_archive(path):
        return torchscript.read(path)
    with torch.serialization.safe_globals(SETTINGS):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _reason(error: Exception) -> str:
    """What is wrong with a file. torch's own words would advise to run the code in it."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks for {code[1]}, which is no tensor" if code else first_line(error)


def _state_in(content: Any, path: Path) -> State:
    """The state dict of a file: all it holds, or what it holds under a name that containers use."""
    state = content
    if isinstance(content, Mapping):
        state = next((content[name] for name in CONTAINERS if name in content), content)
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} holds a {type(state).__name__}; expected a dictionary of tensors")
    strangers = sorted(str(k) for k, v in state.items() if not isinstance(v, Tensor))
    if strangers:
        raise WeightsError(f"{path} holds entries that are not tensors: {listing(strangers)}")
    return renamed(dict(state), lambda name: str(name).removeprefix("module."))


def infer_config(official: State, *, start_frames: int | None = None) -> XClipConfig:
    """The architecture, from the shapes alone (spec §8). Raises WeightsError when a telling tensor is absent.

    With `start_frames` the weights are CLIP's, and the parts they lack will be those of the released models.
    """
    tokens, vision_width = _sizes(official, "visual.positional_embedding", 2)
    patch_size = _sizes(official, "visual.conv1.weight", 4)[-1]
    vocab_size, text_width = _sizes(official, "token_embedding.weight", 2)
    temporal = _temporal_sizes(official) if start_frames is None else {"frames": start_frames}
    return XClipConfig(
        image_size=patch_size * _square_root(tokens - 1),
        patch_size=patch_size,
        embed_dim=_sizes(official, "text_projection", 2)[1],
        vision_width=vision_width,
        vision_layers=_count(official, r"^visual\.transformer\.resblocks\.(\d+)\."),
        text_width=text_width,
        text_layers=_count(official, r"^transformer\.resblocks\.(\d+)\."),
        vocab_size=vocab_size,
        context_length=_sizes(official, "positional_embedding", 2)[0],
        **temporal,
    )


def _temporal_sizes(official: State) -> dict[str, int]:
    """The sizes that only X-CLIP weights have."""
    return {
        "frames": _sizes(official, "mit.positional_embedding", 3)[1],
        "mit_layers": _count(official, r"^mit\.resblocks\.(\d+)\."),
        "prompt_layers": _count(official, r"^prompts_generator\.decoder\.(\d+)\."),
    }


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
    found = [f"{what}: {listing(names)}" for what, names in problems if names]
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
