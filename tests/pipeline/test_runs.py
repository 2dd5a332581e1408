"""When a new space may serve instead of the old one: it must account for all that the old one does."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import runs
from pipeline.archive import Archive
from tests.pipeline.factories import SPACE, log_run, video_row


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Two videos whose files are there, and one that has no file any more, in the space that serves."""
    archive = Archive.create(tmp_path / "archive")
    log_run(archive)
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).write_bytes(b"clip")
    archive.commit_videos([known(tmp_path, name, SPACE) for name in ("a.mp4", "b.mp4", "lost.mp4")])
    return archive


def known(folder: Path, name: str, space: str, **changed):
    return video_row(str(folder / "videos" / name), space=space, **changed)


def covers(archive: Archive, *folders: Path, everywhere: bool = False) -> bool:
    return runs.covers(archive, "new", map(str, folders), everywhere=everywhere)


def test_a_space_that_accounts_for_every_file_covers_the_old_one(archive: Archive, tmp_path: Path) -> None:
    archive.commit_videos([known(tmp_path, name, "new") for name in ("a.mp4", "b.mp4", "lost.mp4")])
    assert covers(archive)


def test_a_file_that_is_there_and_has_no_account_is_not_covered(archive: Archive, tmp_path: Path) -> None:
    archive.commit_videos([known(tmp_path, "a.mp4", "new"), known(tmp_path, "b.mp4", "new", status="gone")])
    assert not covers(archive, tmp_path, everywhere=True)


def test_a_file_that_is_not_there_needs_no_account_where_the_run_looked(archive: Archive, tmp_path: Path) -> None:
    archive.commit_videos([known(tmp_path, name, "new") for name in ("a.mp4", "b.mp4")])
    assert not covers(archive)
    assert not covers(archive, tmp_path / "elsewhere")
    assert covers(archive, tmp_path / "videos")
    assert covers(archive, everywhere=True)


def test_the_space_that_serves_covers_itself_and_the_first_one_covers_nothing(archive: Archive, tmp_path: Path) -> None:
    assert runs.covers(archive, SPACE, (), everywhere=False)
    assert runs.covers(Archive.create(tmp_path / "empty"), "new", (), everywhere=False)


def test_missing_ones_are_looked_at_in_lots(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "ROWS_AT_ONCE", 1)
    assert not covers(archive, tmp_path)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).unlink()
    assert covers(archive, tmp_path)
