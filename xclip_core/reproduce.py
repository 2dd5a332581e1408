"""Whether a model still earns the figures of its card: measures again what it states, and compares digit by digit.

Everything comes from the card: number of clips, seed, threads, and every table of figures. A card that states other
figures tomorrow is checked against those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from schemas.errors import InputError
from xclip_core.card import Measured
from xclip_core.hub import load, locate
from xclip_core.release import measure

CLIPS = re.compile(r"([\d,]+) generated clips per line")
SEED = re.compile(r"seed that training never used,\s+seed\s+(\d+)")
THREADS = re.compile(r"(\d+) threads?\b")
# Kinds of footage that need pictures, which do not ship.
PICTURES = re.compile(r"\bpictures\b")
NUMBER = re.compile(r"\d+(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class Stated:
    """What a card says: how its figures were made, and each as it is printed, by kind of footage and name."""

    clips: int
    seed: int
    threads: int | None
    tables: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure: as the card has it, and as it was measured now, in as many digits; None when it was not."""

    footage: str
    name: str
    stated: str
    measured: str | None

    @property
    def is_equal(self) -> bool:
        """Whether every digit agrees."""
        return self.stated == self.measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """The outcome. `skipped` are kinds of footage that could not be made for want of pictures."""

    model: str
    card: str
    weights_hash: str
    clips: int
    seed: int
    compared: tuple[Comparison, ...]
    skipped: tuple[str, ...]

    @property
    def differing(self) -> tuple[Comparison, ...]:
        """The figures that are not as the card says."""
        return tuple(figure for figure in self.compared if not figure.is_equal)


def reproduce(source: str | Path, *, backdrops: Path | None = None) -> Reproduction:
    """Measures a model as its card says, and compares. `backdrops` is the folder of pictures for the columns over them.

    The card is the .md file beside the weights. Raises InputError when there is none, or none with figures.
    """
    card = locate(source).with_suffix(".md")
    stated = read_card(card)
    model = load(source)
    assert model.provenance is not None, "load says where a model is from"
    before = torch.get_num_threads()
    torch.set_num_threads(stated.threads or before)  # the order of a sum, and with it its last bits, depends on them
    try:
        measured = _tables(measure(model, seed=stated.seed, clips=stated.clips, backdrops=backdrops))
    finally:
        torch.set_num_threads(before)
    skipped = [name for name in stated.tables if PICTURES.search(name) and name not in measured]
    return Reproduction(
        model=str(source),
        card=str(card),
        weights_hash=model.provenance.weights_hash,
        clips=stated.clips,
        seed=stated.seed,
        compared=tuple(compare(stated.tables, measured, skipped)),
        skipped=tuple(skipped),
    )


def _tables(measured: Measured) -> dict[str, Mapping[str, float]]:
    """All kinds of footage that were measured, whatever groups the record has them in."""
    groups = [getattr(measured, field.name) for field in fields(measured)]
    return {name: table for group in groups if isinstance(group, Mapping) for name, table in group.items()}


def compare(
    stated: Mapping[str, Mapping[str, str]], measured: Mapping[str, Mapping[str, float]], skipped: list[str]
) -> Iterator[Comparison]:
    """Every figure on either side, but for the kinds of footage that are skipped."""
    for footage in [name for name in {**stated, **measured} if name not in skipped]:
        theirs, ours = stated.get(footage, {}), measured.get(footage, {})
        for name in {**theirs, **ours}:
            printed = theirs.get(name, "not stated")
            yield Comparison(footage, name, printed, _printed_as(printed, ours[name]) if name in ours else None)


def _printed_as(stated: str, value: float) -> str:
    """A figure in the form and with the digits of another: as a share, or in percent; three digits if there is none."""
    match = NUMBER.match(stated)
    decimals = len(match[1] or "") if match else 3
    return f"{100 * value:.{decimals}f} %" if stated.endswith("%") else f"{value:.{decimals}f}"


def read_card(card: Path) -> Stated:
    """The figures of a model card, and how they were made."""
    if not card.is_file():
        raise InputError(
            f"there is no model card {card}; expected one beside the weights, as `footage pretrain` writes it"
        )
    text = card.read_text(encoding="utf-8")
    clips, seed, threads = (pattern.search(text) for pattern in (CLIPS, SEED, THREADS))
    tables = _figures(text)
    if not clips or not seed or not tables:
        raise InputError(
            f"the card {card} states no figures; expected a number of clips, a seed, and tables of figures"
        )
    stated_threads = int(threads[1]) if threads else None
    return Stated(int(clips[1].replace(",", "")), int(seed[1]), stated_threads, tables)


def _figures(text: str) -> dict[str, dict[str, str]]:
    """All tables whose first column is headed `figure`, by the heading of the other columns."""
    found: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip()[1:-1].split("|")] if line.startswith("|") else []
        if not cells or cells[0] == "figure":
            columns = cells[1:]
            continue
        # A cell without a number is the rule under the heading, or a figure that was not measured.
        for column, cell in zip(columns, cells[1:], strict=False):
            if NUMBER.match(cell):
                found.setdefault(column, {})[cells[0]] = cell
    return found
