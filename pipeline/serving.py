"""An archive opened for questions: one space, its model and its settings, checked to belong together."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.archive import Archive
from pipeline.embed import device_named
from pipeline.runs import run_of_space
from pipeline.settings import Sampling
from pipeline.text_batches import TextEncoder
from schemas.errors import SpaceMismatch
from xclip_core import Encoder, encode_text_raw, load_encoder


@dataclass(frozen=True, slots=True)
class OpenSpace:
    """The space that serves, and the model whose vectors it holds."""

    archive: Archive
    space: str
    model: Encoder
    sampling: Sampling = field(default_factory=Sampling)  # how its clips were cut
    encode_texts: TextEncoder = encode_text_raw  # those of queries; a server puts several queries into one pass

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of the model."""
        return self.model.provenance.notes if self.model.provenance else ()


def open_space(
    folder: str | Path, model_source: str | None = None, space: str | None = None, *, device: str = "cpu"
) -> OpenSpace:
    """The serving space of an archive, or the one named, with its model, from where the index run had it by default.

    `device` is where the model goes: cpu, cuda, or auto for the better one that is there. Raises SpaceMismatch when the
    model is not the one that made the vectors.
    """
    archive = Archive.open(folder)
    run = run_of_space(archive, space)
    # Files move; weights are known by their hash, wherever they lie.
    source = model_source or run["settings"]["index"]["model"]
    made_with = run["settings"]["space"]
    sizes = made_with["model"]  # a resampled model is resampled again
    model = load_encoder(source, frames=sizes["frames"], image_size=sizes["image_size"], device=device_named(device))
    _check_same(source, model, made_with)
    return OpenSpace(archive, run["space"], model, Sampling.stored(made_with["sampling"]))


def _check_same(source: str, model: Encoder, made_with: dict[str, Any]) -> None:
    """Raises SpaceMismatch unless a model has the weights, and does with them, what made a space."""
    assert model.provenance is not None, "models come from xclip_core.load_encoder"
    expected, found = made_with["weights_hash"], model.provenance.weights_hash
    advice = "name the right model with --model, or index again with this one"
    if found != expected:
        raise SpaceMismatch(
            f"the archive was indexed with weights {expected[:12]}, and {source!r} has {found[:12]}; {advice}"
        )
    # The same CLIP may be a frame-mean encoder or a start of X-CLIP, with one activation or the other.
    config = json.loads(json.dumps(asdict(model.config)))
    other = [name for name, value in made_with["model"].items() if config.get(name) != value]
    if other:
        raise SpaceMismatch(
            f"the archive was indexed with another model of the same weights than {source!r}: "
            f"{', '.join(other)} differ; {advice}"
        )
