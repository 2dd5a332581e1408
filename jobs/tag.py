"""`footage tag`: a label set for every clip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs import console
from jobs.arguments import ArchivePlace

if TYPE_CHECKING:
    from pipeline.archive import Archive
    from pipeline.tagging import TagReport


def tag(
    archive: ArchivePlace,
    labels: Annotated[Path, typer.Argument(help="YAML, CSV, or a text file with a label a line.")],
    mode: Annotated[
        Literal["single", "multi"], typer.Option(help="One label a clip (softmax), or several at once (sigmoid).")
    ] = "single",
    top: Annotated[int, typer.Option(help="Labels kept per clip; 0 keeps all.")] = 3,
    background: Annotated[
        bool, typer.Option("--background", help="`none of these` is an answer; always in multi mode.")
    ] = False,
    calibration: Annotated[Path | None, typer.Option(help="A file that `footage calibrate` wrote.")] = None,
    by_video: Annotated[bool, typer.Option("--by-video", help="Roll the clips' tags up to their videos.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the tags to a .csv, .jsonl or .parquet file.")] = None,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="Of the score; auto: what is faster here.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="Where the model scores: auto, cpu, cuda.")] = "auto",
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it was moved.")] = None,
    space: Annotated[
        str | None, typer.Option(help="A space that `footage info` lists, if not the serving one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score every clip that has no tags of these labels yet, by the model's own score, and keep the best labels."""
    from pipeline import calibration_file, label_files, serving, tag_files, tagging

    label_set = label_files.read_labels(labels)
    known = calibration_file.read(calibration) if calibration else None
    settings = tagging.TagSettings(mode=mode, top=top, background=background, calibration=known, precision=precision)
    if out is not None:
        tag_files.check(out)
    opened = serving.open_space(archive, model, space, device=device)
    console.caution(opened.notes)
    with console.progress_bar(enabled=not as_json) as watch:
        report = tagging.tag(opened, label_set, settings, watch=watch)
    if out is not None:
        _write(opened.archive, report, out, by_video=by_video)
    if as_json:
        _print_json(opened.archive, report, by_video=by_video)
        return
    _print(report)
    if by_video:
        _print_videos(opened.archive, report)
    if out is not None:
        console.messages().print(f"tags written to {out.absolute()}", soft_wrap=True, markup=False)


def _write(archive: Archive, report: TagReport, out: Path, *, by_video: bool) -> None:
    """Writes all tags of the label set, old and new, or the videos' labels."""
    from pipeline import rollup, tag_files, tagged

    videos = tagged.videos(archive, report.space, report.label_set)
    if by_video:
        tag_files.write((line for video in videos for line in rollup.labels_of(video)), out, tag_files.VIDEOS)
    else:
        tag_files.write((tag for video in videos for tag in video.tags), out)


def _print_json(archive: Archive, report: TagReport, *, by_video: bool) -> None:
    """One object; its last lists stream through, since there may be millions in them."""
    from dataclasses import asdict

    from pipeline import rollup, tagged

    lists = {
        "tags": (asdict(tag) for video in tagged.videos(archive, report.space, report.label_set) for tag in video.tags)
    }
    if by_video:
        videos = tagged.videos(archive, report.space, report.label_set)
        lists["videos"] = (asdict(line) for video in videos for line in rollup.labels_of(video))
    console.stream_json(asdict(report), lists)


def _print(report: TagReport) -> None:
    """How often each label came first, most often first."""
    from rich.table import Table
    from rich.text import Text

    caption = f"{report.clips} clips tagged, {report.new} of them now; probabilities: {report.basis}"
    table = Table("label", caption=caption)
    table.add_column("clips", justify="right")
    table.add_column(f"mean probability ({report.basis.rpartition(', ')[2]})", justify="right")
    for line in report.labels:
        mean = "" if line.mean_probability is None else f"{line.mean_probability:.2f}"
        table.add_row(Text(line.label), str(line.clips), mean)
    console.results().print(table)


def _print_videos(archive: Archive, report: TagReport) -> None:
    """A line for each label of each video, as they come."""
    from pipeline import rollup, tagged

    for video in tagged.videos(archive, report.space, report.label_set):
        console.results().print(video.uri, markup=False, soft_wrap=True)
        for line in rollup.labels_of(video):
            spans = ", ".join(f"{segment.start_s:.0f}-{segment.end_s:.0f} s" for segment in line.segments)
            console.results().print(
                f"  {line.label}: {100 * line.share_of_time:.0f} % of the time, {spans}", markup=False, soft_wrap=True
            )
