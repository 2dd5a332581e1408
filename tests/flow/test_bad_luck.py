"""Units that fail: tried three times and then left alone, while what is shown of their videos stays on show."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline import decode, plan
from pipeline.archive import Archive
from pipeline.deadletter import failures, retry
from pipeline.flows import index
from pipeline.settings import IndexSettings, Policy
from pipeline.verify import verify
from schemas.errors import OutOfMemory, UndecodableVideo, VideoError
from schemas.records import DecodedUnit, Unit
from tests.media import make_video

EACH_S = 2.0  # of a unit: two clips


@dataclass
class Fate:
    """What becomes of units, of whatever file, by their number; said, while the rest is real."""

    errors: dict[int, VideoError] = field(default_factory=dict)
    tried: list[int] = field(default_factory=list)

    def strike(self, *units: int, error: VideoError | None = None) -> None:
        """These units fail from now on, for want of memory unless told otherwise, and all others succeed."""
        self.errors = dict.fromkeys(units, error or OutOfMemory("it took more memory than one worker may have"))

    def tries(self) -> list[int]:
        """The units that were tried since the last time this was asked."""
        found, self.tried = sorted(self.tried), []
        return found


@pytest.fixture
def fate(monkeypatch: pytest.MonkeyPatch) -> Fate:
    found = Fate()
    decode_units = decode.decode_units

    def decoded(image_size: int, units: list[Unit]) -> list[DecodedUnit]:
        (number,) = (int(unit.windows[0].start_s / EACH_S) for unit in units)
        found.tried.append(number)
        if number in found.errors:
            raise found.errors[number]
        return decode_units(image_size, units)

    monkeypatch.setattr(decode, "decode_units", decoded)
    monkeypatch.setattr(plan, "CLIPS_PER_UNIT", 2)
    return found


@pytest.fixture
def settings(settings_for) -> IndexSettings:
    return settings_for(window_s=EACH_S / 2)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A video of three units."""
    folder = tmp_path / "videos"
    folder.mkdir()
    make_video(folder / "a.mp4", frames=30, rate_hz=5)
    return folder


def shown(folder: Path) -> list[tuple[str, float]]:
    """Every clip that can be seen: its id and where it starts."""
    archive = Archive.open(folder)
    (space,) = archive.spaces()
    rows = archive.visible_clips(space, ["clip_id", "start_s"]).to_pylist()
    return sorted((row["clip_id"], row["start_s"]) for row in rows)


def starts(folder: Path) -> list[float]:
    """Where the clips start that can be seen."""
    return sorted(start_s for _, start_s in shown(folder))


def rows(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Status, revision and attempts by file name."""
    archive = Archive.open(folder)
    (space,) = archive.spaces()
    found = archive.current_videos(space).to_pylist()
    return {Path(row["uri"]).name: (row["status"], row["revision"], row["attempts"]) for row in found}


def test_a_retry_that_gets_nothing_hides_nothing_and_counts(fate: Fate, videos: Path, settings, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    fate.strike(1)
    assert (index(videos, folder, settings).partial, len(before := shown(folder))) == (1, 4)
    fate.strike(0, 1, 2)
    report = index(videos, folder, settings)
    assert (report.planned, report.indexed, report.failed, report.clips) == (1, 0, 1, 0)
    assert shown(folder) == before
    assert rows(folder) == {"a.mp4": ("partial", 1, 2)}
    assert sorted((letter.start_s, letter.attempts) for letter in failures(folder)) == [(0.0, 1), (2.0, 2), (4.0, 1)]

    assert [index(videos, folder, settings).planned for _ in range(3)] == [1, 0, 0], "three tries, then left alone"
    assert (shown(folder), rows(folder)) == (before, {"a.mp4": ("partial", 1, 3)})
    fate.strike()
    retry(folder)
    assert (index(videos, folder, settings).indexed, len(shown(folder)), failures(folder)) == (1, 6, [])
    assert verify(folder).problems == ()


def test_a_retry_that_gets_less_is_not_shown_and_not_lost(fate: Fate, videos: Path, settings, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    fate.strike(1)
    index(videos, folder, settings)
    before = shown(folder)
    fate.strike(0, 2)
    report = index(videos, folder, settings)
    assert (report.failed, report.failures[0].error_kind) == (1, "memory")
    assert shown(folder) == before
    fate.strike(1)  # which the run before had: it is not decoded again
    assert index(videos, folder, settings).indexed == 1
    assert starts(folder) == [0, 1, 2, 3, 4, 5]
    assert (rows(folder), failures(folder)) == ({"a.mp4": ("ok", 2, 3)}, [])
    assert verify(folder).problems == ()


def test_a_retry_that_gets_more_is_shown(fate: Fate, videos: Path, settings, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    fate.strike(0, 1)
    index(videos, folder, settings)
    fate.strike(1)
    assert index(videos, folder, settings).partial == 1
    assert (starts(folder), rows(folder)) == ([0, 1, 4, 5], {"a.mp4": ("partial", 2, 2)})


def change(path: Path, *, same_look: bool = False) -> None:
    """Other content of the same length; `same_look` keeps the file's size and time."""
    before = path.stat()
    make_video(path, frames=30, rate_hz=5, size=(48, 32))
    content = path.read_bytes()
    if same_look:  # what follows the last box of an MP4 is not looked at
        path.write_bytes(content + bytes(before.st_size - len(content)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("same_look", [False, True], ids=["seen by its look", "found by --rehash"])
def test_a_changed_file_that_kills_its_decoder_keeps_its_old_clips(
    fate: Fate, videos: Path, settings, tmp_path: Path, *, same_look: bool
) -> None:
    folder = tmp_path / "archive"
    index(videos, folder, settings)
    before = shown(folder)
    change(videos / "a.mp4", same_look=same_look)
    fate.strike(0, 1, 2)
    first = index(videos, folder, settings, policy=Policy(rehash=same_look))
    assert (first.planned, first.failed, first.failures[0].error_kind) == (1, 1, "memory")
    assert [index(videos, folder, settings).planned for _ in range(4)] == [1, 1, 0, 0], "three tries, then left alone"
    assert (shown(folder), rows(folder)) == (before, {"a.mp4": ("ok", 1, 1)})
    (letter,) = failures(folder)
    assert (letter.error_kind, letter.start_s, letter.attempts) == ("memory", None, 3)

    fate.strike()
    assert len(retry(folder, "memory")) == 1
    assert index(videos, folder, settings).indexed == 1
    assert (len(shown(folder)), failures(folder), rows(folder)) == (6, [], {"a.mp4": ("ok", 2, 1)})
    assert not set(shown(folder)) & set(before), "the old clips went in the same step"
    assert index(videos, folder, settings).planned == 0


def test_a_part_of_the_new_content_takes_the_place_of_the_old(
    fate: Fate, videos: Path, settings, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    index(videos, folder, settings)
    change(videos / "a.mp4")
    fate.strike(0, 1)
    assert index(videos, folder, settings).partial == 1
    assert (starts(folder), rows(folder)) == ([4, 5], {"a.mp4": ("partial", 2, 1)})


def test_a_file_that_becomes_a_copy_of_what_cannot_be_had_keeps_its_clips(
    fate: Fate, videos: Path, settings, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    make_video(videos / "b.mp4", frames=10, rate_hz=5, size=(96, 64))
    index(videos, folder, settings)
    before = shown(folder)
    change(videos / "a.mp4")
    shutil.copy(videos / "a.mp4", videos / "b.mp4")
    fate.strike(0, 1, 2)
    reports = [index(videos, folder, settings) for _ in range(4)]
    assert [(report.planned, report.failed) for report in reports] == [(2, 2), (2, 2), (2, 2), (0, 0)]
    assert shown(folder) == before
    assert [(Path(letter.uri).name, letter.attempts) for letter in failures(folder)] == [("a.mp4", 3), ("b.mp4", 3)]
    fate.strike()
    retry(folder)
    report = index(videos, folder, settings)
    assert (report.indexed, report.duplicates, len(shown(folder)), failures(folder)) == (1, 1, 6, [])


def test_a_file_that_becomes_a_copy_after_it_failed_is_settled(
    fate: Fate, videos: Path, settings, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    make_video(videos / "b.mp4", frames=10, rate_hz=5, size=(96, 64))
    index(videos, folder, settings)
    change(videos / "a.mp4")
    fate.strike(0, 1, 2)
    assert index(videos, folder, settings).failed == 1
    shutil.copy(videos / "b.mp4", videos / "a.mp4")
    report = index(videos, folder, settings)
    assert (report.duplicates, failures(folder), starts(folder)) == (1, [], [0, 1])


# --- units


def test_a_unit_is_tried_in_three_runs_and_then_left_alone_until_it_is_asked_for(
    fate: Fate, videos: Path, settings, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    fate.strike(1)
    reports = [index(videos, folder, settings) for _ in range(4)]
    assert [(report.planned, report.partial) for report in reports] == [(1, 1), (1, 1), (1, 1), (0, 0)]
    assert fate.tries().count(1) == 3
    (letter,) = failures(folder)
    assert (letter.start_s, letter.end_s, letter.attempts, letter.run_id) == (2.0, 4.0, 3, reports[2].run_id)
    retry(folder)
    assert index(videos, folder, settings).partial == 1
    assert (1 in fate.tries(), failures(folder)[0].attempts) == (True, 1)


def test_a_unit_that_failed_for_good_is_not_tried_with_one_that_had_bad_luck(
    fate: Fate, videos: Path, settings, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    fate.errors = {0: UndecodableVideo("no intact frame"), 1: OutOfMemory("too much")}
    assert [index(videos, folder, settings).planned for _ in range(4)] == [1, 1, 1, 0]
    assert fate.tries() == [0, 1, 1, 1, 2, 2, 2]
    assert kinds(folder) == {0.0: ("undecodable", 1), 2.0: ("memory", 3)}

    retry(folder, "memory")
    assert index(videos, folder, settings).partial == 1
    assert fate.tries() == [1, 2]
    assert kinds(folder) == {0.0: ("undecodable", 1), 2.0: ("memory", 1)}
    fate.strike(0, error=UndecodableVideo("no intact frame"))
    assert index(videos, folder, settings).partial == 1
    assert (starts(folder), kinds(folder)) == ([2, 3, 4, 5], {0.0: ("undecodable", 1)})
    assert index(videos, folder, settings).planned == 0

    retry(folder, "undecodable")
    fate.strike()
    assert index(videos, folder, settings).indexed == 1
    assert (starts(folder), kinds(folder)) == ([0, 1, 2, 3, 4, 5], {})


def kinds(folder: Path) -> dict[float | None, tuple[str, int]]:
    """Kind and tries of every failure, by where it starts."""
    return {letter.start_s: (letter.error_kind, letter.attempts) for letter in failures(folder)}
