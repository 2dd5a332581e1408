"""Files that training writes: whole or not at all, whatever happens to the process or the machine.

A file is written under another name, forced to the disk, and renamed; a reader sees the old one or the new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from schemas.errors import InputError
from xclip_core import weights
from xclip_core.model import XClip


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Replaces `path` by what `write` writes to the path it is given, in one step that survives a loss of power."""
    part = path.with_name(f"{path.name}.part")
    write(part)
    part.chmod(0o644)  # safetensors writes for its owner alone
    _force(part)
    part.replace(path)
    _force(path.parent)  # the new name is in the folder, and the folder is a file too


def _force(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """A text file, written whole."""
    write_whole(path, lambda part: _write_text(part, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def save_state(path: Path, state: dict[str, Any]) -> None:
    """A training's state, written whole: tensors and plain data."""
    write_whole(path, lambda part: torch.save(state, part))


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU. Raises InputError when it cannot be read; no code in it is executed."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch fails in as many ways as a file can be broken
        raise InputError(
            f"the checkpoint {path} cannot be read ({str(error).splitlines()[0]}); remove it to start from step 0"
        ) from error
    return state


def save_tensors(state: weights.State, path: Path) -> None:
    """A state dict as safetensors, written whole."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_whole(path, lambda part: save_file(content, part, metadata={"format": "pt"}))


def save_model(model: XClip, path: Path) -> None:
    """A model in the official layout, in its own precision; `load` reads it."""
    save_tensors({weights.official_name(name): tensor for name, tensor in model.state_dict().items()}, path)
