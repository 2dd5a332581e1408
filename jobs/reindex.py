"""`footage reindex`: bring an archive up to date with every place it was made from. The scheduled job."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from jobs import console, report
from jobs.arguments import ArchivePlace
from jobs.policies import (
    DecodeResource,
    EmbedResource,
    FramePrecision,
    KeepGone,
    Metrics,
    Rehash,
    Report,
    TrustMtime,
    Wait,
    Yes,
)


def reindex(
    archive: ArchivePlace,
    forget: Annotated[
        list[str] | None,
        typer.Option(help="Give up a folder, glob, list or file for good and retire what is known there."),
    ] = None,
    engine: Annotated[Literal["ray", "local"] | None, typer.Option(help="If not the last run's.")] = None,
    decoder: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="If not the last run's.")] = None,
    precision: Annotated[
        FramePrecision | None, typer.Option(help="What frames are encoded in, if not as in the last run.")
    ] = None,
    decode_resource: DecodeResource = None,
    embed_resource: EmbedResource = None,
    rehash: Rehash = False,
    trust_mtime: TrustMtime = False,
    keep_gone: KeepGone = False,
    yes: Yes = False,
    wait: Wait = 0.0,
    metrics: Metrics = None,
    markdown: Report = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look again at every place the archive knows, with the settings of the space that serves."""
    from pipeline import reindexing, run_report
    from pipeline.settings import Policy

    policy = Policy(rehash=rehash, trust_mtime=trust_mtime, keep_gone=keep_gone, yes=yes, wait_s=wait)
    for file in filter(None, (metrics, markdown)):
        run_report.check(file)
    with console.progress_bar(enabled=not as_json) as watch:
        found = reindexing.reindex(
            archive,
            policy=policy,
            forget=forget or (),
            engine=engine,
            decoder=decoder,
            precision=precision,
            decode_resource=decode_resource,
            embed_resource=embed_resource,
            dry_run=dry_run,
            watch=watch,
        )
    report.tell(found, as_json=as_json, metrics=metrics, markdown=markdown)
