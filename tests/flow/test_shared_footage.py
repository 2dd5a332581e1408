"""The real clips beside the checkout, when they are there: people, animals, sport, and 80 odd or hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import flows, packet_cache
from pipeline.archive import Archive
from pipeline.flows import index
from pipeline.settings import IndexSettings
from pipeline.survey import Survey, survey

FOOTAGE = Path(__file__).parents[3] / "shared" / "footage"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOOTAGE.is_dir(), reason="needs the shared test footage"),
]


@pytest.fixture(scope="module")
def manifest() -> dict[str, dict]:
    return {entry["name"]: entry for entry in json.loads((FOOTAGE / "MANIFEST.json").read_text())["files"]}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> tuple[Archive, str]:
    folder = tmp_path_factory.mktemp("shared") / "archive"
    settings = IndexSettings(model=str(tiny_weights), engine="local")
    report = index(FOOTAGE, folder, settings)
    assert report.planned == report.indexed + report.failed
    again = index(FOOTAGE, folder, settings)
    assert (again.planned, again.unchanged) == (0, report.planned + report.duplicates)
    return Archive.open(folder), report.space


def test_every_file_of_the_manifest_has_a_row(archive, manifest) -> None:
    videos, space = archive
    rows = videos.current_videos(space).to_pylist()
    assert {Path(row["uri"]).name for row in rows} >= manifest.keys()


def test_every_ordinary_clip_is_whole(archive, manifest) -> None:
    videos, space = archive
    rows = {Path(row["uri"]).name: row for row in videos.current_videos(space).to_pylist()}
    ordinary = [name for name, entry in manifest.items() if entry["group"] == "A"]
    assert {name: rows[name]["status"] for name in ordinary} == dict.fromkeys(ordinary, "ok")


def test_durations_are_those_of_the_decoded_frames(archive, manifest) -> None:
    videos, space = archive
    rows = {Path(row["uri"]).name: row for row in videos.current_videos(space).to_pylist()}
    for name, entry in manifest.items():
        if entry["group"] == "A":
            assert rows[name]["duration_s"] == pytest.approx(entry["frame_count"] / entry["fps"], rel=0.06, abs=0.1), (
                name
            )


def test_what_cannot_be_decoded_says_why(archive) -> None:
    videos, space = archive
    failed = [row for row in videos.current_videos(space).to_pylist() if row["status"] == "failed"]
    assert len(failed) > 10
    assert all(row["error_kind"] in {"not_a_video", "undecodable"} and row["error"] for row in failed)


def test_another_space_is_planned_as_if_every_file_were_opened(
    archive, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Survey] = []

    def kept(*given) -> Survey:
        plans.append(survey(*given))
        return plans[-1]

    monkeypatch.setattr(flows, "survey", kept)
    settings = IndexSettings(model=str(tiny_weights), engine="local", window_s=1.0, stride_s=0.5)
    videos, _ = archive
    for folder in (videos.folder, tmp_path / "none"):
        index(FOOTAGE, folder, settings, dry_run=True)
    cached, fresh = plans
    assert len(packet_cache.lots(videos, [item.video.source for item in cached.plans])) > 1
    assert cached.plans == fresh.plans
    assert [failed.kind for failed in cached.failures] == [failed.kind for failed in fresh.failures]
