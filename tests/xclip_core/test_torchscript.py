"""TorchScript archives: the tensors torch itself finds, and no code, whoever wrote the file."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from schemas.errors import WeightsError
from xclip_core import torchscript
from xclip_core.weights import read_tensors


class Part(nn.Module):
    """Parameters, buffers, lists, numbers, and two names for one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 2).half()])
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.table = nn.Parameter(torch.arange(6.0).view(2, 3).T)  # not contiguous
        self.again = self.table
        self.sizes = [1, 2, 3]
        self.share = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0](x)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> tuple[Path, nn.Module]:
    path = tmp_path_factory.mktemp("script") / "part.pt"
    part = Part()
    with warnings.catch_warnings():  # torch would rather see torch.export
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(part), path)
    return path, part


def test_all_tensors_are_read_as_they_were_saved(archive):
    path, part = archive
    found, expected = torchscript.read(path), part.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_the_archive_is_told_from_what_torch_save_writes(archive, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pt")
    assert torchscript.is_archive(archive[0])
    assert not torchscript.is_archive(tmp_path / "plain.pt")


class Code:
    """Runs when it is unpickled without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.mkdir, (self.mark,)


def rewritten(path: Path, out: Path, data: bytes) -> Path:
    """An archive with another description of its modules."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith("/data.pkl") else old.read(name))
    return out


def test_code_in_an_archive_is_refused_and_not_run(archive, tmp_path):
    mark = tmp_path / "was run"
    path = rewritten(archive[0], tmp_path / "bad.pt", pickle.dumps({"a": Code(mark)}, protocol=2))
    with pytest.raises(WeightsError, match=r"cannot be read as tensors \(it asks for .*, which is no tensor"):
        read_tensors(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Code(mark)))
    assert mark.exists(), "the pickle was harmless, and this test proved nothing"


@pytest.mark.parametrize("content", [pickle.dumps([1, 2]), b"no pickle", b""], ids=["a list", "text", "nothing"])
def test_an_archive_without_modules_is_refused(content, archive, tmp_path):
    with pytest.raises(WeightsError, match="cannot be read as tensors"):
        read_tensors(rewritten(archive[0], tmp_path / "bad.pt", content))


def test_a_tensor_beyond_its_storage_is_refused(archive, tmp_path):
    """The description says 3 x 2 where the storage holds that much: made 9 x 2, nothing may be read behind it."""
    with zipfile.ZipFile(archive[0]) as old:
        data = old.read("part/data.pkl")
    larger = data.replace(b"(K\x03K\x02t", b"(K\x09K\x02t", 1)
    assert larger != data
    with pytest.raises(WeightsError, match=r"cannot be read as tensors \(.*out of bounds"):
        read_tensors(rewritten(archive[0], tmp_path / "bad.pt", larger))
