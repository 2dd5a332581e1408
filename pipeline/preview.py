"""Stretches of videos that browsers cannot play, made into small MP4 files that they can, and kept for a while.

A preview is H.264 without sound, at most PREVIEW_HEIGHT pixels high, and starts at the moment asked for. The newest are
kept in a folder of bounded size. A video is as hostile here as when it was indexed: it is opened by the same means.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.demux import opened
from schemas.errors import InputError, UndecodableVideo

PREVIEW_HEIGHT = 360
MOST_RATE_HZ = 30
MOST_LENGTH_S = 60.0
OPTIONS = {"preset": "veryfast", "crf": "28", "tune": "fastdecode"}
MP4_OPTIONS = {"movflags": "+faststart"}
TICKS_PER_S = 90_000


class Previews:
    """A folder of previews, which this process alone writes to; those asked for longest ago make way for others."""

    def __init__(self, folder: Path, *, most_bytes: int = 1 << 29, at_a_time: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._most_bytes = folder, most_bytes
        self._making = threading.BoundedSemaphore(at_a_time)
        self._lock = threading.Lock()

    def of(self, uri: str, start_s: float, length_s: float) -> Path:
        """The preview of a stretch of a video, made now if it is not there.

        Raises InputError for a stretch that cannot be, VideoError where nothing of it can be decoded.
        """
        if not (start_s >= 0 and 0 < length_s <= MOST_LENGTH_S):
            raise InputError(
                f"a preview of {length_s:g} s from {start_s:g} s is not possible; expected up to {MOST_LENGTH_S:g} s"
            )
        name = hashlib.sha256(f"{uri}\0{start_s:.2f}\0{length_s:.2f}".encode()).hexdigest()[:32]
        file = self._folder / f"{name}.mp4"
        with self._making:
            if not file.exists():
                draft = file.with_name(f".{name}-{uuid.uuid4().hex}")
                try:
                    write_preview(draft, uri, start_s, length_s)
                    draft.replace(file)
                finally:
                    draft.unlink(missing_ok=True)
                self._make_room(file)
        os.utime(file)
        return file

    def _make_room(self, kept: Path) -> None:
        """Removes those asked for longest ago until the rest fits."""
        with self._lock:
            files = sorted(self._folder.glob("*.mp4"), key=lambda each: each.stat().st_mtime, reverse=True)
            total = 0
            for file in [kept, *(each for each in files if each != kept)]:
                total += file.stat().st_size
                if total > self._most_bytes and file != kept:
                    file.unlink(missing_ok=True)


def write_preview(target: Path, uri: str, start_s: float, length_s: float) -> None:
    """A stretch of a video, in seconds from its beginning, as a file. Raises VideoError where there is none of it."""
    with opened(uri) as (container, stream), av.open(str(target), "w", format="mp4", options=MP4_OPTIONS) as made:
        origin_s = float((stream.start_time or 0) * stream.time_base)
        container.seek(int((origin_s + start_s) / stream.time_base), stream=stream, backward=True)
        out: Any = None
        for time_s, frame in _spread(_frames(container, stream), origin_s + start_s, length_s):
            picture = _small(frame)
            if out is None:
                out = _stream(made, picture)
            picture.pts, picture.time_base = round(time_s * TICKS_PER_S), Fraction(1, TICKS_PER_S)
            made.mux(out.encode(picture))
        if out is None:
            raise UndecodableVideo(f"nothing can be decoded from {start_s:g} s on; expected frames there")
        made.mux(out.encode())


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """All frames from here on, until one cannot be decoded."""
    try:
        for frame in container.decode(stream):
            if frame.pts is not None:
                yield frame
    except av.FFmpegError:
        return  # what came before it is shown


def _spread(frames: Iterator[Any], start_s: float, length_s: float) -> Iterator[tuple[float, Any]]:
    """Frames of a stretch with their time in it, no more of them a second than MOST_RATE_HZ."""
    last_s = -1.0
    for frame in frames:
        time_s = float(frame.pts * frame.time_base) - start_s
        if time_s >= length_s:
            return
        if time_s > -1e-6 and time_s - last_s > 0.9 / MOST_RATE_HZ:
            last_s = max(0.0, time_s)
            yield last_s, frame


def _small(frame: Any) -> Any:
    """A frame upright and small, both sides even."""
    turns = round(frame.rotation / 90)  # counterclockwise
    scale = min(1.0, PREVIEW_HEIGHT / (frame.width if turns % 2 else frame.height))
    width, height = (max(2, round(side * scale / 2) * 2) for side in (frame.width, frame.height))
    small = frame.reformat(width=width, height=height, format="rgb24")
    turned = np.ascontiguousarray(np.rot90(small.to_ndarray(), k=turns))
    return av.VideoFrame.from_ndarray(turned, format="rgb24").reformat(format="yuv420p")


def _stream(made: Any, first: Any) -> Any:
    """Where frames of this size go."""
    out = made.add_stream("libx264", rate=MOST_RATE_HZ)
    out.width, out.height, out.pix_fmt, out.options = first.width, first.height, "yuv420p", dict(OPTIONS)
    out.codec_context.time_base = Fraction(1, TICKS_PER_S)
    return out
