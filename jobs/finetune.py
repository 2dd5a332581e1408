"""`footage finetune`: adapt a model to your own labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs import console

if TYPE_CHECKING:
    from pipeline.finetune import FinetuneReport
    from pipeline.review import Review


def finetune(
    labels: Annotated[Path, typer.Argument(help="A table of path and label, a .txt list, or a folder per class.")],
    out: Annotated[Path, typer.Argument(help="The folder for model and checkpoint; one that has them goes on.")],
    init: Annotated[str, typer.Option(help="The model to start from.")] = "footage-tiny",
    protocol: Annotated[Literal["full", "few", "zero"], typer.Option(help="Whose defaults, of the paper's.")] = "full",
    frames: Annotated[int | None, typer.Option(help="Frames per clip, if not the model's.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels of a side, if not the model's.")] = None,
    val: Annotated[
        Path | None, typer.Option(help="Labels to choose the best by; a tenth is held out unless given.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Train on so many videos of each label, drawn by seed; all unless given.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the examples.")] = None,
    batch: Annotated[int | None, typer.Option(help="Clips per step, over all workers.")] = None,
    accumulate: Annotated[int, typer.Option(help="In how many parts a worker takes its share of a batch.")] = 1,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate of CLIP's tensors; new ones have 10 times it.")
    ] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the clips.")] = None,
    seed: Annotated[int, typer.Option(help="Every random number comes from it.")] = 0,
    precision: Annotated[Literal["auto", "float32", "bf16"], typer.Option(help="auto: bf16 on a GPU.")] = "auto",
    clip_norm: Annotated[float | None, typer.Option(help="Longest gradient; the paper has no limit.")] = None,
    recompute: Annotated[bool, typer.Option("--recompute", help="Less memory, a third more work.")] = False,
    workers: Annotated[int, typer.Option(help="Training processes, on Ray.")] = 1,
    decoders: Annotated[int | None, typer.Option(help="Decoding processes per worker; 0: none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a model on labelled videos with the paper's recipe. Run it again to go on after an interruption."""
    from pipeline.finetune import finetune as train
    from pipeline.finetune import prepare
    from pipeline.protocols import FinetuneSettings

    settings = FinetuneSettings(
        init=init,
        protocol=protocol,
        frames=frames,
        image_size=image_size,
        shots=shots,
        epochs=epochs,
        batch=batch,
        accumulate=accumulate,
        workers=workers,
        lr=lr,
        flip=flip,
        seed=seed,
        precision=precision,
        clip_norm=clip_norm,
        recompute=recompute,
        decoders=decoders,
    )
    with console.progress_bar(enabled=not as_json) as watch:
        prepared = prepare(labels, out, settings, val=val, watch=watch)
    _print_review(prepared.review)
    with console.progress_bar(enabled=not as_json) as watch:
        report = train(prepared, watch=watch)
    if as_json:
        console.print_json(report)
    else:
        _print(report)
    if report.unread:
        raise typer.Exit(console.EXIT_SOME_FAILED)


def _print_review(review: Review) -> None:
    """What is about to be done, and what looks wrong."""
    from rich.table import Table

    table = Table(show_header=False)
    for row in review.rows:
        table.add_row(*row)
    out = console.messages()
    out.print(table)
    for warning in review.warnings:
        out.print(f"warning: {warning}", markup=False, soft_wrap=True)
    console.caution(review.notes)


def _print(report: FinetuneReport) -> None:
    """What came out."""
    from rich.table import Table

    went_on = f", from step {report.resumed_from}" if report.resumed_from else ""
    rows = [
        ("trained", f"{report.steps} steps, {report.epochs} epochs{went_on}, in {console.length(report.wall_s)}"),
        ("on", f"{report.examples} videos of {report.labels} labels"),
        ("loss", f"{report.loss:.3f}"),
    ]
    if report.top1 is not None and report.top5 is not None:
        score = f"top-1 {report.top1:.1%}, top-5 {report.top5:.1%} after epoch {report.best_epoch}"
        rows.append(("best", f"{score}, on {report.held_out} held-out videos"))
    rows.append(("model", report.model))
    table = Table(show_header=False)
    for row in rows:
        table.add_row(*row)
    out = console.results()
    out.print(table)
    for item in report.unread:
        out.print(f"  left out: {item.uri}: {item.error}", markup=False, soft_wrap=True)
