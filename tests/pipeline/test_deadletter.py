"""What is written down of a file that failed before; `tests/flow/test_dead_letter.py` has whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import deadletter
from pipeline.archive import Archive
from pipeline.settings import IndexSettings, Sampling, Space
from pipeline.survey import Job
from tests.models import TINY
from tests.pipeline.factories import letter


class NeverWalked(dict):
    """Letters of a large archive, all of which nobody may look at for one file."""

    def __iter__(self):
        pytest.fail("all letters were walked")

    items = values = keys = __iter__


@pytest.fixture
def job(tmp_path: Path) -> Job:
    letters = [letter("/a.mp4"), letter("/a.mp4", 0.0), letter("/a.mp4", 64.0, state="settled"), letter("/b.mp4", 0.0)]
    space = Space(weights_hash="w", model=TINY, sampling=Sampling(window_s=1, stride_s=1, frames=5))
    by_uri = NeverWalked(deadletter.by_uri(letters))
    return Job(Archive(tmp_path), IndexSettings(), space, "run-2", {}, lambda _: None, letters=by_uri)


def test_what_goes_settles_its_own_open_letters_and_looks_at_no_others(job: Job) -> None:
    ended = deadletter.settled(job, "/a.mp4")
    assert {(each.uri, each.start_s, each.state) for each in ended} == {
        ("/a.mp4", None, "settled"),
        ("/a.mp4", 0.0, "settled"),
    }
    assert {each.run_id for each in ended} == {"run-2"}
    assert deadletter.settled(job, "/c.mp4") == []


def test_of_letters_about_one_place_the_later_one_counts() -> None:
    old, new = letter("/a.mp4", attempts=1), letter("/a.mp4", attempts=2, minutes=1)
    assert deadletter.by_uri([old, new]) == {"/a.mp4": {None: new}}
