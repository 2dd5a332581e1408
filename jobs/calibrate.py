"""`footage calibrate`: how far the probabilities of a label set can be believed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from pipeline.calibration import CalibrationReport


def calibrate(
    archive: ArchivePlace,
    labelled: Annotated[Path, typer.Argument(metavar="LABELED.csv", help="Columns uri, label [, start_s, end_s].")],
    labels: Annotated[Path, typer.Option(help="The label set, as `footage tag` takes it.")],
    out: Annotated[Path | None, typer.Option(help="The calibration; beside the label set by default.")] = None,
    diagram: Annotated[Path | None, typer.Option(help="Also draw a reliability diagram to a .png file.")] = None,
    holdout: Annotated[float, typer.Option(help="Share of the videos that nothing is fitted on.")] = 0.3,
    min_precision: Annotated[float, typer.Option(help="That thresholds must reach where any does.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Decides which videos are held out.")] = 0,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="Of the score; auto: what is faster here.")
    ] = "auto",
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it was moved.")] = None,
    space: Annotated[
        str | None, typer.Option(help="A space that `footage info` lists, if not the serving one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit temperature, bias, thresholds and when to abstain on labelled clips, for `footage tag --calibration`."""
    from pipeline import (
        calibration,
        calibration_file,
        calibration_fit,
        label_files,
        labelled_clips,
        reliability,
        serving,
    )

    settings = calibration_fit.CalibrateSettings(holdout=holdout, seed=seed, min_precision=min_precision)
    calibration_fit.require()
    if diagram is not None:
        reliability.check()
    label_set = label_files.read_labels(labels)
    spans = labelled_clips.read_labelled_clips(labelled, label_set)
    opened = serving.open_space(archive, model, space)
    console.caution(opened.notes)
    report = calibration.calibrate(opened, label_set, spans, settings, precision=precision)
    file = out or calibration_file.beside(labels)
    calibration_file.write(report.calibration, file)
    if diagram is not None:
        reliability.draw(calibration.bins_by_mode(report), diagram)
    console.caution(report.notes)
    if as_json:
        console.print_json({"file": str(file.absolute()), **asdict(report)})
        return
    _print(report)
    for written in filter(None, (file, diagram)):
        console.messages().print(f"written: {written.absolute()}", soft_wrap=True, markup=False)


def _print(report: CalibrationReport) -> None:
    """The figures of each mode, and the labels at their thresholds."""
    from rich.table import Table
    from rich.text import Text

    held = f"{report.held_out_clips} clips held out, {report.fitted_clips} fitted on, {report.videos} videos"
    table = Table("mode", "", "calibration error", "Brier", "log loss", caption=held)
    for name, found in (("multi", report.multi), ("single", report.single)):
        for when, quality in (("uncalibrated", found.before), ("calibrated", found.after)) if found else ():
            figures = (quality.calibration_error, quality.brier, quality.log_loss)
            table.add_row(name, when, *(f"{figure:.4f}" for figure in figures))
    console.results().print(table)
    lines = Table(
        "label", "threshold", "clips", "precision", "recall", caption="multi mode, at the thresholds, held out"
    )
    for line in report.labels:
        shares = ("-" if share is None else f"{share:.2f}" for share in (line.precision, line.recall))
        threshold = f"{line.threshold:.3f}" + ("" if line.was_fitted else " (not fitted: no clips)")
        lines.add_row(Text(line.label), threshold, str(line.clips), *shares)
    console.results().print(lines)
    if report.single is None:
        console.messages().print("single mode was not fitted: some clips have several labels")
    elif report.answered is not None:
        right = "" if report.accuracy is None else f", {100 * report.accuracy:.0f} % of them right"
        console.messages().print(f"single mode gives {100 * report.answered:.0f} % of the clips a label{right}")
