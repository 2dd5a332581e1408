"""`footage index --shard` and `footage merge` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.footage import SCENE_S, film


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for number, motion in enumerate(("left", "right", "up", "down")):
        film(tmp_path / f"videos/{number}.mp4", motion)
    return tmp_path / "videos"


def test_shards_are_merged_and_searched(footage, videos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    always = ("--model", tiny_weights, "--engine", "local", "--window", SCENE_S, "--json")
    shards = [tmp_path / f"shard {number}" for number in (1, 2)]
    indexed = []
    for number, shard in enumerate(shards, start=1):
        code, out, _ = footage("index", videos, shard, "--shard", f"{number}/2", *always)
        assert code == 0
        indexed.append(json.loads(out)["indexed"])
    assert sum(indexed) == 4
    code, out, _ = footage("merge", tmp_path / "all", *shards, "--json")
    report = json.loads(out)
    assert (code, report["videos"], report["clips"], report["merged"]) == (0, 4, 4, list(map(str, shards)))
    code, out, _ = footage("merge", tmp_path / "all", *shards)
    assert code == 0
    assert "0 videos, 0 clips" in out
    code, out, _ = footage("info", tmp_path / "all", "--json")
    assert code == 0
    code, out, _ = footage("reindex", tmp_path / "all", "--json")
    assert (code, json.loads(out)["unchanged"]) == (0, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--shard", "0/2"), "there is no shard 0/2; expected one from 1/2 to 2/2"),
        (("--shard", "half"), "'half' names no shard"),
    ],
)
def test_what_is_no_shard_is_said(footage, videos: Path, tmp_path: Path, options: tuple, said: str) -> None:
    code, _, err = footage("index", videos, tmp_path / "archive", "--engine", "local", *options)
    assert code == 1
    assert said in " ".join(err.split())
    assert not (tmp_path / "archive").exists()


def test_an_archive_that_is_not_there_is_said(footage, tmp_path: Path) -> None:
    code, _, err = footage("merge", tmp_path / "all", tmp_path / "none")
    assert code == 1
    assert "there is no archive at" in err
    assert not (tmp_path / "all").exists()
