"""`footage retry`: makes the next run try again what failed."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs import console
from jobs.arguments import ArchivePlace


def retry(
    archive: ArchivePlace,
    kind: Annotated[str | None, typer.Option(help="Only this kind, as `footage failures` names it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Forget how often failures were tried: the next run of `footage index` tries them again, up to three times."""
    from pipeline import deadletter

    asked = deadletter.retry(archive, kind)
    uris = sorted({letter.uri for letter in asked})
    if as_json:
        console.print_json({"failures": len(asked), "uris": uris})
        return
    for uri in uris:
        console.results().print(uri, markup=False, soft_wrap=True)
    console.messages().print(f"{len(uris)} files will be tried again by the next run of: footage index")
