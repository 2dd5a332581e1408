"""`footage export`: the clips of an archive, or their tags, as files for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from jobs import console
from jobs.arguments import ArchivePlace
from schemas.errors import InputError

if TYPE_CHECKING:
    from pipeline.tag_export import TagExport, TagExportReport

Clips = Literal["parquet", "csv", "jsonl", "npy"]
Tags = Literal["tags", "videos", "activitynet", "kinetics", "coco", "fiftyone", "vtt", "json-sidecar", "xmp"]


def export(
    archive: ArchivePlace,
    out: Annotated[
        Path | None, typer.Argument(help="The file, or folder, to write; sidecars go beside videos without it.")
    ] = None,
    kind: Annotated[
        Literal[Clips, Tags] | None,
        typer.Option("--format", help="Clips: unless OUT's ending says it. The rest: tags of one label set."),
    ] = None,
    no_vectors: Annotated[bool, typer.Option("--no-vectors", help="Leave the vectors of clips out.")] = False,
    labels: Annotated[
        str | None, typer.Option(help="Whose tags: a label file, or a fingerprint; else what was tagged with last.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="For tags: a space that `footage info` lists, if not the serving one.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write every clip that can be seen, with its video, times, tags and vector; or tags in another tool's format."""
    if kind in get_args(Tags):
        _export_tags(archive, out, _asked(cast(Tags, kind), labels, space, force=force), as_json=as_json)
        return
    from pipeline import export as exporting

    if out is None or labels is not None or space is not None:
        raise InputError("clips are written to a file, whatever they are tagged with; name OUT, or say --format tags")
    report = exporting.export(archive, out, kind=cast(Clips | None, kind), vectors=not no_vectors, force=force)
    if as_json:
        console.print_json(report)
        return
    took = console.length(report.wall_s)
    console.messages().print(f"{report.clips} clips in {took}, written to", soft_wrap=True)
    for file in report.files:
        console.messages().print(f"  {file}", soft_wrap=True, markup=False)


def _asked(kind: Tags, labels: str | None, space: str | None, *, force: bool) -> TagExport:
    """What is asked for; `labels` is a file if there is one of that name."""
    from pipeline.label_files import read_labels
    from pipeline.tag_export import TagExport

    known = read_labels(labels) if labels is not None and Path(labels).is_file() else None
    return TagExport(kind=kind, label_set=None if known else labels, labels=known, space=space, force=force)


def _export_tags(archive: str, out: Path | None, asked: TagExport, *, as_json: bool) -> None:
    """Writes tags, and says what was and what was not."""
    from pipeline import tag_export

    with console.progress_bar(enabled=not as_json) as watch:
        report = tag_export.export_tags(archive, out, asked, watch=watch)
    if as_json:
        console.print_json(report)
        return
    _print(report)


def _print(report: TagExportReport) -> None:
    """What was written, and why some was not."""
    took = console.length(report.wall_s)
    where = report.out or "beside the videos"
    notes = console.messages()
    notes.print(f"{report.videos} videos in {took}, {report.files} files: {where}", soft_wrap=True, markup=False)
    for line in report.left:
        notes.print(f"  not written: {line.reason} ({line.uri})", soft_wrap=True, markup=False)
    if report.left_count > len(report.left):
        notes.print(f"  and {report.left_count - len(report.left)} more")
