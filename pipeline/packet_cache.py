"""Packets that were read once: kept in the archive by content, so that another space need not open the files again.

What demuxing tells of a video is decided by its content alone; windows and steps of decoding are made of it for each
space. So packets lie in a table of their own by the fingerprint of the content, written by workers a lot at a time and
committed by the driver. It is a cache: whatever of it is missing, damaged, of another format or made by other versions
of the libraries that demux is passed over, and the file is opened as if nothing had been kept.

A million videos have some gigabytes of packets. The driver reads the fingerprints alone, and learns which file of the
table has which; workers get lots of fingerprints of one such file, in the order in which they are there, and read the
row groups that hold them, one at a time, of some megabytes each. So the driver holds no packets, nobody more than
those of one row group, and workers share the unpacking as they share the opening of files.
"""

# F files of a run, N rows of packets

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import decode, delta_log, demux, keys, packing, parts, stores
from pipeline.archive import Archive
from pipeline.costs import Costs
from pipeline.heaps import last_of
from pipeline.keys import Keys
from pipeline.packing import Packets
from pipeline.settings import Sampling
from pipeline.stores import AnyPath
from schemas.errors import VideoError
from schemas.records import HashedFile, InspectedVideo, PackedPackets, PacketsLot, PacketsPart

VIDEOS_PER_PART = 64
VIDEOS_PER_LOT = 256
MIN_VIDEOS_PER_PART = 8
PARTS_PER_RUN = 16  # at least, unless they would be too small: whoever watches a run sees it go on
DAMAGE = (OSError, pa.ArrowException, MemoryError)  # what reading of a damaged file ends with
_KEPT = pa.schema(
    [
        ("content", pa.uint64()),  # the fingerprint as a number; should two share it, one is not found
        ("kept_at", pa.timestamp("us", tz="UTC")),
        ("path", pa.int64()),  # the number of the file
        ("place", pa.int64()),  # the number of the row
    ]
)
PACKED = [field.name for field in fields(PackedPackets)]


def together(count: int) -> int:
    """How many videos of so many share a part."""
    return min(VIDEOS_PER_PART, max(MIN_VIDEOS_PER_PART, count // PARTS_PER_RUN))


def keep(folder: str | AnyPath, videos: list[InspectedVideo]) -> list[InspectedVideo | PacketsPart]:
    """Writes the packets of videos as one file in the archive at `folder`, as a stage; commits nothing.

    The videos come out without them, and the part besides.
    """
    about = {"format": packing.FORMAT, "decoder": decode.decoder(), "kept_at": datetime.now(UTC)}
    rows = [
        {"fingerprint": video.source.fingerprint, **about, **asdict(video.packets)} for video in videos if video.packets
    ]
    bare = [replace(video, packets=None) for video in videos]
    return [*bare, _write(folder, rows)] if rows else list(bare)


def _write(folder: str | AnyPath, rows: list[dict[str, Any]]) -> PacketsPart:
    """One part."""
    path = f"part-{uuid.uuid4().hex}.parquet"
    file = stores.to_place(folder) / "packets" / path
    stores.make_folder(file.parent)
    table = pa.Table.from_pylist(rows, schema=parts.file_schema("packets"))
    count = parts.write_batches(file, table.schema, table.to_batches())
    return PacketsPart(path, file.stat().st_size, count)


def lots(archive: Archive, files: Sequence[HashedFile]) -> list[PacketsLot]:
    """Where the packets of files are kept, for those of whose contents they are."""
    if not files or not archive.has_table("packets"):  # of before there was such a table
        return []
    number_F = keys.of_texts([file.fingerprint for file in files])
    paths, kept = _kept(archive, Keys([number_F]))
    if not kept.num_rows:
        return []
    here = last_of(kept, "content", ("kept_at",))  # one row for each content, in the order of their numbers
    content_N, path_N, place_N = (here[name].to_numpy() for name in ("content", "path", "place"))
    at_F = np.minimum(np.searchsorted(content_N, number_F), len(content_N) - 1)
    is_kept_F = content_N[at_F] == number_F
    placed: dict[int, list[HashedFile]] = defaultdict(list)
    order_F = np.lexsort((place_N[at_F], path_N[at_F]))
    for number in order_F[is_kept_F[order_F]].tolist():
        placed[int(path_N[at_F[number]])].append(files[number])
    return [
        PacketsLot(paths[path], tuple(some[start : start + VIDEOS_PER_LOT]))
        for path, some in placed.items()
        for start in range(0, len(some), VIDEOS_PER_LOT)
    ]


def _kept(archive: Archive, wanted: Keys) -> tuple[list[str], pa.RecordBatch]:
    """The files of the table, and where in them are packets of some contents that can be used."""
    paths = [file.path for file in delta_log.files(archive, "packets")]
    found = [_none_kept()]
    for number, path in enumerate(paths):
        start = 0
        for rows in _rows(archive.folder / "packets" / path):
            content_N = keys.of_texts(rows["fingerprint"].to_pylist())
            is_usable = pc.and_(pc.equal(rows["format"], packing.FORMAT), pc.equal(rows["decoder"], decode.decoder()))
            place_N = np.arange(start, start + rows.num_rows)
            columns = [pa.array(content_N), rows["kept_at"], pa.array([number] * rows.num_rows), pa.array(place_N)]
            batch = pa.RecordBatch.from_arrays(columns, schema=_KEPT)
            found.append(batch.filter(pc.and_(is_usable, wanted.has(content_N))))
            start += rows.num_rows
    return paths, pa.concat_batches(found)


def _none_kept() -> pa.RecordBatch:
    """No rows."""
    return pa.RecordBatch.from_pylist([], _KEPT)


def _rows(file: AnyPath) -> Iterator[pa.RecordBatch]:
    """What a file says of whose its packets are, as far as it can be read."""
    try:
        yield from parts.read_batches(
            [file], parts.file_schema("packets"), ["fingerprint", "format", "decoder", "kept_at"]
        )
    except DAMAGE:
        return


def recall(folder: str | AnyPath, settings: Sampling, costs: Costs, lots: list[PacketsLot]) -> list[InspectedVideo]:
    """Videos as `demux.inspect` would find them, made of what is kept in the archive at `folder`, as a stage.

    Those whose packets are not what was kept do not come out, nor those that cannot be cut so: opening them will tell.
    """
    return [video for lot in lots for video in _recalled(stores.to_place(folder), settings, costs, lot)]


def _recalled(folder: AnyPath, settings: Sampling, costs: Costs, lot: PacketsLot) -> Iterator[InspectedVideo]:
    """Those of one lot."""
    left: dict[str, list[HashedFile]] = defaultdict(list)
    for file in lot.files:
        left[file.fingerprint].append(file)
    decoder = decode.decoder()
    try:
        for row in parts.pick(folder / "packets" / lot.path, "fingerprint", list(left)):
            files = left.get(row["fingerprint"], ()) if row["decoder"] == decoder else ()
            made = list(_made(row, files, settings, costs)) if files else []
            if made:  # once: the content may be there twice
                yield from made
                del left[row["fingerprint"]]
    except DAMAGE:
        return


def unpacked(rows: Iterable[dict[str, Any]]) -> Iterator[Packets]:
    """The packets of rows, but for those in a format that is not known here. Raises DamagedPackets."""
    for row in rows:
        if row["format"] == packing.FORMAT:
            yield packing.unpack(PackedPackets(**{name: row[name] for name in PACKED}), row["fingerprint"])


def _made(
    row: dict[str, Any], files: Iterable[HashedFile], settings: Sampling, costs: Costs
) -> Iterator[InspectedVideo]:
    """The videos of files whose content has the packets of a row."""
    try:
        yield from [demux.inspected(file, packets, settings, costs) for packets in unpacked([row]) for file in files]
    except (packing.DamagedPackets, VideoError):
        return
