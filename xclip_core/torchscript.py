"""TorchScript archives, which OpenAI published CLIP as, read without running what they hold.

`torch.load(weights_only=True)` refuses them, and `torch.jit.load` compiles the program inside. The tensors need
neither: the archive is a zip, its `data.pkl` describes a tree of modules, and `data/` holds the numbers. The pickle
is read by an unpickler that knows tensors and plain lists; modules become inert holders of their attributes. Which
tensors are parameters only the program says, so that attributes such as attention masks come along.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xclip_core.layouts import State

# What torch.save writes has no constants.
MARK = "/constants.pkl"


class _Module:
    """A module of any class: its attributes, and nothing that could be called."""

    attributes: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Keeps the attributes as they are."""
        self.attributes = dict(state)


def _tensor(storage_N: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor of shape `size` over a flat storage of N numbers; torch checks that it lies inside."""
    return storage_N.as_strided(size, stride, offset)


# Everything a pickle may ask for, by name. Storages stand for their element types, which cannot be called.
KNOWN: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "collections.OrderedDict": OrderedDict,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.BoolStorage": torch.bool,
    "torch.jit._pickle.build_intlist": list,
    "torch.jit._pickle.build_doublelist": list,
    "torch.jit._pickle.build_boollist": list,
    "torch.jit._pickle.build_tensorlist": list,
}


class _TensorUnpickler(pickle.Unpickler):
    """Reads `data.pkl`; a name that is not known ends the reading."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global: a holder for the archive's own classes, an entry of KNOWN for the rest."""
        if module.split(".", maxsplit=1)[0] == "__torch__":
            return _Module
        if f"{module}.{name}" not in KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no tensor")
        return KNOWN[f"{module}.{name}"]

    def persistent_load(self, pid: tuple[str, torch.dtype, str, str, int]) -> Tensor:
        """A storage of the archive as a flat tensor, N long."""
        _, dtype, key, _, _ = pid
        content = bytearray(self._archive.read(f"{self._root}/data/{key}"))
        return torch.frombuffer(content, dtype=dtype)


def is_archive(path: Path) -> bool:
    """Whether a zip file is a TorchScript archive."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(MARK) for name in archive.namelist())


def read(path: Path) -> State:
    """All tensors of an archive by dotted name: parameters, buffers and tensor attributes."""
    with zipfile.ZipFile(path) as archive:
        root = next(name.removesuffix(MARK) for name in archive.namelist() if name.endswith(MARK))
        module = _TensorUnpickler(archive, root).load()
    if not isinstance(module, _Module):
        raise pickle.UnpicklingError(f"it holds a {type(module).__name__}, not a module")
    return dict(_tensors_of(module, ""))


def _tensors_of(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a module and those below it, as torch would name them."""
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors_of(value, f"{prefix}{name}.")
