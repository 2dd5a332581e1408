"""Any open_clip model as a frame-mean encoder, by name.

The model keeps its own mean, standard deviation, activation and tokeniser. How frames are cut is the indexer's
business and the same for every model.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH

from schemas.errors import InputError, WeightsError, first_line
from xclip_core import layouts, torchscript, weights
from xclip_core.config import FrameMeanConfig
from xclip_core.durable import save_tensors
from xclip_core.frame_mean import PREFIX, FrameMean, parsed
from xclip_core.model import Provenance
from xclip_core.resample import UNPUBLISHED

FRAMES = 8  # a mean takes any number; the released X-CLIP models take 8 to 32


def load(
    source: str,
    *,
    frames: int | None = None,
    image_size: int | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> FrameMean:
    """The encoder in evaluation mode, its parameters frozen.

    Raises InputError for a name open_clip does not know and WeightsError for weights that are not to be had.
    """
    arch, tag, file = parsed(source)
    _check_names(arch, tag, file)
    own = open_clip.get_model_config(arch)["vision_cfg"].get("image_size")
    forced = image_size if image_size != own else None
    try:
        clip = _from_file(arch, file, forced) if file else open_clip.create_model(arch, tag, force_image_size=forced)
    except Exception as error:  # open_clip has no errors of its own
        hint = _fetching(arch, tag) if tag else "expected tensors of that architecture in the file"
        raise WeightsError(f"{source} cannot be loaded ({first_line(error)}); {hint}") from error
    # Not every tower has a table of patches to resample, but none was trained at a size that is not its own.
    notes = (f"the model is of {own} pixels and sees pictures of {forced} pixels; {UNPUBLISHED}",) if forced else ()
    provenance = Provenance(source, "openclip", weights.hash_weights(clip.state_dict()), notes)
    config = _config(arch, tag, clip, FRAMES if frames is None else frames)
    return FrameMean(config, clip.to(device, dtype), provenance).requires_grad_(requires_grad=False).eval()


def _fetching(arch: str, tag: str) -> str:
    """How to have the weights of a tag."""
    repository = open_clip.get_pretrained_cfg(arch, tag).get("hf_hub", "").rpartition("/")[0]
    ahead = f", or ahead by `hf download {repository}`" if repository else ""
    return f"with a network they are fetched by themselves{ahead}; or name a file: {PREFIX}{arch}=FILE"


def _check_names(arch: str, tag: str | None, file: Path | None) -> None:
    """Raises InputError for what is not there, with what is."""
    if arch not in open_clip.list_models():
        near = get_close_matches(arch, open_clip.list_models(), n=3)
        meant = f"; did you mean {' or '.join(near)}?" if near else "; open_clip.list_models() lists them"
        raise InputError(f"open_clip knows no architecture {arch!r}{meant}")
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if tag is not None and tag not in tags:
        raise InputError(f"open_clip has no weights {tag!r} for {arch}; it has {', '.join(tags) or 'none'}")
    if file is not None and not file.is_file():
        raise InputError(f"there is no model file at {file}")


def _from_file(arch: str, file: Path, image_size: int | None) -> Any:
    """A model with the weights of a file. A TorchScript archive, which open_clip would run, is rewritten first."""
    if not (zipfile.is_zipfile(file) and torchscript.is_archive(file)):
        return open_clip.create_model(arch, str(file), force_image_size=image_size)
    with tempfile.TemporaryDirectory(prefix="footage-") as folder:
        plain = Path(folder) / "clip.safetensors"
        save_tensors(layouts.to_clip(weights.read_tensors(file)), plain)
        return open_clip.create_model(arch, str(plain), force_image_size=image_size)


def _config(arch: str, tag: str | None, clip: Any, frames: int) -> FrameMeanConfig:
    """Sizes, and what the model wants its pixels and words to be like."""
    wanted = open_clip.get_model_preprocess_cfg(clip)
    size = wanted["size"]
    height, width = size if isinstance(size, tuple | list) else (size, size)
    if height != width:
        raise InputError(f"{arch} takes pictures of {height} x {width} pixels; footage cuts squares")
    mean, std = (wanted["mean"], wanted["std"]) if tag else _usual_pixels(arch, wanted)
    return FrameMeanConfig(
        frames=frames,
        image_size=height,
        embed_dim=open_clip.get_model_config(arch)["embed_dim"],
        arch=arch,
        context_length=_context_length(arch),
        mean=tuple(255 * value for value in mean),
        std=tuple(255 * value for value in std),
    )


def _context_length(arch: str) -> int:
    """How long texts are in tokens: what the tokeniser pads to, where transformers' towers tell their positions."""
    length: int = open_clip.get_model_config(arch)["text_cfg"].get("context_length", DEFAULT_CONTEXT_LENGTH)
    return length


def _usual_pixels(arch: str, wanted: dict[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation for weights from a file: those of open_clip's own weights for `arch`, if all agree."""
    known = [open_clip.get_pretrained_cfg(arch, tag) for tag in open_clip.list_pretrained_tags_by_model(arch)]
    pairs = {(tuple(each["mean"]), tuple(each["std"])) for each in known if "mean" in each and "std" in each}
    return pairs.pop() if len(pairs) == 1 else (wanted["mean"], wanted["std"])
