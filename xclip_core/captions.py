"""Sentences about scenes, together with what they claim, so that a text can be checked against any scene.

A caption says a random part of what is true ("a red thing", "a small red circle moves slowly to the left over a dark
background"). Two scenes of a batch can share a caption's truth: `truth_table` finds every scene a text is true of.
"""

# B scenes, K texts

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xclip_core.scenes import VALUES, pick
from xclip_core.terms import TALK, article
from xclip_core.wordings import LABELS, actions, camera_terms, wordings

# How often a caption mentions what it could.
MENTION = {
    "motion": 0.7,
    "speed": 0.3,
    "shape": 0.5,
    "colour": 0.5,
    "size": 0.4,
    "background": 0.2,
    "ground": 0.2,
    "look": 0.3,
    "place": 0.4,
    "camera": 0.5,
    "cut": 0.15,
    "tint": 0.3,
}
# Said of the footage rather than of the object: they follow the sentence about the object, or stand alone.
OF_FOOTAGE = ("camera", "cut", "tint")
OPENINGS = ("", "", "a video of ", "a clip of ", "footage of ")
NOUNS = ("object", "thing", "shape")
PREPOSITIONS = ("over", "on", "in front of")


@dataclass(frozen=True, slots=True)
class Caption:
    """A text and what it claims, attribute to value."""

    text: str
    claims: Mapping[str, str]


def label_captions(
    attribute: str, values: Sequence[str], rng: np.random.Generator, *, held_out: bool = False
) -> list[Caption]:
    """One random wording per value of an attribute, in the order of `values`."""
    return [Caption(pick(rng, wordings(attribute, v, held_out=held_out)), {attribute: v}) for v in values]


def caption(truth: Mapping[str, str], rng: np.random.Generator, *, held_out: bool = False) -> Caption:
    """A sentence that claims at least one of the things that are true of a scene (`scenes.claims_of`)."""
    claims = {name: value for name, value in truth.items() if rng.random() < MENTION[name]}
    if "speed" in claims and "motion" not in claims:
        del claims["speed"]
    if not claims:
        name = pick(rng, tuple(truth))
        return label_captions(name, [truth[name]], rng, held_out=held_out)[0]
    clauses = [_footage_term(name, claims[name], rng, held_out=held_out) for name in OF_FOOTAGE if name in claims]
    if claims.keys() - set(OF_FOOTAGE):
        clauses.insert(0, _sentence(claims, rng, held_out=held_out))
    return Caption(" , ".join(clauses), claims)


def _sentence(claims: Mapping[str, str], rng: np.random.Generator, *, held_out: bool) -> str:
    """What is said of the object and what is behind it: "a dark video of a small circle moving left"."""
    opening = _opening(claims, rng)
    if not claims.keys() - {*OF_FOOTAGE, "look"}:
        return opening.removesuffix(" of ")
    doing = _doing(claims, rng, opening, held_out=held_out)
    parts = (_thing(claims, rng), doing, _where(claims, rng), _over(claims, rng))
    return opening + " ".join(part for part in parts if part)


def _footage_term(name: str, value: str, rng: np.random.Generator, *, held_out: bool) -> str:
    """What is said of the footage: "the camera pans left", "a single shot", "mostly green"."""
    return pick(rng, camera_terms(value, held_out=held_out) if name == "camera" else TALK[name].terms[value])


def truth_table(scenes: Sequence[Mapping[str, str]], captions: Sequence[Caption]) -> NDArray[np.bool_]:
    """B x K: whether all that a caption claims is true of a scene, given each scene's `claims_of`."""
    rows = [[c.claims.items() <= truth.items() for c in captions] for truth in scenes]
    return np.array(rows, dtype=np.bool_).reshape(len(scenes), len(captions))


def _opening(claims: Mapping[str, str], rng: np.random.Generator) -> str:
    """How the sentence starts, with the look if that is claimed."""
    if "look" not in claims:
        return pick(rng, OPENINGS)
    term = pick(rng, TALK["look"].terms[claims["look"]])
    return f"{article(term)} {term} {pick(rng, ('video', 'scene', 'picture'))} of "


def _thing(claims: Mapping[str, str], rng: np.random.Generator) -> str:
    """The object with its article: "a small red circle", "a thing"."""
    adjectives = [pick(rng, TALK[name].terms[claims[name]]) for name in ("size", "colour") if name in claims]
    noun = pick(rng, TALK["shape"].terms[claims["shape"]] if "shape" in claims else NOUNS)
    words = " ".join((*adjectives, noun))
    return f"{article(words)} {words}"


def _doing(claims: Mapping[str, str], rng: np.random.Generator, opening: str, *, held_out: bool) -> str:
    """What the object does, with its speed: "moving slowly to the left"; empty when no motion is claimed."""
    if "motion" not in claims:
        return ""
    action = pick(rng, actions(claims["motion"], held_out=held_out))
    verb = action.participle if opening or rng.random() < 0.5 else action.finite
    if "speed" not in claims:
        return action.says(verb)
    adverb = pick(rng, TALK["speed"].terms[claims["speed"]])
    return action.says(verb, adverb) if rng.random() < 0.5 else f"{action.says(verb)} {adverb}"


def _where(claims: Mapping[str, str], rng: np.random.Generator) -> str:
    """Where the object is, or nothing."""
    return pick(rng, TALK["place"].terms[claims["place"]]) if "place" in claims else ""


def _over(claims: Mapping[str, str], rng: np.random.Generator) -> str:
    """The background, or nothing: "over a dark textured background"."""
    adjectives = [pick(rng, TALK[name].terms[claims[name]]) for name in ("ground", "background") if name in claims]
    words = " ".join((*adjectives, "background"))
    return f"{pick(rng, PREPOSITIONS)} {article(words)} {words}" if adjectives else ""


def training_words() -> set[str]:
    """Every word that any training text can contain."""
    texts = [*OPENINGS, *NOUNS, *PREPOSITIONS, "background", "a", "an", "and", ","]
    texts += [text for name, values in VALUES.items() for value in values for text in wordings(name, value)]
    return {word for text in texts for word in text.split()}


def everyday_texts() -> list[str]:
    """Short texts such as people search with: every label, and three wordings of every value."""
    said = [wordings(name, value) for name, values in VALUES.items() for value in values]
    worded = (text for ways in said for text in (ways[0], ways[len(ways) // 2], ways[-1]))
    return list(dict.fromkeys([*LABELS.values(), *worded]))
