"""From a plan to the files that ship: train, export, load what was written, measure that, describe it."""

# H x W pixels of a picture

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from xclip_core.card import Measured, model_card
from xclip_core.drawing import Pixels
from xclip_core.hub import load
from xclip_core.model import XClip
from xclip_core.pretrain import Plan, export, pretrain
from xclip_core.validate import Film, film_cropped, film_full, film_over, validate

log = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg")


def write_release(out: Path, plan: Plan, *, clips: int, backdrops: Path | None = None) -> Measured:
    """Trains and writes `out` (safetensors) and its card (.md beside it); returns the held-out figures of the file.

    `backdrops`, a folder of pictures, adds a column of figures over real backgrounds; they are never trained on.
    """
    trained = pretrain(plan)
    export(trained.model, trained.vocabulary, out)
    written = load(out)
    measured = measure(written, seed=plan.seed, clips=clips, backdrops=backdrops)
    out.with_suffix(".md").write_text(model_card(written, out, trained, measured), encoding="utf-8")
    return measured


def measure(model: XClip, *, seed: int, clips: int, backdrops: Path | None = None) -> Measured:
    """Held-out figures of a model on each kind of footage."""
    films: dict[str, Film] = {"crops, as in training": film_cropped, "320 x 240 footage": film_full}
    if backdrops is not None:
        pictures = read_pictures(backdrops)
        films[f"objects over {len(pictures)} real pictures"] = film_over(pictures)
    tables = {name: validate(model, seed=seed, clips=clips, film=film) for name, film in films.items()}
    return Measured(clips=clips, seed=seed, tables=tables)


def read_pictures(folder: Path) -> list[Pixels]:
    """The pictures of a folder in the order of their names, each H x W x 3 uint8 RGB."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]
