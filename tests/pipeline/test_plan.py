"""What is to be done, decided from what is there and what is known. No file is opened here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline import plan
from schemas.records import Failed, SourceFile, UnitOutcome
from tests.pipeline.factories import PROFILE, file_at, video, video_row

A = SourceFile("/videos/a.mp4", 100, 1.0)


def outcomes_of(made: plan.VideoPlan) -> dict[str, UnitOutcome]:
    return {unit.unit_id: UnitOutcome(unit.unit_id, unit.video_id, len(unit.windows), 8) for unit in made.units}


# --- what was read against archive


@pytest.mark.parametrize(
    ("known", "is_same"),
    [
        ({}, True),
        ({"fingerprint": "f2"}, False),
        ({"status": "gone"}, False),
        ({"status": "failed", "permanent": True}, True),
        ({"status": "failed", "permanent": False}, False),
        ({"status": "failed", "permanent": False, "attempts": 3}, True),
        ({"status": "partial", "permanent": True}, True),
    ],
)
def test_content_decides_whether_a_touched_file_is_indexed_again(known: dict, is_same) -> None:
    assert plan.is_same_content(file_at(A.uri, mtime_s=99.0), video_row(**known)) is is_same


def test_an_unknown_file_is_the_same_as_nothing() -> None:
    assert not plan.is_same_content(file_at(A.uri), None)


# --- units


def test_a_new_video_is_revision_one_and_all_of_it_is_to_do() -> None:
    made = plan.plan_video(video(file_at(A.uri)), None, {}, 0, "s")
    assert (made.revision, made.attempts, made.done) == (1, 1, ())
    assert made.todo == made.units
    assert made.units[0].windows == made.video.windows


@pytest.mark.parametrize(("clips", "expected"), [(1, [1]), (64, [64]), (65, [64, 1]), (200, [64, 64, 64, 8])])
def test_a_unit_has_at_most_64_clips_and_none_is_lost(clips: int, expected: list[int]) -> None:
    made = plan.plan_video(video(file_at(A.uri), clips), None, {}, 0, "s")
    assert [len(unit.windows) for unit in made.units] == expected
    assert tuple(window for unit in made.units for window in unit.windows) == made.video.windows
    assert len({unit.unit_id for unit in made.units}) == len(made.units)


def test_planning_twice_gives_the_same_ids() -> None:
    first, second = (plan.plan_video(video(file_at(A.uri), 100), None, {}, 0, "s") for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"space": "other"}, id="space"),
        pytest.param({"source": file_at(A.uri, fingerprint="f2")}, id="content"),
        pytest.param({"source": file_at("/videos/b.mp4")}, id="place"),
        pytest.param({"known": video_row(revision=4)}, id="revision"),
    ],
)
def test_unit_ids_differ_wherever_results_may(change: dict) -> None:
    def ids(space="s", source=None, known=None) -> set[str]:
        made = plan.plan_video(video(source or file_at(A.uri), 100), known, {}, 0, space)
        return {unit.unit_id for unit in made.units}

    assert not ids() & ids(**change)


def test_a_changed_video_keeps_its_id_and_gets_the_next_revision() -> None:
    known = video_row(revision=4, attempts=2)
    made = plan.plan_video(video(file_at(A.uri, fingerprint="f2")), known, {}, 0, "s")
    assert (made.video_id, made.revision, made.attempts) == (known.video_id, 5, 1)


def test_the_same_content_tried_again_counts_its_attempts() -> None:
    made = plan.plan_video(video(file_at(A.uri)), video_row(status="failed", attempts=2), {}, 0, "s")
    assert (made.revision, made.attempts) == (2, 3)


def test_clip_ids_differ_by_start_revision_space_and_video() -> None:
    (unit,) = plan.plan_video(video(file_at(A.uri)), None, {}, 0, "s").units
    base = plan.clip_id(unit, 0.0)
    others = [
        plan.clip_id(unit, 0.1),
        plan.clip_id(replace(unit, revision=2), 0.0),
        plan.clip_id(replace(unit, space="t"), 0.0),
        plan.clip_id(replace(unit, video_id="other"), 0.0),
    ]
    assert len({base, *others}) == 5
    assert plan.clip_id(replace(unit, unit_id="another", uri="/moved.mp4"), 0.0) == base
    assert len(base) == 16
    assert int(base, 16) >= 0


# --- taking over from an interrupted run


def test_units_that_are_committed_are_not_done_again() -> None:
    first = plan.plan_video(video(file_at(A.uri), 130), None, {}, 0, "s")
    pending = dict(list(outcomes_of(first).items())[:2])
    second = plan.plan_video(video(file_at(A.uri), 130), None, pending, 1, "s")
    assert second.units == first.units
    assert second.done == tuple(pending.values())
    assert [len(unit.windows) for unit in second.todo] == [2]


def test_a_changed_video_that_was_interrupted_is_taken_over_too() -> None:
    known, source = video_row(revision=3), file_at(A.uri, fingerprint="f2")
    first = plan.plan_video(video(source), known, {}, 0, "s")
    second = plan.plan_video(video(source), known, outcomes_of(first), 4, "s")
    assert (second.revision, second.todo) == (4, ())


@pytest.mark.parametrize("known", [None, video_row(revision=3)])
def test_content_that_changed_between_crash_and_resume_uses_a_revision_of_its_own(known) -> None:
    first = plan.plan_video(video(file_at(A.uri, fingerprint="f2")), known, {}, 0, "s")
    changed = video(file_at(A.uri, fingerprint="f3"))
    second = plan.plan_video(changed, known, outcomes_of(first), first.revision, "s")
    assert second.done == ()
    assert second.revision == first.revision + 1
    assert not {unit.unit_id for unit in second.units} & {unit.unit_id for unit in first.units}


def test_after_two_crashes_the_newest_content_that_matches_is_taken_over() -> None:
    first = plan.plan_video(video(file_at(A.uri, fingerprint="f2")), None, {}, 0, "s")
    changed = video(file_at(A.uri, fingerprint="f3"))
    second = plan.plan_video(changed, None, outcomes_of(first), 1, "s")
    third = plan.plan_video(changed, None, outcomes_of(first) | outcomes_of(second), second.revision, "s")
    assert (third.revision, third.todo) == (second.revision, ())


def test_pending_units_of_other_videos_change_nothing() -> None:
    other = plan.plan_video(video(file_at("/videos/b.mp4")), None, {}, 0, "s")
    made = plan.plan_video(video(file_at(A.uri)), None, outcomes_of(other), 0, "s")
    assert (made.revision, made.done) == (1, ())


def test_pending_units_older_than_the_current_row_are_left_hidden() -> None:
    """A row of revision 5 stands; clips of revision 3 whose row was lost lie around."""
    stale = plan.plan_video(video(file_at(A.uri)), video_row(revision=2), {}, 0, "s")
    made = plan.plan_video(video(file_at(A.uri)), video_row(revision=5), outcomes_of(stale), 3, "s")
    assert (made.revision, made.done) == (6, ())


# --- deadlines and failures


def test_deadlines_grow_with_packets_and_pixels() -> None:
    def deadline_s(**change) -> float:
        profile = replace(PROFILE, **change)
        (unit,) = plan.plan_video(replace(video(file_at(A.uri)), profile=profile), None, {}, 0, "s").units
        return unit.deadline_s

    assert (
        plan.DEADLINE_BASE_S < deadline_s() < deadline_s(packet_count=5000) < deadline_s(packet_count=5000, width=3840)
    )
    assert plan.inspect_deadline_s(A) < plan.inspect_deadline_s(replace(A, size_bytes=10**10))


def test_a_units_deadline_is_bounded_by_its_own_length() -> None:
    """Ten hours at 25 Hz in 1080p: a hang in a unit must not be waited for as long as the whole file may take."""
    profile = replace(PROFILE, width=1920, height=1080, packet_count=900_000)
    long = replace(video(file_at(A.uri), 3600), profile=profile)
    short = replace(video(file_at(A.uri), 64), profile=replace(profile, packet_count=16_000))
    *deadlines_s, last_s = (unit.deadline_s for unit in plan.plan_video(long, None, {}, 0, "s").units)
    (alone,) = plan.plan_video(short, None, {}, 0, "s").units
    assert deadlines_s[0] == pytest.approx(alone.deadline_s)
    assert deadlines_s[0] < 640 * 10, "ten times the footage in it"
    assert deadlines_s == sorted(deadlines_s), "where seeking fails, a late unit has the way to it besides"
    assert max(*deadlines_s, last_s) < 36_000, "less than the file lasts"


def test_a_failure_knows_its_file_whatever_stage_it_came_from() -> None:
    read = file_at(A.uri)
    for record, expected in [(A, file_at(A.uri, fingerprint="")), (read, read), (video(read), read)]:
        assert plan.source_of(Failed(record, "unreadable", "", "", permanent=False)) == expected
