"""Records made by hand, whole, with the few fields that a test is about given by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from pipeline import plan, tag_rows
from pipeline.archive import Archive
from pipeline.keys import Keys
from pipeline.parts import write_part
from schemas import tables
from schemas.records import (
    EmbeddedUnit,
    HashedFile,
    InspectedVideo,
    Letter,
    SourceFile,
    Unit,
    VideoProfile,
    VideoRow,
    Window,
)

SPACE = "0123456789ab"
WIDTH = 8
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PROFILE = VideoProfile(20.0, 64, 48, 25.0, "h264", 0, 500)


def file_at(path: str, *, fingerprint: str = "f1", size_bytes: int = 100, mtime_s: float = 1.0) -> HashedFile:
    """A file that was read, which need not exist."""
    return HashedFile(SourceFile(path, size_bytes, mtime_s), fingerprint)


def windows(count: int, *, window_s: float = 10.0, frames: int = 4) -> tuple[Window, ...]:
    """Windows one after the other."""
    starts = [window_s * place for place in range(count)]
    return tuple(
        Window(start, start + window_s, tuple(start + window_s * (i + 0.5) / frames for i in range(frames)))
        for start in starts
    )


def video(source: HashedFile, clips: int = 2) -> InspectedVideo:
    """A video that was inspected and cut."""
    return InspectedVideo(source, PROFILE, windows(clips))


def video_row(uri: str = "/videos/a.mp4", **changes: Any) -> VideoRow:
    """The row of a sound video of two clips. `minutes` after noon it was indexed."""
    minutes = changes.pop("minutes", 0)
    values: dict[str, Any] = {
        "video_id": plan.new_video_id(file_at(uri)),
        "uri": uri,
        "size_bytes": 100,
        "mtime_s": 1.0,
        "fingerprint": "f1",
        "revision": 1,
        "space": SPACE,
        "duration_s": 20.0,
        "width": 64,
        "height": 48,
        "rate_hz": 25.0,
        "codec": "h264",
        "rotation": 0,
        "clip_count": 2,
        "decoded_fraction": 1.0,
        "status": "ok",
        "error_kind": None,
        "error": None,
        "stage": None,
        "permanent": False,
        "attempts": 1,
        "run_id": "run",
        "indexed_at": NOON + timedelta(minutes=minutes),
    }
    return VideoRow(**{**values, **changes})


def unit_of(row: VideoRow, clips: int = 2, unit_id: str | None = None) -> Unit:
    """A unit with all clips of a video."""
    name = unit_id or f"{row.video_id}-{row.revision}"
    return Unit(name, row.video_id, row.revision, row.space, row.uri, windows(clips), 60.0)


def thumbnail(colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """A small WebP picture."""
    stream = BytesIO()
    Image.new("RGB", (16, 12), colour).save(stream, format="WEBP")
    return stream.getvalue()


def unit_vectors(count: int, width: int = WIDTH, seed: int = 0) -> NDArray[np.float32]:
    """Random vectors of unit length at float16 precision: count x width."""
    vectors = np.random.default_rng(seed).normal(size=(count, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16).astype(np.float32)


def embedded(unit: Unit, vectors: NDArray[np.float32] | None = None, contexts: Sequence[bytes] = ()) -> EmbeddedUnit:
    """A unit with its vectors; random ones unless given."""
    count = len(unit.windows)
    return EmbeddedUnit(
        unit=unit,
        windows=unit.windows,
        thumbnails=tuple(thumbnail() for _ in range(count)),
        embedding_NE=unit_vectors(count, seed=len(unit.unit_id)) if vectors is None else vectors,
        contexts=tuple(contexts) or (b"context",) * count,
        intact_samples=(4,) * count,
        decode_s=1.0,
        embed_s=0.5,
    )


def commit(archive: Archive, units: Iterable[EmbeddedUnit], rows: Iterable[VideoRow] = ()) -> None:
    """Clips first, the rows that show them last: as the indexer does it."""
    units = list(units)
    if units:
        archive.commit_parts(write_part(units, archive.folder))
    archive.commit_videos(rows)


def add_video(archive: Archive, path: str | Path = "/videos/a.mp4", clips: int = 2, **changes: Any) -> VideoRow:
    """A video with its clips, committed and visible; returns its row."""
    row = video_row(str(path), clip_count=clips, **changes)
    commit(archive, [embedded(unit_of(row, clips), unit_vectors(clips, seed=crc32(row.uri.encode())))], [row])
    return row


def add_tags(archive: Archive, rows: Iterable[dict[str, Any]]) -> None:
    """Adds a lot of tags, as tagging does it. Columns that are not given are null."""
    tag_rows.add(archive, [pa.RecordBatch.from_pylist(list(rows), tables.TAGS)])


def drop_tags(archive: Archive, space: str, label_set: str) -> None:
    """Drops all rows of a label set, as tagging does it for those of other settings."""
    tag_rows.drop_others(archive, space, label_set, tagging="", shown=Keys([]))


def tag_table(archive: Archive, space: str = SPACE) -> pa.Table:
    """All rows of the tags table in a space, whether they count or not."""
    return pa.Table.from_batches(archive.tag_batches(space, tables.TAGS.names), tables.TAGS)


def letter(uri: str, start_s: float | None = None, *, minutes: int = 0, **changes: Any) -> Letter:
    """The dead-letter's row of a file, or of the unit that starts at `start_s`; written `minutes` after noon."""
    values: dict[str, Any] = {
        "space": SPACE, "uri": uri, "fingerprint": "f1", "size_bytes": 100, "mtime_s": 1.0, "unit_id": None,
        "start_s": start_s, "end_s": None, "stage": "decode", "error_kind": "timeout", "error": "too slow",
        "permanent": False, "attempts": 1, "first_seen": NOON, "last_seen": NOON + timedelta(minutes=minutes),
        "run_id": "run", "decoder": "", "state": "open",
    }  # fmt: skip
    return Letter(**{**values, **changes})


def log_run(
    archive: Archive, run_id: str = "run", state: str = "finished", *, space_id: str = SPACE, **settings: Any
) -> None:
    """A row of the runs table, with the settings that readers of archives look at."""
    space = {"model": {"embed_dim": WIDTH}}
    archive.log_run(
        {
            "run_id": run_id,
            "state": state,
            "space": space_id,
            "at": datetime.now(UTC),
            "settings": json.dumps({"index": {"model": "m"}, "space": space, **settings}),
            "versions": "{}",
            "report": None,
        }
    )


def flip_a_bit(file: Path, column: str = "embedding.list.element") -> None:
    """Damages one value of a Parquet file as a bad disk would: size and all else stay."""
    group = pq.ParquetFile(file).metadata.row_group(0)
    (chunk,) = [c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column]
    content = bytearray(file.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1  # a page's data end where it ends
    file.write_bytes(content)
