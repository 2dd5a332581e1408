"""Searching while an archive is indexed, and after the run was killed: always an answer, and never half a video."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.search import search
from pipeline.serving import OpenSpace, open_space
from tests.chaos import piles, runs
from tests.chaos.conftest import Stage
from tests.chaos.runs import Run

EVERYTHING = 10 * piles.CLIPS


@dataclass
class Searcher:
    """Asks an archive again and again for all it has, and keeps what nobody should ever be told."""

    stage: Stage
    opened: OpenSpace
    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    searched: set[int] = field(default_factory=set)  # how many clips the indexes held

    def ask(self) -> dict[str, int]:
        """One question; how many clips of each video are in the answer."""
        answer = search(self.opened, "something moves", top=EVERYTHING, rerank=False)
        self.answers += 1
        self.searched.add(answer.searched)
        starts: defaultdict[str, list[float]] = defaultdict(list)
        for hit in answer.hits:
            starts[hit.video_id].append(hit.start_s)
        found = {video_id: len(times) for video_id, times in starts.items()}
        self._judge(found)
        self.wrong += [f"{video_id} twice" for video_id, times in starts.items() if len(set(times)) < len(times)]
        return found

    def _judge(self, found: dict[str, int]) -> None:
        """Each video whole, as it was or as it will be; one that stays is always there."""
        before, after = _by_video(self.stage.before), _by_video(self.stage.after)
        for video_id, count in found.items():
            if count not in (before.get(video_id), after.get(video_id)):
                self.wrong.append(f"{video_id} with {count} clips")
        self.wrong += [f"{video_id} not at all" for video_id in (before.keys() & after.keys()) - found.keys()]


def _by_video(shown: runs.Shown) -> dict[str, int]:
    """Clips by video: one revision of each is shown."""
    return {video_id: count for (video_id, _), count in shown.items()}


@pytest.fixture
def run(stage: Stage, tmp_path: Path) -> Run:
    """A run on an archive of its own."""
    return stage.copy(tmp_path / "archive")


@pytest.fixture
def searcher(stage: Stage, run: Run) -> Searcher:
    """Who searches the archive of that run."""
    return Searcher(stage, open_space(run.archive))


def search_until_done(stage: Stage, run: Run, searcher: Searcher) -> None:
    """Searches beside a run from its beginning to its end, which is what was to be done."""
    process = runs.start(run)
    while process.is_alive():
        searcher.ask()
    assert process.exitcode == 0
    assert searcher.ask() == _by_video(stage.after)
    assert searcher.wrong == []


def test_searching_beside_a_run_always_answers_and_shows_whole_videos(
    stage: Stage, run: Run, searcher: Searcher
) -> None:
    assert searcher.ask() == _by_video(stage.before)
    search_until_done(stage, run, searcher)
    assert len(searcher.searched) > 2, "the index was made anew while the run worked"


def test_searching_a_killed_run_and_the_one_that_completes_it(stage: Stage, run: Run, searcher: Searcher) -> None:
    process = runs.start(run)
    runs.wait_for_parts(run, 4, process.is_alive)
    process.kill()
    process.join(30)
    assert searcher.ask() == searcher.ask(), "nobody is at work"
    search_until_done(stage, run, searcher)
