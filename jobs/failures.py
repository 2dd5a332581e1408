"""`footage failures`: what could not be indexed, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from schemas.records import Letter


def failures(
    archive: ArchivePlace,
    kind: Annotated[str | None, typer.Option(help="Only this kind: timeout, memory, crash, damaged, ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List what could not be indexed and is not settled: where, why, how often tried, since when."""
    from pipeline import deadletter

    found = deadletter.failures(archive, kind)
    if as_json:
        console.print_json({"failures": [asdict(letter) for letter in found]})
        return
    out = console.results()
    for letter in found:
        out.print(_line(letter), markup=False, soft_wrap=True)
    console.messages().print(f"{len(found)} failures" + ("; try them again with: footage retry" if found else ""))


def _line(letter: Letter) -> str:
    """One failure: `/v/a.mp4, 640-1280 s: over its deadline (timeout in decode, 2 tries, 1 to 3 May 2026)`."""
    span = "" if letter.start_s is None else f", {letter.start_s:.0f}-{letter.end_s:.0f} s"
    tries = "to be tried again" if letter.state == "retry" else f"tried {letter.attempts} times"
    tries = "tried once" if tries == "tried 1 times" else tries
    seen = f"{letter.first_seen:%Y-%m-%d %H:%M} to {letter.last_seen:%Y-%m-%d %H:%M} UTC"
    return f"{letter.uri}{span}: {letter.error} ({letter.error_kind} in {letter.stage}, {tries}, {seen})"
