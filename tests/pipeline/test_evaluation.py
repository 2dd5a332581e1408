"""Evaluation from files to figures: the model's own score, views fused, and every video accounted for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.evaluation import Evaluation, EvaluationSettings, evaluate
from pipeline.label_sets import Label, LabelSet
from pipeline.labelled import Example, LabelledVideos
from pipeline.multiview import Views, ViewStage
from pipeline.progress import Progress
from schemas.errors import InputError
from schemas.records import SourceFile
from tests.footage import film
from xclip_core import XClip, encode_text_raw, encode_video_with_context, load

SINGLE = Views()
FILMED = {"left.mp4": "left", "up.mp4": "up", "left too.mp4": "left", "still.mp4": "still"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real video per motion, and two files that are none."""
    folder = tmp_path_factory.mktemp("labelled")
    for seed, (name, motion) in enumerate(FILMED.items()):
        film(folder / name, motion, colour_seed=seed)
    (folder / "broken.mp4").write_text("this is not a video")
    (folder / "empty.mov").touch()
    return folder


def labelled(folder: Path, names: dict[str, str] = FILMED) -> LabelledVideos:
    examples = tuple(Example(folder / name, label) for name, label in names.items())
    return LabelledVideos(examples, tuple(sorted(set(names.values()))))


@pytest.fixture
def settings(tiny_weights: Path) -> EvaluationSettings:
    return EvaluationSettings(model=str(tiny_weights), engine="local")


def by_hand(model: XClip, path: Path, texts: list[str], views: Views = SINGLE) -> tuple[np.ndarray, np.ndarray]:
    """Logits and softmax of every view of a file, V x K, one view at a time."""
    stage = ViewStage(views=views, frames=model.config.frames, image_size=model.config.image_size)
    (viewed,) = stage([SourceFile(str(path), 0, 0.0)])
    text = encode_text_raw(model, texts)
    with torch.inference_mode():
        logits = [
            model.score(*encode_video_with_context(model, torch.from_numpy(clip[None])), text)[0].double()
            for clip in viewed.frames_VTHWC
        ]
    return torch.stack(logits).numpy(), torch.stack(logits).softmax(dim=1).numpy()


def test_a_video_is_given_the_label_of_the_highest_score(folder, settings, tiny_model) -> None:
    found = evaluate(labelled(folder), settings)
    texts = ["left", "still", "up"]
    right = 0
    for verdict, (name, label) in zip(found.verdicts, FILMED.items(), strict=True):
        _, probabilities = by_hand(tiny_model, folder / name, texts)
        assert (verdict.uri, verdict.label) == (str(folder / name), label)
        assert verdict.said == texts[probabilities[0].argmax()]
        assert verdict.probability == pytest.approx(probabilities[0].max(), abs=1e-5)
        assert verdict.rank == 1 + (probabilities[0] > probabilities[0][texts.index(label)]).sum()
        right += verdict.said == label
    assert found.figures.top_1 == right / 4
    assert (found.videos, found.scored, found.failed) == (4, 4, 0)
    assert [(line.label, line.prompts, line.videos) for line in found.classes] == [
        ("left", ("left",), 2), ("still", ("still",), 1), ("up", ("up",), 1)
    ]  # fmt: skip
    assert sum(pair.videos for pair in found.confusions) == 4 - right
    assert found.wall_s > found.decode_s > 0


def test_views_are_fused_by_their_softmax_and_ranked_by_their_logits(folder, settings, tiny_model) -> None:
    views = Views(clips=3, crops=3, seed=4)
    found = evaluate(labelled(folder), replace(settings, views=views))
    texts = ["left", "still", "up"]
    logits = []
    for verdict, name in zip(found.verdicts, FILMED, strict=True):
        each, probabilities = by_hand(tiny_model, folder / name, texts, views)
        assert len(probabilities) == 9
        fused = probabilities.sum(axis=0) / 9
        assert (verdict.said, verdict.probability) == (texts[fused.argmax()], pytest.approx(fused.max(), abs=1e-5))
        logits.append(each.mean(axis=0))
    own = [np.array(list(FILMED.values())) == label for label in texts]
    expected = [
        1 + (column[~mine] > column[mine].max()).sum() for column, mine in zip(np.array(logits).T, own, strict=True)
    ]
    assert [line.found_at for line in found.classes] == expected


def test_the_seed_decides_several_views_and_a_single_view_has_none(folder, settings) -> None:
    def probabilities(views: Views) -> list[float]:
        return [verdict.probability for verdict in evaluate(labelled(folder), replace(settings, views=views)).verdicts]

    assert probabilities(Views(clips=2, seed=1)) == probabilities(Views(clips=2, seed=1))
    assert probabilities(Views(clips=2, seed=1)) != probabilities(Views(clips=2, seed=2))
    assert probabilities(Views(seed=1)) == probabilities(Views(seed=2))


def test_neither_order_nor_company_changes_what_is_said_of_a_video(folder, settings) -> None:
    views = replace(settings, views=Views(clips=2))
    together = evaluate(labelled(folder), views)
    backwards = evaluate(labelled(folder, dict(reversed(FILMED.items())) | {"broken.mp4": "up"}), views)
    for one, other in zip(together.verdicts, reversed(backwards.verdicts), strict=True):
        assert (one.uri, one.said, one.rank) == (other.uri, other.said, other.rank)
        assert one.probability == pytest.approx(other.probability, abs=1e-5)
    assert together.figures.top_1 == backwards.figures.top_1


def test_a_bad_video_is_counted_and_listed_and_the_run_goes_on(folder, settings) -> None:
    names = {"broken.mp4": "left", **FILMED, "empty.mov": "up", "vanished.mp4": "up"}
    seen: list[Progress] = []
    found = evaluate(labelled(folder, names), settings, watch=seen.append)
    assert (found.videos, found.scored, found.failed) == (7, 4, 3)
    assert [(Path(failure.uri).name, failure.error_kind) for failure in found.failures] == [
        ("broken.mp4", "not_a_video"), ("empty.mov", "not_a_video"), ("vanished.mp4", "unreadable")
    ]  # fmt: skip
    assert found.figures == evaluate(labelled(folder), settings).figures
    assert seen[-1] == Progress("evaluate", 7, 7)


def test_without_a_sound_video_there_are_no_figures(folder, settings) -> None:
    found = evaluate(labelled(folder, {"broken.mp4": "left"}), settings)
    assert (found.figures, found.scored, found.failed, found.verdicts) == (None, 0, 1, ())
    assert [(line.label, line.videos, line.accuracy) for line in found.classes] == [("left", 0, None)]


def test_other_frames_and_sizes_are_scored_by_the_resampled_model_and_said(folder, settings, tiny_weights) -> None:
    found = evaluate(labelled(folder), replace(settings, frames=3, image_size=16))
    assert (found.frames, found.image_size) == (3, 16)
    assert [note.split(";")[0] for note in found.notes] == [
        "the model's frame table was resampled from 5 to 3 frames",
        "the model's patch table was resampled from 24 to 16 pixels",
    ]
    resampled, texts = load(tiny_weights, frames=3, image_size=16), ["left", "still", "up"]
    for verdict, name in zip(found.verdicts, FILMED, strict=True):
        _, probabilities = by_hand(resampled, folder / name, texts)
        assert verdict.probability == pytest.approx(probabilities[0].max(), abs=1e-5)
    assert evaluate(labelled(folder), settings).notes == ()


def test_frames_that_are_not_those_of_the_protocol_are_said(folder, settings) -> None:
    one = labelled(folder, {"up.mp4": "up"})
    assert "'full' has 8 or 16 frames per clip" in evaluate(one, replace(settings, protocol="full")).notes[0]
    kept = evaluate(one, replace(settings, protocol="full", frames=8)).notes
    assert [note.split(";")[0] for note in kept] == ["the model's frame table was resampled from 5 to 8 frames"]


def prompts(found: Evaluation) -> list[tuple[str, ...]]:
    return [line.prompts for line in found.classes]


def test_labels_are_put_into_the_template_and_camel_case_apart(folder, settings) -> None:
    camel = labelled(folder, {"left.mp4": "MovingLeft", "up.mp4": "up"})
    assert prompts(evaluate(camel, settings)) == [("MovingLeft",), ("up",)]
    worded = replace(settings, template="a {} video", split_camel_case=True)
    found = evaluate(camel, worded)
    assert prompts(found) == [("a Moving Left video",), ("a up video",)]
    assert [line.label for line in found.classes] == ["MovingLeft", "up"], "names stay, texts change"


def test_a_label_set_may_hold_more_labels_and_prompts_of_their_own(folder, settings, tiny_model) -> None:
    label_set = LabelSet((Label("up", ("it rises", "it goes up")), Label("none", ("none",)), Label("left", ("left",))))
    two = labelled(folder, {"left.mp4": "left", "up.mp4": "up"})
    found = evaluate(two, replace(settings, template="{}!"), label_set=label_set)
    assert prompts(found) == [("it rises", "it goes up"), ("none!",), ("left!",)]
    assert [line.videos for line in found.classes] == [1, 0, 1]
    logits, _ = by_hand(tiny_model, folder / "up.mp4", ["it rises", "it goes up", "none!", "left!"])
    means = [logits[0, :2].mean(), logits[0, 2], logits[0, 3]]
    assert found.verdicts[1].said == ["up", "none", "left"][int(np.argmax(means))]
    assert found.verdicts[1].probability == pytest.approx(np.exp(max(means)) / np.exp(means).sum(), abs=1e-5)


def test_what_cannot_be_evaluated_is_said_before_any_video_is_opened(settings) -> None:
    videos = LabelledVideos((Example(Path("/nowhere.mp4"), "left"),), ("left",))
    with pytest.raises(InputError, match="1 labels of the videos are not in the label set, such as left"):
        evaluate(videos, settings, label_set=LabelSet((Label("right", ("right",)),)))
    with pytest.raises(InputError, match="tokens and the model takes 75"):
        evaluate(videos, replace(settings, template="word " * 90 + "{}"))
    with pytest.raises(InputError, match="'a video' has no place for the label"):
        EvaluationSettings(template="a video")


@pytest.mark.ray
def test_both_engines_say_the_same(folder, settings, ray_cluster) -> None:
    names = labelled(folder, {**FILMED, "broken.mp4": "up"})
    views = replace(settings, views=Views(clips=2, crops=3))
    local, ray = evaluate(names, views), evaluate(names, replace(views, engine="ray"))
    assert ray.failures == local.failures
    assert [(v.uri, v.said, v.rank) for v in ray.verdicts] == [(v.uri, v.said, v.rank) for v in local.verdicts]
    assert ray.figures == replace(
        local.figures, calibration_error=pytest.approx(local.figures.calibration_error, abs=1e-5)
    )
