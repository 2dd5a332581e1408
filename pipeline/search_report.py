"""An evaluated search as one self-contained HTML page: figures, and the hits of queries that missed, as pictures."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline import pages, sources
from pipeline.contact_sheet import link, timecode
from pipeline.search_evaluation import PAGE, Asked, Figures, Ranking, SearchEvaluation

FIGURE_NAMES = {
    "recall_at_1": "R@1",
    "recall_at_5": "R@5",
    "recall_at_10": "R@10",
    "mean_average_precision": "mAP",
    "median_rank": "median rank",
}


@dataclass(frozen=True, slots=True)
class Card:
    """A hit on the page."""

    name: str
    link: str
    span: str
    score: str
    picture: str  # base64 of WebP
    is_right: bool


@dataclass(frozen=True, slots=True)
class Sheet:
    """A query on the page: the hits of each stage, and where its right answers are."""

    text: str
    expected: tuple[str, ...]
    said: str
    rows: tuple[tuple[str, tuple[Card, ...]], ...]  # name of the stage, hits


def figure_rows(found: SearchEvaluation) -> list[tuple[str, str, str]]:
    """Name of each figure, and its value by cosine and re-ranked, as people read them."""
    plain, reranked = (dict(_lines(each)) if each else {} for each in (found.plain, found.reranked))
    return [(name, value, reranked.get(name, "")) for name, value in plain.items()]


def _lines(figures: Figures) -> list[tuple[str, str]]:
    """Names and values of figures."""
    shares = [
        (name, f"{100 * getattr(figures, key):.1f} %") for key, name in FIGURE_NAMES.items() if key != "median_rank"
    ]
    median = "not found" if figures.median_rank is None else f"{figures.median_rank:g}"
    times = [(f"latency {name}", f"{value:.0f} ms") for name, value in figures.latency_ms.items()]
    return [*shares, (FIGURE_NAMES["median_rank"], median), *times]


def _sheet(asked: Asked) -> Sheet:
    """A query, with the first hits of each stage."""
    stages = [("by cosine", asked.plain), *([("re-ranked", asked.reranked)] if asked.reranked else [])]
    expected = tuple(
        f"{_shown(truth.uri)}{'' if truth.start_s is None else f' {timecode(truth.start_s)}'}"
        for truth in asked.query.truths
    )
    places = [f"{name}: {_place(ranking)}" for name, ranking in stages]
    return Sheet(
        asked.query.text,
        expected,
        "; ".join(places) + (f"; {asked.missing} not in the archive" if asked.missing else ""),
        tuple((name, _cards(asked, ranking)) for name, ranking in stages),
    )


def _place(ranking: Ranking) -> str:
    """Where the first right answer is, in words."""
    return "no right answer found" if ranking.first is None else f"first right answer at rank {ranking.first}"


def _cards(asked: Asked, ranking: Ranking) -> tuple[Card, ...]:
    """The first hits of a ranking; where videos are what is ranked, the best clip of each."""
    return tuple(
        Card(
            name=_shown(hit.uri),
            link=link(hit),
            span=f"{timecode(hit.start_s)} \N{EN DASH} {timecode(hit.end_s)}",
            score=f"{hit.score:.2f}",
            picture=base64.b64encode(picture).decode(),
            is_right=any(truth.is_shown_by(hit) for truth in asked.query.truths),
        )
        for hit, picture in zip(ranking.hits, ranking.thumbnails, strict=True)
    )


def _shown(uri: str) -> str:
    """A file's name as text that any page can hold."""
    return os.fsencode(sources.to_path(uri).name).decode("utf-8", "replace")


def render(found: SearchEvaluation, archive: str, *, everything: bool = False) -> str:
    """The page: all figures, and the sheets of the queries that missed, or of all."""
    misses = found.misses(PAGE)
    return pages.render(
        "search_evaluation.html",
        archive=archive,
        found=found,
        figures=figure_rows(found),
        sheets=[_sheet(asked) for asked in (found.asked if everything else misses)],
        misses=len(misses),
        everything=everything,
        shown=PAGE,
    )


def write(found: SearchEvaluation, archive: str, file: Path, *, everything: bool = False) -> None:
    """Writes the page to a file."""
    file.write_text(render(found, archive, everything=everything), encoding="utf-8")
