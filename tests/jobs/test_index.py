"""Options of `footage index`: how a run finds out what changed, what it keeps, whether it waits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline import flows, lease
from pipeline.archive import Archive
from tests.footage import SCENE_S, film


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two videos of a scene each."""
    film(tmp_path / "videos" / "a.mp4", "left")
    film(tmp_path / "videos" / "b.mp4", "up")
    return tmp_path / "videos"


@pytest.fixture
def index(footage, videos: Path, tiny_weights: Path, tmp_path: Path):
    """Indexes the videos with some options; returns the exit code, the report as JSON (if any) and stderr."""

    def run(*options: object, window_s: float = SCENE_S):
        always = ("--model", tiny_weights, "--engine", "local", "--window", window_s, "--json")
        code, out, err = footage("index", videos, tmp_path / "archive", *always, *options)
        return code, json.loads(out) if out else {}, err

    assert run()[0] == 0
    return run


def overwrite(path: Path, other: Path) -> None:
    """Puts what another file holds into a file whose size and time stay what they are."""
    before, content = path.stat(), other.read_bytes()
    # What follows the last box of an MP4 is not looked at.
    size_bytes = max(before.st_size, len(content))
    path.write_bytes(content.ljust(size_bytes, b"\0")[: before.st_size])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_rehash_finds_content_that_changed_under_the_same_size_and_time(index, videos: Path, tmp_path: Path) -> None:
    overwrite(videos / "a.mp4", film(tmp_path / "other.mp4", "still"))
    assert index()[1]["unchanged"] == 2
    _, report, _ = index("--rehash")
    assert (report["indexed"] + report["failed"], report["unchanged"]) == (1, 1)


def test_trust_mtime_takes_a_new_name_for_the_file_that_vanished_unread(index, videos: Path, tmp_path: Path) -> None:
    (videos / "a.mp4").rename(videos / "renamed.mp4")
    overwrite(videos / "renamed.mp4", film(tmp_path / "other.mp4", "still"))
    _, planned, _ = index("--dry-run", "--yes")
    assert (planned["planned"], planned["moved"], planned["gone"]) == (1, 0, 1), "who reads it sees other content"
    code, report, _ = index("--trust-mtime")
    assert (code, report["planned"], report["moved"], report["gone"]) == (0, 0, 1, 0)


@pytest.mark.parametrize(("options", "state"), [((), "retired"), (("--keep-space",), "kept")])
def test_keep_space_keeps_what_served_for_good(index, footage, tmp_path: Path, options, state: str) -> None:
    assert index(*options, window_s=SCENE_S / 2)[1]["serves"]
    spaces = json.loads(footage("info", tmp_path / "archive", "--json")[1])["spaces"]
    assert [space["state"] for space in spaces] == [state, "serves"]


def test_wait_waits_for_another_run(index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = lease.acquire(tmp_path / "archive", "another", wait_s=0.0, watch=lambda _: None)
    code, _, err = index()
    assert (code, "(run another," in err) == (4, True)
    monkeypatch.setattr(flows, "_show_waiting", lambda _job, _waited_s: other.release())
    code, report, _ = index("--wait", 60)
    assert (code, report["unchanged"]) == (0, 2)


def test_another_tolerance_is_another_space_and_0_takes_the_frames_at_their_moments(index, tmp_path: Path) -> None:
    code, report, _ = index("--tolerance", 0)
    assert (code, report["indexed"]) == (0, 2)
    rows = Archive.open(tmp_path / "archive").visible_clips(report["space"], ["start_s", "end_s", "frame_times_s"])
    for row in rows.to_pylist():
        step_s = (row["end_s"] - row["start_s"]) / len(row["frame_times_s"])
        for number, time_s in enumerate(row["frame_times_s"]):
            assert 0 <= row["start_s"] + (number + 0.5) * step_s - time_s < 0.05, "on the screen in that moment"
    code, _, err = index("--tolerance", SCENE_S + 1)
    assert (code, "expected 0 to the window's length" in err) == (1, True)


def test_segment_shots_is_another_space_whose_windows_follow_the_shots(index, footage, tmp_path: Path) -> None:
    _, planned, _ = index("--segment", "shots", "--dry-run")
    assert "shots are found when videos are decoded" in planned["notes"][-1]
    code, report, _ = index("--segment", "shots", window_s=2 * SCENE_S)
    assert (code, report["indexed"]) == (0, 2)
    told = footage("info", tmp_path / "archive", "--space", report["space"])[1]
    assert f"frames of each shot, in parts of at most {2 * SCENE_S} s" in told
    code, _, err = index("--segment", "shots", "--stride", 1)
    assert (code, "leave out --stride" in err) == (1, True)
