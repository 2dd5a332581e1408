"""From a plan to the files that ship: train, export, load what was written, measure that, describe it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from xclip_core.card import Measured, model_card
from xclip_core.hub import load
from xclip_core.model import XClip
from xclip_core.pictures import pictures_of, read_library, whole_picture
from xclip_core.pretrain import Plan, export, pretrain
from xclip_core.validate import Film, film_cropped, film_full, film_over, validate
from xclip_core.validate_shots import validate_shots

SOURCES = "SOURCES.md"  # in a folder of pictures: where they come from and under which licences, for the card
NO_PICTURES = "generated textures alone."


def write_release(out: Path, plan: Plan, *, clips: int, backdrops: Path | None = None) -> Measured:
    """Trains and writes `out` (safetensors) and its card (.md beside it); returns the held-out figures of the file.

    Finished stages are kept beside `out` until all is written, so that a killed run goes on with the stage it was in.
    `backdrops`, a folder of pictures, adds columns of figures over real backgrounds; they are never trained on.
    """
    kept = out.with_suffix(".stages")
    trained = pretrain(plan, kept)
    export(trained.model, trained.vocabulary, out)
    written = load(out)
    measured = measure(written, seed=plan.seed, clips=clips, pictures=plan.pictures, backdrops=backdrops)
    card = model_card(written, out, trained, measured, sources_of(plan.pictures))
    out.with_suffix(".md").write_text(card, encoding="utf-8")
    shutil.rmtree(kept)
    return measured


def sources_of(pictures: Path | None) -> str:
    """What a folder of pictures says of itself, for the card."""
    if pictures is None:
        return NO_PICTURES
    note = pictures / SOURCES
    return note.read_text(encoding="utf-8").strip() if note.exists() else f"a folder without a {SOURCES}."


def measure(
    model: XClip, *, seed: int, clips: int, pictures: Path | None = None, backdrops: Path | None = None
) -> Measured:
    """Held-out figures of a model on each kind of footage.

    Over `pictures`, those of their families that training leaves out; over `backdrops`, all.
    """
    films: dict[str, Film] = {"crops, as in training": film_cropped, "320 x 240 footage": film_full}
    libraries = {"generated textures": read_library(None, held_out=True, seed=seed)}
    if pictures is not None:
        held_out = read_library(pictures, held_out=True, seed=seed)
        libraries[f"{len(held_out.backgrounds)} held-out pictures and textures"] = held_out
    if backdrops is not None:
        real = replace(pictures_of(backdrops), objects=libraries[next(reversed(libraries))].objects)
        name = f"{len(real.backgrounds)} real pictures"
        films[f"objects over {name}"] = film_over([whole_picture(levels) for levels in real.backgrounds])
        libraries[name] = real
    return Measured(
        clips=clips,
        seed=seed,
        tables={name: validate(model, seed=seed, clips=clips, film=film) for name, film in films.items()},
        shots={name: validate_shots(model, library, seed=seed, clips=clips) for name, library in libraries.items()},
    )
