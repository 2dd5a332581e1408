"""Private folders of runs: nobody else reads them, and they go."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pipeline import scratch, stores


def test_folders_are_private_and_go_when_they_are_done(tmp_path: Path) -> None:
    with scratch.private(tmp_path, "one") as first:
        with scratch.private(tmp_path, "two") as second:
            assert first.stat().st_mode & 0o777 == 0o700
            assert scratch.left(tmp_path) == [first, second]
            (first / "file").write_text("x")
        assert not second.exists()
        assert (first / "file").exists()
    assert list(tmp_path.iterdir()) == []


def test_it_goes_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="lost"), scratch.private(tmp_path, "one"):
        raise OSError("lost")
    assert list(tmp_path.iterdir()) == []


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / scratch.FOLDER / "dead").mkdir(parents=True)
    scratch.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_in_a_store_has_it_in_the_temporary_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    archive = stores.to_place("s3://bucket/archive")
    with scratch.private(archive, "20261124T101010-abcdef") as folder:
        assert folder == tmp_path / "footage-20261124T101010-abcdef"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert scratch.left(archive) == []
    assert tmp_path.is_dir(), "an empty TMPDIR is not ours to remove"
    assert list(tmp_path.iterdir()) == []
    scratch.sweep(archive)
