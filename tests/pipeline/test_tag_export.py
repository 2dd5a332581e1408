"""Tags out of a real archive, in every format, whole or not at all, and never over what others wrote."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pipeline import tag_export
from pipeline.label_sets import Label, LabelSet
from pipeline.serving import OpenSpace
from pipeline.tag_export import EACH, FORMATS, TagExport, export_tags
from pipeline.tagging import TagSettings, tag
from schemas.errors import ArchiveError, InputError
from tests.pipeline.conftest import CLIPS, VIDEOS
from tests.pipeline.factories import add_tags, add_video

LABELS = LabelSet((Label("run", ("a person runs",), parent="moves"), Label("snow", ("snow",)), Label("moves", ())))
NAMES = {"tags": "tags.csv", "videos": "videos.jsonl", "activitynet": "a.json", "kinetics": "k.csv", "coco": "c.json"}


@pytest.fixture
def tagged_stock(own_stock: OpenSpace) -> OpenSpace:
    tag(own_stock, LABELS, TagSettings(top=0))
    return own_stock


def export(opened: OpenSpace, out: Path | None, kind: str, **options) -> tag_export.TagExportReport:
    return export_tags(opened.archive.folder, out, TagExport(kind=kind, **options))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_has_all_videos(kind: str, tagged_stock: OpenSpace, tmp_path: Path) -> None:
    report = export(tagged_stock, out := tmp_path / NAMES.get(kind, "folder"), kind)
    assert (report.videos, report.left_count, report.label_set) == (VIDEOS, 0, LABELS.id)
    assert report.files == (VIDEOS if kind in EACH else 2 if kind == "fiftyone" else 1)
    if kind == "tags":
        rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
        assert len(rows) == VIDEOS * CLIPS * 3
        assert {row["basis"] for row in rows} == {"softmax, uncalibrated"}
    if kind == "videos":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert len({row["uri"] for row in rows}) == VIDEOS
        assert sum(row["share_of_time"] for row in rows) == pytest.approx(VIDEOS)
    if kind in EACH:
        assert len(list(out.iterdir())) == VIDEOS


def test_the_bar_ends_where_all_clips_are(tagged_stock: OpenSpace, tmp_path: Path) -> None:
    seen = []
    asked = TagExport(kind="kinetics")
    export_tags(tagged_stock.archive.folder, tmp_path / "k.csv", asked, watch=seen.append)
    assert (seen[-1].done, seen[-1].total) == (VIDEOS * CLIPS, VIDEOS * CLIPS)


def test_a_label_file_says_which_set_and_which_parents(tagged_stock: OpenSpace, tmp_path: Path) -> None:
    other = LabelSet((Label("night", ("at night",)),))
    tag(tagged_stock, other)
    export(tagged_stock, file := tmp_path / "a.json", "activitynet", labels=LABELS)
    nodes = {node["nodeName"]: node["parentName"] for node in json.loads(file.read_text())["taxonomy"]}
    assert "night" not in nodes
    assert nodes.get("run", "moves") == "moves"
    export(tagged_stock, tmp_path / "b.json", "activitynet")
    assert "night" in (tmp_path / "b.json").read_text(), "unless it is said, the set that was tagged with last"


@pytest.mark.parametrize("kind", ["json-sidecar", "xmp"])
def test_beside_videos_what_others_wrote_is_kept_and_ours_is_renewed(kind: str, own_stock, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b & c.mp4", "d.mp4"):
        add_video(own_stock.archive, folder / name, space=own_stock.space)
    add_video(own_stock.archive, "s3://bucket/e.mp4", space=own_stock.space)
    put_tags(own_stock)
    ending = EACH[kind][1]
    (foreign := folder / f"d.mp4{ending}").write_text("precious")
    (folder / f"a.mp4{ending}").write_text(f"{tag_export.sidecars.GENERATOR}, of last year")
    report = export(own_stock, None, kind)
    assert foreign.read_text() == "precious"
    assert "last year" not in (folder / f"a.mp4{ending}").read_text()
    assert "run" in (folder / f"b & c.mp4{ending}").read_text()
    reasons = {left.uri: left.reason for left in report.left}
    assert "is there and is not ours" in reasons[str(folder / "d.mp4")]
    assert "the video is in a store" in reasons["s3://bucket/e.mp4"]
    assert any("cannot be written" in reason for uri, reason in reasons.items() if uri.startswith("/videos/"))
    assert report.files == 2


def put_tags(opened: OpenSpace) -> None:
    """One label for every clip, without asking the model: some clips here have no contexts."""
    rows = [
        {**row, "space": opened.space, "label_set": "s", "label": "run", "rank": 1, "probability": 0.9, "score": 9.0}
        for row in opened.archive.visible_clips(opened.space, ["clip_id", "video_id"]).to_pylist()
    ]
    add_tags(opened.archive, rows)


def test_names_that_no_disk_takes_are_made_ones_that_it_does(own_stock: OpenSpace, tmp_path: Path) -> None:
    for name in ("a\nb?.mp4", "x" * 250 + ".mp4", "../../etc.mp4"):
        add_video(own_stock.archive, f"/strange/{name}", space=own_stock.space)
    put_tags(own_stock)
    report = export(own_stock, out := tmp_path / "out", "vtt")
    names = sorted(file.name for file in out.iterdir())
    assert report.files == len(names) == VIDEOS + 3
    assert all(name.endswith(".vtt") and len(name.encode()) < 200 and "\n" not in name for name in names)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "archive", out]


@pytest.mark.parametrize("kind", [*NAMES, "fiftyone"])
def test_what_is_there_is_kept_unless_forced(kind: str, tagged_stock: OpenSpace, tmp_path: Path) -> None:
    out = tmp_path / NAMES.get(kind, "folder")
    export(tagged_stock, out, kind)
    with pytest.raises(InputError, match="is there already; overwrite it with --force"):
        export(tagged_stock, out, kind)
    export(tagged_stock, out, kind, force=True)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_that_fails_leaves_nothing_behind(kind: str, tagged_stock: OpenSpace, tmp_path: Path) -> None:
    for file in (tagged_stock.archive.folder / "tags").glob("part-*.parquet"):
        content = bytearray(file.read_bytes())
        content[8:-200] = bytes(len(content) - 208)
        file.write_bytes(content)
    with pytest.raises((OSError, ArchiveError)):
        export(tagged_stock, tmp_path / NAMES.get(kind, "folder"), kind)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and tmp_path / "archive" not in path.parents]
    assert left == []


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("tags", None, "--format tags needs a place to write to; only json-sidecar and xmp go beside videos"),
        ("vtt", None, "--format vtt needs a place"),
        ("tags", "a.txt", "has no known ending; expected one of .csv, .jsonl, .parquet"),
        ("coco", "no/a.json", "there is no folder"),
        ("coco", "archive", "is there and is a folder"),
        ("vtt", "file", "is there and is no folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(kind, name, message, tagged_stock: OpenSpace, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        export(tagged_stock, None if name is None else tmp_path / name, kind)


def test_tags_that_are_not_there_are_named(own_stock: OpenSpace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no tags; tag first"):
        export(own_stock, tmp_path / "c.json", "coco")
