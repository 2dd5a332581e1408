"""`footage export`: the clips of an archive as a file for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs import console
from jobs.arguments import ArchivePlace


def export(
    archive: ArchivePlace,
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    kind: Annotated[
        Literal["parquet", "csv", "jsonl", "npy"] | None, typer.Option("--format", help="Unless OUT's ending says it.")
    ] = None,
    no_vectors: Annotated[bool, typer.Option("--no-vectors", help="Leave the vectors out.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write every clip that can be seen, with its video, times, tags and vector, to a file."""
    from pipeline import export as exporting

    report = exporting.export(archive, out, kind=kind, vectors=not no_vectors, force=force)
    if as_json:
        console.print_json(report)
        return
    took = console.length(report.wall_s)
    console.messages().print(f"{report.clips} clips in {took}, written to", soft_wrap=True)
    for file in report.files:
        console.messages().print(f"  {file}", soft_wrap=True, markup=False)
