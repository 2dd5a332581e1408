"""Which rows of the table of videos count: the newest of each video, and of those the ones whose clips can be seen."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import keys
from pipeline.heaps import last_of
from pipeline.keys import Keys

SHOWN = ("ok", "partial")
CURRENT = ["video_id", "revision", "indexed_at", "uri"]  # what tells which row is current


def current_rows(rows: pa.Table) -> pa.Table:
    """Of rows of the videos table the current one of each video, in uri order."""
    return last_of(rows, "video_id", ("revision", "indexed_at")).sort_by("uri")


def shown_keys(videos: pa.Table) -> Keys:
    """Of current rows, the revisions whose clips can be seen."""
    return Keys([keys.of_revisions(videos.filter(pc.is_in(videos["status"], pa.array(SHOWN))))])
