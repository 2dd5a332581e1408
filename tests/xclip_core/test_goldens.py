"""Numbers agree with the official code's own outputs, kept in the workplace beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.xclip_core.reference import assert_parity
from xclip_core import load

GOLDENS = Path(__file__).parents[3] / "shared" / "goldens"
FILES = ("e192-t4-p16.official.safetensors", "e128-t6-p8.official.pth", "e128-t6-p8.hf.safetensors")

pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"no golden tensors at {GOLDENS}")


@pytest.fixture(params=FILES)
def golden(request):
    """A weights file and the tensors that go with it."""
    path = GOLDENS / request.param
    return path, load_file(GOLDENS / f"{path.name.split('.')[0]}.expected.safetensors")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_all_five_outputs_agree_with_the_official_code(golden, dtype):
    path, expected = golden
    model = load(path, dtype=dtype)
    video, context = model.video(expected["pixels"].to(dtype))
    text = model.text(expected["token_ids"])
    got = {
        "video_raw": video,
        "patch_tokens_mean": context,
        "text_raw": text,
        "text_prompted_raw": model.prompts_generator(text, context),
        "logits": model.score(video, context, text),
    }
    assert {tensor.dtype for tensor in got.values()} == {dtype}
    assert_parity(got, {name: expected[name] for name in got})


def test_every_weights_file_is_covered():
    weights = {path.name for path in GOLDENS.iterdir() if ".official." in path.name or ".hf." in path.name}
    assert weights == set(FILES)


def test_one_set_of_weights_has_one_hash_in_both_layouts():
    official, hf = (load(GOLDENS / f"e128-t6-p8.{kind}").provenance for kind in ("official.pth", "hf.safetensors"))
    assert (official.layout, hf.layout) == ("official", "hf")
    assert official.weights_hash == hf.weights_hash
