"""`footage convert`: a checkpoint in another layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs import console


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A model, as --model of index takes it.")],
    out: Annotated[Path, typer.Argument(help="A .safetensors, .pth, .pt or .bin file, or a folder for transformers.")],
    layout: Annotated[
        Literal["official", "hf"] | None, typer.Option(help="Names in it; official unless OUT is a folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write a model in another layout, values unchanged to the bit."""
    from xclip_core.convert import convert as write

    written = write(source, out, layout=layout, force=force)
    console.caution(written.source.notes)
    console.messages().print(
        f"{written.out} is written: {written.layout} layout, from {written.source.layout}, "
        f"weights {written.source.weights_hash[:12]}",
        soft_wrap=True,
        markup=False,
    )
