"""How well an archive finds what is known to be in it: queries with their right answers, with and without re-ranking.

A right answer is a video, or a span of one. Where the answers of a text have no times, its hits are videos, each at the
place of its best clip; where they have, its hits are clips, and one is right that overlaps a span. A hit that shows an
answer already found is passed over: it is neither right nor wrong. So R answers can be at ranks 1 to R at best.
"""

# Q queries, R right answers of one

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import metrics, queries, sources, stores
from pipeline.queries import Query
from pipeline.search import RECALL_DEPTH, SearchSettings, ask
from pipeline.serving import OpenSpace
from schemas.errors import InputError
from schemas.records import Hit
from xclip_core.tokenise import tokenise

COLUMNS = ("text", "uri", "start_s", "end_s")
NOT_FOUND = np.iinfo(np.int64).max  # as a rank: behind every other
PERCENTILES = (50, 95, 99)
PAGE = 10  # hits of a search that is timed, and that a report shows


@dataclass(frozen=True, slots=True)
class Truth:
    """A right answer: a video, or what of it lies between two times."""

    uri: str
    start_s: float | None = None
    end_s: float | None = None

    @property
    def has_times(self) -> bool:
        """Whether it is a span and not the whole video."""
        return self.start_s is not None

    def is_shown_by(self, hit: Hit) -> bool:
        """Whether a hit is this answer, or overlaps it."""
        if hit.uri != self.uri or self.start_s is None or self.end_s is None:
            return hit.uri == self.uri
        return hit.start_s < self.end_s and self.start_s < hit.end_s


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A text, and all that it should find."""

    text: str
    truths: tuple[Truth, ...]

    @property
    def is_of_videos(self) -> bool:
        """Whether its hits are counted by video."""
        return not any(truth.has_times for truth in self.truths)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Of all queries; shares in 0..1, ranks from 1. `median_rank` None: most texts found nothing."""

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mean_average_precision: float
    median_rank: float | None
    latency_ms: dict[str, float]  # by percentile


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one query found: ranks of its right answers, ascending, those that were found; and its first hits."""

    ranks: tuple[int, ...]
    average_precision: float
    took_s: float  # of a page of PAGE hits
    hits: tuple[Hit, ...]
    thumbnails: tuple[bytes, ...]

    @property
    def first(self) -> int | None:
        """The rank of the first right answer."""
        return self.ranks[0] if self.ranks else None


@dataclass(frozen=True, slots=True)
class Asked:
    """A query with what it found by the plain vector, and by the model's own score where there is one."""

    query: LabelledQuery
    missing: int  # right answers whose video is not in the archive
    plain: Ranking
    reranked: Ranking | None

    @property
    def final(self) -> Ranking:
        """The order that a search shows."""
        return self.plain if self.reranked is None else self.reranked


@dataclass(frozen=True, slots=True)
class SearchEvaluation:
    """How an archive did."""

    model: str
    searched: int  # clips
    depth: int  # candidates that were ranked
    plain: Figures
    reranked: Figures | None
    asked: tuple[Asked, ...]

    def misses(self, k: int) -> list[Asked]:
        """Queries that show no right answer among the first k hits, in the order of the file."""
        return [asked for asked in self.asked if asked.final.first is None or asked.final.first > k]


# --- queries


def read_queries(file: Path) -> list[LabelledQuery]:
    """The queries of a CSV table of text, uri, and optionally start_s and end_s; several rows of one text are one.

    A uri is a URL or a path, relative to the table. Raises InputError for a table that cannot be used.
    """
    truths: dict[str, dict[Truth, None]] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            for text, truth in _rows(file, csv.DictReader(stream, skipinitialspace=True, strict=True)):
                truths.setdefault(text, {})[truth] = None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as a table ({error}); expected UTF-8 text") from error
    if not truths:
        raise InputError(f"{file} holds no queries; expected rows of {', '.join(COLUMNS)}, the last two optional")
    return [LabelledQuery(text, tuple(found)) for text, found in truths.items()]


def _rows(file: Path, reader: csv.DictReader[str]) -> Iterator[tuple[str, Truth]]:
    """Text and right answer of each row."""
    named = [name.strip().lower() for name in reader.fieldnames or ()]
    reader.fieldnames = named
    missing = [name for name in COLUMNS[:2] if name not in named]
    if missing or ("start_s" in named) != ("end_s" in named):
        raise InputError(
            f"{file} names the columns {', '.join(named) or 'none'}; expected text and uri, and start_s and end_s or "
            "neither of them"
        )
    for row in reader:
        text, uri = (row["text"] or "").strip(), (row["uri"] or "").strip()
        where = f"{file}, line {reader.line_num}"
        if not text or not uri:
            raise InputError(f"{where}: the {'uri' if text else 'text'} is empty; expected both")
        place = uri if stores.is_url(uri) or uri.startswith("file://") else sources.to_uri(file.parent / uri)
        yield text, Truth(place, *_times(row, where))


def _times(row: dict[str, str], where: str) -> tuple[float | None, float | None]:
    """Start and end of a row, both or neither."""
    given = [(row.get(name) or "").strip() for name in COLUMNS[2:]]
    if not any(given):
        return None, None
    try:
        start_s, end_s = map(float, given)
    except ValueError as error:
        raise InputError(f"{where}: start_s {given[0]!r}, end_s {given[1]!r}; expected seconds, or neither") from error
    if not start_s < end_s:
        raise InputError(f"{where}: a span from {start_s:g} to {end_s:g} s has no length; expected start_s < end_s")
    return start_s, end_s


# --- asking


def evaluate(
    opened: OpenSpace, asked: Sequence[LabelledQuery], templates: tuple[str, ...] = ("{}",), depth: int = RECALL_DEPTH
) -> SearchEvaluation:
    """Asks every query, by the plain vector and, where the archive stores contexts, re-ranked.

    `depth` candidates are ranked; a right answer behind them counts as not found. Raises InputError for a text that
    cannot be asked, before any is.
    """
    asks = [Query(phrases=(queries.Phrase((each.text,)),), templates=templates) for each in asked]
    searched, can_rerank = _first_look(opened, asks)
    known = set(opened.archive.uris(opened.space).values())
    found = []
    for labelled, query in zip(asked, asks, strict=True):
        plain = _ranking(opened, labelled, query, depth, rerank=False)
        reranked = _ranking(opened, labelled, query, depth, rerank=True) if can_rerank else None
        missing = sum(truth.uri not in known for truth in labelled.truths)
        found.append(Asked(labelled, missing, plain, reranked))
    return SearchEvaluation(
        model=opened.model.provenance.source if opened.model.provenance else "",
        searched=searched,
        depth=depth,
        plain=figures([each.plain for each in found]),
        reranked=figures([each.final for each in found]) if can_rerank else None,
        asked=tuple(found),
    )


def _first_look(opened: OpenSpace, asks: Sequence[Query]) -> tuple[int, bool]:
    """How many clips there are, and whether they can be re-ranked. Warms up what later questions share.

    Raises InputError for a text that cannot be asked, and where there is nothing to find.
    """
    config = opened.model.config
    for prompts in (prompts for query in asks for prompts in query.prompts):
        tokenise(prompts, context_length=config.context_length, arch=config.arch)
    first = ask(opened, asks[0], SearchSettings(top=1, rerank=False))
    if not first.hits:
        raise InputError(f"{opened.archive.folder} has no clips to find; expected some, indexed before")
    reader = opened.archive.clip_reader(opened.space)
    (row,) = reader.rows([first.hits[0].clip_id], ["context"]).values()
    return first.searched, bool(row["context"]) or not config.patches


def _ranking(opened: OpenSpace, labelled: LabelledQuery, query: Query, depth: int, *, rerank: bool) -> Ranking:
    """One query asked in one way: for a page, which is timed, and for all candidates."""
    page = ask(opened, query, SearchSettings(top=PAGE, depth=depth if rerank else None, rerank=rerank))
    answer = ask(opened, query, SearchSettings(top=depth, depth=depth, rerank=rerank))
    ranks = right_ranks(answer.hits, labelled)
    shown = counted(answer.hits, labelled)[:PAGE]
    return Ranking(
        ranks=tuple(ranks),
        average_precision=average_precision(ranks, len(labelled.truths)),
        took_s=page.took_s,
        hits=tuple(answer.hits[place] for place in shown),
        thumbnails=tuple(answer.thumbnails[place] for place in shown),
    )


# --- figures


def counted(hits: Sequence[Hit], query: LabelledQuery) -> list[int]:
    """The places, from 0, of the hits that are ranked: all, or the best of each video where answers have no times."""
    first: dict[object, int] = {}
    for place, hit in enumerate(hits):
        first.setdefault(hit.uri if query.is_of_videos else place, place)
    return list(first.values())


def right_ranks(hits: Sequence[Hit], query: LabelledQuery) -> list[int]:
    """The ranks, from 1, of the right answers of a query among hits, best first; see the head of this file."""
    ranks: list[int] = []
    rank, left = 0, set(query.truths)
    for place in counted(hits, query):
        shown = {truth for truth in query.truths if truth.is_shown_by(hits[place])}
        if not shown or shown & left:
            rank += 1
            # One hit may show two answers that lie in it.
            ranks += [rank] * len(shown & left)
            left -= shown
    return ranks


def average_precision(ranks: Sequence[int], answers: int) -> float:
    """The mean over all right answers of the precision at each's rank, 0 for one that was not found.

    Answers that one hit shows stand at one rank and count once in its precision: it is never over 1.
    """
    found = np.array(ranks, np.float64)
    precision = np.minimum(np.arange(1, len(found) + 1) / found, 1.0) if len(found) else found
    return float(precision.sum() / answers)


def figures(rankings: Sequence[Ranking]) -> Figures:
    """All figures of some queries, one or more."""
    first_Q: NDArray[np.int64] = np.array([each.first or NOT_FOUND for each in rankings], np.int64)
    median = float(np.median(first_Q.astype(np.float64)))
    taken_ms = [1e3 * each.took_s for each in rankings]
    return Figures(
        recall_at_1=metrics.recall_at(first_Q, 1),
        recall_at_5=metrics.recall_at(first_Q, 5),
        recall_at_10=metrics.recall_at(first_Q, 10),
        mean_average_precision=float(np.mean([each.average_precision for each in rankings])),
        median_rank=median if median < NOT_FOUND / 4 else None,
        latency_ms={f"p{p}": float(np.percentile(taken_ms, p)) for p in PERCENTILES},
    )
