"""Words to token ids as CLIP does it, but never cut."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InputError
from xclip_core.tokenise import _tokenizer_module, tokenise

START, END = 49406, 49407
LABELS = [
    "abseiling",
    "air drumming",
    "answering questions",
    "arm wrestling",
    "bee keeping",
    "blowing out candles",
    "catching or throwing baseball",
    "cooking on campfire",
    "dancing gangnam style",
    "eating spaghetti",
    "ApplyEyeMakeup",
    "HandstandPushups",
    "YoYo",
    "JUMPING",
    "jumping",
    "high-jump",
    "tai chi, outdoors!",
    "it's 3 o'clock; we've won",
    "somersaulting  twice \t quickly\n",
    " leading and trailing ",
    "rock &amp; roll",
    "rock &amp;amp; roll",
    "café au lait",
    "Ünïcödé schön",
    "\u201ccurly\u201d \u2018quotes\u2019",
    "mojibake: schÃ¶n",
    "東京でランニング",
    "Привет",
    "emoji 🏄 surfing",
    "half½ ①",
    "under_score/slash\\back",
    "supercalifragilisticexpialidocious",
    "0123456789",
    "e\u0301 combining",
    "a",
]


@pytest.mark.parametrize("label", LABELS)
def test_label_tokenises_as_open_clip_does(label):
    ids = tokenise([label])
    expected = open_clip.tokenize([label])
    assert torch.equal(ids, expected[:, : ids.shape[1]])
    assert not expected[:, ids.shape[1] :].any()


def test_batch_tokenises_as_open_clip_does_and_is_cut_to_its_longest():
    ids = tokenise(LABELS)
    expected = open_clip.tokenize(LABELS)
    longest = int(expected.argmax(dim=-1).max()) + 1
    assert ids.shape == (len(LABELS), longest)
    assert ids.dtype == torch.int64
    assert torch.equal(ids, expected[:, :longest])


@pytest.mark.parametrize("content", ["from . import factory", "import open_clip.no_such_module", None])
def test_a_tokeniser_that_does_not_stand_alone_comes_with_its_package(content, tmp_path, monkeypatch):
    """As it may be in a later open_clip."""
    if content is not None:
        (tmp_path / "tokenizer.py").write_text(content)
    spec = ModuleSpec("open_clip", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    assert _tokenizer_module() is open_clip.tokenizer


@given(st.text(max_size=60))
def test_any_text_is_refused_or_tokenises_as_open_clip_does(text):
    expected = open_clip.tokenize([text], context_length=400)
    length = int(expected[0].nonzero().max()) + 1  # 0 is padding, and also the id of "!"
    if length == 2 or length > 77:
        with pytest.raises(InputError, match=r"is empty|shorten it"):
            tokenise([text])
    else:
        assert torch.equal(tokenise([text]), expected[:, :length])


def test_known_ids():
    # The example of CLIP's own documentation, and the end of every row.
    assert tokenise(["a photo of a cat"]).tolist() == [[START, 320, 1125, 539, 320, 2368, END]]


def test_rows_are_padded_with_zeros_behind_the_end():
    assert tokenise(["a photo of a cat", "a cat"]).tolist()[1] == [START, 320, 2368, END, 0, 0, 0]


def test_end_token_is_the_largest_of_its_row():
    ids = tokenise(LABELS)
    ends = ids.argmax(dim=-1, keepdim=True)
    assert (ids.gather(1, ends) == END).all()
    assert not ids.masked_fill(torch.arange(ids.shape[1]) <= ends, 0).any()


@pytest.mark.parametrize("words", [1, 74, 75])
def test_longest_text_is_75_tokens_and_two_marks(words):
    assert tokenise(["a " * words]).shape == (1, words + 2)


@pytest.mark.parametrize("words", [76, 77, 500])
def test_longer_text_is_refused_not_cut(words):
    with pytest.raises(InputError, match=rf"has {words} tokens and the model takes 75; shorten it"):
        tokenise(["short", "a " * words])


def test_context_length_is_the_models():
    assert tokenise(["a b c"], context_length=5).shape == (1, 5)
    with pytest.raises(InputError, match="has 4 tokens and the model takes 3"):
        tokenise(["a b c d"], context_length=5)


@pytest.mark.parametrize("text", ["", " ", "\t\n", "&nbsp;"])
def test_empty_text_is_refused(text):
    with pytest.raises(InputError, match="is empty; give at least one word"):
        tokenise(["a dog", text])


@pytest.mark.parametrize("texts", [[], (), "a dog"])
def test_no_list_of_texts_is_refused(texts):
    with pytest.raises(InputError, match="expected a list of one or more texts"):
        tokenise(texts)
