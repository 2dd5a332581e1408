"""`footage rollback`: back to before a bad run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from pipeline.rollback import RollbackReport


def rollback(
    archive: ArchivePlace,
    run: Annotated[str, typer.Argument(help="The run to undo, as `footage info` names it; later ones go with it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would change.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change, and end well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make the archive what it was before a run."""
    from pipeline import rollback as rolling
    from schemas.errors import InputError

    report = rolling.rollback(archive, run, dry_run=dry_run or not yes)
    if as_json:
        console.print_json(report)
    else:
        _print(report)
    if not (yes or dry_run):
        raise InputError("nothing was changed; to do it, say --yes")


def _print(report: RollbackReport) -> None:
    """What went back, run by run."""
    out = console.results()
    out.print("would be undone:" if report.dry_run else "undone:")
    for run_id in report.runs:
        out.print(f"  {run_id}", markup=False)
    out.print(f"{report.videos} videos change; clips: {report.clips_before} -> {report.clips_after}")
