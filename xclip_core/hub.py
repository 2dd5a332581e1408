"""Where models are found and how one is loaded: an embedded name, a released name, open_clip's names, or a path."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import torch

from schemas.errors import InputError
from xclip_core import checkpoint, frame_mean
from xclip_core.checkpoint import Checkpoint
from xclip_core.config import DEFAULT_MODEL
from xclip_core.encode import Encoder
from xclip_core.model import XClip
from xclip_core.released import RELEASED

# Models that ship with the package, trained by `footage pretrain` on footage it generates.
EMBEDDED = {DEFAULT_MODEL: Path(__file__).parent / "data" / "footage-tiny.safetensors"}


def canonical_source(source: str) -> str:
    """A model source that means the same from any working directory: a name, or an absolute path."""
    if frame_mean.is_name(source):
        return frame_mean.canonical(source)
    return source if source in EMBEDDED or source in RELEASED else str(Path(source).absolute())


def locate(source: str | Path) -> Path:
    """The file or folder a model name or path stands for; released weights are fetched if need be.

    Raises InputError when there is none.
    """
    name = str(source)
    if name in RELEASED:
        from xclip_core import download  # with the HTTP client that it brings, longer than reading the weights

        return download.fetch(name)
    path = EMBEDDED.get(name, Path(source))
    if not path.exists():
        near = get_close_matches(name.rsplit("/", maxsplit=1)[-1], [known.split("/")[-1] for known in RELEASED], n=1)
        meant = f"; did you mean {next(known for known in RELEASED if known.endswith(near[0]))}" if near else ""
        raise InputError(
            f"there is no model {name!r}{meant}: expected an embedded name ({', '.join(EMBEDDED)}), a released name "
            "such as microsoft/xclip-base-patch32 (`footage models` lists them), openclip:ARCH/TAG, a .pth, .pt or "
            ".safetensors file, or a HuggingFace folder"
        )
    return path


def weights_file(source: str) -> Path | None:
    """Where the weights that `load_encoder` reads lie; None where only open_clip knows."""
    return frame_mean.file_of(source) if frame_mean.is_name(source) else locate(source)


def open_checkpoint(source: str | Path, *, frames: int | None = None, image_size: int | None = None) -> Checkpoint:
    """The weights that `load` makes a model of."""
    if frame_mean.is_name(str(source)):
        raise InputError(
            f"{source} is a frame-mean encoder, which indexes, searches and tags; X-CLIP weights are needed here. "
            "To start X-CLIP from CLIP, name CLIP's own file"
        )
    return checkpoint.read_checkpoint(locate(source), str(source), frames=frames, image_size=image_size)


def load(
    source: str | Path,
    *,
    frames: int | None = None,
    image_size: int | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> XClip:
    """The model in evaluation mode, its parameters frozen.

    `source` is an embedded name, a released name, an official-layout .pth or .safetensors file, a HuggingFace-layout
    file or folder, or CLIP weights (OpenAI's archive, open_clip's or HuggingFace's), which make the untrained X-CLIP
    that training starts from: see `provenance.layout` and `provenance.notes`. Other `frames` or another `image_size`
    than the weights are of are had by resampling position tables. Raises InputError when the source is not there and
    WeightsError when a key is missing or surplus, a shape does not fit, or the file holds anything but tensors.
    """
    opened = open_checkpoint(source, frames=frames, image_size=image_size)
    return checkpoint.build(opened, device=device, dtype=dtype)


def load_encoder(
    source: str | Path,
    *,
    frames: int | None = None,
    image_size: int | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Encoder:
    """As `load`, and beside X-CLIP any open_clip model, named openclip:ARCH/TAG or openclip:ARCH=FILE.

    What indexing, searching and tagging use: both kinds encode clips and texts and score them.
    """
    if frame_mean.is_name(str(source)):
        from xclip_core import openclip  # see frame_mean

        return openclip.load(str(source), frames=frames, image_size=image_size, device=device, dtype=dtype)
    return load(source, frames=frames, image_size=image_size, device=device, dtype=dtype)
