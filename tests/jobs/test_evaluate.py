"""`footage evaluate`: what it prints and writes, how it ends, and its mistakes in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline.multiview import Views, ViewStage
from schemas.records import SourceFile
from tests import towers
from tests.footage import film
from xclip_core import encode_text_raw, encode_video_with_context, load_encoder

NAMES = {"left.mp4": "MoveLeft", "up.mp4": "MoveUp", "still.mp4": "KeepStill"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of three videos, and one of them with a broken file."""
    folder = tmp_path_factory.mktemp("evaluate")
    for name, motion in zip(NAMES, ("left", "up", "still"), strict=True):
        film(folder / name, motion)
    (folder / "broken.mp4").write_text("this is not a video")
    rows = "".join(f"{name},{label}\n" for name, label in NAMES.items())
    (folder / "sound.csv").write_text(f"path,label\n{rows}")
    (folder / "broken.csv").write_text(f"path,label\n{rows}broken.mp4,MoveUp\n")
    return folder


def test_json_is_one_object_with_figures_settings_and_every_video(footage, videos: Path, tiny_weights: Path) -> None:
    code, out, err = footage(
        "evaluate", videos / "sound.csv", "--model", tiny_weights, "--engine", "local", "--json",
        "--views", "2x3", "--seed", 3, "--split-camel-case", "--template", "a video of {}",
    )  # fmt: skip
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert {"top_1", "top_5", "mean_class_accuracy", "calibration_error", "recall_at_1", "median_rank"} <= set(
        found["figures"]
    )
    assert found["settings"]["views"] == {"clips": 2, "crops": 3, "seed": 3}
    assert found["classes"][0]["prompts"] == ["a video of Keep Still"]
    assert [Path(verdict["uri"]).name for verdict in found["verdicts"]] == list(NAMES)
    assert (found["videos"], found["scored"], found["failed"], found["failures"]) == (3, 3, 0, [])


def test_people_get_a_table_a_report_and_the_failures(
    footage, videos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    code, out, err = footage(
        "evaluate",
        videos / "broken.csv",
        "--model",
        tiny_weights,
        "--engine",
        "local",
        "--html",
        tmp_path / "report.html",
    )
    assert code == 3
    assert "top-1" in out
    assert "4 = 3 scored + 1 failed" in out
    assert "1 could not be evaluated:" in out
    assert "broken.mp4: this is no video container we read" in out
    assert f"report: {tmp_path / 'report.html'}" in err
    assert "Confusion matrix" in (tmp_path / "report.html").read_text()


def test_several_lists_and_draws_give_mean_and_spread(footage, videos: Path, tiny_weights: Path) -> None:
    common = ("--model", tiny_weights, "--engine", "local")
    code, out, _ = footage("evaluate", videos / "sound.csv", videos / "sound.csv", *common, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["mean"] == found["splits"][0]["figures"] == found["splits"][1]["figures"]
    assert set(found["spread"].values()) == {0.0}
    code, out, _ = footage("evaluate", videos / "sound.csv", *common, "--draws", "2x2")
    assert code == 0
    assert "2 splits" in out
    assert "spread" in out
    code, _, err = footage("evaluate", videos / "sound.csv", *common, "--draws", "2x2", "--html", videos / "page.html")
    assert code == 2
    assert "one split" in err


@pytest.mark.parametrize(("protocol", "views"), [("full", (4, 3)), ("few", (1, 1)), ("zero", (1, 1))])
def test_the_papers_protocols_set_the_views(protocol, views, footage, videos: Path, tiny_weights: Path) -> None:
    _, out, _ = footage(
        "evaluate", videos / "sound.csv", "--model", tiny_weights, "--engine", "local", "--json", "--protocol", protocol
    )
    found = json.loads(out)["settings"]
    assert (found["views"]["clips"], found["views"]["crops"]) == views
    assert found["protocol"] == protocol


def test_other_frames_and_sizes_are_told_on_stderr_and_in_the_json(footage, videos: Path, tiny_weights: Path) -> None:
    code, out, err = footage(
        "evaluate", videos / "sound.csv", "--model", tiny_weights, "--engine", "local", "--json",
        "--frames", 3, "--image-size", 16,
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert (found["frames"], found["image_size"], found["settings"]["protocol"]) == (3, 16, None)
    assert len(found["notes"]) == 2
    assert all(f"note: {note}" in err for note in found["notes"])


def test_a_label_set_brings_prompts(footage, videos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text("MoveLeft: [it goes left]\nMoveUp:\nKeepStill:\nFly: it flies\n")
    _, out, _ = footage(
        "evaluate", videos / "sound.csv", "--model", tiny_weights, "--engine", "local", "--json",
        "--labels", tmp_path / "labels.yaml",
    )  # fmt: skip
    assert [line["prompts"] for line in json.loads(out)["classes"]] == [
        ["it goes left"], ["MoveUp"], ["KeepStill"], ["it flies"]
    ]  # fmt: skip


@torch.inference_mode()
def test_an_open_clip_model_is_scored_by_its_own_cosines_and_words(footage, videos: Path, tmp_path: Path) -> None:
    source, _ = towers.make("tiny-siglip", tmp_path, towers.siglip(tmp_path))
    options = ("--model", source, "--engine", "local", "--split-camel-case", "--json")
    code, out, err = footage("evaluate", videos / "sound.csv", *options)
    found, model = json.loads(out), load_encoder(source)
    assert (code, err) == (0, "")
    assert (found["frames"], found["image_size"]) == (8, 160)
    assert found["weights_hash"] == model.provenance.weights_hash
    text = encode_text_raw(model, ["Keep Still", "Move Left", "Move Up"])
    stage = ViewStage(views=Views(), frames=8, image_size=160)
    for verdict in found["verdicts"]:
        (viewed,) = stage([SourceFile(verdict["uri"], 0, 0.0)])
        logits = model.score(*encode_video_with_context(model, torch.from_numpy(viewed.frames_VTHWC)), text)[0]
        assert verdict["said"] == ["KeepStill", "MoveLeft", "MoveUp"][logits.argmax()]
        assert verdict["probability"] == pytest.approx(logits.softmax(dim=0).max().item(), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("{videos}/nothing.csv",), "error: there is nothing at"),
        (("{videos}/sound.csv", "--views", "4x2"), "error: 4x2 views are not usable"),
        (("{videos}/sound.csv", "--template", "video"), "error: the template 'video' has no place for the label"),
        (("{videos}/sound.csv", "--model", "no-such-model"), "error: there is no model 'no-such-model'"),
        (("{videos}/sound.csv", "--html", "/nowhere/a.html"), "error: the report /nowhere/a.html cannot be written"),
        (("--card", "--model", "{weights}"), "error: there is no model card"),
    ],
)
def test_mistakes_end_as_one_clear_sentence(arguments, sentence, footage, videos: Path, tiny_weights: Path) -> None:
    filled = [argument.format(videos=videos, weights=tiny_weights) for argument in arguments]
    code, out, err = footage("evaluate", *filled)
    assert (code, out) == (1, "")
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [(), ("list.csv", "--card"), ("list.csv", "--protocol", "half"), ("--card", "--frames", "8")]
)
def test_wrong_usage_ends_with_2(arguments, footage) -> None:
    code, _, err = footage("evaluate", *arguments)
    assert code == 2
    assert "Usage" in err
