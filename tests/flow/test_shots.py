"""`--segment shots` end to end: clips follow the shots of real files, once, and the same on every engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from pipeline import plan
from pipeline.archive import Archive
from pipeline.flows import IndexReport, index
from pipeline.overview import overview
from pipeline.reindexing import reindex
from pipeline.verify import verify
from tests.media import damage_packets
from tests.pipeline.test_decode_by_shots import RATE_HZ, film

WINDOW_S = 4.0
SHOTS = {"five.mp4": (25, 32, 20, 90, 30), "two.mkv": (15, 40), "one.mp4": (30,)}  # frames
STARTS = {
    "five.mp4": [0.0, 2.5, 5.7, 7.7, 10.7, 13.7, 16.7],
    "two.mkv": [0.0, 1.5],
    "one.mp4": [0.0],
}
COLUMNS = ["clip_id", "unit_id", "video_id", "start_s", "end_s", "frame_times_s", "intact_samples", "embedding"]


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos with known cuts. Not to be changed."""
    folder = tmp_path_factory.mktemp("films")
    for name, lengths in SHOTS.items():
        film(folder / name, *lengths, gop=250, options={"crf": "18", "preset": "veryfast"})
    return folder


@pytest.fixture
def settings(settings_for):
    return lambda engine="local": settings_for(engine, segment="shots", window_s=WINDOW_S)


@pytest.fixture
def indexed(films: Path, settings, tmp_path: Path) -> tuple[Path, IndexReport]:
    """An archive of the films, and its report."""
    return tmp_path / "archive", index(films, tmp_path / "archive", settings())


def rows(folder: Path, space: str) -> dict[str, list[dict]]:
    """Visible clips in time order, by the names of their files."""
    archive = Archive.open(folder)
    names = {row["video_id"]: Path(row["uri"]).name for row in archive.current_videos(space).to_pylist()}
    found: dict[str, list[dict]] = {}
    for row in sorted(archive.visible_clips(space, COLUMNS).to_pylist(), key=lambda row: row["start_s"]):
        found.setdefault(names[row["video_id"]], []).append(row)
    return found


def test_each_clip_lies_in_one_shot_and_each_shot_starts_one(indexed: tuple[Path, IndexReport]) -> None:
    folder, report = indexed
    found = rows(folder, report.space)
    assert {name: [row["start_s"] for row in clips] for name, clips in found.items()} == {
        name: pytest.approx(starts, abs=1 / RATE_HZ) for name, starts in STARTS.items()
    }
    for name, clips in found.items():
        edges_s = np.cumsum([0, *SHOTS[name]]) / RATE_HZ
        for row in clips:
            assert row["end_s"] - row["start_s"] <= WINDOW_S
            shots = np.searchsorted(edges_s - 0.01, row["frame_times_s"], side="right")
            assert len(set(shots.tolist())) == 1
    assert report.clips == sum(map(len, STARTS.values()))
    assert (report.indexed, report.partial, report.failed) == (len(SHOTS), 0, 0)
    assert verify(folder).problems == ()


def test_a_second_run_and_the_scheduled_one_find_nothing_to_do(
    indexed: tuple[Path, IndexReport], films: Path, settings
) -> None:
    folder, report = indexed
    version = Archive.open(folder).version("clips")
    for again in (index(films, folder, settings()), reindex(folder)):
        assert (again.planned, again.unchanged, again.space) == (0, len(SHOTS), report.space)
    assert Archive.open(folder).version("clips") == version


def test_a_run_that_died_before_its_video_rows_is_taken_over(
    indexed: tuple[Path, IndexReport], films: Path, settings
) -> None:
    folder, report = indexed
    before = rows(folder, report.space)
    DeltaTable(folder / "videos").restore(0)  # as if the driver had been killed before its first video row
    parts = DeltaTable(folder / "clips").file_uris()
    again = index(films, folder, settings())
    assert (again.indexed, again.partial, again.clips) == (len(SHOTS), 0, report.clips)
    assert DeltaTable(folder / "clips").file_uris() == parts, "no clip was decoded again"
    assert rows(folder, report.space) == before


def test_a_video_of_several_units_is_cut_where_they_meet(
    films: Path, settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CLIPS_PER_UNIT", 8)  # two windows of four seconds
    report = index(films / "five.mp4", tmp_path / "archive", settings())
    found = rows(tmp_path / "archive", report.space)["five.mp4"]
    starts = [row["start_s"] for row in found]
    assert {0.0, 2.5, 5.7, 7.7, 8.0, 16.0, 16.7} - set(np.round(starts, 6)) == {7.7, 16.7}, (
        "pieces too short for a clip"
    )
    assert len({row["unit_id"] for row in found}) == 3
    assert [row["start_s"] for row in found[1:]] == [row["end_s"] for row in found[:-1]]
    assert (report.indexed, report.partial) == (1, 0)


def test_a_damaged_video_is_partial_and_its_gap_is_told(films: Path, settings, tmp_path: Path) -> None:
    path = film(tmp_path / "damaged.mp4", 40, 40, 40, gop=10)
    damage_packets(path, range(42, 80))
    report = index(path, tmp_path / "archive", settings())
    assert (report.indexed, report.partial, report.clips) == (1, 1, 2)
    archive = Archive.open(tmp_path / "archive")
    (row,) = archive.current_videos(report.space).to_pylist()
    assert row["decoded_fraction"] == pytest.approx(2 / 3)
    (letter,) = archive.letters(report.space).values()
    assert letter.error.endswith(", at 4-8 s")


def test_shots_are_another_space_and_say_so(indexed: tuple[Path, IndexReport], films: Path, settings_for) -> None:
    folder, report = indexed
    fixed = index(films, folder, settings_for(window_s=WINDOW_S))
    assert fixed.space != report.space
    assert [start["start_s"] for start in rows(folder, fixed.space)["two.mkv"]] == [0.0]
    assert overview(folder, report.space).sampling["shots"]["shortest_s"] == 1.0
    assert overview(folder).sampling["shots"] is None


def test_a_dry_run_says_that_it_cannot_know_the_clips(films: Path, settings, settings_for, tmp_path: Path) -> None:
    notes = index(films, tmp_path / "archive", settings(), dry_run=True).notes
    assert "shots are found when videos are decoded" in notes[-1]
    assert not any("shots" in note for note in index(films, tmp_path / "archive", settings_for(), dry_run=True).notes)


@pytest.mark.ray
def test_ray_and_the_plain_loop_make_the_same_clips(
    indexed: tuple[Path, IndexReport], films: Path, settings, tmp_path: Path
) -> None:
    folder, local = indexed
    ray = index(films, tmp_path / "ray", settings("ray"))
    assert (ray.space, ray.clips, ray.indexed) == (local.space, local.clips, local.indexed)
    assert rows(tmp_path / "ray", ray.space) == rows(folder, local.space)
