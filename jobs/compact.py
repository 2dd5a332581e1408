"""`footage compact`: tidy an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from pipeline.compact import CompactReport


def compact(
    archive: ArchivePlace,
    target_mb: Annotated[float, typer.Option(help="Size of the files that small ones are merged to.")] = 256.0,
    retention: Annotated[float, typer.Option(help="Days for which files stay that only old snapshots need.")] = 7.0,
    drop_space: Annotated[list[str] | None, typer.Option(help="Forget a space; may be given more than once.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Merge small files, drop clips that nobody can see, and delete files that nobody needs."""
    from pipeline import compact as compacting

    settings = compacting.CompactSettings(
        target_mb=target_mb, retention_days=retention, drop_spaces=tuple(drop_space or ()), dry_run=dry_run
    )
    report = compacting.compact(archive, settings)
    if as_json:
        console.print_json(report)
    else:
        _print(report)


def _print(report: CompactReport) -> None:
    """A row per table, and what was deleted."""
    from rich.table import Table

    table = Table(title="dry run: nothing was changed" if report.dry_run else None)
    for name in ("table", "files", "size", "rows dropped"):
        table.add_column(name, justify="left" if name == "table" else "right")
    for name, change in report.tables.items():
        after = "" if change.bytes_after is None else f" -> {console.size(change.bytes_after)}"
        table.add_row(
            name,
            f"{change.files_before} -> {change.files_after}",
            f"{console.size(change.bytes_before)}{after}",
            str(change.rows_dropped),
        )
    out = console.results()
    out.print(table)
    verb = "to delete" if report.dry_run else "deleted"
    out.print(f"{verb}: {report.deleted_files} files, {console.size(report.deleted_bytes)}")
    if report.resumable_clips:
        out.print(f"{report.resumable_clips} clips of an interrupted run stay; the next index run takes them over")
    for line in report.retired:
        drop = f"footage compact {report.archive} --drop-space {line.space}"
        out.print(
            f"space {line.space} serves no more and takes {console.size(line.size_bytes)}; to drop it: {drop}",
            soft_wrap=True,
            markup=False,
        )
