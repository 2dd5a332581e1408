"""An archive opened for questions: one space, its model and its settings, checked to belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.archive import Archive
from schemas.errors import ArchiveError, SpaceMismatch
from xclip_core import Encoder, load_encoder


@dataclass(frozen=True, slots=True)
class OpenSpace:
    """The space that serves, and the model whose vectors it holds."""

    archive: Archive
    space: str
    model: Encoder

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of the model."""
        return self.model.provenance.notes if self.model.provenance else ()


def serving_run(archive: Archive) -> dict[str, Any]:
    """The run whose space serves: the last that finished, or, before any has, the last that started."""
    runs = archive.runs()
    finished = [run for run in runs if run["state"] == "finished"]
    if not runs:
        raise ArchiveError(
            f"nothing has been indexed into {archive.folder}; run: footage index VIDEOS {archive.folder}"
        )
    return (finished or runs)[-1]


def open_space(folder: str | Path, model_source: str | None = None) -> OpenSpace:
    """The serving space of an archive with its model, from where the index run had it unless said otherwise.

    Raises SpaceMismatch when the model's weights are not those that made the vectors.
    """
    archive = Archive.open(folder)
    run = serving_run(archive)
    # Files move; weights are known by their hash, wherever they lie.
    source = model_source or run["settings"]["index"]["model"]
    sizes = run["settings"]["space"]["model"]  # a resampled model is resampled again
    model = load_encoder(source, frames=sizes["frames"], image_size=sizes["image_size"])
    assert model.provenance is not None, "models come from xclip_core.load"
    expected = run["settings"]["space"]["weights_hash"]
    if model.provenance.weights_hash != expected:
        raise SpaceMismatch(
            f"the archive was indexed with weights {expected[:12]}, and {source!r} has "
            f"{model.provenance.weights_hash[:12]}; name the right model with --model, or index again with this one"
        )
    return OpenSpace(archive, run["space"], model)
