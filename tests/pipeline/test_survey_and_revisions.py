"""From an inventory to plans and failures, and from what came of them to rows of the videos table."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import plan, revisions, sources
from pipeline.archive import Archive
from pipeline.progress import Progress
from pipeline.settings import IndexSettings, Sampling, Space
from pipeline.survey import WORKER_DIED, Job, Survey, died, survey, take_stock
from schemas.records import Failed, UnitOutcome
from tests.media import make_video
from tests.models import TINY
from tests.pipeline.factories import PROFILE, add_video, embedded, file_at, unit_of, video, video_row
from tests.pipeline.factories import commit as commit_units

SPACE_OF_JOB = Space(weights_hash="w", model=TINY, sampling=Sampling(window_s=1, stride_s=1, frames=5))


def job_for(folder: Path, known=(), watch=lambda _: None) -> Job:
    settings = IndexSettings(engine="local", window_s=1)
    return Job(Archive(folder), settings, SPACE_OF_JOB, "run-2", {row.uri: row for row in known}, watch)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_for(tmp_path / "archive")


# --- survey


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    folder = tmp_path / "footage"
    folder.mkdir()
    make_video(folder / "b.mp4", frames=50)
    make_video(folder / "a.mkv", frames=25)
    (folder / "broken.mp4").write_text("not a video")
    return folder


def stock_of(folder: Path, job: Job):
    inventory = sources.take_inventory(folder)
    return take_stock(job.archive, job.space.id, inventory, inventory.folders, job.policy)


def take(folder: Path, job: Job, scratch: Path) -> Survey:
    return survey(job, stock_of(folder, job), scratch)


def test_new_videos_are_planned_in_the_order_of_the_inventory(footage: Path, job: Job, tmp_path: Path) -> None:
    found = take(footage, job, tmp_path)
    assert [Path(item.video.source.file.uri).name for item in found.plans] == ["a.mkv", "b.mp4"]
    assert [len(unit.windows) for item in found.plans for unit in item.units] == [1, 2]
    assert found.footage_s == pytest.approx(3.0)
    assert (found.unchanged, found.links.same, found.gone) == (0, (), ())
    (failure,) = found.failures
    assert (failure.kind, failure.stage, failure.permanent) == ("not_a_video", "inspect", True)
    assert plan.source_of(failure).fingerprint, "the content decided it, so the content is named"


def test_every_file_is_watched(footage: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    take(footage, job_for(tmp_path / "archive", watch=seen.append), tmp_path)
    assert [(progress.phase, progress.done, progress.total) for progress in seen] == [
        ("inspect", n, 3) for n in (1, 2, 3)
    ]


def test_a_touched_file_is_read_and_found_to_be_the_same(footage: Path, job: Job, tmp_path: Path) -> None:
    first = take(footage, job, tmp_path)
    known = [
        replace(
            video_row(item.video.source.file.uri, space=job.space.id),
            fingerprint=item.video.source.fingerprint,
            size_bytes=item.video.source.file.size_bytes,
            mtime_s=item.video.source.file.mtime_s,
        )
        for item in first.plans
    ]
    Archive.create(job.archive.folder).commit_videos(known)
    os.utime(footage / "a.mkv", (7, 7))
    second = take(footage, job, tmp_path)
    assert second.plans == ()
    assert [(Path(row.uri).name, file.mtime_s) for row, file in second.links.same] == [("a.mkv", 7.0)]
    assert second.unchanged == 2


def test_committed_units_of_an_interrupted_run_are_found_and_not_planned_again(footage: Path, tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive")
    job = job_for(tmp_path / "archive")
    first = take(footage, job, tmp_path)
    unit = first.plans[1].units[0]
    commit_units(archive, [embedded(unit)])
    second = take(footage, job, tmp_path)
    assert [len(item.todo) for item in second.plans] == [1, 0]
    assert second.plans[1].done[0].unit_id == unit.unit_id


def test_problems_of_the_inventory_are_failures_of_the_survey(footage: Path, job: Job, tmp_path: Path) -> None:
    (footage / "dangling.mp4").symlink_to(footage / "nowhere")
    found = take(footage, job, tmp_path)
    assert {failure.stage for failure in found.failures} == {"scan", "inspect"}


def test_a_file_that_vanishes_before_it_is_read_is_a_passing_failure(footage: Path, job: Job, tmp_path: Path) -> None:
    stock = stock_of(footage, job)
    (footage / "a.mkv").unlink()
    found = survey(job, stock, tmp_path)
    failure = next(failure for failure in found.failures if failure.stage == "fingerprint")
    assert (failure.kind, failure.permanent) == ("unreadable", False)


def test_who_died_says_what_was_waited_for() -> None:
    failure = died(file_at("/videos/a.mp4"), "decode", 61.2)
    assert (failure.kind, failure.permanent) == (WORKER_DIED, False)
    assert failure.error == "its worker was lost twice, within its deadline of 61 s or not"


# --- rows


def planned(clips: int = 4, known=None) -> plan.VideoPlan:
    return plan.plan_video(video(file_at("/videos/a.mp4"), clips), known, {}, 0, SPACE_OF_JOB.id)


def outcome(clips: int, intact: int) -> UnitOutcome:
    return UnitOutcome("u", "v", clips, intact)


def failed(*, permanent: bool) -> Failed:
    return Failed(planned().units[0], "undecodable", "no frame", "decode", permanent=permanent)


def test_a_video_that_is_whole_is_ok(job: Job) -> None:
    row = revisions.indexed(job, planned(), [outcome(4, 16)], [])
    assert (row.status, row.clip_count, row.decoded_fraction) == ("ok", 4, 1.0)
    assert (row.error_kind, row.error, row.stage, row.permanent) == (None, None, None, False)
    assert (row.run_id, row.space, row.duration_s, row.codec) == (
        "run-2",
        SPACE_OF_JOB.id,
        PROFILE.duration_s,
        PROFILE.codec,
    )


@pytest.mark.parametrize(
    ("outcomes", "failures", "status", "kind", "permanent", "fraction"),
    [
        pytest.param([(4, 12)], [], "partial", "damaged", True, 0.75, id="damaged content is damaged for good"),
        pytest.param([(3, 12)], [], "partial", "damaged", True, 0.75, id="a clip is missing"),
        pytest.param([(2, 8)], [False], "partial", "undecodable", False, 0.5, id="a unit was lost by bad luck"),
        pytest.param([(2, 8)], [True], "partial", "undecodable", True, 0.5, id="a unit is bad for good"),
        pytest.param([(2, 8)], [True, False], "partial", "undecodable", False, 0.5, id="one of either: try again"),
        pytest.param([], [True], "failed", "undecodable", True, 0.0, id="nothing came out"),
        pytest.param([], [False], "failed", "undecodable", False, 0.0, id="nothing came out, by bad luck"),
    ],
)
def test_a_video_that_is_not_whole_says_what_is_missing(
    outcomes, failures, status, kind, permanent, fraction, job: Job
) -> None:
    row = revisions.indexed(
        job, planned(), [outcome(*given) for given in outcomes], [failed(permanent=each) for each in failures]
    )
    assert (row.status, row.error_kind, row.permanent, row.decoded_fraction) == (status, kind, permanent, fraction)
    assert row.stage == "decode"
    assert row.error


def test_one_sample_of_thousands_is_no_damage(job: Job) -> None:
    item = planned(clips=300)
    assert revisions.indexed(job, item, [outcome(300, 1199)], []).status == "ok"
    assert revisions.indexed(job, item, [outcome(300, 1190)], []).status == "partial"


def test_damage_is_told_in_percent(job: Job) -> None:
    row = revisions.indexed(job, planned(), [outcome(4, 12)], [])
    assert row.error == "25% of the wanted frames are missing or damaged"


def test_a_failed_file_gets_a_row_with_its_reason(job: Job) -> None:
    source = file_at("/videos/a.mp4")
    row = revisions.unreadable(job, Failed(source, "not_a_video", "this is text", "inspect", permanent=True))
    assert row is not None
    assert (row.status, row.error_kind, row.error, row.stage) == ("failed", "not_a_video", "this is text", "inspect")
    assert (row.revision, row.attempts, row.permanent, row.clip_count) == (1, 1, True, 0)


@pytest.mark.parametrize("status", ["ok", "partial"])
def test_a_failure_that_may_pass_hides_nothing_that_is_there(status: str, tmp_path: Path) -> None:
    job = job_for(tmp_path, [video_row(status=status)])
    lost_disk = Failed(file_at("/videos/a.mp4"), "unreadable", "I/O error", "fingerprint", permanent=False)
    assert revisions.unreadable(job, lost_disk) is None
    broken = replace(lost_disk, kind="not_a_video", permanent=True)
    row = revisions.unreadable(job, broken)
    assert row is not None
    assert (row.status, row.revision) == ("failed", 2)


@pytest.mark.parametrize(("fingerprint", "attempts"), [("f1", 3), ("f2", 1)])
def test_attempts_count_for_the_same_content_only(fingerprint: str, attempts: int, tmp_path: Path) -> None:
    job = job_for(tmp_path, [video_row(status="failed", attempts=2)])
    source = file_at("/videos/a.mp4", fingerprint=fingerprint)
    row = revisions.unreadable(job, Failed(source, WORKER_DIED, "died", "inspect", permanent=False))
    assert row is not None
    assert row.attempts == attempts


def test_a_file_that_kills_its_reader_is_left_alone_after_three_runs(tmp_path: Path) -> None:
    """It is never read to its end, so that its fingerprint is never known."""
    file = file_at("/videos/a.mp4").file
    known = []
    for run in range(1, 4):
        assert not any(plan.is_settled(row.status, row.permanent, row.attempts) for row in known), f"run {run} tries it"
        row = revisions.unreadable(job_for(tmp_path, known), died(file, "inspect", 60.0))
        assert row is not None
        known = [row]
    assert plan.is_settled(known[0].status, known[0].permanent, known[0].attempts)


def test_a_touched_row_differs_in_size_and_time_only() -> None:
    row = video_row()
    made = revisions.now_at(row, file_at(row.uri, size_bytes=7, mtime_s=8.0).file)
    assert replace(made, size_bytes=row.size_bytes, mtime_s=row.mtime_s, indexed_at=row.indexed_at) == row
    assert (made.size_bytes, made.mtime_s) == (7, 8.0)
    assert made.indexed_at > row.indexed_at


def test_a_gone_row_is_a_revision_with_no_clips(tmp_path: Path) -> None:
    row = video_row(status="partial", error_kind="damaged", error="half", stage="decode", revision=3)
    made = revisions.gone(job_for(tmp_path, [row]), row)
    assert (made.status, made.revision, made.clip_count, made.decoded_fraction) == ("gone", 4, 0, 0.0)
    assert (made.error_kind, made.error, made.stage, made.run_id) == (None, None, None, "run-2")
    assert (made.video_id, made.uri, made.fingerprint) == (row.video_id, row.uri, row.fingerprint)


def test_rows_made_by_hand_and_by_the_job_are_of_one_shape(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive")
    row = add_video(archive)
    assert unit_of(row).video_id == row.video_id
    assert archive.known_videos(row.space) == {row.uri: row}
