"""Tags in the forms of other tools: valid, escaped, and saying no more than is known."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pipeline import sidecars, tag_formats
from pipeline.label_sets import NONE
from tests.pipeline.tagged_videos import CALIBRATED, HOSTILE, SOFTMAX, video

VIDEOS = [
    video([{"run": 0.8}, {"run": 0.9, "jump": 0.6}, {NONE: None}]),
    video([{HOSTILE: 0.7}], uri=f"/videos/{HOSTILE}.mp4", number=2),
    video([{NONE: None}], number=3),
]
PARENTS = {"run": "moves", "moves": "all"}
TIMES = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})")


def seconds(clock: str) -> float:
    hours, minutes, rest, milliseconds = map(int, TIMES.fullmatch(clock).groups())
    return 3600 * hours + 60 * minutes + rest + milliseconds / 1000


def cues(text: str) -> list[tuple[float, float, str]]:
    """A strict reading of WebVTT: a header, then blocks that are notes or cues."""
    blocks = text.rstrip("\n").split("\n\n")
    assert blocks[0] == "WEBVTT"
    found = []
    for block in blocks[1:]:
        if block.startswith("NOTE"):
            continue
        times, payload = block.split("\n")
        start, end = times.split(" --> ")
        found.append((seconds(start), seconds(end), payload))
    return found


# --- chapters


def test_chapters_are_what_clips_are_called() -> None:
    assert cues(tag_formats.vtt(VIDEOS[0])) == [(0, 10, "run"), (10, 20, "run, jump")]


def test_neighbours_of_one_name_are_one_chapter_and_none_is_a_gap() -> None:
    clips = [{"run": 0.5}, {"run": 0.7, "jump": 0.3}, {NONE: 0.9, "run": 0.1}, {"run": 0.6}]
    assert cues(tag_formats.vtt(video(clips, basis=SOFTMAX))) == [(0, 20, "run"), (30, 40, "run")]


def test_chapters_of_windows_that_overlap_do_not() -> None:
    clips = [{"run": 0.5}, {"jump": 0.7}, {"jump": 0.9}, {"run": 0.6}]
    found = cues(tag_formats.vtt(video(clips, basis=SOFTMAX, stride_s=5.0)))
    assert found == [(0, 10, "run"), (10, 20, "jump"), (20, 25, "run")]


def test_a_chapter_called_anything_is_one_line_without_markup() -> None:
    ((_, _, payload),) = cues(tag_formats.vtt(VIDEOS[1]))
    assert payload.startswith("a &lt;b&gt; &amp; \"c\" --&gt; 'd' ]]&gt;")
    assert "🎉" in payload
    assert not re.search("[<>]", payload)


def test_hours_of_video_have_hours_in_their_times() -> None:
    found = cues(tag_formats.vtt(video([{"run": 0.5}, {"jump": 0.5}], window_s=3661.0625)))
    assert found[0][1] == pytest.approx(3661.062, abs=1e-3)


# --- annotations


def test_activitynet_has_segments_by_video_and_a_taxonomy(tmp_path: Path) -> None:
    tag_formats.activitynet(VIDEOS, file := tmp_path / "a.json", PARENTS)
    found = json.loads(file.read_text(encoding="utf-8"))
    first, second, third = found["database"].values()
    assert first["annotations"] == [
        {"label": "run", "segment": [0, 20]},
        {"label": "jump", "segment": [10, 20]},
    ]
    assert (first["duration"], first["resolution"], first["url"]) == (30, "640x360", "/videos/a.mp4")
    assert second["annotations"][0]["label"] == HOSTILE
    assert third["annotations"] == []
    nodes = {node["nodeName"]: node for node in found["taxonomy"]}
    assert nodes.keys() == {"Root", "run", "jump", HOSTILE, "moves", "all"}
    assert [nodes[name]["parentName"] for name in ("run", "moves", "all", "jump")] == ["moves", "all", "Root", "Root"]
    by_id = {node["nodeId"]: node["nodeName"] for node in found["taxonomy"]}
    assert all(by_id[node["parentId"]] == node["parentName"] for node in nodes.values() if node["nodeId"])


def test_kinetics_has_a_row_a_segment(tmp_path: Path) -> None:
    tag_formats.kinetics(VIDEOS, file := tmp_path / "a.csv", {})
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["label"], row["time_start"], row["time_end"]) for row in rows] == [
        ("run", "0.000", "20.000"),
        ("jump", "10.000", "20.000"),
        (HOSTILE, "0.000", "10.000"),
    ]
    assert list(rows[0]) == ["label", "youtube_id", "time_start", "time_end", "split", "uri"]
    assert rows[2]["uri"] == f"/videos/{HOSTILE}.mp4"


@pytest.mark.parametrize("basis", [SOFTMAX, CALIBRATED])
def test_coco_numbers_everything_and_scores_only_what_is_calibrated(basis: str, tmp_path: Path) -> None:
    videos = [video([{"run": 0.8}, {"jump": 0.6}], basis=basis), video([{"jump": 0.7}], basis=basis, number=2)]
    tag_formats.coco(videos, file := tmp_path / "a.json", {"run": "moves"})
    found = json.loads(file.read_text(encoding="utf-8"))
    names = {each["id"]: each["name"] for each in found["categories"]}
    rows = [(a["id"], a["video_id"], names[a["category_id"]], a["start_time"], a["end_time"])
            for a in found["annotations"]]  # fmt: skip
    assert rows == [(1, 1, "run", 0, 10), (2, 1, "jump", 10, 20), (3, 2, "jump", 0, 10)]
    assert [each["id"] for each in found["videos"]] == [1, 2]
    assert found["categories"][0]["supercategory"] == "moves"
    assert ("score" in found["annotations"][0]) == (basis == CALIBRATED)
    assert ("uncalibrated_probability" in found["annotations"][0]) == (basis != CALIBRATED)


def test_cocos_own_library_reads_it(tmp_path: Path) -> None:
    tools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    videos = [video([{"run": 0.8}, {"jump": 0.6}]), video([{"jump": 0.7}, {NONE: 0.9}], number=2)]
    tag_formats.coco(videos, file := tmp_path / "a.json", {})
    found = tools.COCO(str(file))
    (jump,) = found.getCatIds(catNms=["jump"])
    assert found.getImgIds(catIds=[jump]) == [1, 2]
    assert [image["file_name"] for image in found.loadImgs([1, 2])] == [each.uri for each in videos]
    spans = [(each["start_time"], each["end_time"]) for each in found.loadAnns(found.getAnnIds(imgIds=[1]))]
    assert spans == [(0, 10), (10, 20)]


@pytest.mark.parametrize("basis", [SOFTMAX, CALIBRATED])
def test_fiftyone_has_detections_by_time_and_confidence_only_where_it_is_one(basis: str, tmp_path: Path) -> None:
    videos = [video([{HOSTILE: 0.8}, {"jump": 0.6}], basis=basis), video([{NONE: 0.9}], basis=basis, number=2)]
    tag_formats.fiftyone(videos, tmp_path, {})
    labels, data = (json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("labels.json", "data.json"))
    assert labels.keys() == {"labels"}, "without classes the targets are the labels themselves"
    assert data == {each.video_id: each.uri for each in videos}
    first, second = labels["labels"].values()
    assert second is None
    assert [(each["label"], each["timestamps"]) for each in first] == [(HOSTILE, [0, 10]), ("jump", [10, 20])]
    for each in first:
        assert ("confidence" in each) == (basis == CALIBRATED)
        assert ("uncalibrated_probability" in each["attributes"]) == (basis != CALIBRATED)
        assert each["attributes"]["basis"] == basis


@pytest.mark.parametrize("write", [tag_formats.activitynet, tag_formats.coco])
def test_no_videos_make_json_that_can_be_read(write, tmp_path: Path) -> None:
    write([], file := tmp_path / "a.json", {})
    assert json.loads(file.read_text(encoding="utf-8"))


# --- sidecars

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
DC = "{http://purl.org/dc/elements/1.1/}"
DM = "{http://ns.adobe.com/xmp/1.0/DynamicMedia/}"


def test_xmp_is_xml_with_keywords_and_markers_in_thousandths() -> None:
    root = ET.fromstring(sidecars.as_xmp(VIDEOS[0]).encode())
    assert [each.text for each in root.iterfind(f".//{DC}subject/{RDF}Bag/{RDF}li")] == ["run", "jump"]
    markers = root.findall(f".//{DM}markers/{RDF}Seq/{RDF}li")
    assert [(m.get(f"{DM}name"), m.get(f"{DM}startTime"), m.get(f"{DM}duration")) for m in markers] == [
        ("run", "0", "20000"),
        ("jump", "10000", "10000"),
    ]
    assert root.find(f".//{DM}frameRate").text == "f1000"


def test_xmp_of_a_hostile_name_is_xml_that_reads_it_back() -> None:
    root = ET.fromstring(sidecars.as_xmp(VIDEOS[1]).encode())
    expected = HOSTILE.replace("\x07", "\ufffd")
    assert root.find(f".//{DC}subject/{RDF}Bag/{RDF}li").text == expected
    assert root.find(f".//{DM}markers/{RDF}Seq/{RDF}li").get(f"{DM}name") == expected


def test_json_beside_a_video_says_what_its_numbers_are() -> None:
    found = json.loads(sidecars.as_json(VIDEOS[0]))
    assert found["generator"] == tag_formats.GENERATOR
    assert [(line["label"], line["basis"]) for line in found["labels"]] == [
        ("run", "sigmoid, uncalibrated"),
        ("jump", "sigmoid, uncalibrated"),
    ]
    assert found["labels"][0]["segments"][0] == {"start_s": 0, "end_s": 20, "max_probability": 0.9, "max_score": 9.0}


@pytest.mark.parametrize("write", [sidecars.as_json, sidecars.as_xmp, tag_formats.vtt])
def test_what_we_wrote_is_known_again(write, tmp_path: Path) -> None:
    (ours := tmp_path / "ours").write_text(write(VIDEOS[1]), encoding="utf-8")
    (others := tmp_path / "others").write_text("<x:xmpmeta x:xmptk='Adobe XMP Core'/>")
    assert sidecars.is_ours(ours)
    assert not sidecars.is_ours(others)
