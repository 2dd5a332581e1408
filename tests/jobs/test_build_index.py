"""`footage build-index`: what it says beforehand, what it makes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.__main__ import main
from pipeline import index_plan, vector_kinds, vectors
from pipeline.archive import Archive
from pipeline.runs import serving_run
from tests.footage import SCENE_S, make_pile
from tests.models import WORDED
from tests.pipeline.factories import commit, embedded, unit_of, unit_vectors, video_row

MANY = 2000


@pytest.fixture(scope="module")
def archive(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by `footage index`, and one video of many clips more."""
    folder = tmp_path_factory.mktemp("cli") / "archive"
    options = ["--model", tiny_weights, "--window", SCENE_S, "--engine", "local"]
    with pytest.raises(SystemExit):
        main(list(map(str, ["index", make_pile(tmp_path_factory.mktemp("pile")), folder, *options])))
    opened = Archive.open(folder)
    row = video_row("/videos/long.mp4", space=serving_run(opened)["space"], clip_count=MANY)
    commit(opened, [embedded(unit_of(row, MANY), scenes())], [row])
    return folder


def scenes() -> np.ndarray:
    """Unit vectors at float16 precision, round twenty of them."""
    found = np.repeat(unit_vectors(20, WORDED.embed_dim, seed=1), MANY // 20, axis=0)
    found = found + 0.3 * unit_vectors(MANY, WORDED.embed_dim, seed=2)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float16).astype(np.float32)


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorts into lists what is no more than some hundreds of clips."""
    for module in (vector_kinds, index_plan):
        monkeypatch.setattr(module, "FLAT_CLIPS", 500)
    monkeypatch.setattr(vectors, "PICKED", 0)
    monkeypatch.setattr(vector_kinds, "SAMPLE_PER_LIST", 8)


def clips(archive: Path) -> int:
    opened = Archive.open(archive)
    return len(opened.visible_clips(serving_run(opened)["space"], ["clip_id"]))


def test_it_says_what_it_makes_and_why_and_then_what_it_made(footage, archive: Path) -> None:
    code, out, err = footage("build-index", archive)
    assert code == 0
    assert f"{clips(archive)} clips are compared one by one, as up to 200000 are" in err
    assert "flat" in out
    assert "exact" in out


@pytest.mark.usefixtures("lists")
def test_many_clips_are_planned_with_their_size_memory_and_time(footage, archive: Path) -> None:
    count = clips(archive)
    code, _, err = footage("build-index", archive, "--dry-run")
    assert code == 0
    assert f"{count} clips in 1 segments of 128 lists, fp16: 0.00 GB, made in at most 0.00 GB of memory, about" in err


@pytest.mark.usefixtures("lists")
def test_json_has_the_plan_and_what_was_found(footage, archive: Path) -> None:
    count = clips(archive)
    code, out, _ = footage("build-index", archive, "--recall", 0.95, "--json")
    said = json.loads(out)
    assert code == 0
    size = count * (2 * WORDED.embed_dim + 16)
    assert {key: said[key] for key in ("clips", "kind", "size_bytes")} == {
        "clips": count,
        "kind": "fp16",
        "size_bytes": size,
    }
    (segment,) = said["segments"]
    assert (segment["kind"], segment["clips"]) == ("fp16", count)
    assert set(segment["recall"]) == {"clips", "texts"}
    for group in segment["recall"].values():
        assert min(group["at_10"], group["at_100"]) >= 0.95
        assert group["probes"] == segment["probes"]
    files = list((archive / "indexes").rglob("*.faiss"))
    assert len(files) == 1, "the index before has given way"


@pytest.mark.usefixtures("lists")
def test_a_dry_run_leaves_the_index_as_it_was(footage, archive: Path) -> None:
    footage("build-index", archive)
    (before,) = (archive / "indexes").rglob("*.faiss")
    code, out, _ = footage("build-index", archive, "--dry-run", "--json")
    assert code == 0
    assert "segments" not in json.loads(out)
    (after,) = (archive / "indexes").rglob("*.faiss")
    assert (before, before.stat().st_mtime_ns) == (after, after.stat().st_mtime_ns)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("{archive}", "--memory", "0.1"), "0.1 GB of memory are too little for an index; expected 0.25 GB"),
        (("{archive}", "--recall", "99"), "a recall of 99 is not usable; expected a part, 0 to 1"),
        (("{archive}", "--space", "other"), "other"),
        (("/nowhere",), "there is no archive at /nowhere"),
    ],
)
def test_mistakes_end_as_one_clear_sentence(footage, arguments: tuple, sentence: str, archive: Path) -> None:
    code, out, err = footage("build-index", *(argument.format(archive=archive) for argument in arguments))
    assert (code, out) == (1, "")
    assert sentence in err


@pytest.mark.usefixtures("lists")
def test_a_search_finds_by_lists_what_it_finds_by_comparing_all(
    footage, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = footage("build-index", archive, "--recall", 0.95, "--json")
    assert json.loads(out)["segments"][0]["kind"] == "fp16"
    _, out, _ = footage("search", archive, "a dog runs", "--no-rerank", "--clips", "--json")
    lists = json.loads(out)["hits"]
    monkeypatch.undo()
    footage("build-index", archive)
    _, out, _ = footage("search", archive, "a dog runs", "--no-rerank", "--clips", "--json")
    exact = {hit["clip_id"]: hit["score"] for hit in json.loads(out)["hits"]}
    shared = [hit for hit in lists if hit["clip_id"] in exact]
    assert len(shared) >= 8
    assert all(hit["score"] == exact[hit["clip_id"]] for hit in shared)
