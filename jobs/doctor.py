"""`footage doctor`: is this machine fit for footage, and what is slow on it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import console

if TYPE_CHECKING:
    from pipeline.checks import Check

STYLES = {"ok": "green", "slow": "yellow", "wrong": "bold red"}


def doctor(
    archive: Annotated[str | None, typer.Argument(help="An archive to look at too: its folder or URL.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also start Ray, which takes some seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look this machine over: libraries, codecs, devices, room, limits. Say what is slow or wrong, and what to do.

    Ends with 1 if something is wrong.
    """
    from pipeline.doctor import examine

    found = []
    for check in examine(archive, deep=deep):
        found.append(check)
        if not as_json:
            _print(check)
    wrong, slow = (sum(check.state == state for check in found) for state in ("wrong", "slow"))
    if as_json:
        console.print_json({"checks": found, "slow": slow, "wrong": wrong})
    else:
        _sum_up(found)
    if wrong:
        raise typer.Exit(console.EXIT_ERROR)


def _print(check: Check) -> None:
    """A check in two or three lines."""
    from rich.text import Text

    out = console.results()
    out.print(Text.assemble((f"{check.state:<6}", STYLES[check.state]), (check.name, "bold"), f": {check.found}"))
    out.print(Text(f"      {check.meaning}", "default" if check.state != "ok" else "dim"), soft_wrap=True)


def _sum_up(found: Sequence[Check]) -> None:
    """What is wrong and what is slow, by name."""
    for state, said in (("wrong", "a run fails by"), ("slow", "works with a loss")):
        names = [check.name for check in found if check.state == state]
        console.results().print(f"{state} ({said}): {', '.join(names) or 'nothing'}")
