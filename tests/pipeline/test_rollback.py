"""Rolling back: the archive is what it was before the run, to the bit, or it is not touched at all."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline import delta_log, indexes, unfinished
from pipeline.archive import Archive
from pipeline.compact import CompactSettings, compact
from pipeline.deadletter import failures
from pipeline.rollback import rollback
from pipeline.runs import serving_run
from pipeline.verify import verify
from schemas import tables
from schemas.errors import ArchiveError, InputError
from tests.pipeline.factories import (
    NOON,
    SPACE,
    WIDTH,
    add_tags,
    add_video,
    commit,
    drop_tags,
    embedded,
    letter,
    log_run,
    tag_table,
    unit_of,
)

COLUMNS = [name for name in tables.CLIPS.names if name != "space"]
A, B, C = "/videos/a.mp4", "/videos/b.mp4", "/videos/c.mp4"


def started(archive: Archive, run_id: str) -> None:
    log_run(archive, run_id, "started", tables=delta_log.versions(archive))


def look(archive: Archive) -> tuple:
    return (
        archive.visible_clips(SPACE, COLUMNS).to_pylist(),
        archive.current_videos(SPACE).to_pylist(),
        tag_table(archive).to_pylist(),
    )


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """A good run with two videos and a tag."""
    archive = Archive.create(tmp_path / "archive")
    started(archive, "good")
    add_video(archive, A)
    add_video(archive, B, clips=3)
    log_run(archive, "good")
    clip_id = archive.visible_clips(SPACE, ["clip_id"])["clip_id"][0].as_py()
    add_tags(archive, [{"clip_id": clip_id, "space": SPACE, "label_set": "s", "label": "run"}])
    indexes.build(archive, SPACE, WIDTH)
    return archive


def bad_run(archive: Archive) -> None:
    """A run that changes A, retires B, adds C, and loses the tag."""
    started(archive, "bad")
    known = archive.known_videos(SPACE)
    changed = replace(known[A], revision=2, clip_count=5)
    commit(archive, [embedded(unit_of(changed, 5))], [changed])
    archive.commit_videos([replace(known[B], revision=2, status="gone", clip_count=0)])
    add_video(archive, C)
    drop_tags(archive, SPACE, "s")
    log_run(archive, "bad")
    indexes.build(archive, SPACE, WIDTH)


def test_the_archive_is_what_it_was_before_the_run(archive: Archive) -> None:
    before = look(archive)
    bad_run(archive)
    report = rollback(archive.folder, "bad")
    assert look(archive) == before
    assert (report.videos, report.clips_before, report.clips_after) == (3, 5 + 2, 2 + 3)
    assert report.runs == ("bad",)
    assert unfinished.pending_units(archive, SPACE) == ({}, {}), "nothing of the run is there to be taken over"
    assert indexes.open_current(archive, SPACE, WIDTH).count == 5
    assert verify(archive.folder).problems == ()


def test_the_run_stays_written_down_and_counts_no_more(archive: Archive) -> None:
    bad_run(archive)
    assert serving_run(archive)["run_id"] == "bad"
    rollback(archive.folder, "bad")
    assert serving_run(archive)["run_id"] == "good"
    states = [row["state"] for row in archive.runs(undone=True) if row["run_id"] == "bad"]
    assert states == ["started", "finished", "rolled_back"]
    assert [row["run_id"] for row in archive.runs()] == ["good", "good"]


def test_later_runs_go_with_it(archive: Archive) -> None:
    before = look(archive)
    bad_run(archive)
    started(archive, "later")
    add_video(archive, "/videos/d.mp4")
    log_run(archive, "later")
    assert rollback(archive.folder, "bad").runs == ("bad", "later")
    assert look(archive) == before
    with pytest.raises(InputError, match="run later was rolled back already"):
        rollback(archive.folder, "later")


def test_going_back_twice_ends_at_the_beginning(archive: Archive) -> None:
    bad_run(archive)
    rollback(archive.folder, "bad")
    rollback(archive.folder, "good")
    assert look(archive) == ([], [], [])


def test_a_dry_run_tells_the_same_and_changes_nothing(archive: Archive) -> None:
    bad_run(archive)
    before = delta_log.versions(archive)
    planned = rollback(archive.folder, "bad", dry_run=True)
    assert delta_log.versions(archive) == before
    done = rollback(archive.folder, "bad")
    assert replace(planned, dry_run=False, wall_s=0) == replace(done, wall_s=0)


def test_after_a_compact_that_kept_the_files_it_still_works(archive: Archive) -> None:
    before = look(archive)
    bad_run(archive)
    compact(archive.folder, CompactSettings(retention_days=1))
    rollback(archive.folder, "bad")
    assert look(archive) == before
    compact(archive.folder, CompactSettings(retention_days=0))
    assert look(archive) == before


def test_after_a_vacuum_it_says_so_and_touches_nothing(archive: Archive) -> None:
    bad_run(archive)
    compact(archive.folder, CompactSettings(retention_days=0))
    before = look(archive)
    with pytest.raises(ArchiveError, match=r"of before run bad cannot be had back: footage compact has deleted \d+ of"):
        rollback(archive.folder, "bad")
    assert look(archive) == before


def test_a_log_that_does_not_reach_back_says_so(archive: Archive) -> None:
    bad_run(archive)
    delta_log.checkpoint(archive, "clips")
    for entry in (archive.folder / "clips" / "_delta_log").glob("*.json"):
        entry.unlink()
    with pytest.raises(ArchiveError, match="has deleted the log of the table 'clips' that far back"):
        rollback(archive.folder, "bad")


def test_an_unknown_run_is_refused_with_the_runs_there_are(archive: Archive) -> None:
    bad_run(archive)
    sentence = re.escape("its runs are good (finished), bad (finished)")
    with pytest.raises(InputError, match=f"there is no run 'ugly' in .*; {sentence}"):
        rollback(archive.folder, "ugly")


def test_a_run_without_versions_is_refused(archive: Archive) -> None:
    log_run(archive, "old", "started")
    with pytest.raises(ArchiveError, match="run old did not write down the versions of the tables"):
        rollback(archive.folder, "old")


def test_the_dead_letter_goes_back_with_the_rows_that_it_explains(archive: Archive) -> None:
    add_video(archive, C, status="failed", error_kind="timeout")
    archive.commit_letters([mended := letter(C, attempts=2)])
    bad_run(archive)
    archive.commit_letters([replace(mended, state="settled", run_id="bad", last_seen=NOON + timedelta(hours=1))])
    archive.commit_letters([letter(A, 0.0, run_id="bad")])
    assert [found.uri for found in failures(archive.folder)] == [A]
    rollback(archive.folder, "bad")
    assert failures(archive.folder) == [mended]
    assert archive.known_videos(SPACE)[C].status == "failed"


def test_a_run_of_before_there_was_a_dead_letter_can_be_undone(archive: Archive) -> None:
    before = look(archive)
    versions = delta_log.versions(archive)
    log_run(archive, "bad", "started", tables={name: versions[name] for name in ("videos", "clips", "tags", "runs")})
    add_video(archive, C)
    assert "failures" not in rollback(archive.folder, "bad").versions
    assert look(archive) == before


def test_killed_in_between_it_can_be_done_again(archive: Archive) -> None:
    before = look(archive)
    bad_run(archive)
    versions = next(row for row in archive.runs() if row["run_id"] == "bad")["settings"]["tables"]
    delta_log.restore(archive, "videos", versions["videos"])
    assert look(archive)[:2] == before[:2], "with the video rows back, what is seen is back"
    rollback(archive.folder, "bad")
    assert look(archive) == before


def test_two_spaces_go_back_together(archive: Archive) -> None:
    started(archive, "bad")
    add_video(archive, A, space="other", indexed_at=NOON + timedelta(hours=1))
    assert rollback(archive.folder, "bad").videos == 1
    assert archive.spaces() == [SPACE]
