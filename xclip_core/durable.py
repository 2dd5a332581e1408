"""Files that are written whole or not at all, whatever happens to the process or the machine.

A file is written under another name, forced to the disk, and renamed; a reader sees the old one or the new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from schemas.errors import InputError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Replaces `path` by what `write` writes to the path it is given, in one step that survives a loss of power."""
    part = path.with_name(f"{path.name}.part")
    try:
        write(part)
        part.chmod(0o644)  # safetensors writes for its owner alone
        _force(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
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
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


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


def save_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """A state dict as safetensors, written whole; `format` is what transformers asks for."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_whole(path, lambda part: save_file(content, part, metadata={"format": "pt"}))
