"""An index in several processes answers to the bit as it does in one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import engine, index_plan, indexes, shards, vector_kinds
from pipeline.archive import Archive
from pipeline.shards import ShardedIndex
from schemas.errors import EngineError, InputError
from tests.pipeline.factories import SPACE, WIDTH, add_video, commit, embedded, unit_of, unit_vectors, video_row


@given(sizes=st.lists(st.integers(0, 100), max_size=12), count=st.integers(1, 5))
def test_segments_are_dealt_out_each_to_one_and_evenly(sizes: list[int], count: int) -> None:
    named = [(f"{number:02}", size) for number, size in enumerate(sizes)]
    hands = shards.dealt(named, count)
    assert sorted(name for hand in hands for name in hand) == [name for name, _ in named]
    assert all(hands)
    held = [sum(dict(named)[name] for name in hand) for hand in hands]
    assert max(held, default=0) - min(held, default=0) <= max(sizes, default=0)


def test_no_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 shards hold nothing; expected at least 1"):
        shards.opened(Archive.create(tmp_path), SPACE, WIDTH, shards=0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Four segments in lists, one of which hides clips, and one that is compared one by one."""
    made = Archive.create(tmp_path_factory.mktemp("sharded") / "archive")
    rows = []
    for number in range(8):
        rows.append(video_row(f"/videos/{number}.mp4", clip_count=500))
        commit(made, [embedded(unit_of(rows[-1], 500), unit_vectors(500, seed=number))], rows[-1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_kinds, "FLAT_CLIPS", 500)
        patch.setattr(index_plan, "FLAT_CLIPS", 500)
        patch.setattr(vector_kinds, "SAMPLE_PER_LIST", 8)
        patch.setattr(index_plan, "SEGMENT_PART", 1000 * (2 * WIDTH + 16) / (8 * index_plan.GB))
        indexes.build(made, SPACE, WIDTH, rules=index_plan.Rules(recall=0))
        made.commit_videos([replace(rows[0], status="gone", revision=2)])
        add_video(made, "/videos/new.mp4", clips=30)
        indexes.open_current(made, SPACE, WIDTH)
    return made


@pytest.fixture(scope="module")
def sharded(archive: Archive) -> Iterator[ShardedIndex]:
    opened = shards.opened(archive, SPACE, WIDTH, shards=3)
    yield opened
    opened.close()


def passes(clips_N: np.ndarray, _: np.ndarray) -> np.ndarray:
    return clips_N % np.uint64(7) == 0


@pytest.mark.ray
def test_answers_are_those_of_one_process_to_the_bit(archive: Archive, sharded: ShardedIndex) -> None:
    whole = indexes.open_current(archive, SPACE, WIDTH)
    assert len(whole.segments) >= 4
    assert len(sharded.actors) == 3
    assert (sharded.count, sharded.is_exact) == (whole.count, whole.is_exact)
    assert sharded.videos_version == whole.videos_version
    for query_E in unit_vectors(10, seed=42):
        for most in (1, 10, 200):
            assert sharded.search(query_E, most) == whole.search(query_E, most)
            assert sharded.search(query_E, most, passes) == whole.search(query_E, most, passes)


@pytest.mark.ray
def test_vectors_as_they_are_stored_are_read_as_for_one_process(archive: Archive, sharded: ShardedIndex) -> None:
    reader = archive.clip_reader(SPACE, sharded.places)
    whole = indexes.open_current(archive, SPACE, WIDTH)
    query_E = unit_vectors(1, seed=3)[0]
    assert indexes.nearest(sharded, reader, query_E, 10) == indexes.nearest(whole, reader, query_E, 10)


def ask_for_10_s(opened: ShardedIndex) -> None:
    """A killed process dies in its own time."""
    for _ in range(100):
        opened.search(unit_vectors(1, seed=3)[0], 10)
        time.sleep(0.1)


@pytest.mark.ray
def test_a_process_that_died_is_told_of_and_never_passed_over(archive: Archive) -> None:
    opened = shards.opened(archive, SPACE, WIDTH, shards=2)
    query_E = unit_vectors(1, seed=3)[0]
    assert len(opened.search(query_E, 10)) == 10
    ray = engine.start_ray()
    ray.kill(opened.actors[0])
    with pytest.raises(EngineError, match="open the index again"):
        ask_for_10_s(opened)
    opened.close()
