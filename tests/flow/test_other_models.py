"""The whole job with models that are not plain X-CLIP: open_clip's, a start from CLIP, resampled tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline import tagged
from pipeline.archive import Archive
from pipeline.evaluation import EvaluationSettings, evaluate
from pipeline.finetune import prepare
from pipeline.flows import IndexReport, index
from pipeline.label_sets import Label, LabelSet
from pipeline.labelled import read_labelled
from pipeline.protocols import FinetuneSettings
from pipeline.search import search
from pipeline.serving import open_space
from pipeline.tagging import TagSettings, tag
from schemas.errors import SpaceMismatch
from tests.clips import openclip_model, register
from tests.footage import CLIPS, film
from tests.models import WORDED
from xclip_core import encode_text

LABELS = LabelSet((Label("left", ("something moves left", "to the left")), Label("snow", ("snow",))))


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny CLIP whose architecture open_clip knows as tiny-clip."""
    folder = tmp_path_factory.mktemp("clip")
    register("tiny-clip", WORDED, folder)
    torch.save(openclip_model(WORDED).state_dict(), folder / "clip.pt")
    return folder / "clip.pt"


@pytest.fixture(scope="module")
def by_frame_mean(clip_file: Path, pile, settings_for, tmp_path_factory) -> tuple[Path, IndexReport]:
    """The pile, indexed by open_clip's model."""
    folder = tmp_path_factory.mktemp("mean") / "archive"
    return folder, index(pile, folder, settings_for(model=f"openclip:tiny-clip={clip_file}", frames=3))


def test_an_open_clip_model_indexes_and_stores_no_context(by_frame_mean) -> None:
    folder, report = by_frame_mean
    assert (report.clips, report.notes) == (CLIPS, ())
    clips = Archive.open(folder).visible_clips(report.space, ["context", "embedding", "frame_times_s"]).to_pylist()
    assert {clip["context"] for clip in clips} == {b""}
    assert {len(clip["frame_times_s"]) for clip in clips} == {3}


def test_an_open_clip_model_ranks_by_the_scaled_cosine_with_and_without_reranking(by_frame_mean) -> None:
    opened = open_space(by_frame_mean[0])
    scale = opened.model.logit_scale.exp().item()
    for rerank in (True, False):
        hits = search(opened, "something moves left", rerank=rerank).hits
        assert len(hits) == CLIPS
        cosines = [hit.recall_score for hit in hits]
        assert cosines == sorted(cosines, reverse=True)
        # Vectors are stored at float16 precision: their length is 1 to about 1e-3.
        assert [hit.score for hit in hits] == pytest.approx([scale * cosine for cosine in cosines], abs=2e-3 * scale)


def test_an_open_clip_model_tags_by_the_mean_of_its_prompts(by_frame_mean) -> None:
    opened = open_space(by_frame_mean[0])
    tag(opened, LABELS, TagSettings(top=0))
    stored = {
        clip["clip_id"]: torch.tensor(clip["embedding"])
        for clip in opened.archive.visible_clips(opened.space, ["clip_id", "embedding"]).to_pylist()
    }
    left = encode_text(opened.model, list(LABELS.labels[0].prompts))
    for each in (each for video in tagged.videos(opened.archive, opened.space, LABELS.id) for each in video.tags):
        if each.label == "left":
            expected = opened.model.logit_scale.exp() * (left @ stored[each.clip_id]).mean()
            assert each.score == pytest.approx(expected.item(), abs=2e-3 * opened.model.logit_scale.exp().item())


def test_an_archive_remembers_how_its_model_was_resampled(
    pile: Path, settings_for, indexed: tuple[Path, IndexReport], tiny_weights: Path, tmp_path: Path
) -> None:
    size = WORDED.image_size + WORDED.patch_size
    report = index(pile, tmp_path / "archive", settings_for(frames=WORDED.frames + 2, image_size=size))
    assert report.space != indexed[1].space
    assert len(report.notes) == 2
    opened = open_space(tmp_path / "archive")
    assert (opened.model.config.frames, opened.model.config.image_size) == (WORDED.frames + 2, size)
    assert opened.notes == report.notes
    assert len(search(opened, "snow").hits) == CLIPS
    moved = open_space(tmp_path / "archive", str(tiny_weights))
    assert moved.model.config == opened.model.config, "named anew, it is resampled all the same"


def test_a_start_from_clip_indexes_and_is_said_not_to_be_trained(
    clip_file: Path, pile: Path, settings_for, tmp_path: Path
) -> None:
    report = index(pile, tmp_path / "archive", settings_for(model=str(clip_file)))
    assert report.clips == CLIPS
    assert "not trained" in report.notes[0]
    assert open_space(tmp_path / "archive").notes == report.notes


def test_a_start_from_clip_is_said_not_to_be_trained_before_training_and_after_evaluation(
    clip_file: Path, tmp_path: Path
) -> None:
    for motion in ("down", "up"):
        for seed in range(2):
            film(tmp_path / "videos" / motion / f"{seed}.mp4", motion, colour_seed=seed)
    settings = FinetuneSettings(init=str(clip_file), batch=4)
    notes = prepare(tmp_path / "videos", tmp_path / "out", settings).review.notes
    assert "not trained" in notes[0]
    labelled = read_labelled(tmp_path / "videos")
    assert evaluate(labelled, EvaluationSettings(model=str(clip_file), engine="local")).notes == notes


def test_the_same_clip_as_frame_mean_and_as_a_start_are_two_spaces(by_frame_mean, clip_file: Path) -> None:
    with pytest.raises(SpaceMismatch, match=r"another model of the same weights than .*clip\.pt': arch"):
        open_space(by_frame_mean[0], str(clip_file))
