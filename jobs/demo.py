"""`footage demo`: the whole job on footage made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs import console


def demo(
    folder: Annotated[Path, typer.Argument(help="Where footage, archive and results go.")] = Path("demo"),
    engine: Annotated[Literal["ray", "local"], typer.Option(help="Ray Data, or a plain loop in one process.")] = "ray",
) -> None:
    """Make footage, index it, search it, tag it, and write a contact sheet to look at."""
    from jobs.index import index
    from jobs.search import search
    from jobs.tag import tag
    from pipeline import showcase

    notes = console.messages()
    videos, archive = folder / "footage", str(folder / "archive")
    labels = folder / "motions.yaml"
    made = showcase.make_footage(videos)
    showcase.write_labels(labels)
    notes.print(f"[bold]{len(made)} files in {videos}[/], one of them broken on purpose")
    notes.rule(f"footage index {videos} {archive}")
    _run(lambda: index(str(videos), archive, engine=engine))
    for number, text in enumerate(showcase.QUERIES):
        notes.rule(f'footage search {archive} "{text}" --top 5')
        sheet = folder / "contact_sheet.html" if number == 0 else None
        search(archive, text, top=5, html=sheet)
    notes.rule(f"footage tag {archive} {labels}")
    tag(archive, labels, top=1, out=folder / "tags.csv")
    _next_steps(folder)


def _run(command: Callable[[], None]) -> None:
    """Runs a command as the shell would; that some videos failed is part of the show."""
    try:
        command()
    except typer.Exit as end:
        if end.exit_code != console.EXIT_SOME_FAILED:
            raise


def _next_steps(folder: Path) -> None:
    """What there is to look at, and what to try next."""
    archive = folder / "archive"
    notes = console.messages()
    notes.rule("done")
    notes.print(f"Look at  {folder / 'contact_sheet.html'}  in a browser, and at  {folder / 'tags.csv'}")
    notes.print("Try next:")
    for line in (
        f"footage index {folder / 'footage'} {archive}      # again: everything is unchanged",
        f'footage search {archive} "a purple triangle flies up" --html {folder / "kite.html"}',
        f"footage serve {archive}      # and open the address that it prints",
        f"footage info {archive}",
        "footage index YOUR_VIDEOS my_archive",
    ):
        notes.print(f"  {line}", markup=False, soft_wrap=True)
