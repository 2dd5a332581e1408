"""Any open_clip model: SigLIP's, MobileCLIP's, CoCa's and multilingual kinds give open_clip's own numbers."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from schemas.errors import InputError, WeightsError
from tests import hub, towers
from tests.hub import in_a_process
from tests.towers import KINDS
from xclip_core import encode_text, encode_text_raw, encode_video, encode_video_with_context, load_encoder
from xclip_core.frame_mean import FrameMean

TEXTS = ["a red circle moves to the left", "snow"]
# Of each kind: pixels, and the longest text in tokens.
SIZES = {
    "tiny-siglip": (160, 16),
    "tiny-mobileclip": (64, 77),
    "tiny-coca": (32, 76),
    "tiny-multilingual": (32, 77),
}


@dataclass(frozen=True)
class Kind:
    """One architecture: its name, the source of its weights, open_clip's own model of them, and ours."""

    name: str
    source: str
    reference: nn.Module
    model: FrameMean


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory) -> Kind:
    return make(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory) -> Kind:
    return make("tiny-siglip", tmp_path_factory)


def make(name: str, tmp_path_factory) -> Kind:
    folder = tmp_path_factory.mktemp(name)
    source, reference = towers.make(name, folder, KINDS[name](folder))
    return Kind(name, source, reference, load_encoder(source, frames=2))


def random_clips(model: FrameMean, clips: int = 2) -> Tensor:
    """Frames B x T x S x S x 3, uint8, of a tint of their own: pooling would make any noise the same."""
    T, S = model.config.frames, model.config.image_size
    generator = torch.Generator().manual_seed(2)
    tint = torch.rand(clips, T, 1, 1, 3, generator=generator)
    return (256 * tint * torch.rand(clips, T, S, S, 3, generator=generator)).to(torch.uint8)


def open_clips_mean(reference: nn.Module, frames: Tensor, mean: tuple, std: tuple) -> Tensor:
    """Unit means of open_clip's own frame vectors, B x E; `mean` and `std` are on the 0..1 scale."""
    pixels = ((frames / 255 - torch.tensor(mean)) / torch.tensor(std)).movedim(-1, 2)
    vectors = [reference.encode_image(clip, normalize=False).mean(dim=0) for clip in pixels]
    return F.normalize(torch.stack(vectors), dim=-1)


@torch.inference_mode()
def test_a_clip_is_the_mean_of_open_clips_frame_vectors(kind):
    frames = random_clips(kind.model)
    expected = open_clips_mean(kind.reference, frames, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    video, context = encode_video_with_context(kind.model, frames)
    torch.testing.assert_close(video, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(video[0], video[1], atol=1e-3), "clips must be told apart"
    assert context.shape == (2, 0, 64)


@torch.inference_mode()
def test_texts_are_those_of_open_clips_own_tokeniser(kind):
    words = open_clip.get_tokenizer(kind.name)(TEXTS)
    expected = kind.reference.encode_text(words, normalize=False)
    torch.testing.assert_close(encode_text_raw(kind.model, TEXTS), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected[0], expected[1], atol=1e-3), "texts must be told apart"


def test_sizes_are_the_architectures(kind):
    config = kind.model.config
    assert (config.image_size, config.context_length) == SIZES[kind.name]
    assert (config.embed_dim, config.arch) == (64, kind.name)


def test_the_longest_text_is_taken_and_one_more_word_is_refused(kind):
    ends = {"tiny-siglip": 1, "tiny-multilingual": 1}.get(kind.name, 2)  # tokens that are no word
    room = kind.model.config.context_length - ends
    assert encode_text(kind.model, ["word " * room]).isfinite().all()
    with pytest.raises(InputError, match=rf"more tokens than the {room + ends} of {kind.name}; shorten it"):
        encode_text(kind.model, ["fine", "word " * (room + 1)])


@torch.inference_mode()
def test_the_score_is_the_scaled_cosine(kind):
    frames = random_clips(kind.model)
    video, context = encode_video_with_context(kind.model, frames)
    logits = kind.model.score(video, context, encode_text_raw(kind.model, TEXTS))
    expected = kind.reference.logit_scale.exp() * video @ encode_text(kind.model, TEXTS).T
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    assert kind.model.logit_scale.shape == ()


def test_it_is_known_by_its_weights_whatever_they_are(kind):
    again = load_encoder(kind.source, frames=2)
    assert again.provenance == kind.model.provenance
    assert again.provenance.notes == ()
    assert not any(module.training for module in again.modules()), "batch norm would look at the batch"


@torch.inference_mode()
def test_half_precision_is_taken(kind):
    model = load_encoder(kind.source, frames=2, dtype=torch.bfloat16)
    frames = random_clips(model)
    video, whole = encode_video(model, frames), encode_video(kind.model, frames)
    assert (video * whole).sum(dim=-1).min() > 0.95
    assert encode_text(model, TEXTS).isfinite().all()


@torch.inference_mode()
def test_the_logits_of_siglip_are_open_clips_less_the_bias(siglip):
    model = load_encoder(siglip.source, frames=1)
    frames = random_clips(model)
    mean, std = (torch.tensor(x) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    pixels = ((frames[:, 0] / 255 - mean) / std).movedim(-1, 1)
    expected, _ = siglip.reference.get_logits(pixels, open_clip.get_tokenizer(siglip.name)(TEXTS))
    logits = model.score(*encode_video_with_context(model, frames), encode_text_raw(model, TEXTS))
    assert siglip.reference.logit_bias.item() == -10
    torch.testing.assert_close(logits - 10, expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_weights_of_a_tag_bring_their_own_pixels(siglip, monkeypatch):
    """open_clip's table of weights may name a file in place of the hub's: a row more is all this needs."""
    tag = {"file": siglip.source.partition("=")[2], "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.5, 1.0)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, siglip.name, {"webli": tag})
    model = load_encoder(f"openclip:{siglip.name}/webli", frames=2)
    assert model.config.mean == (127.5, 127.5, 127.5)
    assert model.config.std == (63.75, 127.5, 255.0)
    frames = random_clips(model)
    expected = open_clips_mean(siglip.reference, frames, tag["mean"], tag["std"])
    torch.testing.assert_close(encode_video(model, frames), expected, atol=1e-5, rtol=0)
    assert model.provenance.weights_hash == siglip.model.provenance.weights_hash


@pytest.mark.parametrize(("name", "size"), [("tiny-siglip", 192), ("tiny-mobileclip", 96)])
def test_another_picture_size_is_taken_and_said(name, size, tmp_path_factory):
    kind = make(name, tmp_path_factory)
    model = load_encoder(kind.source, frames=2, image_size=size)
    assert model.config.image_size == size
    assert f"{size} pixels" in model.provenance.notes[0]
    assert encode_video(model, random_clips(model)).isfinite().all()


def test_weights_of_another_kind_are_refused(kind, tmp_path):
    torch.save({"visual.nothing": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"cannot be loaded \(.*\); expected tensors of that architecture"):
        load_encoder(f"openclip:{kind.name}={tmp_path}/other.pt")


@torch.inference_mode()
def test_the_trunk_of_mobileclip_is_open_clips(tmp_path):
    source, reference = towers.make("tiny-fastvit", tmp_path, towers.mobileclip(tmp_path, "fastvit_mci0"))
    model = load_encoder(source, frames=2)
    frames = random_clips(model)
    expected = open_clips_mean(reference, frames, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    torch.testing.assert_close(encode_video(model, frames), expected, atol=1e-5, rtol=0)


# Tokenisers that are fetched


SIGLIP = "ViT-B-16-SigLIP"
TOKENISE = f"""
from xclip_core.tokenise import tokenise
print(tokenise(["snow"], context_length=4, arch={SIGLIP!r}).tolist())
"""


def test_a_tokeniser_that_cannot_be_fetched_says_how_to_have_it(tmp_path):
    run = in_a_process(TOKENISE, tmp_path, HF_HUB_OFFLINE="1")
    message = run.stderr.strip().splitlines()[-1]
    assert message.startswith(
        f"schemas.errors.InputError: the tokeniser of {SIGLIP} (timm/{SIGLIP}) is not in the cache"
    )
    assert "HF_HUB_OFFLINE is set" in message
    assert f"""`python -c "import open_clip; open_clip.get_tokenizer('{SIGLIP}')"`""" in message
    assert f"copy models--timm--{SIGLIP} from the cache there to {tmp_path}/hub/models--timm--{SIGLIP}" in message


@pytest.mark.slow
def test_a_tokeniser_that_was_fetched_as_advised_and_copied_needs_no_network(tmp_path):
    words = towers.save_tokeniser(tmp_path / "words")
    with hub.serve({f"timm/{SIGLIP}": words}) as served:
        there = {"HF_ENDPOINT": served.url, "NO_PROXY": "127.0.0.1,localhost"}
        advice = f"import open_clip; open_clip.get_tokenizer({SIGLIP!r})"
        assert in_a_process(advice, tmp_path / "there", **there).returncode == 0
    folder = f"hub/models--timm--{SIGLIP}"
    shutil.copytree(tmp_path / "there" / folder, tmp_path / "here" / folder, symlinks=True)
    run = in_a_process(TOKENISE, tmp_path / "here", HF_HUB_OFFLINE="1")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str([[2 + towers.WORDS.index("snow"), 1, 1, 1]])
