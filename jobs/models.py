"""`footage models`: the models that have names."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import console

if TYPE_CHECKING:
    from xclip_core.catalogue import Entry


def models(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the models that --model takes by name, with size, cost and where they are."""
    from xclip_core.catalogue import catalogue

    entries = catalogue()
    if as_json:
        console.print_json({"models": [asdict(entry) for entry in entries]})
    else:
        _print(entries)


def _print(entries: tuple[Entry, ...]) -> None:
    """One line a model; T frames of S pixels, GMAC and stored bytes per clip."""
    from rich.table import Table

    # Without a box, so that most names fit a line of 80.
    caption = "per clip: T frames of S x S pixels, GMAC to index it, bytes stored"
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, caption=caption)
    table.add_column("model", overflow="fold")
    for name in ("T", "S", "params", "GMAC", "stored", "here"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in entries:
        table.add_row(
            entry.name,
            str(entry.frames),
            str(entry.image_size),
            f"{entry.parameters / 1e6:.0f} M",
            f"{entry.gmac_per_clip:.1f}",
            console.size(entry.embedding_bytes + entry.context_bytes),
            entry.where,
        )
    console.results().print(table)
