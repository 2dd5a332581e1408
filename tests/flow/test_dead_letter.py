"""The dead-letter: a failure is one row that says all there is to say, is tried three times, and again on request."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline import deadletter, demux, plan
from pipeline.archive import Archive
from pipeline.costs import Costs
from pipeline.deadletter import failures, retry
from pipeline.flows import IndexReport, index
from pipeline.settings import Sampling
from schemas.errors import InputError, OutOfMemory
from schemas.records import HashedFile, InspectedVideo
from tests.footage import BROKEN, VIDEOS, film
from tests.media import grey, make_video, packet_places

LARGE = (8000, 6000)  # 48 MB for brightness alone: too much to be found in memory that was used before
CAP_BYTES = 24 << 20  # enough for what Python asks for on the way


def named(folder: Path, kind: str | None = None) -> dict[str, deadletter.Letter]:
    """The failures by file name and, for units, their start."""
    return {
        Path(letter.uri).name + ("" if letter.start_s is None else f"@{letter.start_s:.0f}"): letter
        for letter in failures(folder, kind)
    }


def test_every_failure_is_one_row_that_says_all_there_is_to_say(indexed: tuple[Path, IndexReport]) -> None:
    folder, report = indexed
    found = named(folder)
    assert sorted(found) == sorted(BROKEN)
    letter = found["broken.mp4"]
    assert (letter.stage, letter.error_kind, letter.permanent, letter.attempts) == ("inspect", "not_a_video", True, 1)
    assert letter.error.startswith("this is no video container we read")
    assert letter.first_seen == letter.last_seen
    assert (letter.run_id, letter.space, letter.state) == (report.run_id, report.space, "open")
    assert "libavcodec 6" in letter.decoder
    assert failures(folder, "timeout") == []


def test_what_was_mended_changed_or_removed_is_settled(own_pile: Path, settings_for, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    space = index(own_pile, folder, settings_for()).space
    film(own_pile / "broken.mp4", "left")
    (own_pile / "empty.mov").unlink()
    index(own_pile, folder, settings_for())
    assert named(folder) == {}
    assert {letter.state for letter in Archive.open(folder).letters(space).values()} == {"settled"}
    (own_pile / "broken.mp4").write_text("broken again, in another way")
    index(own_pile, folder, settings_for())
    assert named(folder)["broken.mp4"].attempts == 1, "another story"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of one large frame."""
    path = tmp_path_factory.mktemp("large") / "large.mov"
    return make_video(path, frames=1, size=LARGE, codec="mjpeg", pixels="yuvj420p")


@pytest.fixture
def glutton(large: Path, tmp_path: Path) -> Path:
    """A folder with a video whose frames are over the cap, and one whose are not."""
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(large, folder / "large.mp4")
    make_video(folder / "small.mp4", frames=25)
    return folder


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cap on memory that large frames break.

    Said and not enforced: in a process that has held more before, as this one has after other tests, a real cap is met
    from memory that was freed. That it holds in a worker is for `tests/pipeline/test_walls.py`.
    """
    monkeypatch.setattr(plan, "MEMORY_BYTES", CAP_BYTES)
    inspect = demux.inspect_files

    def capped(sampling: Sampling, costs: Costs, files: list[HashedFile]) -> list[InspectedVideo]:
        found = inspect(sampling, costs, files)
        if any(video.profile.width * video.profile.height > plan.MEMORY_BYTES for video in found):
            raise OutOfMemory("it took more memory than one worker may have")
        return found

    monkeypatch.setattr(demux, "inspect_files", capped)


def test_a_failure_that_may_pass_is_tried_in_three_runs_and_then_left_alone(
    glutton: Path, tight: None, settings_for, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    reports = [index(glutton, folder, settings_for()) for _ in range(5)]
    assert [report.planned for report in reports] == [2, 1, 1, 0, 0]
    assert [report.failed for report in reports] == [1, 1, 1, 0, 0]
    (letter,) = failures(folder)
    assert (letter.error_kind, letter.permanent, letter.attempts) == ("memory", False, 3)
    assert letter.first_seen < letter.last_seen
    assert letter.run_id == reports[2].run_id


def test_retry_makes_the_next_run_try_again(
    glutton: Path, tight: None, settings_for, tmp_path: Path, monkeypatch
) -> None:
    folder = tmp_path / "archive"
    for _ in range(4):
        index(glutton, folder, settings_for())
    assert [Path(letter.uri).name for letter in retry(folder, "memory")] == ["large.mp4"]
    (letter,) = failures(folder)
    assert (letter.state, letter.attempts) == ("retry", 0)
    assert index(glutton, folder, settings_for()).failed == 1, "in vain"
    assert named(folder)["large.mp4"].attempts == 1

    monkeypatch.setattr(plan, "MEMORY_BYTES", 1 << 30)
    retry(folder)
    report = index(glutton, folder, settings_for())
    assert (report.indexed, report.failed, failures(folder)) == (1, 0, [])


def test_new_content_is_tried_again_whatever_the_old_did(
    glutton: Path, tight: None, settings_for, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    for _ in range(4):
        index(glutton, folder, settings_for())
    with (glutton / "large.mp4").open("ab") as stream:
        stream.write(bytes(8))
    assert index(glutton, folder, settings_for()).failed == 1
    assert named(folder)["large.mp4"].attempts == 1


def test_a_changed_file_that_fails_keeps_its_old_clips_and_is_not_tried_for_ever(
    glutton: Path, tight: None, settings_for, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    index(glutton, folder, settings_for())
    shutil.copy(glutton / "large.mp4", glutton / "small.mp4")
    reports = [index(glutton, folder, settings_for()) for _ in range(5)]
    names = [[Path(failure.uri).name for failure in report.failures] for report in reports]
    assert names == [["large.mp4", "small.mp4"], ["large.mp4", "small.mp4"], ["small.mp4"], [], []]
    assert named(folder)["small.mp4"].attempts == 3
    assert len(Archive.open(folder).visible_clips(reports[0].space, ["clip_id"])) == 1, "what it held before"
    retry(folder)
    assert index(glutton, folder, settings_for()).failed == 2


def test_what_the_content_decides_is_tried_once_and_again_on_request(own_pile, settings_for, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    index(own_pile, folder, settings_for())
    assert index(own_pile, folder, settings_for()).planned == 0
    assert len(retry(folder, "not_a_video")) == len(BROKEN)
    report = index(own_pile, folder, settings_for())
    assert (report.planned, report.failed, report.unchanged) == (len(BROKEN), len(BROKEN), len(VIDEOS))


def test_of_two_kinds_the_one_that_is_asked_for_is_tried_again(
    glutton: Path, tight: None, settings_for, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    (glutton / "text.mp4").write_text("not a video")
    for _ in range(3):
        index(glutton, folder, settings_for())
    before = named(folder)
    assert {name: letter.error_kind for name, letter in before.items()} == {
        "large.mp4": "memory",
        "text.mp4": "not_a_video",
    }
    assert [Path(letter.uri).name for letter in retry(folder, "memory")] == ["large.mp4"]
    report = index(glutton, folder, settings_for())
    assert (report.planned, [Path(failure.uri).name for failure in report.failures]) == (1, ["large.mp4"])
    assert (named(folder)["large.mp4"].attempts, named(folder)["text.mp4"]) == (1, before["text.mp4"])


def test_a_kind_that_did_not_happen_cannot_be_tried_again(indexed: tuple[Path, IndexReport]) -> None:
    with pytest.raises(InputError, match="there is no failure of the kind 'timeout'; there are: not_a_video"):
        retry(indexed[0], "timeout")


def hollow(path: Path, first: int, last: int) -> None:
    """Zeros in place of these packets."""
    content = bytearray(path.read_bytes())
    for offset, size, _ in packet_places(path)[first:last]:
        content[offset : offset + size] = bytes(size)
    path.write_bytes(content)


def noisy(number: int, size: tuple[int, int]) -> np.ndarray:
    return grey(number % 50, size)


@pytest.fixture
def hurt(tmp_path: Path) -> Path:
    """Eight seconds, a key each frame, nothing to be had from 3.2 s to 6 s."""
    path = tmp_path / "videos" / "hurt.mov"
    path.parent.mkdir()
    make_video(path, frames=200, codec="mjpeg", pixels="yuvj420p", size=(96, 64), paint=noisy)
    hollow(path, 80, 150)
    return path


def test_a_gap_is_marked_and_the_clips_around_it_stay(hurt: Path, settings_for, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    report = index(hurt, folder, settings_for(window_s=1.0))
    assert (report.indexed, report.partial, report.failed, report.clips) == (1, 1, 0, 6)
    (row,) = Archive.open(folder).current_videos(report.space).to_pylist()
    assert (row["status"], row["permanent"]) == ("partial", True)
    assert row["decoded_fraction"] == pytest.approx(0.65, abs=0.05)
    (letter,) = failures(folder, "damaged")
    assert letter.error.endswith("of the wanted frames are missing or damaged, at 3-6 s")


def test_a_unit_has_a_row_of_its_own(hurt: Path, settings_for, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(plan, "CLIPS_PER_UNIT", 2)
    folder = tmp_path / "archive"
    report = index(hurt, folder, settings_for(window_s=1.0))
    assert (report.partial, report.clips) == (1, 6)
    letter = named(folder)["hurt.mov@4"]
    assert (letter.error_kind, letter.stage, letter.start_s, letter.end_s) == ("undecodable", "decode", 4.0, 6.0)
    assert letter.unit_id
    hurt.unlink()
    make_video(hurt, frames=200, codec="mjpeg", pixels="yuvj420p", size=(96, 64), paint=noisy)
    index(hurt, folder, settings_for(window_s=1.0))
    assert failures(folder) == []


def test_an_archive_of_the_first_version_tells_its_failures_and_gets_the_table(
    own_pile: Path, settings_for, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    space = index(own_pile, folder, settings_for()).space
    shutil.rmtree(folder / "failures")
    assert sorted(named(folder)) == sorted(BROKEN)
    assert len(retry(folder)) == len(BROKEN)
    assert index(own_pile, folder, settings_for()).failed == len(BROKEN)
    assert len(Archive.open(folder).letters(space)) == len(BROKEN)


def test_letters_come_back_as_they_were_written(indexed: tuple[Path, IndexReport], tmp_path: Path) -> None:
    letters = failures(indexed[0])
    archive = Archive.create(tmp_path / "other")
    later = [replace(letter, attempts=2, last_seen=datetime.now(UTC)) for letter in letters]
    archive.commit_letters(letters)
    archive.commit_letters(later)
    assert list(archive.letters(indexed[1].space).values()) == later
    version = archive.version("failures")
    archive.commit_letters([])
    assert archive.version("failures") == version
