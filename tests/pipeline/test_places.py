"""Places of clips: what a search reads by them, and that it finds the same where they are wrong or missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import indexes, parts, places
from pipeline.archive import Archive
from pipeline.compact import CompactSettings, compact
from pipeline.places import ClipReader, Places
from tests.pipeline.factories import SPACE, WIDTH, add_video, log_run

COLUMNS = ["start_s", "embedding", "context"]
VIDEOS, CLIPS = 6, 5


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Six files of five clips each, and one of another space."""
    made = Archive.create(tmp_path / "archive")
    for number in range(VIDEOS):
        add_video(made, f"/videos/{number}.mp4", clips=CLIPS)
    add_video(made, "/videos/other.mp4", space="other")
    log_run(made)
    return made


def stored(archive: Archive) -> dict[str, dict[str, Any]]:
    """All rows of the space, by a scan."""
    rows = archive.visible_clips(SPACE, ["clip_id", *COLUMNS]).to_pylist()
    return {row["clip_id"]: row for row in rows}


def merged(archive: Archive) -> None:
    """One file in the place of six, as a user would have it."""
    compact(archive.folder, CompactSettings(retention_days=0))
    assert len(archive.clip_files(SPACE)) == 1


def blacken(archive: Archive, clip_id: str) -> int:
    """Destroys every row group that does not hold a clip; returns how many."""
    count = 0
    for file in Path(archive.folder, "clips", f"space={SPACE}").glob("*.parquet"):
        opened, content = pq.ParquetFile(file), bytearray(file.read_bytes())
        for number in range(opened.num_row_groups):
            if clip_id in opened.read_row_group(number, ["clip_id"])["clip_id"].to_pylist():
                continue
            group = opened.metadata.row_group(number)
            for chunk in map(group.column, range(group.num_columns)):
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                content[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
            count += 1
        file.write_bytes(content)
    return count


def scans(*_: object) -> Places:
    raise AssertionError("a scan of all ids")


def test_rows_come_in_the_order_asked_and_are_those_of_a_scan(archive: Archive) -> None:
    expected = stored(archive)
    asked = sorted(expected, reverse=True)[3:20]
    for known in (archive.places(SPACE), None):
        found = archive.clip_reader(SPACE, known).rows([*asked, "0" * 16], COLUMNS)
        assert list(found) == asked
        assert all(found[clip_id] == expected[clip_id] for clip_id in asked)


def test_every_clip_has_its_place(archive: Archive) -> None:
    known = archive.places(SPACE)
    assert len(known.files) == VIDEOS
    for file, rows in known.find(known.clips_N).items():
        ids = pq.read_table(archive.folder / "clips" / file, columns=["clip_id"])["clip_id"].to_pylist()
        assert rows == list(range(CLIPS))
        for row, clip_id in enumerate(ids):
            assert known.find(np.array([int(clip_id, 16)], np.uint64)) == {file: [row]}
    assert known.find(np.array([0, 2**64 - 1], np.uint64)) == {}


def test_only_the_row_groups_of_the_clips_asked_for_are_read(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """All others are destroyed before."""
    monkeypatch.setattr(parts, "ROWS_PER_GROUP", 2)
    merged(archive)
    expected, known = stored(archive), archive.places(SPACE)
    monkeypatch.setattr(places, "of_dataset", scans)
    clip_id = sorted(expected)[7]
    assert blacken(archive, clip_id) == VIDEOS * CLIPS // 2 - 1
    assert archive.clip_reader(SPACE, known).rows([clip_id], COLUMNS) == {clip_id: expected[clip_id]}
    with pytest.raises(OSError, match=r"."):
        archive.clip_reader(SPACE, known).rows(sorted(expected)[:8], COLUMNS)


def test_a_built_index_knows_where_its_clips_are_and_so_does_one_that_is_read(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = stored(archive)
    built = indexes.build(archive, SPACE, WIDTH)
    monkeypatch.setattr(places, "of_dataset", scans)
    for index in (built, indexes.open_current(archive, SPACE, WIDTH)):
        assert index.places is not None
        assert archive.clip_reader(SPACE, index.places).rows(list(expected), COLUMNS) == expected


def test_places_from_before_files_were_merged_find_the_same(archive: Archive) -> None:
    expected, known = stored(archive), archive.places(SPACE)
    merged(archive)
    assert archive.clip_reader(SPACE, known).rows(list(expected), COLUMNS) == expected


def test_places_that_are_wrong_find_the_same(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of others, of no row at all, and half of the clips missing."""
    monkeypatch.setattr(parts, "ROWS_PER_GROUP", 2)
    merged(archive)
    expected, known = stored(archive), archive.places(SPACE)
    for rows_N in (known.rows_N[::-1], known.rows_N + 1000):
        wrong = replace(known, rows_N=rows_N)
        assert archive.clip_reader(SPACE, wrong).rows(list(expected), COLUMNS) == expected
    half = Places(known.clips_N[::2], known.videos_N[::2], known.files_N[::2], known.rows_N[::2], known.files)
    assert archive.clip_reader(SPACE, half).rows(list(expected), COLUMNS) == expected


def test_the_index_of_an_archive_that_was_compacted_knows_the_new_places(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes.build(archive, SPACE, WIDTH)
    expected = stored(archive)
    merged(archive)
    monkeypatch.setattr(indexes, "build", None)
    monkeypatch.setattr(places, "of_dataset", scans)
    index = indexes.open_current(archive, SPACE, WIDTH)
    assert index.places is not None
    assert archive.clip_files(SPACE) == set(index.places.files)
    assert archive.clip_reader(SPACE, index.places).rows(list(expected), COLUMNS) == expected


def test_refreshing_replaces_an_index_of_the_same_version_whose_places_are_old(archive: Archive) -> None:
    built = indexes.build(archive, SPACE, WIDTH)
    version = archive.version("videos")
    archive.table("clips").optimize.compact()
    assert archive.version("videos") == version
    indexes.refresh(archive, SPACE, WIDTH)
    index = indexes.open_current(archive, SPACE, WIDTH)
    assert built.places is not None
    assert index.places is not None
    assert set(index.places.files) == archive.clip_files(SPACE) != set(built.places.files)


@pytest.mark.parametrize("damage", ["gone", "short", "other"])
def test_places_that_cannot_be_read_are_none_and_the_index_serves(damage: str, archive: Archive) -> None:
    built = indexes.build(archive, SPACE, WIDTH)
    (file,) = archive.index_folder(SPACE).rglob(places.PLACES_FILE)
    if damage == "gone":
        file.unlink()
    elif damage == "short":
        file.write_bytes(file.read_bytes()[:100])
    else:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("a", pa.int8())])):
            pass
    index = indexes.open_current(archive, SPACE, WIDTH)
    assert index.places is None
    assert index.count == built.count
    expected = stored(archive)
    assert archive.clip_reader(SPACE, index.places).rows(list(expected), COLUMNS) == expected


def test_a_space_with_nothing_in_it_has_no_places(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "empty")
    known = archive.places(SPACE)
    assert (len(known.clips_N), known.files) == (0, ())
    known.save(tmp_path)
    again = places.load(tmp_path / places.PLACES_FILE)
    assert again is not None
    assert (len(again.clips_N), again.files) == (0, ())
    assert ClipReader(archive._dataset("clips"), SPACE, again).rows(["0" * 16], COLUMNS) == {}


@pytest.mark.parametrize("lots", [(5,), (2, 2, 2), (1, 6, 1), (4,), ()])
def test_row_groups_are_full_but_for_the_last(lots: tuple[int, ...], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(parts, "ROWS_PER_GROUP", 2)
    schema = pa.schema([("number", pa.int32())])
    numbers = np.split(np.arange(sum(lots), dtype=np.int32), np.cumsum(lots)[:-1]) if lots else []
    batches = [pa.record_batch([pa.array(lot)], schema=schema) for lot in numbers]
    assert parts.write_batches(tmp_path / "file.parquet", schema, batches) == sum(lots)
    opened = pq.ParquetFile(tmp_path / "file.parquet")
    assert opened.read()["number"].to_pylist() == list(range(sum(lots)))
    sizes = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
    assert sizes[:-1] == [2] * (len(sizes) - 1)
