"""`footage info`: what is in an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from pipeline.overview import Overview, RunLine


def info(
    archive: ArchivePlace,
    space: Annotated[str | None, typer.Option(help="One of the spaces listed, if not the serving one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show videos by status, clips, hours, space, model, versions, sizes and the last runs."""
    from pipeline.overview import overview

    found = overview(archive, space)
    if as_json:
        console.print_json(found)
    else:
        _print(found)


def _print(found: Overview) -> None:
    """Two tables: the archive, and its last runs."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False)
    for name, value in _rows(found):
        table.add_row(name, Text(value, overflow="fold"))
    runs = Table(title="last runs")
    for name in ("run (UTC)", "state", "indexed", "failed", "gone", "clips", "time"):
        runs.add_column(name, no_wrap=True)
    for line in found.runs:
        runs.add_row(*_cells(line))
    out = console.results()
    out.print(table)
    out.print(runs)


def _rows(found: Overview) -> list[tuple[str, str]]:
    """Names and values of the first table."""
    sizes = ", ".join(f"{name} {console.size(size_bytes)}" for name, size_bytes in found.size_bytes.items())
    return [
        ("archive", found.archive),
        ("videos", ", ".join(f"{count} {status}" for status, count in sorted(found.videos.items())) or "none"),
        ("clips", str(found.clips)),
        ("footage", f"{found.hours:.2f} hours"),
        ("tags", str(found.tags)),
        ("space", found.space),
        ("spaces", ", ".join(f"{line.space} {line.state}" for line in found.spaces)),
        ("model", found.model),
        ("sampling", _sampled(found.sampling)),
        ("sizes", sizes),
        ("versions", ", ".join(f"{name} {version}" for name, version in found.versions.items())),
    ]


def _sampled(sampling: dict[str, Any]) -> str:
    """Which frames of a video make its clips."""
    if sampling.get("shots"):
        return f"{sampling['frames']} frames of each shot, in parts of at most {sampling['window_s']:g} s"
    return f"{sampling['frames']} frames of {sampling['window_s']:g} s every {sampling['stride_s']:g} s"


def _cells(line: RunLine) -> list[str]:
    """One row of the second table."""
    counts = (line.indexed, line.failed, line.gone, line.clips)
    took = "" if line.wall_s is None else console.length(line.wall_s)
    return [line.run_id, line.state, *("" if count is None else str(count) for count in counts), took]
