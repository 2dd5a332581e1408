"""`footage tag`: a label set for every clip."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from pipeline.tagging import TagReport


def tag(
    archive: ArchivePlace,
    labels: Annotated[Path, typer.Argument(help="A text file with a label a line, or YAML with prompts per label.")],
    top: Annotated[int, typer.Option(help="Labels kept per clip; 0 keeps all.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Also write the tags to a .csv, .jsonl or .parquet file.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it was moved.")] = None,
    space: Annotated[
        str | None, typer.Option(help="A space that `footage info` lists, if not the serving one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score every clip with every label by the model's own score and keep the best."""
    from pipeline import label_sets, serving, tagging

    label_set = label_sets.read_labels(labels)
    if out is not None:
        tagging.check_export(out)
    opened = serving.open_space(archive, model, space)
    console.caution(opened.notes)
    report = tagging.tag(opened, label_set, top=top)
    if out is not None:
        tagging.export(report.tags, out)
    if as_json:
        tags = [asdict(tag) for tag in report.tags]
        console.print_json({"label_set": report.label_set, "clips": report.clips, "tags": tags})
        return
    _print(report)
    if out is not None:
        console.messages().print(f"tags written to {out.absolute()}", soft_wrap=True, markup=False)


def _print(report: TagReport) -> None:
    """How often each label came first, most often first."""
    from collections import Counter

    from rich.table import Table
    from rich.text import Text

    firsts = [tag for tag in report.tags if tag.rank == 1]
    table = Table("label", caption=f"{report.clips} clips tagged; probabilities are relative to this label set")
    table.add_column("clips", justify="right")
    table.add_column("mean probability", justify="right")
    for label, count in Counter(tag.label for tag in firsts).most_common():
        mean = sum(tag.probability for tag in firsts if tag.label == label) / count
        table.add_row(Text(label), str(count), f"{mean:.2f}")
    console.results().print(table)
