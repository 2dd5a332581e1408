"""A machine out of disk: real small file systems, where they can be mounted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import heaps
from pipeline.flows import index
from schemas.errors import NoRoom
from tests.chaos import piles, runs
from tests.chaos.conftest import Stage
from tests.chaos.runs import Run
from tests.chaos.test_signals import command


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 3 MB; skips where none can be mounted. Its path is short: Ray's sockets may lie in it."""
    with tempfile.TemporaryDirectory(prefix="small-") as place:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True)
        if mounted.returncode:
            pytest.skip("mounting needs root")
        yield Path(place)
        subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    """Fills a disk but for so many bytes; returns the file that does it."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"\0" * max(0, shutil.disk_usage(disk).free - leave_bytes))
    return ballast


@pytest.mark.parametrize("leave_bytes", [0, 30_000, 120_000])
def test_a_full_disk_ends_the_run_with_a_sentence_and_the_next_one_completes_it(
    stage: Stage, small_disk: Path, leave_bytes: int
) -> None:
    run = stage.copy(small_disk / "archive")
    ballast = fill(small_disk, leave_bytes)
    ended = subprocess.run(command(run), capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert f"error: there is no room left on the disk of the archive {run.archive}" in ended.stderr
    assert "make room and run the same command again" in ended.stderr
    assert "Traceback" not in ended.stderr
    reader = stage.reader(run)
    reader.look()
    assert reader.wrong == []
    ballast.unlink()
    runs.complete(run)
    assert stage.losses(run) == (0, 0)


@pytest.mark.parametrize("how", [{"dry_run": True}, {}], ids=["dry run", "first run"])
def test_a_temporary_folder_that_is_full_before_there_is_an_archive_is_named_too(
    stage: Stage, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, bool]
) -> None:
    """What there is to do is found out with the help of files there, once it is too much for the memory."""
    monkeypatch.setattr(heaps, "ROWS_HELD", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    run = replace(stage.unbroken, archive=tmp_path / "archive")
    ballast = fill(small_disk, 0)
    with pytest.raises(NoRoom, match=rf"there is no room left in the temporary folder {small_disk} \(TMPDIR\)"):
        index(run.pile, run.archive, run.settings, **how)
    assert not run.archive.exists()
    ballast.unlink()
    report = index(run.pile, run.archive, run.settings, dry_run=True)
    assert (report.planned, report.failed) == (piles.VIDEOS, 0)


def said_on_ray(run: Run, temporary: Path) -> str:
    """What a run on Ray that ends with 1 says, its temporary files in this folder."""
    environment = os.environ | {"TMPDIR": str(temporary), "RAY_TMPDIR": str(temporary)}
    ended = subprocess.run(command(run), env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_a_full_temporary_folder_is_named(stage: Stage, small_disk: Path, tmp_path: Path) -> None:
    run = stage.copy(tmp_path / "archive", engine="ray")
    fill(small_disk, 0)
    said = said_on_ray(run, small_disk)
    assert f"error: there is no room left in the temporary folder {small_disk} (TMPDIR)" in said
    assert runs.shown(run.archive, stage.space) == stage.before
    runs.complete(run)
    assert stage.losses(run) == (0, 0)


@pytest.mark.slow
@pytest.mark.ray
def test_a_temporary_folder_with_too_long_a_path_is_named(stage: Stage, tmp_path: Path) -> None:
    """Ray's sockets lie in it, and the path of a socket has at most 107 bytes."""
    run, long = stage.copy(tmp_path / "archive", engine="ray"), tmp_path / ("x" * 50)
    long.mkdir()
    said = said_on_ray(run, long)
    assert f"a temporary folder with a short path and room (TMPDIR, now {long})" in said
    assert "without it (--engine local)" in said
