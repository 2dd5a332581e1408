"""Who took over a lease shuts the one before out of every table, in whatever instant that one wakes up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipeline import delta_log, lease
from pipeline.archive import FENCED, Archive
from pipeline.compact import CompactSettings, compact
from pipeline.lease import EXPIRY_S
from pipeline.parts import write_part
from pipeline.repair import repair
from pipeline.verify import verify
from schemas.errors import LeaseLost
from schemas.records import Letter, PacketsPart, VideoRow
from tests.pipeline.factories import add_video, embedded, log_run, unit_of, video_row
from tests.pipeline.test_lease import change_holder, take


def test_a_run_of_an_older_term_can_commit_neither_clips_nor_videos(tmp_path: Path) -> None:
    add_video(Archive.create(tmp_path))
    old, new = Archive(tmp_path, term=1), Archive(tmp_path, term=2)
    old.fence()
    parts = write_part([embedded(unit_of(video_row("/videos/b.mp4")))], tmp_path)
    new.fence()
    with pytest.raises(LeaseLost):
        old.commit_parts(parts)
    with pytest.raises(LeaseLost):
        old.fence()
    new.commit_videos([video_row("/videos/c.mp4")])
    with pytest.raises(LeaseLost):
        old.commit_videos([video_row("/videos/d.mp4")])
    new.commit_parts(parts)


def test_a_fence_in_the_very_instant_of_a_commit_shuts_it_out(tmp_path: Path) -> None:
    """The older run has looked already; Delta itself sees the conflict."""
    Archive.create(tmp_path)
    old = Archive(tmp_path, term=1)
    table = old.table("clips")
    Archive(tmp_path, term=2).fence()
    with pytest.raises(LeaseLost), old.as_writer(table) as properties:
        table.create_write_transaction([], "append", table.schema(), ["space"], commit_properties=properties)


def test_who_slept_in_the_midst_of_a_commit_and_finds_its_draft_swept_away_is_told_who_did_it(tmp_path: Path) -> None:
    """Compacting with a retention of nothing sweeps; Delta then says nothing but that there is no such file."""
    Archive.create(tmp_path)
    old = Archive(tmp_path, term=1)
    table = old.table("clips")
    Archive(tmp_path, term=2).fence()
    with pytest.raises(LeaseLost, match="another run has taken over the archive"), old.as_writer(table):
        raise OSError("Generic LocalFileSystem error: Unable to rename file: No such file or directory (os error 2)")


def test_a_fence_that_meets_a_last_commit_of_the_one_before_goes_up_behind_it(tmp_path: Path) -> None:
    """Who is in the right is not told that it lost."""
    add_video(Archive.create(tmp_path))
    Archive(tmp_path, term=1).commit_videos([video_row("/videos/b.mp4")])

    class Fence(Archive):
        """One that is overtaken by the older run between opening a table and writing to it."""

        is_overtaken = False

        def table(self, name: str, version: int | None = None) -> DeltaTable:
            opened = super().table(name, version)
            if name == "videos" and not self.is_overtaken:
                self.is_overtaken = True
                Archive(tmp_path, term=1).commit_videos([video_row("/videos/late.mp4")])
            return opened

    new = Fence(tmp_path, term=2)
    new.fence()
    assert new.is_overtaken
    with pytest.raises(LeaseLost):
        Archive(tmp_path, term=1).commit_videos([video_row("/videos/later.mp4")])
    new.commit_videos([video_row("/videos/new.mp4")])


def letter_of(row: VideoRow) -> Letter:
    """What the dead-letter would say of a video."""
    names = {field.name for field in fields(VideoRow)} & {field.name for field in fields(Letter)}
    told = {name: getattr(row, name) for name in names} | {"stage": "decode", "error_kind": "undecodable", "error": "x"}
    return Letter(
        **told,
        unit_id=None,
        start_s=None,
        end_s=None,
        first_seen=row.indexed_at,
        last_seen=row.indexed_at,
        decoder="",
        state="open",
    )


def commits_of(archive: Archive) -> dict[str, Callable[[], object]]:
    """Everything by which a run changes what an archive says."""
    row = video_row("/videos/b.mp4")
    parts = write_part([embedded(unit_of(row))], archive.folder)
    return {
        "clips": lambda: archive.commit_parts(parts),
        "videos": lambda: archive.commit_videos([row]),
        "letters": lambda: archive.commit_letters([letter_of(row)]),
        "packets": lambda: archive.commit_packets([PacketsPart("part-of-packets.parquet", 1, 1)]),
        "merge": lambda: delta_log.replace(archive, "clips", delta_log.files(archive, "clips"), []),
        "restore": lambda: delta_log.restore(archive, "videos", 0),
    }


@pytest.mark.parametrize("name", ["clips", "videos", "letters", "packets", "merge", "restore"])
def test_who_takes_over_shuts_the_one_before_out_of_every_commit(name: str, tmp_path: Path) -> None:
    """Also one that had made sure of its lease, and slept between that and the commit."""
    Archive.create(tmp_path)
    commit = commits_of(Archive(tmp_path, take(tmp_path, "first").term))[name]
    change_holder(tmp_path, beat_s=time.time() - EXPIRY_S - 1)
    before = delta_log.versions(Archive(tmp_path))
    with lease.held(tmp_path, "second") as second:
        assert second.took_over
        after = delta_log.versions(Archive(tmp_path))
        assert after == before | {table: before[table] + 1 for table in FENCED}
        with pytest.raises(LeaseLost, match="another run has taken over the archive"):
            commit()
        commits_of(Archive(tmp_path, second.term))[name]()


def test_a_lease_that_was_given_back_needs_no_fence(tmp_path: Path) -> None:
    Archive.create(tmp_path)
    with lease.held(tmp_path, "first"):
        pass
    before = delta_log.versions(Archive(tmp_path))
    with lease.held(tmp_path, "second") as second:
        assert not second.took_over
    assert delta_log.versions(Archive(tmp_path)) == before, "an index that was built stays the one of this version"


@pytest.mark.parametrize("care", [repair, lambda archive: compact(archive.folder, CompactSettings(retention_days=0))])
def test_care_that_takes_over_shuts_out_a_run_that_slept(care: Callable[[Archive], object], tmp_path: Path) -> None:
    add_video(Archive.create(tmp_path))
    log_run(Archive(tmp_path))
    slept = Archive(tmp_path, take(tmp_path, "slept").term)
    change_holder(tmp_path, beat_s=time.time() - EXPIRY_S - 1)
    care(Archive(tmp_path))
    for commit in ("clips", "videos", "letters", "packets"):
        with pytest.raises(LeaseLost):
            commits_of(slept)[commit]()
    assert verify(tmp_path).problems == ()


def test_a_compact_that_slept_deletes_nothing_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run has written and not committed yet would be gone, and be committed all the same."""
    add_video(Archive.create(tmp_path))
    log_run(Archive(tmp_path))
    (part,) = write_part([embedded(unit_of(video_row("/videos/b.mp4")))], tmp_path)

    def sleep(step: str) -> None:
        if step == "vacuum videos":
            change_holder(tmp_path, term=9_999_999_999_999)
            monkeypatch.setattr(lease, "EXPIRY_S", 0.0)  # the time that passes is more

    with pytest.raises(LeaseLost):
        compact(tmp_path, CompactSettings(retention_days=0), watch=sleep)
    assert (tmp_path / "clips" / part.path).exists()
