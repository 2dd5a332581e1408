"""An archive in short: counts of what can be seen, and the last runs."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.label_sets import Label, LabelSet
from pipeline.overview import RUNS_SHOWN, overview
from pipeline.serving import OpenSpace
from pipeline.settings import IndexSettings, space_of
from pipeline.tagging import tag
from schemas.errors import ArchiveError
from tests.pipeline.conftest import CLIPS, VIDEOS, run_row
from tests.pipeline.factories import NOON, add_video, video_row


def test_counts_are_of_the_serving_space_and_of_what_can_be_seen(own_stock: OpenSpace) -> None:
    own_stock.archive.commit_videos(
        [video_row("/videos/bad.mp4", space=own_stock.space, status="failed", clip_count=0)]
    )
    add_video(own_stock.archive, "/videos/elsewhere.mp4", space="other")
    tag(own_stock, LabelSet((Label("snow", ("snow",)),)))
    found = overview(own_stock.archive.folder)
    assert found.videos == {"ok": VIDEOS, "gone": 1, "failed": 1}
    assert (found.clips, found.tags) == (VIDEOS * CLIPS, VIDEOS * CLIPS)
    assert found.hours == pytest.approx(VIDEOS * 20 / 3600)
    assert found.space == own_stock.space
    assert found.sampling["window_s"] == 10
    assert found.size_bytes.keys() >= {"videos", "clips", "tags", "runs"}


def test_hours_are_of_the_footage_that_could_be_decoded(own_stock: OpenSpace) -> None:
    before = overview(own_stock.archive.folder).hours
    half = video_row("/videos/0.mp4", space=own_stock.space, decoded_fraction=0.5, status="partial", minutes=1)
    own_stock.archive.commit_videos([half])
    assert overview(own_stock.archive.folder).hours == pytest.approx(before - 10 / 3600)


def test_the_last_runs_come_newest_first_and_a_finished_one_once(own_stock: OpenSpace) -> None:
    settings = IndexSettings()
    space = space_of(own_stock.model, settings)
    for number in range(1, 8):
        row = run_row(settings, space, "started", f"run-{number}")
        at = NOON + timedelta(hours=number)
        own_stock.archive.log_run({**row, "at": at, "report": None})
        if number != 6:  # which was killed
            report = json.dumps({"indexed": number, "failed": 0, "gone": 0, "clips": 9, "wall_s": 1.5})
            own_stock.archive.log_run({**row, "at": at + timedelta(minutes=1), "state": "finished", "report": report})
    runs = overview(own_stock.archive.folder).runs
    assert len(runs) == RUNS_SHOWN
    assert [(run.run_id, run.state, run.indexed) for run in runs] == [
        ("run-7", "finished", 7),
        ("run-6", "started", None),
        ("run-5", "finished", 5),
        ("run-4", "finished", 4),
        ("run-3", "finished", 3),
    ]
    assert runs[0].at == "2026-01-01T19:01:00+00:00"


def test_no_archive_is_an_error(tmp_path) -> None:
    with pytest.raises(ArchiveError, match="there is no archive at"):
        overview(tmp_path)


def test_partial_videos_count_as_seen(own_stock: OpenSpace) -> None:
    row = video_row("/videos/1.mp4", space=own_stock.space, minutes=1, clip_count=CLIPS - 1)
    own_stock.archive.commit_videos([replace(row, status="partial")])
    found = overview(own_stock.archive.folder)
    assert found.videos["partial"] == 1
    assert found.clips == VIDEOS * CLIPS - 1
