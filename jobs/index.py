"""`footage index`: bring an archive up to date with a pile of videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs import console

if TYPE_CHECKING:
    from pipeline.flows import IndexReport


def index(
    videos: Annotated[str, typer.Argument(help="A video file, a folder, a glob, or a .txt file with a path a line.")],
    archive: Annotated[Path, typer.Argument(help="The archive's folder; made if it is not there.")],
    model: Annotated[
        str, typer.Option(help="A name that `footage models` lists, openclip:ARCH/TAG, or a checkpoint file or folder.")
    ] = "footage-tiny",
    frames: Annotated[int | None, typer.Option(help="Frames per clip, if not as many as the model's.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels of a frame's side, if not the model's.")] = None,
    window: Annotated[float, typer.Option(help="Length of a clip in seconds.")] = 10.0,
    stride: Annotated[float | None, typer.Option(help="Seconds from clip to clip; the window unless given.")] = None,
    context: Annotated[
        Literal["int8", "float16", "none"], typer.Option(help="How prompt contexts are stored, for re-ranking.")
    ] = "int8",
    engine: Annotated[Literal["ray", "local"], typer.Option(help="Ray Data, or a plain loop in one process.")] = "ray",
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for another run on the archive; without, it is an error.")
    ] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Decode, embed and commit what is new or changed; retire what is gone. Run it again to continue or update."""
    from pipeline import flows
    from pipeline.settings import IndexSettings

    settings = IndexSettings(
        model=model,
        frames=frames,
        image_size=image_size,
        window_s=window,
        stride_s=stride,
        context=context,
        engine=engine,
        device="auto",
        wait_s=wait,
    )
    with console.progress_bar(enabled=not as_json) as watch:
        report = flows.index(videos, archive, settings, dry_run=dry_run, watch=watch)
    console.caution(report.notes)
    if as_json:
        console.print_json(report)
    else:
        _print(report)
    if report.failed and not dry_run:
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
    if report.failures:
        out.print(f"{len(report.failures)} could not be indexed:" if not report.dry_run else "these will fail:")
    for failure in report.failures:
        out.print(f"  {failure.uri}: {failure.error} ({failure.error_kind})", markup=False, soft_wrap=True)


def _planned_rows(report: IndexReport) -> list[tuple[str, str]]:
    """What a run would do."""
    expected = "unknown before the first run" if report.expected_s is None else console.length(report.expected_s)
    return [
        ("videos to index", str(report.planned - report.failed)),
        ("unreadable", str(report.failed)),
        ("unchanged", str(report.unchanged)),
        ("gone", str(report.gone)),
        ("clips", str(report.clips)),
        ("footage", console.length(report.footage_s)),
        ("expected time", expected),
    ]


def _done_rows(report: IndexReport) -> list[tuple[str, str]]:
    """What a run did."""
    damaged = f" ({report.partial} with damaged stretches)" if report.partial else ""
    speed = report.footage_s / report.wall_s if report.wall_s else 0.0
    return [
        ("indexed", f"{report.indexed} videos{damaged}, {report.clips} clips"),
        ("unchanged", str(report.unchanged)),
        ("failed", str(report.failed)),
        ("gone", str(report.gone)),
        ("footage", f"{console.length(report.footage_s)} in {console.length(report.wall_s)} ({speed:.1f} s/s)"),
    ]
