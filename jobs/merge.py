"""`footage merge`: archives of parts of a pile to one."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs import console
from jobs.policies import Wait


def merge(
    archive: Annotated[str, typer.Argument(help="The archive's folder or URL; made if it is not there.")],
    others: Annotated[list[str], typer.Argument(help="The archives to take over, as `index --shard` makes them.")],
    wait: Wait = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Take over what other archives of the same space hold: what is new there, changed or gone."""
    from rich.table import Table

    from pipeline import merging

    with console.progress_bar(enabled=not as_json) as watch:
        report = merging.merge(archive, others, wait_s=wait, watch=watch)
    if as_json:
        console.print_json(report)
        return
    table = Table(show_header=False)
    table.add_row("archives", str(len(report.merged)))
    table.add_row("taken over", f"{report.videos} videos, {report.clips} clips")
    table.add_row("unchanged", f"{report.unchanged} videos")
    table.add_row("time", console.length(report.wall_s))
    console.results().print(table)
