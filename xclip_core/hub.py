"""Where models are found and how one is loaded: an embedded name, a file, or a HuggingFace folder."""

from __future__ import annotations

from pathlib import Path

import torch

from schemas.errors import InputError
from xclip_core import weights
from xclip_core.config import DEFAULT_MODEL
from xclip_core.model import Provenance, XClip

# Models that ship with the package, trained by `footage pretrain` on footage it generates.
EMBEDDED = {DEFAULT_MODEL: Path(__file__).parent / "data" / "footage-tiny.safetensors"}


def canonical_source(source: str) -> str:
    """A model source that means the same from any working directory: an embedded name, or an absolute path."""
    return source if source in EMBEDDED else str(Path(source).absolute())


def locate(source: str | Path) -> Path:
    """The file or folder a model name or path stands for. Raises InputError when there is none."""
    path = EMBEDDED.get(str(source), Path(source))
    if not path.exists():
        names = ", ".join(EMBEDDED)
        raise InputError(
            f"there is no model {str(source)!r}: expected an embedded name ({names}), a .pth or .safetensors file, "
            "or a HuggingFace folder. For a released model such as microsoft/xclip-base-patch32, run "
            "`hf download microsoft/xclip-base-patch32 --local-dir xclip-b32` and pass that folder"
        )
    return path


def load(source: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> XClip:
    """The model in evaluation mode, its parameters frozen.

    `source` is an embedded name, an official-layout .pth or .safetensors file, or a HuggingFace-layout file or
    folder. Raises InputError when it is not there and WeightsError when a key is missing or surplus, a shape does
    not fit, or the file holds anything but tensors.
    """
    path = locate(source)
    official, layout = weights.to_official(weights.read_tensors(path))
    config = weights.infer_config(official)
    with torch.device("meta"):  # no time is spent on initial values that are replaced at once
        model = XClip(config)
    own = model.state_dict()
    weights.check_fit(official, {weights.official_name(name): own[name].shape for name in own})
    # Copied, because the readers map the file into memory: writing the file anew would change, or kill, this model.
    state = {weights.module_name(name): tensor.to(dtype, copy=True) for name, tensor in official.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.provenance = Provenance(str(source), layout, weights.hash_weights(official))
    return model.to(device).requires_grad_(requires_grad=False).eval()
