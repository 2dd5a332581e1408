"""The archive: nothing is seen before it is committed as a whole, and nothing that is hidden comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from pipeline import delta_log, parts, unfinished
from pipeline.archive import Archive
from pipeline.parts import write_part
from schemas import tables
from schemas.errors import ArchiveError
from tests.pipeline.factories import (
    NOON,
    SPACE,
    WIDTH,
    add_video,
    commit,
    embedded,
    unit_of,
    unit_vectors,
    video_row,
)

A, B = "/videos/a.mp4", "/videos/b.mp4"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / "archive")


def shown(archive: Archive, space: str = SPACE) -> set[tuple[str, int]]:
    """Which revision of which video can be seen."""
    rows = archive.visible_clips(space, ["video_id", "revision"]).to_pylist()
    return {(row["video_id"], row["revision"]) for row in rows}


# --- the folder


def test_a_new_archive_has_five_empty_tables(archive: Archive) -> None:
    for name, schema in tables.TABLES.items():
        table = DeltaTable(archive.folder / name)
        assert table.version() == 0
        assert table.to_pyarrow_table().num_rows == 0
        assert [field.name for field in table.schema().fields] == schema.names
        assert table.metadata().partition_columns == tables.PARTITIONS.get(name, [])
        assert table.metadata().description == f"footage archive, schema version {tables.SCHEMA_VERSION}"


def test_creating_an_archive_that_is_there_keeps_it(archive: Archive) -> None:
    row = add_video(archive)
    again = Archive.create(archive.folder)
    assert shown(again) == {(row.video_id, 1)}


def test_an_empty_folder_becomes_an_archive(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert Archive.create(tmp_path / "empty").exists()


@pytest.mark.parametrize("name", ["holiday.mp4", ".hidden", "videos/a.mp4"])
def test_a_foreign_folder_is_refused_and_left_as_it_is(name: str, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    (foreign / name).parent.mkdir(parents=True)
    (foreign / name).write_text("precious")
    with pytest.raises(ArchiveError, match="is not an archive and not an empty folder; name another place"):
        Archive.create(foreign)
    assert [str(path.relative_to(foreign)) for path in foreign.rglob("*") if path.is_file()] == [name]


def test_a_file_is_no_place_for_an_archive(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveError, match="is not an archive and not an empty folder"):
        Archive.create(tmp_path / "file")


@pytest.mark.parametrize("made", [["clips"], ["clips", "runs"], ["clips", "runs", "tags"]])
def test_an_archive_whose_making_was_interrupted_is_made_again(made: list[str], tmp_path: Path) -> None:
    interrupted = Archive(tmp_path / "archive")
    for name in made:
        interrupted._create_table(name)
    assert not interrupted.exists()
    assert add_video(Archive.create(tmp_path / "archive")).status == "ok"


def test_opening_what_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"there is no archive at .*; make one with: footage index VIDEOS ARCHIVE"):
        Archive.open(tmp_path / "missing")


def test_an_archive_without_a_table_is_an_error_that_names_it(archive: Archive) -> None:
    (archive.folder / "clips").rename(archive.folder / "elsewhere")
    with pytest.raises(ArchiveError, match=r"the table 'clips' of .* cannot be read"):
        archive.visible_clips(SPACE, ["clip_id"])


# --- what can be seen


def test_clips_are_invisible_until_their_video_row_is_committed(archive: Archive) -> None:
    row = video_row()
    commit(archive, [embedded(unit_of(row))])
    assert shown(archive) == set()
    assert archive.known_videos(SPACE) == {}
    archive.commit_videos([row])
    assert shown(archive) == {(row.video_id, 1)}


def test_parts_are_invisible_until_they_are_committed(archive: Archive) -> None:
    row = video_row()
    parts = write_part([embedded(unit_of(row))], archive.folder)
    archive.commit_videos([row])
    assert shown(archive) == set()
    archive.commit_parts(parts)
    assert shown(archive) == {(row.video_id, 1)}


def test_a_new_revision_hides_the_old_one_at_once(archive: Archive) -> None:
    old = add_video(archive)
    new = replace(old, revision=2, fingerprint="f2", indexed_at=NOON + timedelta(hours=1))
    commit(archive, [embedded(unit_of(new, clips=3))])
    assert shown(archive) == {(old.video_id, 1)}, "the old one serves until the new one is whole"
    archive.commit_videos([new])
    assert shown(archive) == {(old.video_id, 2)}
    assert archive.visible_clips(SPACE, ["clip_id"]).num_rows == 3
    assert archive.known_videos(SPACE) == {A: new}


@pytest.mark.parametrize("revision", [1, 2])
@pytest.mark.parametrize("status", ["gone", "failed"])
def test_a_video_that_is_gone_or_failed_shows_nothing(status: str, revision: int, archive: Archive) -> None:
    kept = add_video(archive, B)
    row = add_video(archive, A)
    later = NOON + timedelta(minutes=1)
    archive.commit_videos([replace(row, revision=revision, status=status, clip_count=0, indexed_at=later)])
    assert shown(archive) == {(kept.video_id, 1)}
    assert archive.known_videos(SPACE)[A].status == status


def test_a_partial_video_is_shown(archive: Archive) -> None:
    row = add_video(archive, status="partial")
    assert shown(archive) == {(row.video_id, 1)}


def test_the_latest_row_of_a_revision_counts(archive: Archive) -> None:
    row = add_video(archive)
    touched = replace(row, mtime_s=99.0, indexed_at=NOON + timedelta(minutes=1))
    archive.commit_videos([touched])
    assert archive.known_videos(SPACE) == {A: touched}
    assert shown(archive) == {(row.video_id, 1)}


def test_the_highest_revision_counts_whatever_the_order_and_the_clock(archive: Archive) -> None:
    rows = [video_row(revision=revision, minutes=minutes) for revision, minutes in ((3, 5), (1, 9), (2, 7))]
    for row in rows:
        archive.commit_videos([row])
    assert archive.known_videos(SPACE) == {A: rows[0]}


def test_two_spaces_are_kept_apart(archive: Archive) -> None:
    here = add_video(archive, A, clips=2)
    there = add_video(archive, A, clips=5, space="other")
    assert here.video_id == there.video_id
    assert archive.visible_clips(SPACE, ["clip_id"]).num_rows == 2
    assert archive.visible_clips("other", ["clip_id"]).num_rows == 5
    archive.commit_videos([replace(there, status="gone", revision=2)])
    assert archive.visible_clips(SPACE, ["clip_id"]).num_rows == 2
    assert archive.visible_clips("third", ["clip_id"]).num_rows == 0


def test_rows_come_back_as_they_were_committed(archive: Archive) -> None:
    row = video_row(
        status="failed", error_kind="not_a_video", error="“text”\nand more", stage="inspect", permanent=True, attempts=2
    )
    archive.commit_videos([row, video_row(B)])
    assert archive.known_videos(SPACE)[A] == row
    assert archive.uris(SPACE) == {row.video_id: A, video_row(B).video_id: B}
    assert archive.current_videos(SPACE)["uri"].to_pylist() == [A, B]


def test_committing_nothing_makes_no_version(archive: Archive) -> None:
    archive.commit_videos([])
    archive.commit_parts([])
    assert (archive.version("videos"), archive.version("clips")) == (0, 0)


def test_many_rows_and_parts_are_one_commit_each(archive: Archive) -> None:
    rows = [video_row(f"/videos/{n}.mp4") for n in range(5)]
    parts = [part for row in rows for part in write_part([embedded(unit_of(row))], archive.folder)]
    archive.commit_parts(parts)
    archive.commit_videos(rows)
    assert (archive.version("videos"), archive.version("clips")) == (1, 1)
    assert len(shown(archive)) == 5


def test_restoring_a_table_undoes_a_run(archive: Archive) -> None:
    row = add_video(archive)
    before = archive.version("videos")
    archive.commit_videos([replace(row, revision=2, status="failed")])
    DeltaTable(archive.folder / "videos").restore(before)
    assert shown(archive) == {(row.video_id, 1)}


# --- clips


def test_clips_come_back_bit_by_bit(archive: Archive) -> None:
    row = video_row(clip_count=3)
    unit = embedded(unit_of(row, 3), unit_vectors(3), contexts=[b"\0\1", b"", bytes(range(256))])
    commit(archive, [unit], [row])
    columns = [
        "clip_id",
        "unit_id",
        "start_s",
        "end_s",
        "frame_times_s",
        "intact_samples",
        "embedding",
        "context",
        "thumbnail",
    ]
    rows = sorted(archive.visible_clips(SPACE, columns).to_pylist(), key=lambda clip: clip["start_s"])
    np.testing.assert_array_equal(np.array([clip["embedding"] for clip in rows], np.float32), unit.embedding_NE)
    assert [clip["context"] for clip in rows] == list(unit.contexts)
    assert [clip["thumbnail"] for clip in rows] == list(unit.thumbnails)
    assert [tuple(clip["frame_times_s"]) for clip in rows] == [window.frame_times_s for window in unit.windows]
    assert [(clip["start_s"], clip["end_s"]) for clip in rows] == [(0, 10), (10, 20), (20, 30)]
    assert {clip["unit_id"] for clip in rows} == {unit.unit.unit_id}


def test_clips_are_in_the_order_of_their_ids(archive: Archive) -> None:
    for name in "abcde":
        add_video(archive, f"/videos/{name}.mp4", clips=4)
    ids = archive.visible_clips(SPACE, ["clip_id"])["clip_id"].to_pylist()
    assert ids == sorted(set(ids))
    assert len(ids) == 20


def test_clips_are_found_by_id_in_their_own_space_only(archive: Archive) -> None:
    add_video(archive, clips=3)
    add_video(archive, clips=3, space="other")
    ids = archive.visible_clips(SPACE, ["clip_id"])["clip_id"].to_pylist()
    foreign = archive.visible_clips("other", ["clip_id"])["clip_id"].to_pylist()
    found = archive.clip_reader(SPACE).rows([ids[2], ids[0], foreign[0], "0" * 16], ["start_s"])
    assert set(found) == {ids[0], ids[2]}
    assert found[ids[0]].keys() == {"clip_id", "start_s"}
    assert archive.clip_reader(SPACE).rows([], ["start_s"]) == {}


def test_a_part_says_what_is_in_it(archive: Archive) -> None:
    units = [embedded(unit_of(video_row(path), clips)) for path, clips in ((A, 2), (B, 3))]
    units[1] = replace(units[1], fallback="a device refused it")
    (part,) = write_part(units, archive.folder)
    file = archive.folder / "clips" / part.path
    assert (part.size_bytes, part.row_count, part.space) == (file.stat().st_size, 5, SPACE)
    assert [asdict(outcome) for outcome in part.outcomes] == [
        {
            "unit_id": unit.unit.unit_id,
            "video_id": unit.unit.video_id,
            "clip_count": len(unit.windows),
            "intact_samples": 4 * len(unit.windows),
            "sample_s": 4 * 10.0 * len(unit.windows),
            "decode_s": 1.0,
            "embed_s": 0.5,
            "fallback": unit.fallback,
        }
        for unit in units
    ]


def test_vectors_are_split_into_byte_planes(archive: Archive) -> None:
    row = video_row(clip_count=200)
    vectors = unit_vectors(200, 512)
    (part,) = write_part([embedded(unit_of(row, 200), vectors)], archive.folder)
    file = pq.ParquetFile(archive.folder / "clips" / part.path)
    columns = {file.metadata.row_group(0).column(n).path_in_schema: n for n in range(file.metadata.num_columns)}
    column = file.metadata.row_group(0).column(columns["embedding.list.element"])
    assert "BYTE_STREAM_SPLIT" in column.encodings
    assert column.compression == "ZSTD"
    assert not column.has_dictionary_page
    assert column.total_compressed_size / 200 < 1000, "902 bytes were measured for 512 values of float16 precision"
    assert "space" not in file.schema_arrow.names, "the partition column stands in the folder name"
    assert file.schema_arrow.names == [name for name in tables.CLIPS.names if name != "space"]


# --- resuming


def test_committed_units_without_a_row_are_pending(archive: Archive) -> None:
    done = add_video(archive, B)
    row = video_row()
    units = [embedded(unit_of(row, clips, unit_id=name)) for name, clips in (("first", 2), ("second", 3))]
    commit(archive, units)
    outcomes, revisions = unfinished.pending_units(archive, SPACE)
    assert {name: (outcome.clip_count, outcome.intact_samples) for name, outcome in outcomes.items()} == {
        "first": (2, 8),
        "second": (3, 12),
    }
    assert revisions == {row.video_id: 1}
    assert done.video_id not in revisions
    archive.commit_videos([row])
    assert unfinished.pending_units(archive, SPACE) == ({}, {})


def test_the_highest_pending_revision_is_named(archive: Archive) -> None:
    row = add_video(archive)
    for revision in (4, 2, 3):
        commit(archive, [embedded(unit_of(replace(row, revision=revision)))])
    outcomes, revisions = unfinished.pending_units(archive, SPACE)
    assert len(outcomes) == 3
    assert revisions == {row.video_id: 4}


def test_superseded_revisions_are_not_pending(archive: Archive) -> None:
    row = add_video(archive)
    commit(archive, [embedded(unit_of(replace(row, revision=2)))], [replace(row, revision=2)])
    archive.commit_videos([replace(row, revision=3, status="gone")])
    assert unfinished.pending_units(archive, SPACE) == ({}, {})


def test_units_of_another_space_are_not_pending(archive: Archive) -> None:
    commit(archive, [embedded(unit_of(video_row(space="other")))])
    assert unfinished.pending_units(archive, SPACE) == ({}, {})


# --- runs


def run_row(run_id: str, state: str, minutes: int, report=None) -> dict:
    return {
        "run_id": run_id,
        "state": state,
        "space": SPACE,
        "at": NOON + timedelta(minutes=minutes),
        "settings": json.dumps({"window_s": 10}),
        "versions": json.dumps({"python": "3"}),
        "report": json.dumps(report) if report else None,
    }


def test_runs_come_back_oldest_first_and_parsed(archive: Archive) -> None:
    archive.log_run(run_row("two", "started", 5))
    archive.log_run(run_row("one", "finished", 1, {"clips": 3}))
    runs = archive.runs()
    assert [(run["run_id"], run["state"], run["report"]) for run in runs] == [
        ("one", "finished", {"clips": 3}),
        ("two", "started", None),
    ]
    assert runs[0]["settings"] == {"window_s": 10}


def test_sizes_are_of_the_folders_on_disk(archive: Archive) -> None:
    add_video(archive)
    sizes = archive.size_bytes()
    assert sizes.keys() == set(tables.TABLES)
    assert all(size > 0 for size in sizes.values())


def test_the_width_of_the_vectors_is_that_of_the_tests() -> None:
    assert unit_vectors(1).shape == (1, WIDTH)


def test_a_scan_does_not_read_ahead_of_a_slow_reader(archive: Archive) -> None:
    rows = [video_row(f"/videos/{'x' * 500}{n}.mp4", video_id=f"{n:016x}") for n in range(1000)]
    for _ in range(30):
        archive.commit_videos(rows)
    for batches in (archive.video_batches(SPACE, ["uri"]), scanned(archive, "videos")):
        before = pa.total_allocated_bytes()
        next(batches)
        time.sleep(0.3)  # to read the other twenty-nine, in which are 15 MB
        assert pa.total_allocated_bytes() - before < 5e6
        assert sum(batch.num_rows for batch in batches) > 0


def scanned(archive: Archive, name: str) -> Iterator[pa.RecordBatch]:
    files = [archive.folder / name / file.path for file in delta_log.files(archive, name)]
    return parts.read_batches(files, parts.file_schema(name), ["uri"])
