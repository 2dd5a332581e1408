"""Hits as one self-contained HTML page: a picture for each moment, linked to it."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from urllib.parse import quote

from pipeline import sources
from pipeline.search import Answer
from schemas.records import Hit


def timecode(seconds: float) -> str:
    """Seconds as `m:ss.t`, or `h:mm:ss.t` from an hour on: 75.25 is 1:15.2."""
    tenths = int(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    clock = f"{minutes}:{rest // 10:02}.{rest % 10}"
    return f"{hours}:{minutes:02}:{rest // 10:02}.{rest % 10}" if hours else clock


def link(hit: Hit) -> str:
    """A URL that opens the video at the moment, as browsers and most players read it (W3C media fragments)."""
    # A `#` or `?` in a file name would end the path; quoting keeps them part of it.
    place = sources.to_path(hit.uri)
    scheme, path = ("file", os.fsencode(place)) if isinstance(place, Path) else hit.uri.split("://", 1)
    return f"{scheme}://{quote(path, safe='/')}#t={hit.start_s:.2f},{hit.end_s:.2f}"


def render(answer: Answer, archive: str | Path) -> str:
    """The page. Every text in it is escaped: file names are as hostile as files."""
    from pipeline import pages  # a search that makes none does not wait for Jinja

    cards = [
        {
            "hit": hit,
            "name": os.fsencode(sources.to_path(hit.uri).name).decode("utf-8", "replace"),
            "link": link(hit),
            "start": timecode(hit.start_s),
            "end": timecode(hit.end_s),
            "picture": base64.b64encode(picture).decode(),
        }
        for hit, picture in zip(answer.hits, answer.thumbnails, strict=True)
    ]
    return pages.render("contact_sheet.html", answer=answer, cards=cards, archive=archive)


def write(answer: Answer, archive: str | Path, file: Path) -> None:
    """Writes the page to a file."""
    file.write_text(render(answer, archive), encoding="utf-8")
