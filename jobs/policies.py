"""Options that `index` and `reindex` share: how a run finds out what changed, what it may retire, where it reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Rehash = Annotated[
    bool, typer.Option("--rehash", help="Read every file again, also those whose size and time are known.")
]
TrustMtime = Annotated[
    bool,
    typer.Option(
        "--trust-mtime", help="Take a new name of the size and time of a vanished file for that file, unread."
    ),
]
KeepGone = Annotated[bool, typer.Option("--keep-gone", help="Go on showing videos whose files vanished.")]
KeepSpace = Annotated[
    bool, typer.Option("--keep-space", help="Keep the space that serves now for good when another takes its place.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Retire vanished videos even if they are more than a fifth of all.")]
FramePrecision = Literal["auto", "float32", "bfloat16", "int8"]
Wait = Annotated[float, typer.Option(help="Seconds to wait for another run on the archive; without, it is an error.")]
DecodeResource = Annotated[
    str | None,
    typer.Option(
        help="Open videos only on nodes of the Ray cluster that offer this custom resource.",
        envvar="FOOTAGE_DECODE_RESOURCE",
    ),
]
EmbedResource = Annotated[
    str | None,
    typer.Option(
        help="Embed only on nodes of the Ray cluster that offer this custom resource.",
        envvar="FOOTAGE_EMBED_RESOURCE",
    ),
]
Metrics = Annotated[
    Path | None,
    typer.Option(help="Also write counts to a file for Prometheus' textfile collector; a dry run writes none."),
]
Report = Annotated[Path | None, typer.Option("--report", help="Also write the report to a Markdown file.")]
