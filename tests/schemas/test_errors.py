"""The error tree: what is caught where, and that the picture in the docstring is the tree."""

from __future__ import annotations

import inspect
import re

import pytest

from schemas import errors
from schemas.errors import FootageError, OutOfMemory, UnreadableFile, VideoError

CLASSES = {
    name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and kind.__module__ == errors.__name__
}
BAD_FILES = {name: kind for name, kind in CLASSES.items() if issubclass(kind, VideoError) and kind is not VideoError}


def drawn() -> dict[str, str]:
    """Parent by class, as drawn in the module's docstring."""
    path: list[str] = []
    parents: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    (?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)  ", line)
        if match:
            depth = len(match["indent"]) // 4
            path[depth:] = [match["name"]]
            parents[match["name"]] = path[depth - 1] if depth else ""
    return parents


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert drawn() == {
        name: next((base.__name__ for base in kind.__bases__ if issubclass(base, FootageError)), "")
        for name, kind in CLASSES.items()
    }


def test_everything_raised_on_purpose_is_a_footage_error() -> None:
    assert all(issubclass(kind, FootageError) for kind in CLASSES.values())


@pytest.mark.parametrize("name", ["InputError", "ModelError", "WeightsError", "ShapeError"])
def test_mistakes_of_callers_are_value_errors_too(name: str) -> None:
    assert issubclass(CLASSES[name], ValueError)


def test_each_kind_of_bad_file_has_a_word_of_its_own() -> None:
    kinds = [kind.kind for kind in BAD_FILES.values()]
    assert sorted(kinds) == sorted(set(kinds))
    assert "video" not in kinds
    assert all(re.fullmatch(r"[a-z_]+", kind) for kind in kinds)


def test_only_bytes_and_memory_may_be_had_tomorrow() -> None:
    assert [kind for kind in BAD_FILES.values() if not kind.permanent] == [UnreadableFile, OutOfMemory]


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_says_what_it_means_and_keeps_its_message(name: str) -> None:
    assert CLASSES[name].__doc__
    assert str(CLASSES[name]("what happened")) == "what happened"
