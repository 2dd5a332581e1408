"""The demo's footage through the embedded model: search and tags mean something with no network."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import showcase, tagged
from pipeline.flows import index
from pipeline.label_files import read_labels
from pipeline.search import search
from pipeline.serving import OpenSpace, open_space
from pipeline.settings import IndexSettings
from pipeline.tagging import TagSettings, tag


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("showcase")
    showcase.make_footage(folder)
    return folder


@pytest.fixture(scope="module")
def opened(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> OpenSpace:
    archive = tmp_path_factory.mktemp("showcased") / "archive"
    report = index(footage, archive, IndexSettings(engine="local"))
    assert (report.indexed, report.failed) == (len(showcase.REEL), 1)
    return open_space(archive)


@pytest.mark.parametrize(
    ("text", "video", "scene"),
    [
        ("a red circle moves to the left", "morning.mp4", 0),
        ("a white object moves up and to the right", "night_shift.mp4", 0),
        ("a blue square going up", "morning.mp4", 2),
        ("a blue square moves left", "traffic.mp4", 1),
        ("a purple thing moves up", "kite.mp4", 0),
    ],
)
def test_the_first_hit_is_the_moment_described(opened: OpenSpace, text: str, video: str, scene: int) -> None:
    hit = search(opened, text, top=1).hits[0]
    assert Path(hit.uri).name == video
    assert hit.start_s == pytest.approx(scene * showcase.SCENE_S, abs=0.1)


def test_motion_tags_are_right_for_nearly_all_scenes(opened: OpenSpace, tmp_path: Path) -> None:
    labels = tmp_path / "motions.yaml"
    showcase.write_labels(labels)
    report = tag(opened, read_labels(labels), TagSettings(top=1))
    found = {
        (Path(t.uri).stem, round(t.start_s / showcase.SCENE_S)): t.label
        for video in tagged.videos(opened.archive, opened.space, report.label_set)
        for t in video.tags
    }
    told = {
        (name, place): scene.motion
        for name, scenes in showcase.REEL.items()
        for place, scene in enumerate(scenes)
        if scene.motion in showcase.LABELS
    }
    right = [key for key, motion in told.items() if found[key] == motion]
    assert len(right) >= len(told) - 1, {key: (motion, found[key]) for key, motion in told.items() if key not in right}


def test_footage_is_made_once(footage: Path) -> None:
    times = {file.name: file.stat().st_mtime_ns for file in footage.glob("*.mp4") if file.name != "broken.mp4"}
    showcase.make_footage(footage)
    assert times == {file.name: file.stat().st_mtime_ns for file in footage.glob("*.mp4") if file.name != "broken.mp4"}
