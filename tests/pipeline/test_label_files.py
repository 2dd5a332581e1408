"""Label sets in their full form: every field arrives, mistakes are told with their place, and ids mean numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.label_files import read_labels
from pipeline.label_sets import BACKGROUND, Label, LabelSet, checked
from schemas.errors import InputError

FULL = """
version: 2026-01
background: [an empty room, static]
labels:
  - label: football
    wordings: [people play football, a football match]
    synonyms: [soccer]
    parent: sports
    threshold: 0.4
    negatives: [people play american football]
  - label: sports
  - waving
"""
EXPECTED = LabelSet(
    (
        Label(
            "football",
            ("people play football", "a football match"),
            ("soccer",),
            "sports",
            0.4,
            ("people play american football",),
        ),
        Label("sports", ()),
        Label("waving", ("waving",)),
    ),
    ("an empty room", "static"),
    "2026-01",
)


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_the_full_form_says_everything(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path, "a.yaml", FULL)) == EXPECTED


def test_csv_says_the_same_with_a_row_a_wording(tmp_path: Path) -> None:
    text = (
        "label,wording,synonyms,parent,threshold,negatives\n"
        "football,people play football,soccer,sports,0.4,people play american football\n"
        "football,a football match,,,,\n"
        "sports,,,,,\n"
        "waving,waving,,,,\n"
    )
    assert read_labels(written(tmp_path, "a.csv", text)).labels == EXPECTED.labels


def test_csv_needs_nothing_but_labels_and_quotes_what_holds_commas(tmp_path: Path) -> None:
    found = read_labels(written(tmp_path, "a.csv", 'label,synonyms\n"a dog, asleep",dozing; napping\nrun,\n'))
    assert found.labels == (
        Label("a dog, asleep", ("a dog, asleep",), ("dozing", "napping")),
        Label("run", ("run",)),
    )


def test_a_parent_that_is_only_named_is_added_behind_the_others(tmp_path: Path) -> None:
    found = read_labels(written(tmp_path, "a.yaml", "labels:\n  - {label: run, parent: moves}\n  - {label: sit}\n"))
    assert found.names == ["run", "sit", "moves"]
    assert found.labels[-1].is_derived


def test_a_parent_with_wordings_keeps_them(tmp_path: Path) -> None:
    text = "labels:\n  - {label: run, parent: moves}\n  - {label: moves, wordings: something moves}\n"
    assert read_labels(written(tmp_path, "a.yaml", text)).labels[1].prompts == ("something moves",)


@pytest.mark.parametrize(("said", "expected"), [("true", BACKGROUND), ("false", ()), ("a wall", ("a wall",)), ("", ())])
def test_the_background_may_be_ours_or_ones_own(said: str, expected: tuple, tmp_path: Path) -> None:
    text = f"background: {said}\nlabels: [run, sit]\n"
    assert read_labels(written(tmp_path, "a.yaml", text)).background == expected


def test_a_short_mapping_with_a_label_called_labels_stays_one(tmp_path: Path) -> None:
    found = read_labels(written(tmp_path, "a.yaml", "labels: [a sticker, a price tag]\n"))
    assert found.labels == (Label("labels", ("a sticker", "a price tag")),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "labels:\n  - {label: run, colour: red}\n", "a label with colour; expected label, wordings"),
        ("a.yaml", "labels:\n  - {wordings: [x]}\n", "an entry without its label"),
        ("a.yaml", "labels:\n  - {label: run, threshold: high}\n", "the threshold 'high' is no number"),
        ("a.yaml", "labels:\n  - {label: run, threshold: 1.5}\n", "gives 'run' the threshold 1.5; expected 0 to 1"),
        ("a.yaml", "labels:\n  - {label: run, wordings: []}\n", "has no text for 'run'"),
        ("a.yaml", "labels:\n  - {label: none of these}\n", "a label 'none of these', which is what clips get"),
        ("a.yaml", "run: one\njump: two\nrun: three\n", r"names run more than once \(in what starts at line 1\)"),
        ("a.yaml", "labels:\n  - {label: a, parent: b}\n  - {label: b, parent: a}\n", "each other's parents"),
        ("a.csv", "name,wording\nrun,x\n", "has the columns name"),
        ("a.csv", "wording\nx\n", "has no column label"),
        ("a.csv", "label,wording\n,x\n", "line 2: the label is empty"),
        ("a.csv", "label,wording\nrun,x,y\n", "line 2: more fields than columns"),
        ("a.csv", "label,parent\nrun,a\nrun,b\n", "line 3: the parent is 'b' and before that 'a'"),
        ("a.csv", "label,threshold\nrun,x\n", "line 2: the threshold 'x' is no number"),
        ("a.csv", 'label\n"run\n', "expected CSV"),
        ("a.csv", "label\n", "holds no labels"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(written(tmp_path, name, text))


def test_fingerprints_of_simple_sets_are_those_that_archives_have() -> None:
    """Tags of archives that earlier versions made must be found again."""
    simple = LabelSet((Label("run", ("a person runs", "running")), Label("snow", ("snow",))))
    assert simple.id == "e3e8325c7133"


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": ("y",)},
        {"synonyms": ("y",)},
        {"negatives": ("y",)},
        {"threshold": 0.0},
        {"parent": "b"},
        {"name": "c"},
    ],
)
def test_whatever_decides_numbers_decides_the_fingerprint(change: dict) -> None:
    one, two = Label("a", ("x",)), Label("b", ("z",))
    base = LabelSet((one, two))
    assert LabelSet((replace(one, **change), two)).id != base.id
    assert replace(base, background=("w",)).id != base.id
    assert replace(base, version="2").id == base.id


def test_labels_are_found_by_their_names_and_then_by_synonyms() -> None:
    labels = LabelSet((Label("run", ("x",), ("jog", "walk")), Label("walk", ("y",))))
    assert [labels.named(text) for text in ("run", "jog", "walk", "fly")] == ["run", "run", "walk", None]


def test_a_set_that_is_checked_is_what_it_was_when_nothing_is_missing() -> None:
    labels = LabelSet((Label("run", ("x",)),))
    assert checked(labels, "this") == labels
