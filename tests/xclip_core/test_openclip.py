"""open_clip models as frame-mean encoders: open_clip's own numbers, behind X-CLIP's interface."""

from __future__ import annotations

from dataclasses import replace

import open_clip
import pytest
import torch
from torch.nn import functional as F

from schemas.errors import InputError, ShapeError, WeightsError
from tests.clips import openclip_model, register, save_openai
from tests.models import WORDED, random_frames, random_state, save_safetensors
from xclip_core import (
    canonical_source,
    encode_text,
    encode_text_raw,
    encode_video,
    encode_video_with_context,
    load,
    load_encoder,
    openclip,
)

FRAMES = random_frames(replace(WORDED, frames=8))
TEXTS = ["a red circle moves to the left", "snow"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny architecture, registered, and a file of its weights."""
    folder = tmp_path_factory.mktemp("openclip")
    register("tiny-clip", WORDED, folder)
    torch.save(openclip_model(WORDED).state_dict(), folder / "clip.pt")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_encoder(f"openclip:tiny-clip={folder}/clip.pt")


@torch.inference_mode()
def test_a_clip_is_the_mean_of_open_clips_frame_vectors_with_open_clips_own_pixels(model):
    reference = openclip_model(WORDED)
    mean, std = (torch.tensor(x) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    pixels = ((FRAMES / 255 - mean) / std).movedim(-1, 2)
    expected = torch.stack([reference.encode_image(clip).mean(dim=0) for clip in pixels])
    video, context = encode_video_with_context(model, FRAMES)
    torch.testing.assert_close(video, F.normalize(expected, dim=-1), atol=1e-5, rtol=0)
    assert context.shape == (len(FRAMES), 0, WORDED.embed_dim)


@torch.inference_mode()
def test_texts_are_open_clips(model):
    reference = openclip_model(WORDED)
    expected = reference.encode_text(open_clip.get_tokenizer("tiny-clip")(TEXTS))
    torch.testing.assert_close(encode_text_raw(model, TEXTS), expected, atol=1e-5, rtol=0)


def test_the_score_is_the_scaled_cosine(model):
    video, context = encode_video_with_context(model, FRAMES)
    cosines = video @ encode_text(model, TEXTS).T
    logits = model.score(video, context, encode_text_raw(model, TEXTS))
    torch.testing.assert_close(logits, model.logit_scale.exp() * cosines, atol=1e-4, rtol=0)


def test_any_number_of_frames_is_taken_and_order_is_nothing(folder):
    model = load_encoder(f"openclip:tiny-clip={folder}/clip.pt", frames=3)
    frames = FRAMES[:, :3]
    torch.testing.assert_close(encode_video(model, frames), encode_video(model, frames.flip(1)), atol=1e-6, rtol=0)
    assert model.config.frames == 3
    with pytest.raises(ShapeError, match=r"takes uint8 RGB \(clips, 3 frames"):
        encode_video(model, FRAMES)


def test_an_openai_archive_is_a_file_too(folder, model):
    path = save_openai(folder, WORDED)
    other = load_encoder(f"openclip:tiny-clip={path}")
    torch.testing.assert_close(encode_video(other, FRAMES), encode_video(model, FRAMES), atol=5e-3, rtol=0)
    assert other.provenance.weights_hash != model.provenance.weights_hash, "its values are half precision"


def test_it_is_known_by_its_weights(folder, model):
    again = load_encoder(f"openclip:tiny-clip={folder}/clip.pt")
    assert model.provenance.layout == "openclip"
    assert again.provenance == model.provenance
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_another_picture_size_is_said(folder):
    size = WORDED.image_size + WORDED.patch_size
    model = load_encoder(f"openclip:tiny-clip={folder}/clip.pt", image_size=size)
    assert model.config.image_size == size
    said = f"the model is of {WORDED.image_size} pixels and sees pictures of {size} pixels"
    assert model.provenance.notes == (f"{said}; no accuracy is published for that",)
    same = load_encoder(f"openclip:tiny-clip={folder}/clip.pt", image_size=WORDED.image_size)
    assert same.provenance.notes == ()


@pytest.mark.parametrize(
    ("arch", "mean"),
    [
        ("ViT-B-16-SigLIP", 127.5),
        ("ViT-B-16-SigLIP2", 127.5),
        ("MobileCLIP-S1", 0),
        ("MobileCLIP2-S0", 0),
        ("ViT-B-32-quickgelu", 255 * 0.48145466),
        ("ViT-L-14", 255 * 0.48145466),  # of which one is not like the others
    ],
)
def test_a_file_has_the_pixels_of_its_architectures_own_weights(arch, mean):
    wanted = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    assert 255 * openclip._usual_pixels(arch, wanted)[0][0] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "is empty"), ("  ", "is empty"), ("word " * 76, r"more tokens than the 77 of tiny-clip")]
)
def test_texts_that_would_be_cut_are_refused(text, reason, model):
    with pytest.raises(InputError, match=reason):
        encode_text(model, ["fine", text])
    assert encode_text(model, ["word " * 75]).isfinite().all()


# Names


def test_a_file_is_named_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert canonical_source("openclip:ViT-B-32=clip.pt") == f"openclip:ViT-B-32={tmp_path}/clip.pt"
    assert canonical_source("openclip:ViT-B-32/openai") == "openclip:ViT-B-32/openai"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("openclip:", "expected openclip:ARCH/TAG or openclip:ARCH=FILE"),
        ("openclip:ViT-B-32", "expected openclip:ARCH/TAG or openclip:ARCH=FILE"),
        ("openclip:ViT-B-33/openai", r"no architecture 'ViT-B-33'; did you mean .*ViT-B-32"),
        ("openclip:ViT-B-32/nobody", r"no weights 'nobody' for ViT-B-32; it has .*openai"),
        ("openclip:ViT-B-32=/nowhere.pt", "there is no model file at /nowhere.pt"),
    ],
)
def test_names_that_stand_for_nothing_are_refused_with_what_there_is(name, reason):
    with pytest.raises(InputError, match=reason):
        load_encoder(name)


def test_weights_of_another_architecture_are_refused(folder, tmp_path):
    path = save_safetensors(random_state(WORDED), tmp_path)
    with pytest.raises(WeightsError, match=r"cannot be loaded \(.*\); expected tensors of that architecture"):
        load_encoder(f"openclip:tiny-clip={path}")


def test_where_x_clip_is_needed_a_frame_mean_is_refused(folder):
    with pytest.raises(InputError, match=r"is a frame-mean encoder.*X-CLIP weights are needed here"):
        load(f"openclip:tiny-clip={folder}/clip.pt")
