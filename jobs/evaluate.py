"""`footage evaluate`: how good a model is at a labelled set, or whether it still is as good as its card says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs import console

if TYPE_CHECKING:
    from pipeline.evaluation import Evaluation
    from pipeline.splits import Summary
    from xclip_core.reproduce import Reproduction

# Views of the paper's protocols: fully supervised, few-shot, zero-shot; and where none is named.
PROTOCOLS = {"full": "4x3", "few": "1x1", "zero": "1x1", None: "1x1"}
CONFUSIONS_SHOWN = 10


def evaluate(
    videos: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="LABELS", help="A .csv, .tsv or .parquet of path,label, a .txt list, or a folder; several splits."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="A model's name, or a checkpoint file or folder.")] = "footage-tiny",
    frames: Annotated[int | None, typer.Option(help="Frames per clip, if not as many as the model's.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels of a frame's side, if not the model's.")] = None,
    views: Annotated[str | None, typer.Option(help="Samples in time x crops, such as 4x3; 1x1 unless given.")] = None,
    protocol: Annotated[
        Literal["full", "few", "zero"] | None, typer.Option(help="The paper's views: 4x3, 1x1, 1x1.")
    ] = None,
    draws: Annotated[str | None, typer.Option(help="Random draws x labels, such as 3x160: mean and spread.")] = None,
    labels: Annotated[Path | None, typer.Option(help="A label set with prompts, as `footage tag` takes it.")] = None,
    names: Annotated[Path | None, typer.Option(help="Class names (id,name) of a .txt list.")] = None,
    template: Annotated[str, typer.Option(help="What is said of a label; {} stands for its name.")] = "{}",
    split_camel_case: Annotated[
        bool, typer.Option("--split-camel-case", help="Read ApplyEyeMakeup as Apply Eye Makeup.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Decides the random samples of several views.")] = 0,
    engine: Annotated[Literal["ray", "local"], typer.Option(help="Ray Data, or a plain loop in one process.")] = "ray",
    html: Annotated[Path | None, typer.Option(help="Also write a report, one self-contained page.")] = None,
    card: Annotated[bool, typer.Option("--card", help="Measure what the model's card states; no LABELS.")] = False,
    backdrops: Annotated[Path | None, typer.Option(help="With --card: the pictures of the columns over them.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="With --card: the pictures that it was trained over.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score every labelled video with every label: accuracies, confusions, retrieval, calibration, time."""
    _check_usage(videos, card=card, is_page=html is not None, draws=draws, sizes=(frames, image_size))
    if not videos:
        _check_card(model, pictures, backdrops, as_json=as_json)
        return
    from pipeline import evaluation_report
    from pipeline.evaluation import EvaluationSettings
    from pipeline.label_files import read_labels
    from pipeline.labelled import read_labelled
    from pipeline.multiview import parse_views
    from pipeline.splits import evaluate_splits, parse_draws

    settings = EvaluationSettings(
        model=model,
        frames=frames,
        image_size=image_size,
        protocol=protocol,
        views=parse_views(views or PROTOCOLS[protocol], seed),
        template=template,
        split_camel_case=split_camel_case,
        engine=engine,
        device="auto",
    )
    if html is not None:
        evaluation_report.check(html)
    lists, label_set = [read_labelled(each, names) for each in videos], read_labels(labels) if labels else None
    drawing = parse_draws(draws, seed) if draws else None
    with console.progress_bar(enabled=not as_json) as watch:
        evaluations = evaluate_splits(lists, settings, draws=drawing, label_set=label_set, watch=watch)
    if html is not None:
        _write_page(evaluations[0], videos[0], html)
    _report(evaluations, as_json=as_json)


def _write_page(evaluation: Evaluation, labels: Path, html: Path) -> None:
    """Writes the report and says where."""
    from pipeline import evaluation_report

    evaluation_report.write(evaluation, labels, html)
    console.messages().print(f"report: {html.absolute()}", soft_wrap=True, markup=False)


def _check_usage(
    videos: list[Path] | None, *, card: bool, is_page: bool, draws: str | None, sizes: tuple[int | None, int | None]
) -> None:
    """Raises BadParameter where options do not go together."""
    if is_page and (draws or len(videos or ()) > 1):
        raise typer.BadParameter("--html is a page of one split; expected one LABELS and no --draws")
    if card == bool(videos):
        raise typer.BadParameter("expected LABELS, or --card without them")
    if card and sizes != (None, None):
        raise typer.BadParameter("--card measures a model as it is; expected no --frames and no --image-size")


def _report(evaluations: Sequence[Evaluation], *, as_json: bool) -> None:
    """One evaluation whole, or several as mean and spread; ends with 3 where a video failed."""
    console.caution(evaluations[0].notes)
    if len(evaluations) > 1:
        from pipeline.splits import summary

        found = summary(evaluations)
        console.print_json(found) if as_json else _print_summary(found)
    elif as_json:
        console.print_json(evaluations[0])
    else:
        _print(evaluations[0])
    if any(evaluation.failed for evaluation in evaluations):
        raise typer.Exit(console.EXIT_SOME_FAILED)


def _print_summary(found: Summary) -> None:
    """Every figure as mean and spread, then split by split."""
    from rich.table import Table

    from pipeline import evaluation_report

    columns = [f"split {number}" for number in range(1, len(found.splits) + 1)]
    table = Table("", "mean", "spread", *columns, title=f"{len(found.splits)} splits")
    rows = [dict(evaluation_report.figure_rows(each)) for each in found.splits]
    means, spreads = (dict(evaluation_report.figure_lines(each)) for each in (found.mean, found.spread))
    for name, mean in means.items():
        table.add_row(name, mean, spreads[name], *(row[name] for row in rows))
    for name in ("videos", "scored", "failed"):
        table.add_row(name, "", "", *(str(getattr(each, name)) for each in found.splits))
    console.results().print(table)


def _print(evaluation: Evaluation) -> None:
    """Figures and what decided them, the worst confusions, and failures."""
    from rich.table import Table
    from rich.text import Text

    from pipeline import evaluation_report

    table = Table(show_header=False)
    for name, value in evaluation_report.figure_rows(evaluation):
        table.add_row(name, Text(value, style="bold"))
    table.add_section()
    for name, value in evaluation_report.setting_rows(evaluation):
        table.add_row(name, Text(value, overflow="fold"))
    out = console.results()
    out.print(table)
    if evaluation.confusions:
        worst = Table("shows", "the model said", title="worst confusions")
        worst.add_column("videos", justify="right")
        for pair in evaluation.confusions[:CONFUSIONS_SHOWN]:
            worst.add_row(Text(pair.label), Text(pair.said), str(pair.videos))
        out.print(worst)
    if evaluation.failures:
        out.print(f"{len(evaluation.failures)} could not be evaluated:")
    for failure in evaluation.failures:
        out.print(f"  {failure.uri}: {failure.error} ({failure.error_kind})", markup=False, soft_wrap=True)


def _check_card(model: str, pictures: Path | None, backdrops: Path | None, *, as_json: bool) -> None:
    """Compares a model with its card; ends with 1 where a figure differs."""
    from xclip_core.reproduce import reproduce

    found = reproduce(model, pictures=pictures, backdrops=backdrops)
    if as_json:
        console.print_json({**asdict(found), "differing": len(found.differing)})
    else:
        _print_comparison(found)
    if found.differing:
        raise typer.Exit(console.EXIT_ERROR)


def _print_comparison(found: Reproduction) -> None:
    """Every figure twice, and how many differ."""
    from rich.table import Table
    from rich.text import Text

    table = Table("on", "figure", title=f"{found.clips} clips, seed {found.seed}")
    for heading in ("card", "measured", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in found.compared:
        cells = (line.stated, line.measured or "not measured", "" if line.is_equal else "differs")
        table.add_row(Text(line.footage), Text(line.name), *cells, style="" if line.is_equal else "bold red")
    out = console.results()
    out.print(table)
    for name in found.skipped:
        out.print(f"not measured: {name}; name the folder of those pictures with --backdrops", markup=False)
    out.print(
        f"{len(found.compared)} figures of {found.card}, {len(found.differing)} differ", soft_wrap=True, markup=False
    )
