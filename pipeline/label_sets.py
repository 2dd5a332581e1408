"""Label sets: what a clip may be called, the texts that stand for each name, and what neither is allowed to be.

A label is known by its wordings (texts that describe it), its synonyms (other names of it) and its negatives (texts of
what is like it and is not it). A parent without wordings of its own is whatever its children are. Background texts
describe what no label means, so that "none of these" is an answer. `label_files` reads them, `label_scores` scores
clips by them.
"""

# K labels

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

from schemas.errors import InputError

# The label of a clip that none of the set fits; no label set may use the name.
NONE = "none of these"
# What is said of a clip by a set that wants a background and names none. Plain on purpose: they are to win only where
# no label says more.
BACKGROUND = ("a video", "a scene where nothing in particular happens", "something else")


@dataclass(frozen=True, slots=True)
class Label:
    """A label and the texts that stand for it. Without prompts and synonyms it is scored by its children."""

    name: str
    prompts: tuple[str, ...]  # its wordings
    synonyms: tuple[str, ...] = ()
    parent: str | None = None
    threshold: float | None = None  # the probability from which on it is given in multi-label mode
    negatives: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts that the model is asked about: wordings, then synonyms, then negatives."""
        return self.prompts + self.synonyms + self.negatives

    @property
    def is_derived(self) -> bool:
        """Whether its score is that of its children."""
        return not self.prompts and not self.synonyms


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels in the order given. `version` is its author's own word and decides nothing."""

    labels: tuple[Label, ...]
    background: tuple[str, ...] = ()
    version: str = ""

    @property
    def id(self) -> str:
        """Twelve hex digits, a fingerprint of all that decides numbers: tags of different sets are kept apart by it."""
        content: dict[str, Any] = {"labels": [_stated(label) for label in self.labels]}
        if self.background:
            content["background"] = self.background
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def texts(self) -> list[str]:
        """The texts of all labels, in order, then those of the background."""
        return [text for label in self.labels for text in label.texts] + list(self.background)

    @property
    def names(self) -> list[str]:
        """The names of all labels, in order."""
        return [label.name for label in self.labels]

    def children(self, name: str) -> list[int]:
        """The places of the labels whose parent has this name."""
        return [place for place, label in enumerate(self.labels) if label.parent == name]

    def named(self, text: str) -> str | None:
        """The label that a text names, by its name or, if no label has that, as a synonym; None for neither."""
        names = {synonym: label.name for label in self.labels for synonym in label.synonyms}
        return (names | {label.name: label.name for label in self.labels}).get(text)


def _stated(label: Label) -> dict[str, Any]:
    """A label as the fingerprint sees it: what is not said is left out, so that new fields change no old one."""
    values = {field.name: getattr(label, field.name) for field in fields(Label)}
    always = {name: values.pop(name) for name in ("name", "prompts")}
    return always | {name: value for name, value in values.items() if value not in ((), None)}


def checked(labels: LabelSet, where: object) -> LabelSet:
    """The set, with parents that are named and not listed added behind the others.

    Raises InputError for a set that cannot be used: `where` is what the message calls it.
    """
    named = dict.fromkeys(label.parent for label in labels.labels if label.parent)
    added = tuple(Label(name, ()) for name in named if name not in labels.names)
    whole = LabelSet((*labels.labels, *added), labels.background, labels.version)
    twice = sorted(name for name, count in Counter(whole.names).items() if count > 1)
    if not labels.labels or twice:
        what = f"names {', '.join(twice)} more than once" if twice else "holds no labels"
        raise InputError(f"{where} {what}; expected one label a line, or YAML with prompts per label")
    for label in whole.labels:
        _check_label(whole, label, where)
    return whole


def _check_label(labels: LabelSet, label: Label, where: object) -> None:
    """Raises InputError for a label that no clip could ever get."""
    if label.name == NONE:
        raise InputError(f"{where} has a label {NONE!r}, which is what clips get that no label fits; expected another")
    if label.threshold is not None and not 0 <= label.threshold <= 1:
        raise InputError(f"{where} gives {label.name!r} the threshold {label.threshold:g}; expected 0 to 1")
    above = [label.name]
    while (parent := next(each.parent for each in labels.labels if each.name == above[-1])) is not None:
        if parent in above:
            raise InputError(f"{where} has labels that are each other's parents: {' < '.join([*above, parent])}")
        above.append(parent)
    if label.is_derived and not labels.children(label.name):
        raise InputError(f"{where} has no text for {label.name!r}, and no label whose parent it is; expected one")
