"""`footage tag`, `calibrate` and `export` of tags, as they are typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.footage import CLIPS, SCENE_S, VIDEOS, make_pile

LABELS = """
version: 3
background: true
labels:
  - {label: left, wordings: [something moves left], parent: sideways, threshold: 0.3}
  - {label: right, wordings: [something moves right], parent: sideways}
  - {label: still, synonyms: [nothing moves]}
"""


@pytest.fixture(scope="module")
def indexed(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the pile, and the pile beside it."""
    folder = tmp_path_factory.mktemp("tag")
    options = ["--model", str(tiny_weights), "--window", str(SCENE_S), "--engine", "local"]
    with pytest.raises(SystemExit):
        main(["index", str(make_pile(folder / "pile")), str(folder / "archive"), *options])
    return folder / "archive"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (file := tmp_path / "labels.yaml").write_text(LABELS)
    return file


def test_the_second_time_nothing_is_new_and_the_answer_is_the_same(footage, indexed: Path, labels: Path) -> None:
    found = [json.loads(footage("tag", indexed, labels, "--top", 2, "--json")[1]) for _ in range(2)]
    assert [each["new"] for each in found] == [CLIPS, 0]
    assert found[0]["tags"] == found[1]["tags"]
    assert len(found[0]["tags"]) == 2 * CLIPS
    assert found[0]["basis"] == "softmax, uncalibrated"


def test_the_table_says_what_its_probabilities_are(footage, indexed: Path, labels: Path) -> None:
    _, out, _ = footage("tag", indexed, labels, "--mode", "multi")
    words = " ".join(out.split())
    assert f"{CLIPS} clips tagged" in words
    assert "sigmoid" in words
    assert "uncalibrated" in words
    assert "confidence" not in words


def test_videos_have_their_clips_rolled_up(footage, indexed: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "videos.csv"
    code, printed, _ = footage("tag", indexed, labels, "--by-video", "--json", "--out", out)
    found = json.loads(printed)
    assert code == 0
    assert {line["uri"].rpartition("/pile/")[2] for line in found["videos"]} <= set(VIDEOS)
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert [(row["uri"], row["label"]) for row in rows] == [(line["uri"], line["label"]) for line in found["videos"]]
    assert json.loads(rows[0]["segments"]) == found["videos"][0]["segments"]


def test_too_few_clips_and_files_that_are_no_calibration_are_refused(footage, indexed, labels, tmp_path: Path) -> None:
    pile = indexed.parent / "pile"
    names = ["left", "right", "still", "", "still", "left"]
    spans = [(name, place) for name, motions in VIDEOS.items() for place in range(len(motions))]
    rows = [
        f'"{pile / name}",{SCENE_S * place},{SCENE_S * (place + 1)},{label}'
        for (name, place), label in zip(spans, names, strict=True)
    ]
    (listed := tmp_path / "labeled.csv").write_text("uri,start_s,end_s,label\n" + "\n".join(rows) + "\n")
    code, _, err = footage("calibrate", indexed, listed, "--labels", labels)
    assert code == 1
    assert "too few: expected at least 4 clips" in " ".join(err.split())
    code, _, err = footage("tag", indexed, labels, "--calibration", listed)
    assert code == 1
    assert "expected a file that footage calibrate wrote" in " ".join(err.split())


def test_a_calibration_lies_beside_its_labels_and_tags_say_so(footage, indexed, labels, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.calibration.MIN_CLIPS", 1)  # there are six
    labels.write_text(LABELS.replace(", parent: sideways", ""))
    tags = json.loads(footage("tag", indexed, labels, "--top", 1, "--json")[1])["tags"]
    rows = [[tag["uri"], tag["start_s"], tag["end_s"], tag["label"]] for tag in tags]
    with (listed := tmp_path / "labeled.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["uri", "start_s", "end_s", "label"], *rows])
    diagram = tmp_path / "diagram.png"
    code, out, _ = footage("calibrate", indexed, listed, "--labels", labels, "--diagram", diagram, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["file"] == str(tmp_path / "labels.calibration.json")
    assert report["fitted_clips"] + report["held_out_clips"] == CLIPS
    assert diagram.read_bytes().startswith(b"\x89PNG")
    code, out, _ = footage("tag", indexed, labels, "--mode", "multi", "--calibration", report["file"], "--json")
    assert code == 0
    assert json.loads(out)["basis"] == "sigmoid, calibrated"
    (other := tmp_path / "other.txt").write_text("left\n")
    code, _, err = footage("tag", indexed, other, "--calibration", report["file"])
    assert code == 1
    assert "the calibration was made for the label set" in " ".join(err.split())


@pytest.mark.parametrize("kind", ["vtt", "xmp", "json-sidecar", "fiftyone"])
def test_tags_go_into_folders(kind: str, footage, indexed: Path, labels: Path, tmp_path: Path) -> None:
    footage("tag", indexed, labels)
    code, out, _ = footage("export", indexed, tmp_path / kind, "--format", kind, "--labels", labels, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["videos"] == len(VIDEOS)
    assert len(list((tmp_path / kind).iterdir())) == report["files"]


def test_sidecars_go_beside_videos_only_when_asked(footage, indexed: Path, labels: Path) -> None:
    pile = indexed.parent / "pile"
    before = set(pile.rglob("*"))
    footage("tag", indexed, labels)
    assert set(pile.rglob("*")) == before
    code, _, err = footage("export", indexed, "--format", "json-sidecar")
    assert code == 0
    made = set(pile.rglob("*")) - before
    assert made
    assert all(file.name.endswith(".mp4.footage.json") for file in made)
    assert f"{len(made)} files: beside the videos" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("export", "{archive}"), "clips are written to a file"),
        (("export", "{archive}", "{tmp}/a.csv", "--labels", "x"), "whatever they are tagged with"),
        (("export", "{archive}", "--format", "coco"), "--format coco needs a place to write to"),
        (("export", "{archive}", "{tmp}/a.json", "--format", "coco", "--labels", "nope"), "no tags of the label set"),
        (("calibrate", "{archive}", "/no.csv", "--labels", "{labels}"), "the labelled clips /no.csv cannot be read"),
        (("calibrate", "{archive}", "/no.csv", "--labels", "{labels}", "--holdout", "2"), "is not usable"),
    ],
)
def test_mistakes_are_one_sentence(arguments, sentence, footage, indexed, labels, tmp_path: Path) -> None:
    footage("tag", indexed, labels)
    filled = [argument.format(tmp=tmp_path, archive=indexed, labels=labels) for argument in arguments]
    code, out, err = footage(*filled)
    assert (code, out) == (1, "")
    assert sentence in " ".join(err.split())
    assert "Traceback" not in err
