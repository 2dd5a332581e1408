"""Two engines, one result: bad files become data, bugs stop the run, and a dead worker takes one record along."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import engine, sources
from pipeline.engine import MAX_BUGS, Stage, attempt, run
from schemas.errors import EngineError, NotAVideo
from schemas.records import Failed
from tests.pipeline.stages import Counted, Counter, Result, Task, fan_out, first, last, two_seconds

STAGES = [Stage(name="first", work=first), Stage(name="last", work=last)]
HOSTILE = Stage(name="first", work=first, hostile=True)


def local(stages: list[Stage], records: list, scratch: Path) -> list:
    return list(run(stages, records, engine="local", scratch=scratch))


def on_ray(stages: list[Stage], records: list, scratch: Path) -> list:
    return list(run(stages, records, engine="ray", scratch=scratch))


def numbers(results: list) -> list[int]:
    return sorted(result.number for result in results if isinstance(result, Result))


# --- one call of a stage


def test_a_bad_file_becomes_a_failure_that_says_all_there_is_to_say() -> None:
    task = Task(1, "bad_file")
    assert attempt(STAGES[0], [task]) == [Failed(task, "not_a_video", "this is text", "first", permanent=True)]


def test_a_failure_that_may_pass_is_marked_so() -> None:
    (failure,) = attempt(STAGES[0], [Task(1, "lost_disk")])
    assert (failure.kind, failure.permanent) == ("unreadable", False)


def test_failures_of_earlier_stages_pass_through_untouched() -> None:
    failure = Failed(Task(7), "undecodable", "no frame", "decode", permanent=True)
    results = attempt(STAGES[1], [failure, Task(1)])
    assert failure in results
    assert numbers(results) == [1]
    assert attempt(Stage(name="never called", work=None), [failure]) == [failure]


def test_a_stage_wakes_up_before_each_call_and_not_for_failures_that_pass_through() -> None:
    woken = []
    stage = Stage(name="first", work=first, wake=lambda: woken.append(1))
    attempt(stage, [Failed(Task(7), "undecodable", "no frame", "decode", permanent=True)])
    assert woken == []
    attempt(stage, [Task(1)])
    assert woken == [1]


def test_a_bug_is_never_a_failure() -> None:
    with pytest.raises(TypeError, match="a bug in the stage"):
        attempt(STAGES[0], [Task(1, "bug")])


def test_a_bug_that_a_strangers_file_provokes_costs_the_file_and_is_called_a_bug() -> None:
    task = Task(1, "bug")
    (failure,) = attempt(HOSTILE, [task])
    assert (failure.record, failure.kind, failure.stage, failure.permanent) == (task, "bug", "first", False)
    assert failure.error.startswith("TypeError: a bug in the stage")


def test_a_bug_is_told_with_the_line_of_ours_that_it_came_from(tmp_path: Path) -> None:
    failed = attempt(Stage(name="fingerprint", work=sources.fingerprint_files, hostile=True), [None])
    assert re.fullmatch(r"AttributeError: .* \(sources\.py, line \d+ in \w+\)", failed[0].error)


def test_a_full_disk_is_no_bug_even_where_files_are_strange() -> None:
    with pytest.raises(OSError, match="No space left"):
        attempt(HOSTILE, [Task(1, "full_disk")])


def test_a_stage_that_fails_by_bugs_alone_stops_the_run(tmp_path: Path) -> None:
    tasks = [Task(n, "bug") for n in range(MAX_BUGS)]
    with pytest.raises(EngineError, match="a bug, and no bad file: 5 of 5 records failed so; TypeError: a bug in the"):
        local([HOSTILE], tasks, tmp_path)
    tasks = [Task(n, "bug" if n % 2 else "work") for n in range(4 * MAX_BUGS)]
    assert sum(isinstance(result, Failed) for result in local([HOSTILE], tasks, tmp_path)) == 2 * MAX_BUGS


def test_a_bad_file_in_a_batch_of_several_is_a_bug_since_nobody_knows_which() -> None:
    with pytest.raises(EngineError, match=r"stage first raised .* for a batch; only one record may fail") as caught:
        attempt(STAGES[0], [Task(1), Task(2, "bad_file")])
    assert isinstance(caught.value.__cause__, NotAVideo)


# --- the plain loop


def test_the_loop_runs_every_record_through_every_stage(tmp_path: Path) -> None:
    results = local(STAGES, [Task(number) for number in range(5)], tmp_path)
    assert results == [Result(number, os.getpid()) for number in range(5)]


def test_the_loop_is_lazy(tmp_path: Path) -> None:
    taken = []

    def endless() -> Iterator[Task]:
        for number in range(10**9):
            taken.append(number)
            yield Task(number)

    results = run(STAGES, endless(), engine="local", scratch=tmp_path)
    assert [next(results).number for _ in range(3)] == [0, 1, 2]
    assert len(taken) == 3


def test_a_stage_may_make_more_or_fewer_records(tmp_path: Path) -> None:
    results = local([Stage(name="fan", work=fan_out), STAGES[1]], [Task(0), Task(3), Task(1)], tmp_path)
    assert numbers(results) == [1, 3, 3, 3]


@pytest.mark.parametrize(("size", "batches"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_batches_are_full_but_for_the_last(size: int, batches: list[int], tmp_path: Path) -> None:
    counter = Counter()
    local([Stage(name="count", work=counter, batch_size=size)], [Task(number) for number in range(5)], tmp_path)
    assert counter.seen == batches


def test_a_bad_file_in_the_loop_leaves_the_others_alone(tmp_path: Path) -> None:
    results = local(STAGES, [Task(0), Task(1, "bad_file"), Task(2, "lost_disk"), Task(3)], tmp_path)
    assert numbers(results) == [0, 3]
    assert [(f.record.number, f.kind, f.stage) for f in results if isinstance(f, Failed)] == [
        (1, "not_a_video", "first"),
        (2, "unreadable", "first"),
    ]


def test_a_cap_on_memory_holds_in_the_loop_too(tmp_path: Path) -> None:
    stage = Stage(name="first", work=first, memory_bytes=512 << 20)
    results = local([stage, STAGES[1]], [Task(0, "glutton"), Task(1)], tmp_path)
    assert numbers(results) == [1]
    assert [(f.kind, f.permanent) for f in results if isinstance(f, Failed)] == [("memory", False)]
    assert local(STAGES, [Task(0, "glutton")], tmp_path) == [Result(0, os.getpid())], "no cap, and none left behind"


def test_a_bug_in_the_loop_stops_the_run_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a bug in the stage"):
        local(STAGES, [Task(0), Task(1, "bug"), Task(2)], tmp_path)


def test_nothing_makes_nothing(tmp_path: Path) -> None:
    assert local(STAGES, [], tmp_path) == []


def test_the_engines_are_two() -> None:
    assert sorted(engine.ENGINES) == ["local", "ray"]


# --- Ray


@pytest.fixture(scope="module")
def both_ways(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[list, list]:
    """The same records through the same stages: what the loop gives, and what Ray gives."""
    deeds = {3: "bad_file", 5: "lost_disk"}
    records = [Task(number, deeds.get(number, "work")) for number in range(6)]

    def stages() -> list[Stage]:
        return [
            Stage(name="first", work=fan_out),
            Stage(name="count", work=Counter(), batch_size=3, resident=True, num_cpus=0.5),
        ]

    scratch = tmp_path_factory.mktemp("scratch")
    return local(stages(), records, scratch), on_ray(stages(), records, scratch)


@pytest.mark.ray
def test_ray_and_the_loop_give_the_same_results(both_ways: tuple[list, list]) -> None:
    by_loop, by_ray = (sorted(r.number for r in results if isinstance(r, Counted)) for results in both_ways)
    assert by_ray == by_loop == [1, 2, 2, 4, 4, 4, 4]


@pytest.mark.ray
def test_ray_and_the_loop_give_the_same_failures(both_ways: tuple[list, list]) -> None:
    by_loop, by_ray = (sorted(map(str, (r for r in results if isinstance(r, Failed)))) for results in both_ways)
    assert by_ray == by_loop
    assert len(by_ray) == 2


@pytest.mark.ray
def test_a_resident_stage_is_one_worker_that_keeps_its_state_and_fills_its_batches(both_ways) -> None:
    counted = [result for result in both_ways[1] if isinstance(result, Counted)]
    (worker,) = {result.worker for result in counted}
    assert worker != os.getpid()
    batches = {result.batches_before: result.batch_size for result in counted}
    assert sorted(batches) == list(range(len(batches))), "each batch was counted by the one before it"
    assert sum(batches.values()) == 7


MEMORY_BYTES = 512 << 20
DISASTERS = {1: "segfault", 3: "hang", 4: "bad_file", 6: "killed", 7: "glutton"}


@pytest.fixture(scope="module")
def disaster(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[list, dict[str, int], Path]:
    """What comes out when records kill their workers in every way; how often each was tried; and the scratch folder."""
    notes, scratch = tmp_path_factory.mktemp("notes"), tmp_path_factory.mktemp("scratch")
    tasks = [Task(number, DISASTERS.get(number, "work"), str(notes)) for number in range(8)]
    stages = [Stage(name="first", work=first, deadline_s=two_seconds, memory_bytes=MEMORY_BYTES)]
    results = on_ray(stages, tasks, scratch)
    return results, {file.name: len(file.read_text().splitlines()) for file in notes.iterdir()}, scratch


@pytest.mark.ray
def test_what_kills_a_worker_costs_its_own_record_only(disaster) -> None:
    results, _, scratch = disaster
    assert sorted(result.number for result in results if isinstance(result, Task)) == [0, 2, 5]
    assert sorted(f.record.number for f in results if isinstance(f, Failed)) == sorted(DISASTERS)
    assert list(scratch.glob("death-*")) == []


@pytest.mark.ray
def test_each_way_to_die_has_a_word_of_its_own(disaster) -> None:
    results, _, _ = disaster
    failed = {f.record.deed: f for f in results if isinstance(f, Failed)}
    assert {deed: (f.kind, f.stage, f.permanent) for deed, f in failed.items()} == {
        "segfault": ("crash", "first", False),
        "hang": ("timeout", "first", False),
        "bad_file": ("not_a_video", "first", True),
        "killed": ("killed", "first", False),
        "glutton": ("memory", "first", False),
    }
    assert failed["hang"].error.startswith("over its deadline of 2 s, and stopped (engine.py, line ")
    assert failed["segfault"].error.startswith("the worker crashed: Segmentation fault")
    assert failed["glutton"].error == "needs more than 0.5 GiB of memory"


@pytest.mark.ray
def test_what_kills_its_worker_is_tried_twice_at_most_and_what_hangs_once(disaster) -> None:
    _, tried, _ = disaster
    assert 1 <= tried["1-segfault"] <= 2
    assert 1 <= tried["6-killed"] <= 2
    assert tried["3-hang"] == 1, "a deadline is long, and waiting for it again is of no use"
    assert tried["4-bad_file"] == tried["7-glutton"] == 1, "an answer, not a crash"


@pytest.mark.ray
def test_a_bug_in_a_hostile_stage_on_ray_costs_one_record(ray_cluster: None, tmp_path: Path) -> None:
    results = on_ray([HOSTILE, STAGES[1]], [Task(0), Task(1, "bug"), Task(2)], tmp_path)
    assert numbers(results) == [0, 2]
    assert [(failed.kind, failed.record.number) for failed in results if isinstance(failed, Failed)] == [("bug", 1)]


@pytest.mark.ray
def test_a_bug_on_ray_stops_the_run_with_the_stages_own_words(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no bad file explains: TypeError: a bug in the stage"):
        on_ray(STAGES[:1], [Task(0), Task(1, "bug")], tmp_path)
