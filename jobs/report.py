"""How `index` and `reindex` tell what they did: a table or JSON, and files for schedulers and for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from jobs import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from pipeline.flows import IndexReport
    from schemas.records import UnitExplained

MET_A_BUG = (
    "a file met a bug of footage (failures of kind bug): all others were worked on as ever; please report it with the "
    "file, and see `footage failures`"
)


def tell(report: IndexReport, *, as_json: bool, metrics: Path | None = None, markdown: Path | None = None) -> None:
    """Prints and writes a report, a dry run's to no metrics.

    Ends with EXIT_SOME_FAILED if videos failed, EXIT_ERROR if footage did.
    """
    from pipeline import run_report
    from schemas.records import BUG

    console.caution(report.notes)
    if metrics is not None and not report.dry_run:  # nothing ran, and an alert on the age of the last run must see that
        run_report.write(metrics, run_report.prometheus(report))
    if markdown is not None:
        run_report.write(markdown, run_report.markdown(report))
    if as_json:
        console.print_json(report)
    else:
        _print(report)
    if any(failure.error_kind == BUG for failure in report.failures):
        console.caution([MET_A_BUG])
        raise typer.Exit(console.EXIT_ERROR)
    if report.failed and not report.dry_run:
        raise typer.Exit(console.EXIT_SOME_FAILED)


def _print(report: IndexReport) -> None:
    """The report as a table, failures below it."""
    from rich.table import Table

    rows = _planned_rows(report) if report.dry_run else _done_rows(report)
    table = Table(show_header=False, title="dry run: nothing was changed" if report.dry_run else None)
    for name, value in rows:
        table.add_row(name, value)
    out = console.results()
    out.print(table)
    if report.explained:
        out.print(_explained(report.explained))
    if report.failures:
        out.print(f"{len(report.failures)} could not be indexed:" if not report.dry_run else "these will fail:")
    for failure in report.failures:
        out.print(f"  {failure.uri}: {failure.error} ({failure.error_kind})", markup=False, soft_wrap=True)


def _explained(units: Sequence[UnitExplained]) -> Table:
    """How each unit is decoded."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("unit", "codec", "decodes", "predicted s", "took s", title="how units are decoded")
    for unit in units:
        how = "all of it, in one pass"
        if unit.fed is not None:
            restarts = f", {unit.restarts} restarts" if unit.restarts else ""
            how = f"{unit.fed} of {unit.span} packets{restarts}"
        times = ("" if seconds is None else f"{seconds:.3f}" for seconds in (unit.predicted_s, unit.decode_s))
        table.add_row(f"{escape(unit.uri)} at {unit.start_s:.1f} s", unit.codec, how, *times)
    return table


def _planned_rows(report: IndexReport) -> list[tuple[str, str]]:
    """What a run would do."""
    expected = "unknown before the first run" if report.expected_s is None else console.length(report.expected_s)
    return [
        ("videos to index", str(report.planned - report.failed)),
        ("unreadable", str(report.failed)),
        *_elsewhere(report),
        ("unchanged", str(report.unchanged)),
        ("gone", f"{report.gone} (asks for --yes)" if report.asks_for_yes else str(report.gone)),
        ("clips", str(report.clips)),
        ("footage", console.length(report.footage_s)),
        ("expected time", expected),
    ]


def _done_rows(report: IndexReport) -> list[tuple[str, str]]:
    """What a run did."""
    damaged = f" ({report.partial} with damaged stretches)" if report.partial else ""
    speed = report.footage_s / report.wall_s if report.wall_s else 0.0
    rows = [
        ("indexed", f"{report.indexed} videos{damaged}, {report.clips} clips"),
        *_elsewhere(report),
        ("unchanged", str(report.unchanged)),
        ("failed", str(report.failed)),
        ("gone", str(report.gone)),
        ("footage", f"{console.length(report.footage_s)} in {console.length(report.wall_s)} ({speed:.1f} s/s)"),
    ]
    rows += [("encoder", how) for how in report.encoders] + [("workers", why) for why in report.pools]
    rows += [("placement", report.placement)] if report.placement else []
    if report.decode_s:
        rows.append(("work", f"{report.decode_s:.1f} s of decoding, {report.embed_s:.1f} s of embedding"))
    waits = "no: this space does not cover all videos yet, the other one serves on"
    return rows if report.serves else [*rows, ("serves", waits)]


def _elsewhere(report: IndexReport) -> list[tuple[str, str]]:
    """Lines that most runs do not need."""
    lines = (("moved", report.moved), ("duplicates", report.duplicates), ("vanished, kept", report.kept))
    return [(name, str(count)) for name, count in lines if count]
