"""Exports hold what can be seen and nothing else, in every format the same, whole or not at all."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.archive import Archive
from pipeline.export import VIDEO_COLUMNS, export
from schemas.errors import ArchiveError, InputError
from tests.pipeline.factories import (
    SPACE,
    WIDTH,
    add_tags,
    add_video,
    commit,
    embedded,
    log_run,
    unit_of,
    unit_vectors,
    video_row,
)

FORMATS = ("parquet", "csv", "jsonl", "npy")
COLUMNS = ["clip_id", "video_id", "start_s", "end_s", *VIDEO_COLUMNS]
STRANGE = '/videos/a "b", c\n\u2014 d.mp4'


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Two videos shown, one of them under a strange name, one gone, one hidden, and one of another space."""
    archive = Archive.create(tmp_path / "archive")
    log_run(archive)
    add_video(archive, STRANGE, clips=3)
    add_video(archive, "/videos/b.mp4", clips=2, status="partial", width=1920)
    archive.commit_videos([replace(add_video(archive, "/videos/gone.mp4"), status="gone", revision=2)])
    commit(archive, [embedded(unit_of(video_row("/videos/hidden.mp4")))])
    add_video(archive, "/videos/a.mp4", space="other")
    return archive


def tag(archive: Archive) -> dict[str, list[str]]:
    """Two labels for every other clip; returns the labels by clip."""
    ids = archive.visible_clips(SPACE, ["clip_id"])["clip_id"].to_pylist()
    rows = [
        {
            "clip_id": clip_id,
            "space": SPACE,
            "label_set": "s",
            "label": label,
            "rank": rank,
            "probability": 0.5,
            "score": 1.0,
        }
        for clip_id in ids[::2]
        for rank, label in ((2, "walks"), (1, 'says "hü"'))
    ]
    add_tags(archive, rows)
    return {clip_id: ['says "hü"', "walks"] if clip_id in ids[::2] else [] for clip_id in ids}


def read(file: Path) -> list[dict]:
    """The rows of an export of any format."""
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if file.suffix == ".csv":
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        lists = {name for name in ("tags", "embedding") if rows and name in rows[0]}
        return [{**row, **{name: json.loads(row[name]) for name in lists}} for row in rows]
    if file.suffix == ".npy":
        ids = pq.read_table(file.with_suffix(".parquet")).to_pylist()
        return [{**row, "embedding": vector.tolist()} for row, vector in zip(ids, np.load(file), strict=True)]
    return pq.read_table(file).to_pylist()


def seen(archive: Archive) -> dict[str, dict]:
    rows = archive.visible_clips(SPACE, ["clip_id", "video_id", "start_s", "end_s", "embedding"]).to_pylist()
    return {row["clip_id"]: row for row in rows}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_has_all_that_can_be_seen_and_no_more(kind: str, archive: Archive, tmp_path: Path) -> None:
    labels = tag(archive)
    report = export(archive.folder, out := tmp_path / f"out.{kind}")
    rows, expected = read(out), seen(archive)
    videos = {row["video_id"]: row for row in archive.current_videos(SPACE).to_pylist()}
    assert report.clips == len(rows) == len(expected) == 5
    assert list(rows[0]) == [*COLUMNS, "tags", "embedding"]
    for row in rows:
        clip = expected.pop(row["clip_id"])
        video = videos[row["video_id"]]
        assert np.array_equal(np.float32(row["embedding"]), np.float32(clip["embedding"]))
        assert [tag["label"] for tag in row["tags"]] == labels[row["clip_id"]]
        stated = {
            **{name: video[name] for name in VIDEO_COLUMNS},
            **{name: clip[name] for name in ("start_s", "end_s")},
        }
        assert {name: type(value)(row[name]) for name, value in stated.items()} == stated


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_vectors_can_be_left_out_and_tags_are_only_there_if_there_are_any(
    kind: str, archive: Archive, tmp_path
) -> None:
    export(archive.folder, out := tmp_path / "clips", kind=kind, vectors=False)
    rows = read(out.rename(tmp_path / f"clips.{kind}"))
    assert list(rows[0]) == COLUMNS


def test_npy_is_plain_float32_and_says_beside_it_what_each_is(archive: Archive, tmp_path: Path) -> None:
    report = export(archive.folder, out := tmp_path / "vectors.npy")
    vectors = np.load(out)
    assert (vectors.dtype, vectors.shape) == (np.float32, (5, WIDTH))
    assert report.files == (str(tmp_path / "vectors.parquet"), str(out))
    ids = pq.read_table(tmp_path / "vectors.parquet")
    assert "embedding" not in ids.column_names
    assert ids["clip_id"].to_pylist() == [row["clip_id"] for row in read(out)]


@pytest.mark.parametrize("kind", FORMATS)
def test_an_archive_with_nothing_to_see_makes_an_empty_file(kind: str, tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / "archive")
    log_run(archive)
    assert export(archive.folder, out := tmp_path / f"out.{kind}").clips == 0
    assert read(out) == []


def test_more_clips_than_a_batch_are_all_there_once(archive: Archive, tmp_path: Path) -> None:
    row = video_row("/videos/long.mp4", clip_count=1500)
    commit(archive, [embedded(unit_of(row, 1500), unit_vectors(1500))], [row])
    export(archive.folder, out := tmp_path / "out.npy")
    assert len({row["clip_id"] for row in read(out)}) == len(read(out)) == 1505


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_there_is_kept_unless_forced(kind: str, archive: Archive, tmp_path: Path) -> None:
    (out := tmp_path / f"out.{kind}").write_text("precious")
    with pytest.raises(InputError, match="is there already; overwrite it with --force"):
        export(archive.folder, out)
    assert out.read_text() == "precious"
    export(archive.folder, out, force=True)
    assert len(read(out)) == 5


def test_ids_that_are_there_are_kept_too(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "out.parquet").write_text("precious")
    with pytest.raises(InputError, match=r"out\.parquet is there already"):
        export(archive.folder, tmp_path / "out.npy")


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_that_fails_leaves_nothing_behind(kind: str, archive: Archive, tmp_path: Path) -> None:
    for file in (archive.folder / "clips").rglob("part-*.parquet"):
        content = bytearray(file.read_bytes())
        content[200:-200] = bytes(len(content) - 400)
        file.write_bytes(content)
    with pytest.raises((OSError, ArchiveError)):
        export(archive.folder, tmp_path / f"out.{kind}")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("out.txt", {}, "has no known ending; say --format parquet, csv, jsonl, npy"),
        ("out.npy", {"vectors": False}, "--format npy is nothing but vectors"),
        ("out.parquet", {"kind": "npy"}, "expected a name that ends in .npy"),
        ("no/out.csv", {}, "there is no folder .*no to write out.csv into"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, options: dict, sentence: str, archive: Archive, tmp_path) -> None:
    with pytest.raises(InputError, match=sentence):
        export(archive.folder, tmp_path / name, **options)
