"""Files of the archive's videos over HTTP, in byte ranges, so that players can seek."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, Response, StreamingResponse

from pipeline import sources
from schemas.errors import NotFound

CHUNK_BYTES = 1 << 18
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
TYPES = {".mkv": "video/x-matroska", ".ts": "video/mp2t", ".mts": "video/mp2t", ".mxf": "application/mxf"}


def media_type(uri: str) -> str:
    """Of a file, by its ending."""
    ending = Path(uri).suffix.lower()
    return TYPES.get(ending) or mimetypes.guess_type(f"a{ending}")[0] or "application/octet-stream"


def response(uri: str, asked: str | None) -> Response:
    """The file of a video, or the range of it that was asked for. Raises NotFound where it is there no longer."""
    place = sources.to_path(uri)
    if isinstance(place, Path) and sources.is_file(uri):
        if not place.is_file():
            raise NotFound(f"the file is not at {uri} any more; index again to know where it went")
        return FileResponse(place, media_type=media_type(uri))  # knows ranges
    found = sources.now_at(uri)
    if found is None:
        raise NotFound(f"there is nothing at {uri} any more; index again to know where it went")
    return _in_chunks(uri, found.size_bytes, asked)


def _in_chunks(uri: str, size: int, asked: str | None) -> Response:
    """A file of an object store, or in a tar."""
    headers = {"accept-ranges": "bytes"}
    match = RANGE.fullmatch(asked or "")
    if match is None or match.groups() == ("", ""):
        return StreamingResponse(
            _chunks(uri, 0, size), media_type=media_type(uri), headers=headers | {"content-length": str(size)}
        )
    first, last = span(match.group(1), match.group(2), size)
    if first > last:
        return Response(status_code=416, headers=headers | {"content-range": f"bytes */{size}"})
    headers |= {"content-range": f"bytes {first}-{last}/{size}", "content-length": str(last - first + 1)}
    body = _chunks(uri, first, last - first + 1)
    return StreamingResponse(body, status_code=206, media_type=media_type(uri), headers=headers)


def span(first: str, last: str, size: int) -> tuple[int, int]:
    """First and last byte of a range as a header has it; the first is past the last where there is none."""
    if not first:  # the last so many
        return max(0, size - int(last)) if int(last) else size, size - 1
    return int(first), min(int(last), size - 1) if last else size - 1


def _chunks(uri: str, first: int, length: int) -> Iterator[bytes]:
    """So many bytes of a file from one on."""
    with sources.opened(uri) as stream:
        reader: Any = stream
        reader.seek(first)
        while length > 0 and (chunk := reader.read(min(CHUNK_BYTES, length))):
            length -= len(chunk)
            yield chunk
