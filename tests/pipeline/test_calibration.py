"""Calibration: what is fitted on scores whose truth is known comes out, and files that do not fit are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import calibration_file, reliability
from pipeline.calibration import ModeReport, Quality, _notes, bins_by_mode, calibrate, multi_report, quality
from pipeline.calibration_file import Calibration, Fitted
from pipeline.calibration_fit import CalibrateSettings, LabelledScores, abstention, fit_multi, fit_single, threshold
from pipeline.label_scores import Rule, probabilities, sigmoid
from pipeline.label_sets import Label, LabelSet
from pipeline.labelled_clips import LabelledSpan
from pipeline.reliability import bins_of
from pipeline.serving import OpenSpace
from pipeline.tagged import videos
from pipeline.tagging import TagSettings, tag
from schemas.errors import InputError, SpaceMismatch
from tests.pipeline.conftest import VIDEOS

LABELS = LabelSet((Label("run", ("a person runs",)), Label("snow", ("snow",)), Label("rain", ("it rains",))))
SETTINGS = CalibrateSettings(holdout=0.5)


def drawn(count: int = 4000, *, temperature: float = 2.0, bias: float = -1.0, seed: int = 0) -> LabelledScores:
    """Scores over a background of 20, and truths drawn with the probabilities that the two numbers make of them."""
    rng = np.random.default_rng(seed)
    score_BK = 20 + rng.normal(0, 6, (count, 3))
    truth_BK = rng.random((count, 3)) < sigmoid((score_BK - 20) / temperature + bias)
    return LabelledScores(score_BK, np.full(count, 20.0), truth_BK, np.arange(count) // 4)


# --- fitting


def test_temperature_and_bias_come_out_that_truths_were_drawn_with() -> None:
    fitted = fit_multi(drawn(), LABELS, SETTINGS)
    assert fitted.temperature == pytest.approx(2.0, rel=0.1)
    assert fitted.bias == pytest.approx(-1.0, abs=0.15)


def test_a_single_label_has_a_temperature_and_a_bias_of_none() -> None:
    rng = np.random.default_rng(1)
    score_BK, none_B = 20 + rng.normal(0, 6, (4000, 3)), 20 + rng.normal(0, 6, 4000)
    exponent = np.column_stack([score_BK, none_B + 4.0]) / 3.0
    share = np.exp(exponent) / np.exp(exponent).sum(axis=1, keepdims=True)
    place_B = (share.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1)
    truth_BK = place_B[:, None] == np.arange(3)
    fitted = fit_single(LabelledScores(score_BK, none_B, truth_BK, np.arange(4000)), LABELS, SETTINGS)
    assert fitted.temperature == pytest.approx(3.0, rel=0.1)
    assert fitted.bias == pytest.approx(4.0, abs=0.5)


def test_a_bias_that_no_clip_speaks_for_is_not_fitted() -> None:
    rng = np.random.default_rng(2)
    truth_B = rng.integers(0, 3, 500)
    score_BK = 20 + rng.normal(0, 3, (500, 3)) + 4 * (truth_B[:, None] == np.arange(3))
    found = LabelledScores(score_BK, np.full(500, 20.0), truth_B[:, None] == np.arange(3), np.arange(500))
    assert fit_single(found, LABELS, SETTINGS).bias == 0


def test_a_threshold_has_the_best_f1_among_those_precise_enough() -> None:
    share = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    truth = np.array([0, 1, 0, 1, 0, 1], np.bool_)
    assert threshold(share, truth, 0.0) == pytest.approx(0.15), "precision 3 of 5, recall 3 of 3: 0.75"
    assert threshold(share, truth, 0.9) == pytest.approx(0.55), "the only one that is right 9 times of 10"
    assert threshold(share, np.array([1, 1, 0, 0, 0, 0], np.bool_), 0.9) == 0.1, "none is: the most precise"
    assert threshold(share, np.zeros(6, np.bool_), 0.0) is None


def test_a_threshold_is_in_the_middle_of_what_it_divides() -> None:
    assert threshold(np.array([0.0, 0.1, 0.9, 1.0]), np.array([0, 0, 1, 1], np.bool_), 0.0) == pytest.approx(0.5)
    assert threshold(np.array([0.7, 0.8]), np.array([1, 1], np.bool_), 0.0) == 0.7, "nothing is below"


def test_few_clips_that_scores_tell_apart_make_no_certainty() -> None:
    score_BK = np.array([[30.0, 10, 10], [10, 30, 10], [10, 10, 30]] * 3)
    found = LabelledScores(score_BK, np.full(9, 20.0), score_BK > 20, np.arange(9))
    multi, single = fit_multi(found, LABELS, SETTINGS), fit_single(found, LABELS, SETTINGS)
    assert sigmoid(np.array([10 / multi.temperature + multi.bias]))[0] == pytest.approx(10 / 11, abs=1e-3)
    assert sigmoid(np.array([-10 / multi.temperature + multi.bias]))[0] == pytest.approx(1 / 20, abs=1e-3)
    share, _ = probabilities(score_BK, found.none_B, LABELS, Rule(temperature=single.temperature, bias=single.bias))
    assert share.max() < 10 / 11 + 1e-3


def test_clips_that_nothing_was_fitted_on_are_told_better_than_before() -> None:
    fitted = fit_multi(drawn(), LABELS, SETTINGS)
    report = multi_report(drawn(seed=9), fitted)
    assert report.after.log_loss < 0.8 * report.before.log_loss
    assert report.after.brier < report.before.brier
    assert report.after.calibration_error < 0.02 < report.before.calibration_error


def test_a_calibration_that_does_no_good_is_said_to() -> None:
    good, bad = (Quality(calibration_error=0.1, brier=0.1, log_loss=loss) for loss in (0.1, 0.2))
    bins = bins_of(np.array([0.5]), np.array([True]))
    worse, better = (
        ModeReport(before=before, after=after, bins_before=bins, bins_after=bins)
        for before, after in ((good, bad), (bad, good))
    )
    (note,) = _notes({"multi": worse, "single": better})
    assert "multi mode are further off than without a calibration (log loss 0.200, and 0.100 before)" in note
    assert list(_notes({"multi": better, "single": None})) == []


def test_abstaining_pays_where_the_model_is_unsure_and_wrong() -> None:
    share = np.array([0.2, 0.3, 0.6, 0.9])
    given, truth = np.array([0, 1, 0, 1]), np.array([2, 2, 0, 1])
    assert abstention(share, given, truth, 2, 0.0) == 0.6, "the two unsure ones have no label"
    wrong = np.array([1, 0, 0, 1])
    assert abstention(share, given, wrong, 2, 0.0) == 0.0, "of a clip with a label a wrong answer is no worse"
    assert abstention(share, given, wrong, 2, 1.0) == 0.6
    assert abstention(share, given, 1 - given, 2, 0.5) == 0.9, "where it is never right often enough, hardly ever"


@pytest.mark.parametrize("truth", [np.zeros((40, 3), np.bool_), np.ones((40, 3), np.bool_)])
def test_labels_that_all_or_no_clips_have_are_refused(truth) -> None:
    with pytest.raises(InputError, match="expected some that have a label and some not"):
        fit_multi(replace(drawn(40), truth_BK=truth), LABELS, SETTINGS)


def test_scores_that_say_the_opposite_are_refused() -> None:
    found = drawn()
    with pytest.raises(InputError, match="higher scores do not mean that a label is likelier"):
        fit_multi(replace(found, truth_BK=~found.truth_BK), LABELS, SETTINGS)


# --- measuring


def test_figures_by_hand() -> None:
    found = quality(np.array([0.5, 1.0]), np.array([False, True]))
    assert found.brier == pytest.approx(0.125)
    assert found.log_loss == pytest.approx(np.log(2) / 2, abs=1e-9)
    assert found.calibration_error == pytest.approx(0.25)


def test_bins_hold_what_falls_in_them() -> None:
    found = bins_of(np.array([0.0, 0.5, 0.51, 1.0]), np.array([False, True, False, True]), bins=2)
    assert found.count == (2, 2)
    assert found.mean_probability == pytest.approx((0.25, 0.755))
    assert found.held_share == (0.5, 0.5)
    assert found.calibration_error == pytest.approx((0.25 + 0.255) / 2)


def test_the_diagram_is_a_picture(tmp_path: Path) -> None:
    found = drawn(500)
    share = sigmoid(found.score_BK - 20).ravel()
    bins = bins_of(share, found.truth_BK.ravel())
    reliability.draw({"multi": (bins, bins)}, file := tmp_path / "a.png")
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.size == (600, 600)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


# --- an archive


def known(opened: OpenSpace) -> dict[str, list[LabelledSpan]]:
    """What the model itself says, but for every fifth clip, which has no label: a truth that scores know much of."""
    tag(opened, LABELS, TagSettings(top=1))
    found: dict[str, list[LabelledSpan]] = {}
    for number, video in enumerate(videos(opened.archive, opened.space, LABELS.id)):
        found[video.uri] = [
            LabelledSpan(clip.start_s, clip.end_s, None if (number + place) % 5 == 0 else clip.tags[0].label)
            for place, clip in enumerate(video.clips)
        ]
    return found


def test_labelled_clips_of_an_archive_make_a_calibration_that_tags_go_by(own_stock: OpenSpace, tmp_path: Path) -> None:
    report = calibrate(own_stock, LABELS, known(own_stock), SETTINGS)
    assert (report.fitted_clips, report.held_out_clips, report.videos) == (12, 12, VIDEOS)
    assert bins_by_mode(report).keys() == {"multi", "single"}
    calibration_file.write(report.calibration, file := tmp_path / "labels.calibration.json")
    read = calibration_file.read(file)
    assert read == replace(report.calibration, measured=read.measured)
    for mode in ("single", "multi"):
        tagged = tag(own_stock, LABELS, TagSettings(mode=mode, calibration=read))
        assert tagged.basis.endswith(", calibrated")
        assert tagged.new == tagged.clips
        again = tag(own_stock, LABELS, TagSettings(mode=mode, calibration=read))
        assert again.new == 0


def test_the_same_seed_holds_out_the_same_videos(own_stock: OpenSpace) -> None:
    labelled = known(own_stock)
    first, again, other = (
        calibrate(own_stock, LABELS, labelled, replace(SETTINGS, seed=seed)).calibration.id for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_clips_with_several_labels_fit_no_single_mode(own_stock: OpenSpace) -> None:
    labelled = known(own_stock)
    labelled["/videos/0.mp4"] += [LabelledSpan(None, None, name) for name in ("run", "snow")]
    report = calibrate(own_stock, LABELS, labelled, SETTINGS)
    assert (report.single, report.calibration.single, report.accuracy) == (None, None, None)
    with pytest.raises(InputError, match="has nothing for --mode single"):
        tag(own_stock, LABELS, TagSettings(calibration=report.calibration))


def test_labelled_videos_that_are_not_there_are_named(own_stock: OpenSpace) -> None:
    with pytest.raises(InputError, match=r"1 of the 1 labelled videos are not in the archive, such as /no\.mp4"):
        calibrate(own_stock, LABELS, {"/no.mp4": [LabelledSpan(None, None, "run")]}, SETTINGS)


def test_too_few_clips_are_refused(own_stock: OpenSpace) -> None:
    one = {"/videos/0.mp4": [LabelledSpan(None, None, "run")]}
    with pytest.raises(InputError, match="4 labelled clips of 1 videos are too few"):
        calibrate(own_stock, LABELS, one, SETTINGS)
    with pytest.raises(InputError, match="no clip of the archive is covered"):
        calibrate(own_stock, LABELS, {"/videos/0.mp4": [LabelledSpan(900, 901, "run")]}, SETTINGS)


@pytest.mark.parametrize("wrong", [{"holdout": 0.0}, {"holdout": 1.0}, {"min_precision": 1.5}])
def test_settings_that_cannot_be_meant_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match="is not usable"):
        CalibrateSettings(**wrong)


# --- files


MADE = Calibration(
    label_set=LABELS.id,
    space="0123456789ab",
    background=("a video",),
    single=Fitted(temperature=2.0, bias=0.5, abstain_below=0.3),
    multi=Fitted(temperature=3.0, bias=-1.0, thresholds={"run": 0.4}),
)


def test_a_calibration_of_another_set_or_space_is_refused_by_name() -> None:
    other = LabelSet((Label("run", ("running",)),))
    with pytest.raises(
        SpaceMismatch, match=f"made for the label set {LABELS.id}, and this is the label set {other.id}"
    ):
        MADE.check(other, MADE.space)
    with pytest.raises(SpaceMismatch, match="made for the space 0123456789ab, and this is the space ba9876543210"):
        MADE.check(LABELS, "ba9876543210")
    MADE.check(LABELS, MADE.space)


def test_thresholds_that_were_not_fitted_are_the_sets_own() -> None:
    labels = LabelSet((Label("run", ("x",)), Label("snow", ("y",), threshold=0.7), Label("rain", ("z",))))
    assert MADE.rule("multi", labels).thresholds == (0.4, 0.7, 0.5)
    assert MADE.rule("single", labels) == Rule(
        temperature=2.0, bias=0.5, thresholds=(0.5, 0.7, 0.5), abstain_below=0.3, is_calibrated=True
    )


def test_what_decides_numbers_decides_the_id() -> None:
    ids = {
        MADE.id,
        replace(MADE, single=None).id,
        replace(MADE, space="x").id,
        replace(MADE, multi=replace(MADE.multi, thresholds={"run": 0.5})).id,
    }
    assert len(ids) == 4
    assert replace(MADE, measured={"brier": 1}).id == MADE.id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"footage_calibration": 2}, "of another version of footage"),
        ({"space": "ba9876543210"}, "was changed by hand"),
        ({"surprise": 1}, "cannot be read .*expected a file that footage calibrate wrote"),
        ({"single": {"colour": 1}}, "cannot be read"),
    ],
)
def test_files_that_are_none_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    calibration_file.write(MADE, file := tmp_path / "a.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=message):
        calibration_file.read(file)


@pytest.mark.parametrize("text", ["", "[]", "no json", "{}"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    (file := tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read"):
        calibration_file.read(file)


def test_a_calibration_lies_beside_its_labels() -> None:
    assert calibration_file.beside(Path("x/sports.yaml")) == Path("x/sports.calibration.json")
