"""The look at labels, splits and settings before the first step: hours of training should not be lost to a typo.

Pure: it gets what was read and says what is odd. What can only fail is an InputError; the rest is a warning.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.feed import FEW_SHOTS, HOLD_OUT, Unread, generator
from pipeline.labelled import Example
from pipeline.protocols import FinetuneSettings, Schedule, other_frames
from schemas.errors import InputError

HOLD_OUT_PART = 10  # one in so many, of every label
HOLD_OUT_FROM = 4  # labels with fewer examples keep them all
MAX_IMBALANCE = 10
NAMED = 5  # of several offenders, how many are named
DIRECTIONS = {"left", "right", "leftward", "rightward", "leftwards", "rightwards"}
TURNING = re.compile(r"clockwise")
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


@dataclass(frozen=True, slots=True)
class Split:
    """Examples to train on and examples to choose the best model by, maybe none of the latter."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Review:
    """What a person should see before a run: a table, and what looks wrong."""

    rows: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()  # of the model that training starts from: not trained, or resampled


def hold_out(examples: Sequence[Example], seed: int) -> Split:
    """A tenth of every label's examples, at least one of those with four or more, put aside by seed."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        places[example.label].append(place)
    rng = generator(HOLD_OUT, seed)
    aside: set[int] = set()
    for label in sorted(places):
        own = places[label]
        count = max(1, round(len(own) / HOLD_OUT_PART)) if len(own) >= HOLD_OUT_FROM else 0
        aside |= {own[number] for number in rng.permutation(len(own))[:count]}
    return Split(
        tuple(example for place, example in enumerate(examples) if place not in aside),
        tuple(example for place, example in enumerate(examples) if place in aside),
    )


def few_shots(examples: Sequence[Example], shots: int, seed: int) -> Split:
    """So many of every label's examples, drawn by seed, in the order given; the others take no part.

    The paper's few-shot protocol; its own draws are not published. Raises InputError for a label with fewer.
    """
    counts = Counter(example.label for example in examples)
    short = sorted(label for label, count in counts.items() if count < shots)
    if short:
        raise InputError(
            f"--shots {shots}: {_named(short)} have fewer videos that can be read; label more, or ask less"
        )
    rng = generator(FEW_SHOTS, seed)
    drawn: set[int] = set()
    for label in sorted(counts):
        own = [place for place, example in enumerate(examples) if example.label == label]
        drawn |= {own[number] for number in rng.permutation(len(own))[:shots]}
    return Split(tuple(example for place, example in enumerate(examples) if place in drawn), ())


def directional(labels: Iterable[str]) -> list[str]:
    """The labels that a mirrored video would make wrong, as far as their words tell."""
    return [label for label in labels if TURNING.search(label.lower()) or _words(label) & DIRECTIONS]


def _words(label: str) -> set[str]:
    """The words of a label, however it joins them."""
    return {word.lower() for word in WORD.findall(label)}


def is_flipped(settings: FinetuneSettings, labels: Sequence[str]) -> bool:
    """Whether clips are mirrored at random. Raises InputError where labels speak of sides and nobody decided."""
    if settings.flip is not None:
        return settings.flip
    if sided := directional(labels):
        raise InputError(
            f"labels such as {_named(sided)} tell left from right, and training mirrors half of the clips; "
            "say --no-flip, or --flip if mirrored clips keep their labels"
        )
    return True


def review(split: Split, unread: Sequence[Unread], settings: FinetuneSettings, schedule: Schedule) -> Review:
    """The table and warnings of a run. Raises InputError when it could not learn or measure anything."""
    counts = Counter(example.label for example in split.train)
    if len(counts) < 2:
        raise InputError(f"all {len(split.train)} training examples have the same label; expected two or more labels")
    strangers = sorted({example.label for example in split.held_out} - counts.keys())
    if strangers:
        raise InputError(f"validation has labels that training does not: {_named(strangers)}; they cannot be learnt")
    held_out = Counter(example.label for example in split.held_out)
    ordered = sorted(counts.values())
    rows = (
        ("training examples", f"{len(split.train)} of {len(counts)} labels"),
        ("per label", f"{ordered[0]} to {ordered[-1]}, median {ordered[len(ordered) // 2]}"),
        ("validation examples", f"{len(split.held_out)} of {len(held_out)} labels"),
        ("unreadable videos", str(len(unread))),
        ("batch", f"{schedule.batch} clips, {schedule.micro_batch} at a time"),
        ("steps", f"{schedule.steps} in {schedule.epochs} epochs, {schedule.warmup_steps} of them warm-up"),
        ("learning rate", f"{schedule.lr:g}, new parts {10 * schedule.lr:g}"),
    )
    return Review(rows, tuple(_warnings(split, counts, unread, settings, schedule)))


def _warnings(
    split: Split, counts: Counter[str], unread: Sequence[Unread], settings: FinetuneSettings, schedule: Schedule
) -> Iterable[str]:
    """What may be meant so, and often is not."""
    if unread:
        yield f"{len(unread)} videos cannot be read and are left out: {_named([item.uri for item in unread])}"
    rare = [label for label, count in counts.items() if count == 1]
    if rare:
        yield f"labels with a single example: {_named(rare)}"
    most, least = max(counts.values()), min(counts.values())
    if most > MAX_IMBALANCE * least:
        yield f"classes are out of balance: {least} to {most} examples; the common ones will be preferred"
    if not split.held_out:
        yield "nothing is held out, so the last model is kept and not the best; give --val to choose by"
    shared = {example.path for example in split.train} & {example.path for example in split.held_out}
    if shared:
        yield f"{len(shared)} videos are in training and in validation; its accuracy will flatter"
    if settings.frames is not None:
        yield from other_frames(settings.protocol, settings.frames)
    if settings.protocol == "few" and settings.shots is None:
        yield "the protocol 'few' trains on 2 to 16 videos of each label, and here all are used; --shots K draws K"
    if settings.batch is None and schedule.batch < settings.row.batch:
        yield f"the protocol's batch of {settings.row.batch} is more than there are examples; {schedule.batch} are used"
    if settings.flip and (sided := directional(counts)):
        yield f"--flip mirrors clips of labels that tell left from right: {_named(sided)}"


def _named(items: Sequence[str]) -> str:
    """Some items for a message, and how many more there are."""
    rest = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(map(repr, items[:NAMED])) + rest
