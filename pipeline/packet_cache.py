"""Packets that were read once: kept in the archive by content, so that another space need not open the files again.

What demuxing tells of a video is decided by its content alone; windows and steps of decoding are made of it for each
space. So packets lie in a table of their own by the fingerprint of the content, written by workers a lot at a time and
committed by the driver. It is a cache: whatever of it is missing, damaged, of another format or made by other versions
of the libraries that demux is passed over, and the file is opened as if nothing had been kept.

A million videos have some gigabytes of packets. The driver reads the fingerprints alone, and learns which file of the
table has which; workers get lots of fingerprints of one such file, in the order in which they are there, and read the
row groups that hold them. So nobody holds more packets than those of a lot, and no file is gone through more than once.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import decode, delta_log, demux, keys, packing, parts, stores
from pipeline.archive import Archive
from pipeline.costs import Costs
from pipeline.keys import Keys
from pipeline.packing import Packets
from pipeline.settings import Sampling
from pipeline.stores import AnyPath
from schemas.errors import VideoError
from schemas.records import HashedFile, InspectedVideo, PackedPackets, PacketsLot, PacketsPart

VIDEOS_PER_PART = 64
MIN_VIDEOS_PER_PART = 8
PARTS_PER_RUN = 16  # at least, unless they would be too small: whoever watches a run sees it go on
DAMAGE = (OSError, pa.ArrowException, MemoryError)  # what reading of a damaged file ends with
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


def lots(archive: Archive, files: Iterable[HashedFile]) -> list[PacketsLot]:
    """Where the packets of files are kept, for those of whose contents they are."""
    by_content: dict[str, list[HashedFile]] = defaultdict(list)
    for file in files:
        by_content[file.fingerprint].append(file)
    if not by_content or not archive.has_table("packets"):  # of before there was such a table
        return []
    by_path: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for content, (_, path, place) in _places(archive, by_content).items():
        by_path[path].append((place, content))
    found = []
    for path, placed in sorted(by_path.items()):
        here = [file for _, content in sorted(placed) for file in by_content[content]]
        found += [
            PacketsLot(path, tuple(here[start : start + VIDEOS_PER_PART]))
            for start in range(0, len(here), VIDEOS_PER_PART)
        ]
    return found


def _places(archive: Archive, wanted: Iterable[str]) -> dict[str, tuple[Any, str, int]]:
    """Of each content whose packets can be used: when they were kept, in which file, and at which row of it."""
    contents = set(wanted)
    numbers = Keys([keys.of_texts(list(contents))])
    decoder = decode.decoder()
    found: dict[str, tuple[Any, str, int]] = {}
    for file in delta_log.files(archive, "packets"):
        for place, row in _rows(archive.folder / "packets" / file.path, numbers):
            content, kept = row["fingerprint"], (row["kept_at"], file.path, place)
            is_usable = row["format"] == packing.FORMAT and row["decoder"] == decoder and content in contents
            if is_usable and (content not in found or found[content] < kept):
                found[content] = kept
    return found


def _rows(file: AnyPath, wanted: Keys) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a file, with their numbers, that are of one of some contents; those before the first damage."""
    columns, start = ["fingerprint", "format", "decoder", "kept_at"], 0
    try:
        for batch in parts.read_batches([file], parts.file_schema("packets"), columns):
            is_wanted = wanted.has(keys.of_texts(batch["fingerprint"].to_pylist()))
            places = pc.indices_nonzero(is_wanted).to_pylist()
            yield from zip((start + place for place in places), batch.filter(is_wanted).to_pylist(), strict=True)
            start += batch.num_rows
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
            if row["decoder"] == decoder:
                made = list(_made(row, left.get(row["fingerprint"], ()), settings, costs))
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
