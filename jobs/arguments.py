"""Arguments that commands share."""

from __future__ import annotations

from typing import Annotated

import typer

# Text and not a path, which would take a slash out of a URL.
ArchivePlace = Annotated[str, typer.Argument(help="The archive's folder, or its URL in an object store.")]
