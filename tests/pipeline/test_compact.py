"""Compacting: what can be seen stays the same to the bit, whoever reads, writes or dies meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import deadletter, delta_log, indexes, lease, scratch, unfinished
from pipeline.archive import Archive
from pipeline.compact import CompactSettings, compact, merges
from pipeline.delta_log import TableFile
from pipeline.keeping import Holding, resumable
from pipeline.parts import write_part
from schemas import tables
from schemas.errors import ArchiveBusy, ArchiveError, InputError
from tests.pipeline.factories import (
    SPACE,
    WIDTH,
    add_tags,
    add_video,
    commit,
    drop_tags,
    embedded,
    flip_a_bit,
    letter,
    log_run,
    tag_table,
    unit_of,
    video_row,
)

COLUMNS = [name for name in tables.CLIPS.names if name != "space"]
NOW = CompactSettings(retention_days=0)


def tag_row(clip_id: str) -> dict:
    return {"clip_id": clip_id, "space": SPACE, "label_set": "set", "label": "run", "rank": 1}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Eight videos in small files: six shown, one of them in its second revision, one gone, one half committed."""
    archive = Archive.create(tmp_path / "archive")
    log_run(archive)
    rows = [add_video(archive, f"/videos/{number}.mp4", clips=number + 1) for number in range(7)]
    changed = replace(rows[0], revision=2, clip_count=3)
    commit(archive, [embedded(unit_of(changed, 3))], [changed])
    archive.commit_videos([replace(rows[1], revision=2, status="gone", clip_count=0)])
    commit(archive, [embedded(unit_of(video_row("/videos/half.mp4"), 2))])
    add_tags(archive, [tag_row(row["clip_id"]) for row in seen(archive).to_pylist()])
    add_tags(archive, [{**tag_row("0" * 16), "label_set": "of clips long gone"}])
    indexes.build(archive, SPACE, WIDTH)
    return archive


def seen(archive: Archive) -> pa.Table:
    return archive.visible_clips(SPACE, COLUMNS)


def paths(archive: Archive, name: str = "clips") -> set[str]:
    return {file.path for file in delta_log.files(archive, name)}


def on_disk(archive: Archive, name: str = "clips") -> set[str]:
    folder = archive.folder / name
    return {str(file.relative_to(folder)) for file in folder.rglob("*.parquet") if "_delta_log" not in str(file)}


# --- what stays and what goes


def test_what_can_be_seen_is_the_same_to_the_bit_and_all_else_is_gone(archive: Archive) -> None:
    before, tags = seen(archive), tag_table(archive)
    report = compact(archive.folder, NOW)
    assert seen(archive).equals(before)
    assert before.num_rows == 3 + 3 + 4 + 5 + 6 + 7
    assert report.tables["clips"].rows_dropped == 1 + 2, "the first revision of one video, and one that is gone"
    assert report.tables["clips"].files_after == len(paths(archive)) == 1
    assert report.resumable_clips == 2
    assert report.tables["tags"].rows_dropped == 1
    assert tag_table(archive).num_rows == tags.num_rows - 1 == before.num_rows
    for name in tables.TABLES:
        assert on_disk(archive, name) == paths(archive, name), "no file is left that no commit names"
    assert report.deleted_bytes > 0


def test_rows_of_videos_and_runs_all_stay(archive: Archive) -> None:
    videos, runs = archive.current_videos(SPACE), archive.runs()
    report = compact(archive.folder, NOW)
    assert archive.current_videos(SPACE).equals(videos)
    assert archive.runs() == runs
    assert report.tables["videos"].rows_dropped == 0
    assert report.tables["videos"].files_before > report.tables["videos"].files_after == 1


def test_of_letters_about_one_place_the_last_stays_and_failures_shows_the_same(archive: Archive) -> None:
    for minutes in range(4):
        archive.commit_letters([letter("/a.mp4", minutes=minutes, attempts=minutes), letter("/a.mp4", 64.0)])
        archive.commit_letters([letter("/b.mp4", minutes=minutes, state="settled" if minutes == 3 else "open")])
    letters, shown = archive.letters(SPACE), deadletter.failures(archive.folder)
    report = compact(archive.folder, NOW)
    assert (archive.letters(SPACE), deadletter.failures(archive.folder)) == (letters, shown)
    assert [(each.uri, each.start_s, each.attempts) for each in shown] == [("/a.mp4", None, 3), ("/a.mp4", 64.0, 1)]
    change = report.tables["failures"]
    assert (change.files_before, change.files_after, change.rows_dropped) == (8, 1, 3 + 3)
    assert len(paths(archive, "failures")) == 1
    # The four about the second place are of one instant: none is the last, and none is dropped.
    assert archive.table("failures").to_pyarrow_table().num_rows == 1 + 4 + 1


def test_an_archive_that_has_no_dead_letter_yet_is_compacted_without(archive: Archive) -> None:
    shutil.rmtree(archive.folder / "failures")
    assert "failures" not in compact(archive.folder, NOW).tables


def test_the_log_of_the_lease_is_kept_short_and_the_lease_works_on(archive: Archive) -> None:
    for run in range(9):
        with lease.held(archive.folder, f"run-{run}"):
            pass
    log = archive.folder / "lease" / "_delta_log"
    for file in log.iterdir():
        os.utime(file, (1.7e9, 1.7e9))
    assert len(list(log.glob("*.json"))) > 2 * 9
    compact(archive.folder, CompactSettings())
    assert len(list(log.glob("*.json"))) == 1
    with lease.held(archive.folder, "next"), pytest.raises(ArchiveBusy, match="run next"):
        compact(archive.folder, NOW)


DRAFTS = [
    "_delta_log/00000000000000000099.json#{number}",
    "_delta_log/_last_checkpoint#{number}",
    "_delta_log/_commit_{number}.json.tmp",
    "part-00000-c000.snappy.parquet#{number}",
]


def leave_drafts(archive: Archive, number: int, age_s: float) -> list[Path]:
    """Files half written, as a kill in the midst of a commit leaves them in every table."""
    names = [name.format(number=number) for name in DRAFTS]
    left = [archive.folder / table / name for table in (*tables.TABLES, "lease") for name in names]
    for file in left:
        file.write_bytes(b"half a dra")
        os.utime(file, (time.time() - age_s,) * 2)
    return left


def test_drafts_of_killed_writers_go_once_they_are_old_enough(archive: Archive) -> None:
    lease.acquire(archive.folder, "killed", wait_s=0, watch=print).release()
    old, young = leave_drafts(archive, 1, age_s=8 * 86400), leave_drafts(archive, 2, age_s=3600)
    looked = compact(archive.folder, CompactSettings(dry_run=True))
    assert all(file.exists() for file in (*old, *young))
    report = compact(archive.folder, CompactSettings())
    assert [file for file in old if file.exists()] == []
    assert [file for file in young if not file.exists()] == [], "a writer may be at work on them"
    assert (looked.deleted_files, looked.deleted_bytes) == (report.deleted_files, report.deleted_bytes)
    assert report.deleted_files == len(old)
    compact(archive.folder, NOW)
    assert [file for file in young if file.exists()] == []


def test_what_is_written_while_an_archive_is_tidied_stays(archive: Archive) -> None:
    """The heart of the lease beats on; its drafts are not those of the dead."""
    mine: list[Path] = []

    def watch(step: str) -> None:
        if step == "vacuum videos":
            mine.extend(leave_drafts(archive, 1, age_s=0))

    compact(archive.folder, NOW, watch=watch)
    assert mine
    assert [file for file in mine if not file.exists()] == []


def test_a_space_that_serves_no_more_is_offered_until_it_is_dropped(archive: Archive) -> None:
    assert compact(archive.folder, NOW).retired == ()
    row = video_row("/videos/0.mp4", space="other")
    commit(archive, [embedded(unit_of(row, 2))], [row])
    log_run(archive, "later", space_id="other")
    (offered,) = compact(archive.folder, NOW).retired
    folders = (archive.folder / "clips" / f"space={SPACE}", archive.index_folder(SPACE))
    on_the_disk = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    assert (offered.space, offered.size_bytes) == (SPACE, on_the_disk)
    archive.commit_letters([letter("/a.mp4"), letter("/b.mp4", space="other")])
    dropping = CompactSettings(retention_days=0, drop_spaces=(SPACE,))
    assert compact(archive.folder, replace(dropping, dry_run=True)).retired == ()
    assert compact(archive.folder, dropping).retired == ()
    assert (len(archive.letters(SPACE)), len(archive.letters("other"))) == (0, 1)
    assert compact(archive.folder, NOW).retired == ()


def test_a_space_that_somebody_keeps_is_not_offered(archive: Archive) -> None:
    log_run(archive, "later", space_id="other", keeps=[SPACE])
    assert compact(archive.folder, NOW).retired == ()


def test_a_second_time_there_is_nothing_to_do_and_no_new_version(archive: Archive) -> None:
    compact(archive.folder, NOW)
    versions = delta_log.versions(archive)
    report = compact(archive.folder, NOW)
    assert delta_log.versions(archive) == versions
    assert report.deleted_files == 0
    assert all(change.files_before == change.files_after for change in report.tables.values())


def test_a_dry_run_says_the_same_and_changes_nothing(archive: Archive) -> None:
    versions, files = delta_log.versions(archive), on_disk(archive)
    planned = compact(archive.folder, CompactSettings(retention_days=0, dry_run=True))
    assert (delta_log.versions(archive), on_disk(archive)) == (versions, files)
    done = compact(archive.folder, NOW)
    for name, change in planned.tables.items():
        assert change == replace(done.tables[name], bytes_after=None)
    assert planned.resumable_clips == done.resumable_clips


def test_merged_files_are_encoded_like_parts_with_checksums(archive: Archive) -> None:
    compact(archive.folder, NOW)
    (path,) = paths(archive)
    file = pq.ParquetFile(archive.folder / "clips" / path)
    columns = [file.metadata.row_group(0).column(number) for number in range(file.metadata.num_columns)]
    (vectors_column,) = [column for column in columns if column.path_in_schema == "embedding.list.element"]
    assert "BYTE_STREAM_SPLIT" in vectors_column.encodings
    assert {column.compression for column in columns} == {"ZSTD"}
    assert path.startswith(f"space={SPACE}/")


def test_what_an_interrupted_run_left_can_still_be_taken_over(archive: Archive) -> None:
    pending = unfinished.pending_units(archive, SPACE)
    assert len(pending[0]) == 1
    compact(archive.folder, NOW)
    assert unfinished.pending_units(archive, SPACE) == pending


@pytest.mark.parametrize(
    ("hidden", "last", "expected"),
    [
        pytest.param([("a", 1, 5)], {}, {("a", 1): 4}, id="a video that no row names"),
        pytest.param([("a", 2, 5)], {"a": 1}, {("a", 2): 4}, id="the next revision of one that is shown"),
        pytest.param([("a", 1, 5)], {"a": 1}, {}, id="a revision whose row says failed or gone"),
        pytest.param([("a", 1, 5)], {"a": 2}, {}, id="superseded"),
        pytest.param([("a", 2, 5), ("a", 3, 5)], {"a": 1}, {("a", 3): 4}, id="only the highest is asked for"),
        pytest.param([("a", 1, 5), ("a", 1, 0)], {}, {("a", 1): 8}, id="as young as its youngest file"),
        pytest.param([("a", 1, 0)], {}, {}, id="nobody took it over in time"),
    ],
)
def test_which_hidden_revisions_can_be_resumed(hidden: list, last: dict, expected: dict) -> None:
    holdings = [Holding(TableFile(str(n), 1, 4, modified, {}), (v, r), 4) for n, (v, r, modified) in enumerate(hidden)]
    assert resumable(holdings, last, cutoff_ms=1) == expected


@pytest.mark.parametrize(
    ("sizes", "hidden", "expected"),
    [
        pytest.param([10, 10, 10], {}, [[0, 1, 2]], id="small ones come together"),
        pytest.param([40, 40, 40], {}, [[0, 1]], id="up to the target; a small one left over stays"),
        pytest.param([50, 99, 200], {}, [], id="large ones stay"),
        pytest.param([200], {0: 1}, [[0]], id="unless rows go"),
        pytest.param([10], {}, [], id="one alone stays"),
        pytest.param([], {}, [], id="nothing"),
    ],
)
def test_which_files_become_one(sizes: list[int], hidden: dict, expected: list) -> None:
    files = [TableFile(str(number), size, 9, number, {"space": "s"}) for number, size in enumerate(sizes)]
    found = merges(files, {str(number): count for number, count in hidden.items()}, 100)
    assert [[int(file.path) for file in group] for group in found] == expected


def test_files_of_two_spaces_never_meet(archive: Archive) -> None:
    for number in range(3):
        add_video(archive, f"/videos/{number}.mp4", space="other")
    before = seen(archive), archive.visible_clips("other", COLUMNS)
    compact(archive.folder, NOW)
    assert sorted(path.split("/")[0] for path in paths(archive)) == sorted([f"space={SPACE}", "space=other"])
    assert seen(archive).equals(before[0])
    assert archive.visible_clips("other", COLUMNS).equals(before[1])


def test_a_space_can_be_dropped_but_not_the_one_that_answers(archive: Archive) -> None:
    add_video(archive, "/videos/0.mp4", space="other")
    before = seen(archive)
    (archive.index_folder("other") / "1").mkdir(parents=True)
    compact(archive.folder, CompactSettings(retention_days=0, drop_spaces=("other",)))
    assert archive.spaces() == [SPACE]
    assert seen(archive).equals(before)
    assert not archive.index_folder("other").exists()
    assert not any("space=other" in path for path in on_disk(archive))
    with pytest.raises(InputError, match="is the one that answers; index into another before dropping it"):
        compact(archive.folder, CompactSettings(drop_spaces=(SPACE,)))
    with pytest.raises(InputError, match=f"there is no space 'third' in .*; it has {SPACE}"):
        compact(archive.folder, CompactSettings(drop_spaces=("third",)))


@pytest.mark.parametrize("changes", [{"target_mb": 0}, {"retention_days": -1}, {"retention_days": float("inf")}])
def test_settings_that_cannot_be_are_refused(changes: dict) -> None:
    with pytest.raises(InputError, match="expected more than 0 MB, and 0 days or more"):
        CompactSettings(**changes)


# --- files nobody needs


def test_within_the_retention_nothing_is_deleted(archive: Archive) -> None:
    stray = archive.folder / "clips" / f"space={SPACE}" / "part-stray.parquet"
    stray.write_bytes(b"about to be committed")
    files = on_disk(archive)
    report = compact(archive.folder, CompactSettings(retention_days=1))
    assert report.deleted_files == 0
    assert files < on_disk(archive)


def test_parts_and_folders_of_dead_runs_go(archive: Archive) -> None:
    compact(archive.folder, NOW)
    (part,) = write_part([embedded(unit_of(video_row("/videos/new.mp4")))], archive.folder)
    folder = archive.folder / scratch.FOLDER / "dead"
    folder.mkdir(parents=True)
    (folder / "plan.parquet").write_bytes(b"0123456789")
    draft = archive.index_folder(SPACE) / ".draft-0123"
    draft.mkdir()
    report = compact(archive.folder, NOW)
    assert (report.deleted_files, report.deleted_bytes) == (2, part.size_bytes + 10)
    assert on_disk(archive) == paths(archive)
    assert not folder.exists()
    assert not draft.exists()


def test_the_index_belongs_to_the_new_version_and_is_the_only_one(archive: Archive) -> None:
    compact(archive.folder, NOW)
    (folder,) = archive.index_folder(SPACE).iterdir()
    assert folder.name == str(archive.version("videos"))
    assert indexes.open_current(archive, SPACE, WIDTH).count == seen(archive).num_rows


# --- others at work


def test_a_reader_keeps_the_snapshot_it_opened(archive: Archive) -> None:
    opened = archive._dataset("clips")
    before = opened.count_rows()
    compact(archive.folder, CompactSettings())
    assert opened.to_table().num_rows == before > archive._dataset("clips").count_rows()


def test_an_indexer_at_work_is_not_disturbed(archive: Archive) -> None:
    """At every step of compacting, a run commits the clips of one video and the row of the one before."""
    steps: list[str] = []
    waiting: list = []

    def work(step: str) -> None:
        steps.append(step)
        rows = [waiting.pop()] if waiting else []
        row = video_row(f"/videos/at-work-{len(steps)}.mp4")
        commit(archive, [embedded(unit_of(row))])
        archive.commit_videos(rows)
        waiting.append(row)

    before = seen(archive)
    compact(archive.folder, CompactSettings(), watch=work)
    archive.commit_videos(waiting)
    after = seen(archive)
    assert {"write clips", "commit clips", "commit videos", "vacuum clips"} <= set(steps)
    assert after.num_rows == before.num_rows + 2 * len(steps)
    assert set(before["clip_id"].to_pylist()) <= set(after["clip_id"].to_pylist())
    assert len(set(after["clip_id"].to_pylist())) == after.num_rows


@pytest.mark.parametrize("other_settings", [False, True])
def test_a_video_that_appears_meanwhile_keeps_its_clips_and_tags(archive: Archive, *, other_settings: bool) -> None:
    """The half committed video is finished and tagged between the look at the tables and the rewriting.

    Tagging what is new only adds rows; under other settings it rewrites what compaction is about to, and goes first.
    """
    row = video_row("/videos/half.mp4")
    before = set(seen(archive)["clip_id"].to_pylist())

    def finish(step: str) -> None:
        if step == "write videos":
            archive.commit_videos([row])
            ids = set(seen(archive)["clip_id"].to_pylist())
            add_tags(archive, [tag_row(each) for each in (ids if other_settings else ids - before)])
            if other_settings:
                drop_tags(archive, SPACE, "of clips long gone")

    if other_settings:
        with pytest.raises(ArchiveError, match="another process changed the table 'tags' meanwhile"):
            compact(archive.folder, NOW, watch=finish)
    else:
        compact(archive.folder, NOW, watch=finish)
    shown = set(seen(archive)["clip_id"].to_pylist())
    assert len(shown) == len(before) + row.clip_count
    assert set(tag_table(archive)["clip_id"].to_pylist()) == shown
    assert tag_table(archive).num_rows == len(shown) + (len(before) if other_settings else 0), "old and new rows"


def test_two_at_once_end_with_one_of_them_refused(archive: Archive) -> None:
    before = seen(archive)

    def other(step: str) -> None:
        if step == "commit clips":
            compact(archive.folder, CompactSettings())

    with pytest.raises(ArchiveError, match="another process changed the table 'clips' meanwhile"):
        compact(archive.folder, CompactSettings(), watch=other)
    assert seen(archive).equals(before)
    compact(archive.folder, NOW)
    assert seen(archive).equals(before)
    assert on_disk(archive) == paths(archive)


# --- death


class Stop(Exception):
    """A process that ends here."""


@pytest.mark.parametrize(
    "step", ["write clips", "checkpoint clips", "commit videos", "commit tags", "vacuum videos", f"index {SPACE}"]
)
def test_stopped_before_any_step_it_loses_nothing_and_the_next_time_completes(step: str, archive: Archive) -> None:
    before = seen(archive)

    def stop(reached: str) -> None:
        if reached == step:
            raise Stop

    with pytest.raises(Stop):
        compact(archive.folder, NOW, watch=stop)
    assert seen(archive).equals(before)
    compact(archive.folder, NOW)
    assert seen(archive).equals(before)
    assert on_disk(archive) == paths(archive)
    assert len(unfinished.pending_units(archive, SPACE)[0]) == 1


@pytest.mark.parametrize("step", ["commit clips", "vacuum clips"])
def test_killed_it_loses_nothing(step: str, archive: Archive) -> None:
    before = seen(archive)
    code = (
        "import os, signal, sys; from pipeline.compact import *\n"
        f"die = lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == {step!r} else None\n"
        "compact(sys.argv[1], CompactSettings(retention_days=0), watch=die)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(archive.folder)], capture_output=True)
    assert run.returncode == -signal.SIGKILL
    assert seen(archive).equals(before)
    compact(archive.folder, NOW)
    assert seen(archive).equals(before)
    assert on_disk(archive) == paths(archive)


def test_damage_is_not_copied_into_a_sound_file(archive: Archive) -> None:
    flip_a_bit(archive.folder / "clips" / min(paths(archive)))
    versions = delta_log.versions(archive)["clips"]
    with pytest.raises(ArchiveError, match=r"a file of the table 'clips' is damaged .*see: footage verify"):
        compact(archive.folder, NOW)
    assert delta_log.versions(archive)["clips"] == versions
    assert on_disk(archive) == paths(archive)
