"""Heads of vectors: bytes whose products are those of vectors, and whole codes compared of the best."""

from __future__ import annotations

import mmap
from pathlib import Path

import faiss
import numpy as np
import pytest

from pipeline import heads, vectors
from pipeline.heads import Stages
from pipeline.vector_kinds import Kind
from pipeline.vectors import Segment
from tests.pipeline.clustered import CLIPS, COUNT, QUERIES, REVISIONS, STORED, WIDTH, segment

ALL_LISTS = 32
RESIDENT = Path("/proc/self/statm")


@pytest.fixture(scope="module")
def whole() -> Segment:
    return segment(Kind("pca", ALL_LISTS))


@pytest.fixture(scope="module")
def stages(whole: Segment) -> Stages:
    return Stages.of(whole.index)


def asked(stages: Stages, query_E: np.ndarray) -> tuple[np.ndarray, heads.Centres]:
    """A query's head and its products with all centres."""
    query_1H = stages.head(query_E[None])
    return stages.bytes_of(query_1H), stages.heads.quantizer.search(query_1H, ALL_LISTS)


def test_numbers_of_heads_add_up_to_the_same_and_leave_room(stages: Stages) -> None:
    made_NH = stages.turn.apply(STORED)
    assert made_NH.sum(axis=1) == pytest.approx(heads.MIDDLE * stages.heads.d, rel=1e-4)
    assert 0 < made_NH.min() < made_NH.max() < 255
    # The sample, which is all of them here, uses nearly as much of a byte as it may.
    assert np.abs(made_NH - heads.MIDDLE).max() == pytest.approx(heads.MIDDLE / heads.HEADROOM, rel=0.1)


def test_products_of_bytes_are_those_of_what_is_left_of_vectors(stages: Stages) -> None:
    turn_HE = faiss.vector_to_array(stages.turn.A).reshape(stages.heads.d, WIDTH) / stages.scale
    for query_E in QUERIES[:5]:
        products_N, places_N = stages.better_than(-np.inf, *asked(stages, query_E), {})
        assert sorted(places_N.tolist()) == list(range(COUNT))
        expected_N = (STORED[places_N] @ turn_HE.T) @ (turn_HE @ query_E)
        given_1H, made_1H = stages.head(query_E[None]) - heads.MIDDLE, asked(stages, query_E)[0] - heads.MIDDLE
        longer = np.linalg.norm(made_1H) / np.linalg.norm(given_1H)
        found_N = products_N / (stages.scale**2 * longer)
        found_N -= np.mean(found_N - expected_N)  # what MIDDLE adds, alike for all
        assert np.abs(found_N - expected_N).max() < 0.01


def test_the_best_are_those_that_are_better_than_the_rest(stages: Stages) -> None:
    given = asked(stages, QUERIES[0])
    products_N, places_N = stages.better_than(-np.inf, *given, {})
    bound = float(np.sort(products_N)[-101])
    assert set(stages.best(100, *given, {}).tolist()) <= set(places_N[products_N >= bound].tolist())
    _, better_N = stages.better_than(bound, *given, {})
    assert set(better_N.tolist()) == set(places_N[products_N > bound].tolist())


def test_a_query_that_is_one_direction_of_heads_is_not_wrapped_round(whole: Segment, stages: Stages) -> None:
    turn_HE = faiss.vector_to_array(stages.turn.A).reshape(stages.heads.d, WIDTH)
    along_E = turn_HE[0] / np.linalg.norm(turn_HE[0])
    assert stages.head(along_E[None]).max() > 255
    assert stages.bytes_of(stages.head(along_E[None])).max() == 255
    _, numbers, _ = whole.with_probes(ALL_LISTS).search(along_E[None], 10)
    nearest = whole.clips_N[np.argsort(-(STORED @ along_E))[:10]]
    assert len(set(numbers[0].tolist()) & set(nearest.tolist())) >= 8


def test_what_bytes_cut_off_is_made_up_for(stages: Stages) -> None:
    lists = stages.heads.invlists
    for number in range(ALL_LISTS):
        codes = faiss.rev_swig_ptr(lists.get_codes(number), lists.list_size(number) * stages.heads.d)
        sums = codes.reshape(-1, stages.heads.d).sum(axis=1, dtype=int)
        assert (sums == (heads.MIDDLE - 0.5) * stages.heads.d).all()


def test_whole_codes_are_compared_as_faiss_decodes_them(stages: Stages) -> None:
    places_N = np.random.default_rng(0).permutation(COUNT)[: COUNT // 2]
    expected_N = stages.whole.reconstruct_batch(places_N) @ QUERIES[0]
    products_1M, places_1M = stages.by_whole(50, QUERIES[:1], places_N)
    assert set(places_1M[0].tolist()) == set(places_N[np.argsort(-expected_N)[:50]].tolist())
    expected = dict(zip(places_N.tolist(), expected_N.tolist(), strict=True))
    assert products_1M[0].tolist() == pytest.approx([expected[place] for place in places_1M[0].tolist()], abs=1e-5)
    assert (np.diff(products_1M[0]) <= 0).all()


def test_of_fewer_whole_codes_than_are_asked_for_all_are_found(stages: Stages) -> None:
    products_1M, places_1M = stages.by_whole(5, QUERIES[:1], np.array([7, 3]))
    assert sorted(places_1M[0, :2].tolist()) == [3, 7]
    assert places_1M[0, 2:].tolist() == [-1] * 3
    assert (products_1M[0, 2:] == -np.inf).all()


def test_of_equal_whole_codes_those_that_were_added_first_are_found() -> None:
    near = np.argsort(STORED @ STORED[0])[-2]
    kind, stored = Kind("pca", 2), STORED[np.repeat([near, 0], 20)]  # better ones make the heap let go of some
    lots = [(CLIPS[:40], REVISIONS[:40], stored)]
    alike = vectors.filled("alike", kind, vectors.trained(kind, WIDTH, STORED[: kind.sample_size]), lots)
    _, places_1M = Stages.of(alike.index).by_whole(30, STORED[:1], np.arange(40))
    assert places_1M[0].tolist() == [*range(20, 40), *range(10)]


def test_in_no_places_nothing_is_found(stages: Stages) -> None:
    _, places_1M = stages.by_whole(3, QUERIES[:1], np.zeros(0, np.int64))
    assert places_1M[0].tolist() == [-1] * 3


@pytest.mark.skipif(not RESIDENT.exists(), reason="this system does not tell what a process holds")
def test_a_search_leaves_nothing_behind(stages: Stages) -> None:
    """FAISS makes what compares codes anew for each query, and does not delete it."""

    def held_bytes(times: int) -> int:
        for _ in range(times):
            stages.by_whole(10, QUERIES[:1], np.arange(10))
        return int(RESIDENT.read_text().split()[1]) * mmap.PAGESIZE

    before = held_bytes(10_000)
    assert held_bytes(40_000) - before < 2 << 20, "6 MB are left if nothing is deleted"


def test_of_many_heads_that_are_better_than_the_bound_the_best_are_taken(
    whole: Segment, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "NEAR", 200)
    monkeypatch.setattr(vectors, "FIRST_TIMES", 1)  # one list: what is in others is mostly better than its worst
    monkeypatch.setattr(vectors, "NEAR_PER_LIST", 0)
    wide = whole.with_probes(ALL_LISTS)
    given = asked(stages, QUERIES[0])
    monkeypatch.setattr(vectors, "MOST_TIMES", COUNT)
    many = wide._good(stages, *given, {})
    monkeypatch.setattr(vectors, "MOST_TIMES", 1)
    few = wide._good(stages, *given, {})
    assert len(few) == 200 < len(many)
    assert set(few.tolist()) <= set(many.tolist())
