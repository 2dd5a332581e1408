"""`footage search`: from a text to moments."""

from __future__ import annotations

from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from pipeline.search import Answer


def search(
    archive: ArchivePlace,
    text: Annotated[str, typer.Argument(help="What to look for, in words.")],
    top: Annotated[int, typer.Option(help="How many hits.")] = 10,
    no_rerank: Annotated[bool, typer.Option("--no-rerank", help="Rank by the plain text vector alone.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a contact sheet, one self-contained page.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it was moved.")] = None,
    space: Annotated[
        str | None, typer.Option(help="A space that `footage info` lists, if not the serving one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the moments that fit a text best."""
    with console.without_garbage_collection():
        answer = _answer(archive, text, top=top, rerank=not no_rerank, model=model, space=space)
        if html is not None:
            from pipeline import contact_sheet

            contact_sheet.write(answer, archive, html)
        if as_json:
            hits = [asdict(hit) for hit in answer.hits]
            console.print_json({"text": text, "searched": answer.searched, "reranked": answer.reranked, "hits": hits})
            return
        _print(answer)
        if html is not None:
            console.messages().print(f"contact sheet: {html.absolute()}", soft_wrap=True, markup=False)


def _answer(archive: str, text: str, *, top: int, rerank: bool, model: str | None, space: str | None) -> Answer:
    """What the archive has, after a word of caution where the model needs one."""
    from pipeline import search as searching
    from pipeline import serving

    opened = serving.open_space(archive, model, space)
    console.caution(opened.notes)
    return searching.search(opened, text, top=top, rerank=rerank)


def _print(answer: Answer) -> None:
    """Hits as a table."""
    from rich.table import Table
    from rich.text import Text

    from pipeline.contact_sheet import timecode

    folder = _common_folder([hit.uri for hit in answer.hits])
    table = Table(caption=f"{len(answer.hits)} of {answer.searched} clips in {answer.took_s:.2f} s")
    for name in ("rank", "score", "cosine", "from", "to"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(Text(f"video in {folder}" if folder else "video"), overflow="fold")
    for hit in answer.hits:
        numbers = (
            str(hit.rank),
            f"{hit.score:.2f}",
            f"{hit.recall_score:.3f}",
            timecode(hit.start_s),
            timecode(hit.end_s),
        )
        table.add_row(*numbers, Text(hit.uri.removeprefix(folder)))
    console.results().print(table)


def _common_folder(uris: list[str]) -> str:
    """The folder that all hits lie below, with its slash: said once, it leaves the rows room for names."""
    folders = [uri.split("/")[:-1] for uri in uris]  # commonpath would take a slash out of a URL
    shared = takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
    return "".join(f"{names[0]}/" for names in shared)
