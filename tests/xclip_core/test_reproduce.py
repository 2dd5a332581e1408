"""The card and the model agree to the last digit, and where they do not the figure is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from schemas.errors import InputError
from xclip_core import EMBEDDED, load
from xclip_core.config import DEFAULT_MODEL
from xclip_core.reproduce import Comparison, compare, read_card, reproduce

CARD = """\
# a model

Made in 5 minutes with 3 threads on a machine.

## Held-out figures

1,200 generated clips per line (fewer where a line is about some of them), of a seed that training never used, seed
42. Everything goes through text.

| figure | crops, as in training | objects over 133 real pictures |
| --- | --- | --- |
| nine motions, labels | 0.925 | 0.642 |
| look | 1.000 | 0.9 |
| here only | | 0.8 |
| there only | 0.7 | |

Some prose, and a table of something else:

| stage | steps |
| --- | --- |
| frames | 1100 |

| figure | over photographs |
| :-- | --: |
| pan left | 93.7 % |
"""
CROPS, PICTURES = "crops, as in training", "objects over 133 real pictures"


def write(folder: Path, card: str) -> Path:
    (folder / "model.md").write_text(card, encoding="utf-8")
    return folder / "model.md"


def test_a_card_is_read_with_its_clips_its_seed_and_all_tables_of_figures(tmp_path: Path) -> None:
    found = read_card(write(tmp_path, CARD))
    assert (found.clips, found.seed, found.threads) == (1200, 42, 3)
    assert found.tables == {
        CROPS: {"nine motions, labels": "0.925", "look": "1.000", "there only": "0.7"},
        PICTURES: {"nine motions, labels": "0.642", "look": "0.9", "here only": "0.8"},
        "over photographs": {"pan left": "93.7 %"},
    }


def test_the_card_that_ships_is_read_whole() -> None:
    found = read_card(EMBEDDED[DEFAULT_MODEL].with_suffix(".md"))
    assert found.clips >= 100
    assert len(found.tables) == 6  # three kinds of drawn scenes, three of shots over pictures
    assert sorted(len(figures) for figures in found.tables.values()) == [19, 20, 20, 20, 22, 22]


@pytest.mark.parametrize("missing", ["1,200 generated clips", "seed\n42", "| figure |"])
def test_a_card_without_figures_is_a_mistake(missing: str, tmp_path: Path) -> None:
    card = write(tmp_path, CARD.replace(missing, "something"))
    with pytest.raises(InputError, match="states no figures; expected a number of clips, a seed"):
        read_card(card)


def test_figures_are_compared_in_the_digits_of_the_card() -> None:
    stated = {CROPS: {"a": "0.925", "b": "0.9", "c": "93.7 %", "d": "1"}}
    equal = {CROPS: {"a": 0.92549, "b": 0.86, "c": 0.93651, "d": 0.7}}
    assert all(figure.is_equal for figure in compare(stated, equal, []))
    other = {CROPS: {"a": 0.92551, "b": 0.84, "c": 0.93649, "d": 0.4}}
    assert [figure.measured for figure in compare(stated, other, [])] == ["0.926", "0.8", "93.6 %", "0"]
    assert not any(figure.is_equal for figure in compare(stated, other, []))


def test_figures_of_one_side_only_differ_and_skipped_footage_is_left_out() -> None:
    stated = {CROPS: {"a": "0.925"}, PICTURES: {"a": "0.6"}, "elsewhere": {"a": "0.5"}}
    found = list(compare(stated, {CROPS: {"a": 0.925, "new": 0.5}}, [PICTURES]))
    assert found == [
        Comparison(CROPS, "a", "0.925", "0.925"),
        Comparison(CROPS, "new", "not stated", "0.500"),
        Comparison("elsewhere", "a", "0.5", None),
    ]
    assert [figure.is_equal for figure in found] == [True, False, False]


@pytest.fixture(scope="module")
def doctored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded weights with a card of few clips in which nothing is true."""
    folder = tmp_path_factory.mktemp("doctored")
    weights = shutil.copy(EMBEDDED[DEFAULT_MODEL], folder / "model.safetensors")
    card = CARD.replace("1,200", "12").replace("3 threads", "1 threads").replace("| look |", "| lock |")
    write(folder, card.replace("0.925", "0.001"))
    return weights


def test_a_model_is_measured_as_its_card_says_and_every_untrue_figure_is_named(doctored: Path) -> None:
    threads = torch.get_num_threads()
    found = reproduce(doctored)
    assert torch.get_num_threads() == threads
    assert (found.clips, found.seed, found.skipped) == (12, 42, (PICTURES,))
    assert found.weights_hash == load(DEFAULT_MODEL).provenance.weights_hash
    by_name = {(figure.footage, figure.name): figure for figure in found.compared}
    assert by_name[CROPS, "nine motions, labels"].stated == "0.001"
    assert by_name[CROPS, "lock"].measured is None
    assert len(found.differing) == len(found.compared), "nothing in this card is true"


def test_a_model_without_a_card_is_a_mistake(tiny_weights: Path) -> None:
    with pytest.raises(InputError, match=r"there is no model card .*official\.md; expected one beside the weights"):
        reproduce(tiny_weights)


@pytest.mark.slow
def test_the_embedded_model_earns_every_figure_of_its_card() -> None:
    found = reproduce(DEFAULT_MODEL)
    assert found.differing == ()
    assert len(found.compared) >= 40
