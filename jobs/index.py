"""`footage index`: bring an archive up to date with a pile of videos."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import typer

from jobs import console, report
from jobs.policies import (
    DecodeResource,
    EmbedResource,
    FramePrecision,
    KeepGone,
    KeepSpace,
    Metrics,
    Rehash,
    Report,
    TrustMtime,
    Wait,
    Yes,
)

Videos = Annotated[
    str,
    typer.Argument(
        help="A video file, folder, .tar, glob, .txt file with a path a line, or .csv, .jsonl or .parquet manifest; or "
        "the URL of one."
    ),
]
Model = Annotated[
    str, typer.Option(help="A name that `footage models` lists, openclip:ARCH/TAG, or a checkpoint file or folder.")
]
Context = Annotated[
    Literal["int8", "float16", "none"], typer.Option(help="How prompt contexts are stored, for re-ranking.")
]
Tolerance = Annotated[
    float | None,
    typer.Option(help="Seconds that a frame may be from its moment; a quarter of the sampling step unless given."),
]
Segment = Annotated[
    Literal["fixed", "shots"],
    typer.Option(help="Windows of one length, or windows that follow the shots and are at most as long."),
]
Precision = Annotated[
    FramePrecision,
    typer.Option(help="What frames are encoded in; auto: the fastest here that keeps near the model. int8: CPUs only."),
]
Decoder = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="What decodes; a GPU where that is faster and gives the same pictures, unless given."),
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Tell how each unit is decoded, what that should take, and what it took.")
]

Shard = Annotated[
    str | None,
    typer.Option(help="Only one part of the videos, such as 2/8, by the hash of their names; see `footage merge`."),
]


def index(
    videos: Videos,
    archive: Annotated[str, typer.Argument(help="The archive's folder or URL; made if it is not there.")],
    model: Model = "footage-tiny",
    frames: Annotated[int | None, typer.Option(help="Frames per clip, if not as many as the model's.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels of a frame's side, if not the model's.")] = None,
    window: Annotated[float, typer.Option(help="Length of a clip in seconds.")] = 10.0,
    stride: Annotated[float | None, typer.Option(help="Seconds from clip to clip; the window unless given.")] = None,
    tolerance: Tolerance = None,
    segment: Segment = "fixed",
    context: Context = "int8",
    engine: Annotated[Literal["ray", "local"], typer.Option(help="Ray Data, or a plain loop in one process.")] = "ray",
    precision: Precision = "auto",
    decoder: Decoder = "auto",
    decode_resource: DecodeResource = None,
    embed_resource: EmbedResource = None,
    shard: Shard = None,
    rehash: Rehash = False,
    trust_mtime: TrustMtime = False,
    keep_gone: KeepGone = False,
    keep_space: KeepSpace = False,
    yes: Yes = False,
    wait: Wait = 0.0,
    metrics: Metrics = None,
    markdown: Report = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    explain: Explain = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Decode, embed and commit what is new or changed; retire what is gone. Run it again to continue or update."""
    from pipeline import flows, run_report
    from pipeline.portions import Portion
    from pipeline.settings import IndexSettings, Policy

    settings = IndexSettings(
        model=model,
        frames=frames,
        image_size=image_size,
        window_s=window,
        stride_s=stride,
        tolerance_s=tolerance,
        segment=segment,
        context=context,
        engine=engine,
        device="auto",
        precision=precision,
        decoder=decoder,
        decode_resource=decode_resource,
        embed_resource=embed_resource,
    )
    policy = Policy(
        rehash=rehash, trust_mtime=trust_mtime, keep_gone=keep_gone, keep_space=keep_space, yes=yes, wait_s=wait
    )
    policy = replace(policy, portion=Portion.named(shard) if shard else None)
    for file in filter(None, (metrics, markdown)):
        run_report.check(file)
    with console.progress_bar(enabled=not as_json) as watch:
        found = flows.index(videos, archive, settings, policy=policy, dry_run=dry_run, explain=explain, watch=watch)
    report.tell(found, as_json=as_json, metrics=metrics, markdown=markdown)
