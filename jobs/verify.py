"""`footage verify`: is an archive sound?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from pipeline.verify import Problem, VerifyReport


def verify(
    archive: ArchivePlace,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also look at every thumbnail and read every video file.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take out what is broken, so that the next index run makes it again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at every file, row, vector and index; say what is wrong and which command mends it."""
    from pipeline import repair as repairing
    from pipeline import verify as verifying
    from pipeline.archive import Archive

    if repair:
        found = repairing.repair(Archive.open(archive), deep=deep).found
        console.messages().print(f"{len(found)} problems found; what is left after the repair:")
    report = verifying.verify(archive, deep=deep)
    if as_json:
        console.print_json(report)
    else:
        _print(report)
    if report.problems:
        raise typer.Exit(console.EXIT_ERROR)


def _print(report: VerifyReport) -> None:
    """What was looked at, and every problem below the command that mends it."""
    out = console.results()
    looked = f"{report.files} files, {report.videos} videos, {report.clips} clips"
    out.print(f"{looked} looked at in {console.length(report.wall_s)}: {len(report.problems) or 'no'} problems")
    for remedy, problems in _by_remedy(report.problems).items():
        out.print(f"to mend: {remedy}", markup=False, soft_wrap=True)
        for problem in problems:
            out.print(f"  {problem.kind}: {problem.subject}: {problem.what}", markup=False, soft_wrap=True)


def _by_remedy(problems: Iterable[Problem]) -> dict[str, list[Problem]]:
    """Problems by the command that mends them."""
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem.remedy, []).append(problem)
    return found
