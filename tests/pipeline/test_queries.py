"""Queries as numbers: the formulas at the head of the module, against the model's own calls one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from pipeline import pictures, queries, sampling
from pipeline.queries import UNWANTED_WEIGHT, Example, Known, Phrase, Query, Still, of_text, prepare, weights
from pipeline.search import stored_tensors
from pipeline.serving import OpenSpace
from pipeline.settings import Sampling
from schemas.errors import InputError, NotAVideo
from tests.media import make_video
from tests.models import WORDED
from xclip_core import XClip, encode_text, encode_text_raw, encode_video

COLUMNS = ["clip_id", "embedding", "context"]
HOW = Sampling(window_s=2.0, stride_s=2.0, frames=WORDED.frames)


@pytest.fixture(scope="module")
def opened(stock: Callable[[str], OpenSpace]) -> OpenSpace:
    return stock("float16")


@pytest.fixture(scope="module")
def clips(opened: OpenSpace) -> list[dict]:
    return opened.archive.visible_clips(opened.space, COLUMNS).to_pylist()


@pytest.fixture
def prepared(opened: OpenSpace, clips: list[dict]) -> Callable:
    stored = {clip["clip_id"]: clip["embedding"] for clip in clips}
    return lambda query: prepare(
        opened.model, query, HOW, lambda ids: {each: stored[each] for each in ids if each in stored}
    )


def logits(opened: OpenSpace, clips: list[dict], *texts: str) -> torch.Tensor:
    """The model's own logits of each clip with each text, asked for together."""
    with torch.inference_mode():
        return opened.model.score(*stored_tensors(opened.model, clips), encode_text_raw(opened.model, list(texts)))


def scores(opened: OpenSpace, clips: list[dict], found: queries.Prepared) -> torch.Tensor:
    return found.scores(opened.model, *stored_tensors(opened.model, clips))


@pytest.mark.parametrize("text", ["snow", "a red square moves to the left"])
def test_a_single_text_is_what_it_always_was_to_the_bit(text, opened, clips, prepared) -> None:
    found = prepared(of_text(text))
    assert np.array_equal(found.recall_E, encode_text(opened.model, [text])[0].numpy())
    assert torch.equal(scores(opened, clips, found), logits(opened, clips, text)[:, 0])


def test_the_weight_of_a_single_text_changes_nothing(opened, clips, prepared) -> None:
    plain, heavy = (prepared(Query(phrases=(Phrase(("snow",), weight),))) for weight in (1.0, 7.0))
    assert np.array_equal(plain.recall_E, heavy.recall_E)
    assert torch.equal(scores(opened, clips, plain), scores(opened, clips, heavy))


def test_texts_with_weights_and_one_that_is_not_wanted(opened, clips, prepared) -> None:
    query = Query(
        phrases=(Phrase(("dog",), 3.0), Phrase(("running",), 1.0)), unwanted=(Phrase(("beach",), UNWANTED_WEIGHT),)
    )
    found = prepared(query)
    model_M3 = logits(opened, clips, "dog", "running", "beach")
    expected = 0.75 * model_M3[:, 0] + 0.25 * model_M3[:, 1] - 0.5 * model_M3[:, 2]
    assert torch.allclose(scores(opened, clips, found), expected, atol=1e-4)
    dog_E, running_E, beach_E = encode_text(opened.model, ["dog", "running", "beach"])
    sum_E = F.normalize(0.75 * dog_E + 0.25 * running_E - 0.5 * beach_E, dim=-1)
    assert found.recall_E == pytest.approx(sum_E.numpy(), abs=1e-6)
    assert np.linalg.norm(found.recall_E) == pytest.approx(1)


def test_wordings_and_templates_are_averaged_as_the_prompts_of_a_label_are(opened, clips, prepared) -> None:
    query = Query(phrases=(Phrase(("a dog runs", "a running dog")),), templates=("{}", "a video of {}"))
    found = prepared(query)
    prompts = ["a dog runs", "a video of a dog runs", "a running dog", "a video of a running dog"]
    assert query.prompts == [prompts]
    assert torch.allclose(scores(opened, clips, found), logits(opened, clips, *prompts).mean(dim=1), atol=1e-4)
    mean_E = F.normalize(encode_text(opened.model, prompts).mean(dim=0), dim=-1)
    assert found.recall_E == pytest.approx(mean_E.numpy(), abs=1e-6)


def test_a_clip_of_the_archive_is_its_vector(opened, clips, prepared) -> None:
    found = prepared(Query(known=(Known(clips[3]["clip_id"]),)))
    own_E = F.normalize(torch.tensor(clips[3]["embedding"]), dim=-1)
    assert found.recall_E == pytest.approx(own_E.numpy(), abs=1e-6)
    video_ME = F.normalize(torch.tensor([clip["embedding"] for clip in clips]), dim=-1)
    expected_M = opened.model.logit_scale.exp().detach() * (video_ME @ own_E)
    assert torch.allclose(scores(opened, clips, found), expected_M, atol=1e-4)
    assert int(scores(opened, clips, found).argmax()) == 3


def test_a_text_and_a_clip_together(opened, clips, prepared) -> None:
    both = prepared(Query(phrases=(Phrase(("snow",), 1.0),), known=(Known(clips[0]["clip_id"], 3.0),)))
    text, clip = (prepared(q) for q in (of_text("snow"), Query(known=(Known(clips[0]["clip_id"]),))))
    expected = 0.25 * scores(opened, clips, text) + 0.75 * scores(opened, clips, clip)
    assert torch.allclose(scores(opened, clips, both), expected, atol=1e-4)


# --- pictures and files


def test_a_picture_is_a_clip_in_which_nothing_moves(tiny_model: XClip, tmp_path: Path) -> None:
    size, frames = WORDED.image_size, WORDED.frames
    colour = (200, 120, 40)
    Image.new("RGB", (3 * size, 2 * size), colour).save(tmp_path / "a.png")
    shown = pictures.of_still(tmp_path / "a.png", frames, size)
    assert shown.shape == (frames, size, size, 3)
    assert (shown == np.array(colour, np.uint8)).all()
    vector_E = pictures.encode(tiny_model, shown)
    assert torch.allclose(vector_E, encode_video(tiny_model, torch.from_numpy(shown)[None])[0])
    assert float(vector_E.norm()) == pytest.approx(1)


def test_a_picture_is_cropped_to_its_centre_and_turned_upright(tmp_path: Path) -> None:
    size = WORDED.image_size
    picture = Image.new("RGB", (4 * size, size), (255, 0, 0))
    picture.paste((0, 0, 255), (size, 0, 3 * size, size))  # blue in the middle, which the crop keeps
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    shown = pictures.of_still(tmp_path / "a.jpg", 1, size)[0].astype(int)
    assert abs(shown - [0, 0, 255]).max() < 20


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 30])
def test_what_is_no_picture_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"the picture .*a\.png cannot be read .*expected one of JPEG, PNG"):
        pictures.of_still(tmp_path / "a.png", 1, WORDED.image_size)
    with pytest.raises(InputError, match="cannot be read"):
        pictures.of_still(tmp_path / "lost.png", 1, WORDED.image_size)


def test_a_picture_of_too_many_pixels_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import thumbnails

    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr(thumbnails, "MAX_PIXELS", 59_999)
    with pytest.raises(InputError, match="has 300 x 200 pixels; expected fewer"):
        pictures.of_still(tmp_path / "a.png", 1, WORDED.image_size)


def test_a_moment_of_a_file_has_the_frames_that_the_indexer_would_take(tmp_path: Path) -> None:
    """50 frames at 25 per second, frame n in grey 5 n: those at the centres of the parts of 1 s +- 0.5 s."""
    video = make_video(tmp_path / "a.mp4", frames=50)
    settings = Sampling(window_s=1.0, stride_s=1.0, frames=4)
    shown = pictures.of_moment(str(video), 1.0, settings, 32)
    expected = [int(25 * t + 1e-6) for t in sampling.centres(0.5, 1.5, 4)]
    assert shown.shape == (4, 32, 32, 3)
    assert [round(float(frame.mean()) / 5) for frame in shown] == expected
    assert np.array_equal(shown, pictures.of_moment(str(video), None, settings, 32)), "1 s is the middle"


@pytest.mark.parametrize(("at_s", "span"), [(0.0, (0.0, 1.0)), (0.2, (0.0, 1.0)), (1.9, (1.0, 2.0)), (1.0, (0.5, 1.5))])
def test_a_window_is_moved_into_the_video(at_s: float, span: tuple[float, float]) -> None:
    times = np.arange(50) / 25
    window = pictures.window_at(at_s, times, 2.0, Sampling(window_s=1.0, stride_s=1.0, frames=4), "a.mp4")
    assert (window.start_s, window.end_s) == pytest.approx(span)


def test_a_video_shorter_than_a_window_is_one_clip() -> None:
    window = pictures.window_at(0.3, np.arange(10) / 25, 0.4, Sampling(frames=4), "a.mp4")
    assert (window.start_s, window.end_s) == (0.0, 0.4)


@pytest.mark.parametrize("at_s", [-0.1, 2.1])
def test_a_moment_that_a_video_does_not_have_is_told(at_s: float) -> None:
    with pytest.raises(InputError, match=rf"a\.mp4 has no moment at {at_s} s; expected --at from 0 to 2"):
        pictures.window_at(at_s, np.arange(50) / 25, 2.0, Sampling(), "a.mp4")


def test_a_file_that_is_no_video_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(NotAVideo):
        pictures.of_moment(str(tmp_path / "a.mp4"), None, HOW, 32)


def test_pictures_and_files_are_parts_like_others(opened, clips, prepared, tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", frames=50)
    Image.new("RGB", (50, 50), (10, 200, 10)).save(tmp_path / "a.png")
    still, example = Still(tmp_path / "a.png"), Example(str(video), 0.5)
    both = prepared(Query(stills=(still,), examples=(example,)))
    alone = [prepared(Query(stills=(still,))), prepared(Query(examples=(example,)))]
    expected = sum(scores(opened, clips, each) for each in alone) / 2
    assert torch.allclose(scores(opened, clips, both), expected, atol=1e-4)
    assert np.dot(*(each.recall_E for each in alone)) < 0.9999, "the two are not the same"


# --- what cannot be asked


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "there is nothing to look for"),
        ({"unwanted": (Phrase(("beach",)),)}, "there is nothing to look for"),
        ({"phrases": (Phrase(("a",), 0.0),)}, "expected numbers over 0"),
        ({"phrases": (Phrase(("a",), -1.0),)}, "expected numbers over 0"),
        ({"phrases": (Phrase(("a",), float("nan")),)}, "expected numbers over 0"),
        ({"phrases": (Phrase(("a",)),), "unwanted": (Phrase(("b",), float("inf")),)}, "expected numbers over 0"),
        ({"phrases": (Phrase(("a",)),), "templates": ("a video",)}, "expected one {} in it"),
        ({"phrases": (Phrase(("a",)),), "templates": ("{} and {}",)}, "expected one {} in it"),
        ({"phrases": (Phrase(("a",)),), "templates": ()}, "expected one {} in it"),
        ({"known": (Known("12"),)}, "'12' is no id of a clip; expected 16 hex digits"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Query(**wrong)


def test_an_empty_text_is_not_hidden_by_a_template(prepared) -> None:
    with pytest.raises(InputError, match="is empty"):
        prepared(Query(phrases=(Phrase(("",)),), templates=("a video of {}",)))


def test_what_cancels_out_is_refused(prepared) -> None:
    with pytest.raises(InputError, match="cancel out"):
        prepared(Query(phrases=(Phrase(("dog",)),), unwanted=(Phrase(("dog",), 1.0),)))


def test_a_clip_that_the_archive_does_not_have_is_told(prepared) -> None:
    with pytest.raises(InputError, match="the archive has no clip 0000000000000000"):
        prepared(Query(known=(Known("0" * 16),)))


def test_weights_are_for_each_part_or_none() -> None:
    assert list(weights([2.0, 1.0], 2)) == [2.0, 1.0]
    assert list(weights(None, 3)) == [1.0, 1.0, 1.0]
    with pytest.raises(InputError, match="1 weights for 2 parts; expected one for each"):
        weights([1.0], 2)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (of_text("a dog"), "a dog"),
        (Query(phrases=(Phrase(("a dog",), 3.0),)), "a dog"),
        (Query(phrases=(Phrase(("dog",), 2.0), Phrase(("run",), 1.0))), "2 x dog, run"),
        (Query(phrases=(Phrase(("dog", "hound")),), unwanted=(Phrase(("cat",)),)), "dog / hound, not cat"),
        (Query(examples=(Example("/a.mp4", 12.5),)), "/a.mp4 at 12.5 s"),
        (Query(known=(Known("0" * 16),)), "clip 0000000000000000"),
    ],
)
def test_a_query_in_words(query: Query, said: str) -> None:
    assert query.said == said
