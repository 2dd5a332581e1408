"""A query to moments, in two stages, because X-CLIP's text vector depends on the video it is compared with.

Recall: nearest clips to the plain query vector, from the index, of those that a filter lets through. Re-rank: the
model's own score of each of those, with the prompt context that was stored beside the clip. The two are different
numbers and a hit carries both. What was found is then put together as moments.
"""

# M candidates, E joint dimension, P patches

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import contexts, indexes, moments, queries, recall_texts
from pipeline.index_plan import Rules
from pipeline.indexes import Searchable
from pipeline.moments import Grouping, Moment
from pipeline.places import ClipReader
from pipeline.queries import Prepared, Query
from pipeline.serving import OpenSpace
from schemas.errors import ArchiveError, InputError
from schemas.records import DecidedBy, Hit, ScoredClip
from xclip_core import Encoder

if TYPE_CHECKING:  # a search without one does not wait for the library that reads conditions
    from pipeline.filters import Filter
    from pipeline.gpu_index import GpuCopies

# How many clips the first stage hands to the second; benchmarks/rerank.py prints what the second costs and changes.
RECALL_DEPTH = 200
# Of moments that are asked for: so many clips go into them before the page can be short of some that recall would find.
CLIPS_PER_MOMENT = 4
CLIPS_PER_PASS = 256  # of re-ranking: with the contexts of B/32, 26 MB


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """Which part of what is found is shown, and how. `depth` None is as deep as pages need, RECALL_DEPTH at least."""

    top: int = 10  # hits of a page
    page: int = 1
    rerank: bool = True
    depth: int | None = None  # candidates that recall hands on
    min_score: float | None = None
    grouping: Grouping | None = None  # None: a hit for each clip

    def __post_init__(self) -> None:
        if self.top < 1:
            raise InputError(f"--top {self.top} asks for no hits; expected at least 1")
        if self.page < 1:
            raise InputError(f"--page {self.page} is no page; expected 1 or more")
        if self.depth is not None and self.depth < 1:
            raise InputError(f"--depth {self.depth} leaves nothing to rank; expected at least 1")

    @property
    def last(self) -> int:
        """How many hits there are up to the end of the page."""
        return self.top * self.page


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, best first, with the clips' thumbnails (WebP) in the same order."""

    text: str
    hits: tuple[Hit, ...]
    thumbnails: tuple[bytes, ...]
    searched: int  # clips in the index
    reranked: bool
    took_s: float
    page: int = 1
    has_more: bool = False  # whether the next page would have hits
    left_out: int = 0  # moments that the cap on those of a video left out
    share: float | None = None  # of the clips that the filter let through
    uris: Mapping[str, str] = field(default_factory=dict)  # of all videos that hits name, by id


@dataclass(frozen=True, slots=True)
class Corpus:
    """The clips that can be found, as one version of the archive has them: many questions can be asked of it."""

    index: Searchable
    reader: ClipReader
    searched_by: str = "CPUs"  # what compares vectors, and why


def corpus(opened: OpenSpace, copies: GpuCopies | None = None) -> Corpus:
    """What can be found now; with `copies`, on their device if that is quicker."""
    rules = Rules(texts=recall_texts.by_model(opened.model))
    index = indexes.open_current(opened.archive, opened.space, opened.model.config.embed_dim, rules=rules)
    reader = opened.archive.clip_reader(opened.space, index.places)
    if copies is None:
        return Corpus(index, reader)
    searched, why = copies.quicker(index)
    return Corpus(searched, reader, why)


def search(opened: OpenSpace, text: str, *, top: int = 10, rerank: bool = True) -> Answer:
    """The `top` clips that fit the text best. Raises InputError for an empty or over-long text or top < 1."""
    return ask(opened, queries.of_text(text), SearchSettings(top=top, rerank=rerank))


def ask(
    opened: OpenSpace, query: Query, settings: SearchSettings, where: Filter | None = None, of: Corpus | None = None
) -> Answer:
    """The hits that a page of an answer has, of the archive as it is now or as it was opened.

    Raises InputError for a query that cannot be asked, ArchiveError when the model's own score is asked for and the
    archive has no contexts.
    """
    began = time.perf_counter()
    of = of or corpus(opened)
    index, reader = of.index, of.reader
    prepared = queries.prepare(
        opened.model, query, opened.sampling, lambda ids: _vectors_of(reader, ids), opened.encode_texts
    )
    recalled = _recalled(of, prepared, query, settings, where)
    rows = reader.rows(list(recalled), _columns(query, settings))
    clips = _scored(opened.model, prepared, recalled, rows, settings)
    wanted = [clip for clip in clips if settings.min_score is None or clip.score >= settings.min_score]
    found, left_out = moments.grouped(wanted, _matrix(rows, settings.grouping), settings.grouping)
    shown = found[settings.last - settings.top : settings.last]
    pictures = reader.rows([moment.best.clip_id for moment in shown], ["thumbnail"])
    # Swept in this instant: what has no picture any more has no row either.
    shown = [moment for moment in shown if moment.best.clip_id in pictures]
    uris = opened.archive.uris(opened.space, (c.video_id for moment in shown for c in (moment.best, *moment.folded)))
    return Answer(
        text=query.said,
        hits=tuple(_hits(opened.model, shown, uris, settings)),
        thumbnails=tuple(pictures[moment.best.clip_id]["thumbnail"] for moment in shown),
        searched=index.count,
        reranked=settings.rerank,
        took_s=time.perf_counter() - began,
        page=settings.page,
        has_more=len(found) > settings.last,
        left_out=left_out,
        share=None if where is None else where.share,
        uris=uris,
    )


def _recalled(
    of: Corpus, prepared: Prepared, query: Query, settings: SearchSettings, where: Filter | None
) -> dict[str, float]:
    """The candidates, nearest first, with their cosines."""
    own = {part.clip_id for part in query.known}
    allowed = None if where is None else where.mask
    found = indexes.nearest(of.index, of.reader, prepared.recall_E, _depth(settings) + len(own), allowed)
    # A clip that others are to be like is nearest to itself, which nobody asked.
    return dict([pair for pair in found if pair[0] not in own][: _depth(settings)])


def _depth(settings: SearchSettings) -> int:
    """How many candidates there are to be."""
    if settings.depth is not None:
        return max(settings.depth, settings.last)
    if settings.grouping is not None:
        return max(CLIPS_PER_MOMENT * settings.last, RECALL_DEPTH)
    # Ranks come from the model's score, so that recall must reach deeper than the page that is shown.
    return max(settings.last, RECALL_DEPTH) if settings.rerank else settings.last


def _columns(query: Query, settings: SearchSettings) -> list[str]:
    """What is read of each candidate."""
    folds = settings.grouping is not None and settings.grouping.same is not None
    needed = {
        "embedding": settings.rerank or folds,
        "context": settings.rerank and query.has_texts,
    }
    return ["video_id", "start_s", "end_s", *(name for name, is_needed in needed.items() if is_needed)]


def _vectors_of(reader: ClipReader, clip_ids: list[str]) -> dict[str, Any]:
    """Vectors of named clips, by id; one that is not there is left out."""
    return {clip_id: row["embedding"] for clip_id, row in reader.rows(clip_ids, ["embedding"]).items()}


def _matrix(rows: Mapping[str, dict[str, Any]], grouping: Grouping | None) -> dict[str, NDArray[np.float32]]:
    """Unit vectors E of candidates by id, where moments are folded by them."""
    if grouping is None or grouping.same is None or not rows:
        return {}
    vectors_ME = np.array([row["embedding"] for row in rows.values()], np.float32)
    vectors_ME /= np.linalg.norm(vectors_ME, axis=1, keepdims=True)  # stored ones are rounded
    return dict(zip(rows, vectors_ME, strict=True))


def _scored(
    model: Encoder,
    prepared: Prepared,
    recalled: dict[str, float],
    rows: dict[str, dict[str, Any]],
    settings: SearchSettings,
) -> list[ScoredClip]:
    """Candidates with their score and both ranks, best first; `recalled` is in the order of recall."""
    scores = _model_scores(model, prepared, rows) if settings.rerank else _plain(model, recalled)
    # Ties are broken by id, so that the same question always has the same answer.
    order, nearest = (sorted(rows, key=lambda each: (-by[each], each)) for by in (scores, recalled))
    by_recall = {clip_id: rank for rank, clip_id in enumerate(nearest, start=1)}
    return [
        ScoredClip(
            clip_id=clip_id,
            video_id=rows[clip_id]["video_id"],
            start_s=rows[clip_id]["start_s"],
            end_s=rows[clip_id]["end_s"],
            score=scores[clip_id],
            recall_score=recalled[clip_id],
            recall_rank=by_recall[clip_id],
            rank=rank,
        )
        for rank, clip_id in enumerate(order, start=1)
    ]


def _plain(model: Encoder, recalled: dict[str, float]) -> dict[str, float]:
    """Cosines of recall on the scale of the model's logits: what the model would say without a prompt."""
    scale = model.logit_scale.exp().item()
    return {clip_id: scale * cosine for clip_id, cosine in recalled.items()}


def _model_scores(model: Encoder, prepared: Prepared, rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The score of each candidate with the query, by the model."""
    found: dict[str, float] = {}
    for first in range(0, len(rows), CLIPS_PER_PASS):
        some = dict(islice(rows.items(), first, first + CLIPS_PER_PASS))
        stored = stored_tensors if prepared.prompt_counts else _stored_vectors
        scores_M = prepared.scores(model, *stored(model, list(some.values())))
        found |= zip(some, scores_M.tolist(), strict=True)
    return found


def _stored_vectors(model: Encoder, clips: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Vectors M x E of clip rows, and contexts of no patches, M x 0 x E, where no text looks at them."""
    video_ME = torch.from_numpy(np.array([clip["embedding"] for clip in clips], np.float32))
    return video_ME.to(model.device, model.dtype), video_ME.new_zeros(len(clips), 0, video_ME.shape[1])


def stored_tensors(model: Encoder, clips: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Vectors M x E and prompt contexts M x P x E of clip rows, as the model takes them.

    Raises ArchiveError when the archive was made without contexts and the model needs them.
    """
    P, E = model.config.patches, model.config.embed_dim
    if P and any(not clip["context"] for clip in clips):
        raise ArchiveError(
            "this archive stores no prompt contexts, which the model's own score needs; "
            "search with --no-rerank, or index again with --context int8"
        )
    video_ME = np.array([clip["embedding"] for clip in clips], np.float32)
    context_MPE = np.stack([contexts.unpack(clip["context"], P, E) for clip in clips])
    return (
        torch.from_numpy(video_ME).to(model.device, model.dtype),
        torch.from_numpy(context_MPE).to(model.device, model.dtype),
    )


# --- hits


def _hits(model: Encoder, shown: list[Moment], uris: Mapping[str, str], settings: SearchSettings) -> Iterable[Hit]:
    """Moments of a page as hits."""
    scale = model.logit_scale.exp().item()
    for rank, moment in enumerate(shown, start=settings.last - settings.top + 1):
        best = moment.best
        yield Hit(
            rank=rank,
            score=best.score,
            recall_score=best.recall_score,
            clip_id=best.clip_id,
            video_id=best.video_id,
            uri=uris[best.video_id],
            start_s=moment.start_s,
            end_s=moment.end_s,
            plain_score=scale * best.recall_score,
            recall_rank=best.recall_rank,
            model_rank=best.rank,
            decided_by=_decided_by(best, rerank=settings.rerank),
            clips=moment.clips,
            folded=moment.folded,
        )


def _decided_by(clip: ScoredClip, *, rerank: bool) -> DecidedBy:
    """Which stage decided a clip's place among the candidates."""
    if not rerank:
        return "recall"
    return "both" if clip.recall_rank == clip.rank else "re-rank"


def by_video(hits: Iterable[Hit]) -> list[list[Hit]]:
    """Hits of each video, best first, the video with the best hit first."""
    groups: dict[str, list[Hit]] = {}
    for hit in hits:
        groups.setdefault(hit.video_id, []).append(hit)
    return list(groups.values())
