"""The tables as they are written down in archives: a change here is a new schema version."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import pyarrow as pa
import pytest

from pipeline.tagged import Tag
from schemas import records, tables
from schemas.records import Letter, PackedPackets, VideoRow
from tests.pipeline.factories import video_row

TEXT, WHOLE, LONG, REAL, YES_NO, MOMENT = "string", "int32", "int64", "double", "bool", "timestamp[us, tz=UTC]"

# Frozen: never edit these listings. Another table is another SCHEMA_VERSION with listings of its own beside them.
VERSION_1 = {
    "videos": {
        "video_id": TEXT,
        "uri": TEXT,
        "size_bytes": LONG,
        "mtime_s": REAL,
        "fingerprint": TEXT,
        "revision": WHOLE,
        "space": TEXT,
        "duration_s": REAL,
        "width": WHOLE,
        "height": WHOLE,
        "rate_hz": REAL,
        "codec": TEXT,
        "rotation": WHOLE,
        "clip_count": WHOLE,
        "decoded_fraction": REAL,
        "status": TEXT,
        "error_kind": TEXT,
        "error": TEXT,
        "stage": TEXT,
        "permanent": YES_NO,
        "attempts": WHOLE,
        "run_id": TEXT,
        "indexed_at": MOMENT,
    },
    "clips": {
        "clip_id": TEXT,
        "unit_id": TEXT,
        "video_id": TEXT,
        "revision": WHOLE,
        "space": TEXT,
        "start_s": REAL,
        "end_s": REAL,
        "frame_times_s": "list<item: double>",
        "intact_samples": WHOLE,
        "embedding": "list<item: float>",
        "context": "binary",
        "thumbnail": "binary",
    },
    "tags": {
        "clip_id": TEXT,
        "video_id": TEXT,
        "space": TEXT,
        "label_set": TEXT,
        "label": TEXT,
        "rank": WHOLE,
        "probability": REAL,
        "score": REAL,
        "tagged_at": MOMENT,
    },
    "runs": {
        "run_id": TEXT,
        "state": TEXT,
        "space": TEXT,
        "at": MOMENT,
        "settings": TEXT,
        "versions": TEXT,
        "report": TEXT,
    },
}
VERSION_2 = {
    **VERSION_1,
    "failures": {
        "space": TEXT,
        "uri": TEXT,
        "fingerprint": TEXT,
        "size_bytes": LONG,
        "mtime_s": REAL,
        "unit_id": TEXT,
        "start_s": REAL,
        "end_s": REAL,
        "stage": TEXT,
        "error_kind": TEXT,
        "error": TEXT,
        "permanent": YES_NO,
        "attempts": WHOLE,
        "first_seen": MOMENT,
        "last_seen": MOMENT,
        "run_id": TEXT,
        "decoder": TEXT,
        "state": TEXT,
    },
}
VERSION_3 = {
    **VERSION_2,
    "packets": {
        "fingerprint": TEXT,
        "format": WHOLE,
        "decoder": TEXT,
        "kept_at": MOMENT,
        "codec": TEXT,
        "width": WHOLE,
        "height": WHOLE,
        "rotation": WHOLE,
        "tick_s": REAL,
        "zero_s": REAL,
        "end_s": REAL,
        "is_plannable": YES_NO,
        "packet_count": LONG,
        "packets": "binary",
    },
}
VERSION_4 = {**VERSION_3, "tags": {**VERSION_3["tags"], "basis": TEXT, "tagging": TEXT}}
VERSIONS = (VERSION_1, VERSION_2, VERSION_3, VERSION_4)
FROZEN = {number: (found, {"clips": ["space"]}) for number, found in enumerate(VERSIONS, 1)}


def test_the_tables_are_those_of_their_schema_version() -> None:
    listed = {
        name: {field.name: str(field.type).replace("element:", "item:") for field in schema}
        for name, schema in tables.TABLES.items()
    }
    frozen, partitions = FROZEN[tables.SCHEMA_VERSION]
    assert listed == frozen, "a changed table needs a new SCHEMA_VERSION and a new frozen listing"
    assert partitions == tables.PARTITIONS
    assert all(list(listed[name]) == list(columns) for name, columns in frozen.items()), "the order counts too"


def test_a_video_row_has_the_columns_of_its_table() -> None:
    assert [field.name for field in fields(VideoRow)] == tables.VIDEOS.names


def test_a_letter_has_the_columns_of_its_table() -> None:
    assert [field.name for field in fields(Letter)] == tables.FAILURES.names


def test_packed_packets_are_columns_of_their_table() -> None:
    assert [field.name for field in fields(PackedPackets)] == tables.PACKETS.names[4:]


def test_a_video_row_fits_its_table() -> None:
    row = video_row()
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    (back,) = pa.Table.from_pylist([values], schema=tables.VIDEOS).to_pylist()
    assert VideoRow(**back) == row


def test_what_a_tag_says_of_its_clip_is_in_the_table() -> None:
    assert {field.name for field in fields(Tag)} - set(tables.TAGS.names) == {"uri", "start_s", "end_s"}


@pytest.mark.parametrize("name", [name for name in dir(records) if is_dataclass(getattr(records, name))])
def test_records_cannot_be_filled_in_later(name: str) -> None:
    record = getattr(records, name)
    assert record.__module__ == "schemas.records"
    assert record.__dataclass_params__.frozen
    assert hasattr(record, "__slots__")
    assert record.__doc__
    assert not record.__doc__.startswith(f"{name}("), "a docstring of its own"
