"""A checkpoint of any layout as one complete set of X-CLIP weights, and the model made of it.

What a file lacks because it is CLIP's, and what is asked to have another size, is made here; everything else that
does not fit is an error.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from xclip_core import layouts, weights
from xclip_core.config import XClipConfig
from xclip_core.durable import save_tensors
from xclip_core.layouts import State
from xclip_core.model import Provenance, XClip, shapes, without_values
from xclip_core.resample import resample
from xclip_core.start import FRAMES, NOTE, start_from_clip

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Complete weights in official words, in the dtypes of the file, their sizes, and where they came from."""

    official: State
    config: XClipConfig
    provenance: Provenance


def read_checkpoint(path: Path, source: str, *, frames: int | None = None, image_size: int | None = None) -> Checkpoint:
    """The checkpoint at `path`, for the sizes of its own or, resampled, for those asked for.

    Raises WeightsError when it cannot be read or does not fit, InputError for sizes that cannot be had.
    """
    found, layout = layouts.to_official(weights.read_tensors(path))
    notes: tuple[str, ...] = ()
    official = found
    if layouts.is_clip(layout):
        official, notes = start_from_clip(found, FRAMES if frames is None else frames), (NOTE,)
    config = weights.infer_config(official)
    weights.check_fit(official, shapes(config))
    official, changes = resample(
        official,
        config,
        frames=config.frames if frames is None else frames,
        image_size=config.image_size if image_size is None else image_size,
    )
    # The hash is of the file and not of what was made here, whose last digits may depend on the processor. Nothing
    # is lost: CLIP's keys are never those of an X-CLIP file, and the sizes stand in the config.
    provenance = Provenance(source, layout, weights.hash_weights(found), (*notes, *changes))
    for note in provenance.notes:
        log.warning("%s: %s", source, note)
    return Checkpoint(official, weights.infer_config(official), provenance)


def build(checkpoint: Checkpoint, *, device: str | torch.device, dtype: torch.dtype) -> XClip:
    """The model in evaluation mode, its parameters frozen."""
    model = without_values(checkpoint.config)  # no time is spent on initial values that are replaced at once
    # Copied, because the readers map the file into memory: writing the file anew would change, or kill, this model.
    state = {weights.module_name(name): tensor.to(dtype, copy=True) for name, tensor in checkpoint.official.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.provenance = checkpoint.provenance
    return model.to(device).requires_grad_(requires_grad=False).eval()


def save_model(model: XClip, path: Path) -> None:
    """A model in the official layout, in its own precision, written whole; `load` reads it."""
    save_tensors({weights.official_name(name): tensor for name, tensor in model.state_dict().items()}, path)
