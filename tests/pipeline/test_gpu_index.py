"""An index copied to a device: the same answers as the index itself, under every filter; taken only where it pays.

The device is a CPU here, but for the tests that say gpu.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline import gpu_index, vector_kinds
from pipeline.gpu_index import GpuCopies, GpuIndex
from pipeline.index_files import VectorIndex
from pipeline.vector_kinds import Kind
from tests.pipeline.clustered import CLIPS, COUNT, KINDS, QUERIES, REVISIONS, STORED, segment

HALF = COUNT // 2


def index_of(kind: Kind) -> VectorIndex:
    """An index of two segments, of which one hides some clips."""
    halves = [
        replace(segment(kind, slice(first, first + HALF)), name=f"{kind.name}{first}", probes=kind.lists)
        for first in (0, HALF)
    ]
    return VectorIndex((halves[0], halves[1].hiding(halves[1].videos_N % 5 != 0)), 1)


@pytest.fixture(scope="module")
def by_kind() -> Iterator[dict[str, VectorIndex]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_kinds, "SAMPLE_OF_CODES", 2560)  # learning codes is what takes time
        yield {kind.name: index_of(kind) for kind in KINDS}


def on(index: VectorIndex, device: str = "cpu") -> GpuIndex:
    found = GpuCopies(device).of(index)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["flat", "fp16"])
@pytest.mark.parametrize("most", [1, 10, 500, 4_000])
def test_where_nothing_is_coded_answers_are_those_of_all_lists_to_the_bit(kind: str, most: int, by_kind) -> None:
    copied = on(by_kind[kind])
    assert copied.is_exact
    assert copied.count == by_kind[kind].count < COUNT
    for query_E in QUERIES:
        assert copied.search(query_E, most) == by_kind[kind].search(query_E, most)


@pytest.mark.parametrize("kind", ["pca", "sq8", "pq"])
def test_codes_find_what_they_find_in_all_lists(kind: str, by_kind) -> None:
    copied = on(by_kind[kind])
    assert not copied.is_exact
    for query_E in QUERIES:
        found, wide = (dict(each.search(query_E, 50)) for each in (copied, by_kind[kind]))
        assert len(found.keys() & wide.keys()) >= 48
        assert all(abs(found[name] - wide[name]) < 0.003 for name in found.keys() & wide.keys())


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
@pytest.mark.parametrize("share", [0.0, 0.0005, 0.05, 0.5])
def test_what_may_not_be_found_is_not_and_all_that_may_is(kind: str, share: float, by_kind) -> None:
    passing = CLIPS[np.random.default_rng(5).random(COUNT) < share]
    hidden = CLIPS[HALF:][REVISIONS[HALF:] % 5 == 0]
    left = np.setdiff1d(passing, hidden)
    most = COUNT if share < 0.01 else 50
    found = on(by_kind[kind]).search(QUERIES[0], most, lambda clips_N, _: np.isin(clips_N, passing))
    assert {int(clip_id, 16) for clip_id, _ in found} <= set(left.tolist())
    assert len(found) == min(most, len(left))


def test_more_than_there_is_gives_all(by_kind) -> None:
    assert len(on(by_kind["flat"]).search(QUERIES[0], 2 * COUNT)) == by_kind["flat"].count


def test_versions_share_segments_and_what_none_uses_is_let_go(by_kind) -> None:
    copies, index = GpuCopies("cpu"), by_kind["flat"]
    old = copies.of(index)
    shorter = copies.of(replace(index, segments=index.segments[1:], videos_version=2))
    assert old is not None
    assert shorter is not None
    assert shorter.copies[0] is old.copies[1]
    del old
    gc.collect()
    assert list(copies._held) == [index.segments[1].name]


def test_what_does_not_fit_stays_where_it_is(by_kind, monkeypatch) -> None:
    monkeypatch.setattr(gpu_index, "room_bytes", lambda _: 2 * STORED.size - 1)  # all in float16, but for a byte
    index, why = GpuCopies("cpu").quicker(by_kind["flat"])
    assert index is by_kind["flat"]
    assert why == "CPUs: no room for 0.00 GB of vectors on cpu"


def full(*_, **__) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")


def test_memory_that_another_process_took_meanwhile_is_no_error(by_kind, monkeypatch) -> None:
    monkeypatch.setattr(torch, "empty", full)
    assert GpuCopies("cpu").quicker(by_kind["flat"]) == (by_kind["flat"], "CPUs: cpu failed: CUDA out of memory.")


def test_a_question_that_finds_no_memory_is_answered_by_cpus(by_kind, monkeypatch) -> None:
    copied, expected = on(by_kind["sq8"]), by_kind["sq8"].search(QUERIES[0], 10)
    monkeypatch.setattr(gpu_index._Copy, "nearest", full)
    assert copied.search(QUERIES[0], 10) == expected


def test_what_was_slower_is_not_copied_again(by_kind, monkeypatch) -> None:
    copies, index = GpuCopies("cpu"), by_kind["flat"]
    monkeypatch.setattr(gpu_index, "_search_s", lambda asked, _: float(asked is not index))
    first = copies.quicker(index)
    monkeypatch.setattr(copies, "of", None)
    assert (
        copies.quicker(replace(index, videos_version=2))[1]
        == first[1]
        == "CPUs: 1000.00 ms a query on cpu, 0.00 ms on CPUs"
    )
    monkeypatch.undo()
    assert copies.quicker(replace(index, segments=index.segments[:1]))[1] != first[1]


@pytest.mark.parametrize(
    ("device_s", "cpu_s", "is_taken", "said"),
    [
        (0.001, 0.02, True, "cuda:0: 1.00 ms a query on cuda:0, 20.00 ms on CPUs"),
        (0.02, 0.001, False, "CPUs: 20.00 ms a query on cuda:0, 1.00 ms on CPUs"),
    ],
)
def test_the_quicker_one_is_taken_and_says_so(device_s, cpu_s, is_taken, said, by_kind, monkeypatch) -> None:
    copied, copies = on(by_kind["flat"]), GpuCopies("cuda:0")
    monkeypatch.setattr(copies, "of", lambda _: copied)
    monkeypatch.setattr(gpu_index, "_search_s", lambda index, _: device_s if index is copied else cpu_s)
    assert copies.quicker(by_kind["flat"]) == (copied if is_taken else by_kind["flat"], said)


def test_times_are_taken_of_real_searches(by_kind) -> None:
    index, why = GpuCopies("cpu").quicker(by_kind["sq8"])
    device_ms, cpu_ms = map(float, re.findall(r"([\d.]+) ms", why))
    assert min(device_ms, cpu_ms) > 0
    assert isinstance(index, GpuIndex) == (device_ms < cpu_ms)


def test_an_empty_index_is_copied_nowhere() -> None:
    empty = VectorIndex((), 1)
    assert GpuCopies("cuda").quicker(empty) == (empty, "CPUs: no clips")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["flat", "fp16"])
def test_on_a_gpu_answers_are_those_of_all_lists_to_the_bit(kind: str, by_kind) -> None:
    copied = on(by_kind[kind], "cuda")
    for query_E in QUERIES:
        for allowed in (None, lambda clips_N, _: clips_N % 7 == 0):
            assert copied.search(query_E, 50, allowed) == by_kind[kind].search(query_E, 50, allowed)
