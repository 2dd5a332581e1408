"""Segments: exact or coded, masked and filtered, saved and mapped; which kind for how many; recall that is measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import heads, index_plan, recall_gate, vector_kinds, vectors
from pipeline.index_plan import GB, Rules
from pipeline.recall_gate import Exact
from pipeline.vector_kinds import Kind, kind_for
from pipeline.vectors import Segment
from schemas.errors import InputError
from tests.pipeline.clustered import CLIPS, COUNT, KINDS, QUERIES, REVISIONS, STORED, WIDTH, best, clustered, segment


@pytest.fixture(scope="module")
def segments() -> Iterator[dict[str, Segment]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_kinds, "SAMPLE_OF_CODES", 2560)  # learning codes is what takes time
        yield {kind.name: segment(kind) for kind in KINDS}


@pytest.fixture
def wide_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks into few lists although there are few clips."""
    monkeypatch.setattr(vectors, "PICKED", 0)


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_the_widest_search_finds_what_the_code_lets_it(kind: str, segments: dict[str, Segment]) -> None:
    wide = segments[kind].with_probes(32)
    least = {"flat": 1.0, "fp16": 1.0, "pca": 0.95, "sq8": 0.95, "pq": 0.8}[kind]
    _, numbers, are = wide.search(QUERIES, 10)
    assert are.all()
    found = [len(set(row) & set(best(query_E, 10))) for row, query_E in zip(numbers.tolist(), QUERIES, strict=True)]
    assert np.mean(found) >= 10 * least


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
@pytest.mark.parametrize("share", [0.0005, 0.05, 0.5])
@pytest.mark.usefixtures("wide_filters")
def test_a_filter_gives_as_many_as_there_are_and_the_nearest_of_them(
    kind: str, share: float, segments: dict[str, Segment]
) -> None:
    passes = np.random.default_rng(4).random(COUNT) < share
    for query_E in QUERIES:
        _, numbers, are = segments[kind].search(query_E[None], 10, lambda clips, _: passes & (clips == CLIPS))
        found = numbers[0][are[0]].tolist()
        assert len(found) == min(10, passes.sum())
        assert set(found) <= set(CLIPS[passes].tolist())
        if kind != "pq":
            assert len(set(found) & set(best(query_E, 10, passes))) >= 0.8 * len(found)


def test_scores_of_an_exact_kind_are_those_of_comparing_all_to_the_bit(segments: dict[str, Segment]) -> None:
    coded = segments["fp16"].with_probes(32)
    for query_E in QUERIES:
        for one, other in zip(coded.search(query_E[None], 50), segments["flat"].search(query_E[None], 50), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_filter_that_nothing_passes_finds_nothing_and_no_query_either(segments: dict[str, Segment]) -> None:
    for each in segments.values():
        assert each.search(QUERIES[:0], 10)[1].shape == (0, 0)
        _, numbers, _ = each.search(QUERIES, 10, lambda clips, _: np.zeros(len(clips), bool))
        assert numbers.shape == (len(QUERIES), 0)


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_what_is_hidden_is_never_found_and_a_filter_comes_on_top(kind: str, segments: dict[str, Segment]) -> None:
    live = REVISIONS % 3 != 0
    shown = segments[kind].hiding(live)
    assert shown.count == live.sum()
    _, numbers, _ = shown.search(QUERIES, 200)
    assert set(numbers.ravel().tolist()) <= set(CLIPS[live].tolist())
    _, numbers, are = shown.search(QUERIES, 200, lambda _, revisions: revisions < 10)
    assert set(numbers[are].tolist()) <= set(CLIPS[live & (REVISIONS < 10)].tolist())


def test_hiding_nothing_hides_nothing(segments: dict[str, Segment]) -> None:
    assert segments["flat"].hiding(np.ones(COUNT, bool)).live_N is None


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_a_segment_in_a_file_is_mapped_and_answers_the_same(
    kind: str, segments: dict[str, Segment], tmp_path: Path
) -> None:
    made = segments[kind].with_probes(4)
    vectors.save(made, tmp_path)
    files = [tmp_path / name for name in vectors.file_names(made.name)]
    again = vectors.load(made.name, made.kind, made.probes, *files)
    assert str(files[0]) in Path("/proc/self/maps").read_text()
    for one, other in zip(made.search(QUERIES, 50), again.search(QUERIES, 50), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_segment_whose_files_disagree_is_refused(segments: dict[str, Segment], tmp_path: Path) -> None:
    vectors.save(segments["flat"], tmp_path)
    index_file, clips_file = (tmp_path / name for name in vectors.file_names("name"))
    np.save(clips_file, np.stack([CLIPS[:-1], REVISIONS[:-1]]))
    with pytest.raises(ValueError, match="10000 vectors and 9999 clips"):
        vectors.load("name", Kind(), 0, index_file, clips_file)


def test_segments_searched_side_by_side_find_what_each_finds(segments: dict[str, Segment]) -> None:
    some, threads = [segments["flat"], segments["sq8"].with_probes(8), segments["pca"]], faiss.omp_get_max_threads()
    for found, each in zip(vectors.search_all(some, QUERIES, 20), some, strict=True):
        for one, other in zip(found, each.search(QUERIES, 20), strict=True):
            np.testing.assert_array_equal(one, other)
    assert faiss.omp_get_max_threads() == threads, "the caller's threads are its own"
    assert list(vectors.search_all([], QUERIES, 20)) == []


def test_a_single_query_uses_all_cores(segments: dict[str, Segment]) -> None:
    assert faiss.extract_index_ivf(segments["sq8"].index).parallel_mode == 1


@pytest.mark.parametrize(
    ("count", "memory", "name", "lists"),
    [
        (0, 8 * GB, "flat", 0),
        (200_000, GB // 4, "flat", 0),
        (200_001, 8 * GB, "fp16", 2048),
        (1_000_000, 8 * GB, "fp16", 4096),
        (1_000_000, GB, "pca", 8192),
        (1_000_000, GB * 5 // 8, "sq8", 4096),
        (2_000_001, 64 * GB, "pca", 8192),
        (10_000_000, 8 * GB, "pca", 32768),
        (12_000_000, 8 * GB, "sq8", 16384),
        (50_000_000, 8 * GB, "pq", 32768),
        (10**9, GB, "pq", 131072),
    ],
)
def test_the_kind_goes_by_number_and_memory(count: int, memory: int, name: str, lists: int) -> None:
    assert kind_for(count, 512, memory) == Kind(name, lists)


def test_heads_are_compared_first_and_the_best_of_them_as_a_whole(
    segments: dict[str, Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "NEAR", COUNT + 1)  # the first lists hold too few to say anything

    def found(looked_at: int) -> float:
        monkeypatch.setattr(vectors, "LOOKED_AT", looked_at)
        _, numbers, _ = segments["pca"].with_probes(32).search(QUERIES, 10)
        hits = [len(set(row) & set(best(q, 10))) for row, q in zip(numbers.tolist(), QUERIES, strict=True)]
        return float(np.mean(hits)) / 10

    few, many = found(10), found(1000)
    assert few < 0.9
    assert many >= 0.95


def found_by_heads(near: int, segment: Segment, monkeypatch, allowed=None, per_list=0.0) -> list[list[int]]:
    """Numbers of ten that a search gives which goes by the heads of the first lists, and by nothing else."""
    monkeypatch.setattr(vectors, "NEAR", near)
    monkeypatch.setattr(vectors, "NEAR_PER_LIST", per_list)
    with monkeypatch.context() as only:
        only.setattr(vectors, "LOOKED_AT", None)
        scores, numbers, are = segment.with_probes(32).search(QUERIES, 10, allowed)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert are.all()
    return numbers.tolist()


def right(found: list[list[int]], mask_N: np.ndarray | None = None) -> float:
    """How many of ten are those that comparing all finds, in the mean."""
    return float(np.mean([len(set(row) & set(best(q, 10, mask_N))) for row, q in zip(found, QUERIES, strict=True)]))


def test_heads_of_the_first_lists_say_what_is_compared_as_a_whole(segments, monkeypatch) -> None:
    few, many = (right(found_by_heads(near, segments["pca"], monkeypatch)) for near in (40, 600))
    assert few < 9
    assert many >= 9.5


def test_a_wider_search_goes_by_more_heads(segments, monkeypatch) -> None:
    assert [segments["pca"].with_probes(probes)._near for probes in (64, 896, 2_048)] == [2_400, 2_400, 5_120]
    assert right(found_by_heads(40, segments["pca"], monkeypatch, per_list=600 / 32)) >= 9.5


@pytest.mark.parametrize(("spreads", "is_found"), [(0.0, False), (heads.SPREADS, True)])
def test_a_wide_list_is_looked_into_before_a_narrow_one_that_is_as_near(spreads, is_found, monkeypatch) -> None:
    monkeypatch.setattr(heads, "SPREADS", spreads)
    rng = np.random.default_rng(7)
    axes, half = np.eye(WIDTH, dtype=np.float32), COUNT // 2
    off = np.repeat(np.array([[0.02], [0.25]], np.float32), half, axis=0) * rng.standard_normal((2 * half, WIDTH))
    off[:, 8:] = 0  # in few directions, so that heads have all of it
    stored = (np.repeat(axes[:2], half, axis=0) + off).astype(np.float32)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    kind = Kind("pca", 2)
    lots = [(CLIPS[: 2 * half], REVISIONS[: 2 * half], stored)]
    one = vectors.filled("one", kind, vectors.trained(kind, WIDTH, stored), lots).with_probes(1)
    query_E = 1.05 * axes[0] + axes[1] + 0.5 * axes[2]  # nearer to the narrow one's centre
    nearest = CLIPS[np.argmax(stored @ query_E)]
    _, numbers, _ = one.search(query_E[None], 10)
    assert (nearest in numbers) == is_found


def test_an_empty_list_is_looked_into_last() -> None:
    kind = Kind("pca", 32)
    trained = vectors.trained(kind, WIDTH, STORED[: kind.sample_size])
    some = vectors.filled("some", kind, trained, [(CLIPS[:40], REVISIONS[:40], STORED[:40])])
    stages = heads.Stages.of(some.index)
    is_full = np.array([stages.heads.invlists.list_size(number) > 0 for number in range(32)])
    _, order = stages.heads.quantizer.search(stages.turn.apply(QUERIES), 32)
    assert 0 < is_full.sum() < 32
    for row in order:
        assert is_full[row[: is_full.sum()]].all()


@pytest.mark.parametrize("near", [1, COUNT + 1])
def test_where_the_first_lists_say_too_little_as_many_are_found(near: int, segments, monkeypatch) -> None:
    monkeypatch.setattr(vectors, "NEAR", near)
    _, numbers, are = segments["pca"].with_probes(32).search(QUERIES, 300)
    assert are.all()
    assert all(len(set(row)) == 300 for row in numbers.tolist())


@pytest.mark.usefixtures("wide_filters")
def test_heads_of_what_may_not_be_found_say_nothing(segments, monkeypatch) -> None:
    live = REVISIONS % 3 != 0
    passes = np.random.default_rng(6).random(COUNT) < 0.5
    shown = segments["pca"].hiding(live)
    found = found_by_heads(100, shown, monkeypatch, lambda clips, _: passes & (clips == CLIPS))
    assert {number for row in found for number in row} <= set(CLIPS[live & passes].tolist())
    assert right(found, live & passes) >= 9.5


@pytest.mark.parametrize("most", [1, 7, 10, 30, 40])
def test_of_equal_scores_those_come_first_that_were_added_first(most: int) -> None:
    scores = np.array([[0.5] * 20 + [0.9] * 20, [0.9, 0.1] * 20], np.float32)
    found, places = vectors._best(scores, np.broadcast_to(np.arange(40), (2, 40)), most)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :most]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(found, np.take_along_axis(scores, expected, 1))


def test_of_twins_those_are_found_that_were_added_first(monkeypatch) -> None:
    twins = np.repeat(STORED[:500], 20, axis=0)
    kind = Kind("pca", 32)
    lots = [(CLIPS, REVISIONS, twins)]
    segment = vectors.filled("twins", kind, vectors.trained(kind, WIDTH, STORED[: kind.sample_size]), lots)
    monkeypatch.setattr(vectors, "NEAR", 40)
    _, numbers, are = segment.with_probes(32).search(STORED[:1], 10)
    assert numbers[are].tolist() == CLIPS[:10].tolist()


@given(count=st.integers(1, 10**8), memory=st.integers(GB // 4, 100 * GB))
def test_segments_share_all_clips_and_fit_into_memory(count: int, memory: int) -> None:
    made = index_plan.making(count, 512, Rules(memory_bytes=memory))
    assert sum(made.counts) == count
    assert max(made.counts) - min(made.counts) <= 1
    assert made.size_bytes == count * made.kind.clip_bytes(512)
    if made.kind.name == "flat":
        assert made.edges == (0, count)
    else:
        assert max(made.counts) * made.kind.clip_bytes(512) <= memory * index_plan.SEGMENT_PART + 4096


def test_finer_kinds_end_with_exact() -> None:
    made, names = index_plan.making(30_000_000, 512, Rules()), []
    while made is not None:
        names.append(made.kind.name)
        made = index_plan.finer(made, 512, Rules())
    assert names == ["pq", "sq8", "fp16", "flat"]
    heads = index_plan.making(10_000_000, 512, Rules())
    assert heads.kind.name == "pca"
    finer = index_plan.finer(heads, 512, Rules())
    assert finer is not None
    assert finer.kind.name == "sq8"


@pytest.mark.parametrize("rules", [{"memory_bytes": GB // 5}, {"recall": 1.5}])
def test_rules_that_nothing_can_meet_are_refused(rules: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        Rules(**rules)


@given(lots=st.lists(st.integers(1, 300), min_size=1, max_size=5))
def test_an_exact_search_over_lots_is_one_over_all(lots: list[int]) -> None:
    exact, start = Exact(QUERIES[:3]), 0
    for size in lots:
        exact.see(CLIPS[start : start + size], STORED[start : start + size])
        start += size
    for row, query_E in enumerate(QUERIES[:3]):
        scores = STORED[:start] @ query_E
        expected = CLIPS[:start][np.argsort(-scores, kind="stable")[:10]]
        assert exact.best(10)[row].tolist() == expected.tolist()


def exact_of(queries: np.ndarray) -> Exact:
    exact = Exact(queries)
    exact.see(CLIPS, STORED)
    return exact


@pytest.mark.usefixtures("wide_filters")
def test_a_search_is_widened_until_it_finds_enough(segments: dict[str, Segment]) -> None:
    # Like texts: nearest to no centre in particular.
    groups = {"clips": exact_of(STORED[::300]), "texts": exact_of(clustered(20, seed=2, spread=1.0))}
    narrow = segments["fp16"].with_probes(1)
    before = recall_gate.measure(narrow, groups["texts"])
    tuned, found, is_enough = recall_gate.tuned(narrow, groups, 0.99)
    assert is_enough
    assert before.at_100 < 0.99 <= min(min(recall.at_10, recall.at_100) for recall in found.values())
    assert tuned.probes > narrow.probes
    assert {recall.probes for recall in found.values()} == {tuned.probes}


def test_what_a_code_blurs_is_not_called_enough(segments: dict[str, Segment], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall_gate, "CANDIDATES", 100)
    _, found, is_enough = recall_gate.tuned(segments["pq"], {"texts": exact_of(QUERIES)}, 0.9999)
    assert not is_enough
    assert found["texts"].at_100 < 0.9999
