"""Text to moments, in two stages, because X-CLIP's text vector depends on the video it is compared with.

Recall: nearest clips to the plain text vector, from the index. Re-rank: the model's own score of each of those, with
the prompt context that was stored beside the clip. The two are different numbers and a hit carries both.
"""

# M candidates, E joint dimension, P patches, K = 1 text

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import contexts, indexes
from pipeline.serving import OpenSpace
from schemas.errors import ArchiveError, InputError
from schemas.records import Hit
from xclip_core import Encoder, encode_text, encode_text_raw

# How many clips the first stage hands to the second; benchmarks/rerank.py prints what the second costs and changes.
RECALL_DEPTH = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, best first, with the clips' thumbnails (WebP) in the same order."""

    text: str
    hits: tuple[Hit, ...]
    thumbnails: tuple[bytes, ...]
    searched: int  # clips in the index
    reranked: bool
    took_s: float


def search(opened: OpenSpace, text: str, *, top: int = 10, rerank: bool = True) -> Answer:
    """The `top` clips that fit the text best. Raises InputError for an empty or over-long text or top < 1."""
    if top < 1:
        raise InputError(f"--top {top} asks for no hits; expected at least 1")
    began = time.perf_counter()
    query_E = encode_text(opened.model, [text])[0].cpu().numpy()
    index = indexes.open_current(opened.archive, opened.space, opened.model.config.embed_dim)
    reader = opened.archive.clip_reader(opened.space, index.places)
    # Ranks come from the model's score, so that recall must reach deeper than the page that is shown.
    recalled = dict(indexes.nearest(index, reader, query_E, max(top, RECALL_DEPTH) if rerank else top))
    clips = reader.rows(list(recalled), ["embedding", "context"] if rerank else [])
    scores = _rerank(opened.model, text, clips) if rerank else _plain(opened.model, recalled)
    # Ties are broken by id, so that the same question always has the same answer.
    best = sorted(clips, key=lambda clip_id: (-scores[clip_id], clip_id))[:top]
    shown = reader.rows(best, ["video_id", "start_s", "end_s", "thumbnail"])
    uris = opened.archive.uris(opened.space, (clip["video_id"] for clip in shown.values()))
    hits = tuple(_hit(rank, shown[c], uris, scores[c], recalled[c]) for rank, c in enumerate(best, start=1))
    thumbnails = tuple(shown[clip_id]["thumbnail"] for clip_id in best)
    return Answer(text, hits, thumbnails, index.count, rerank, time.perf_counter() - began)


def _hit(rank: int, clip: dict[str, Any], uris: dict[str, str], score: float, recall_score: float) -> Hit:
    """One clip row as a hit."""
    return Hit(
        rank=rank,
        score=score,
        recall_score=recall_score,
        clip_id=clip["clip_id"],
        video_id=clip["video_id"],
        uri=uris[clip["video_id"]],
        start_s=clip["start_s"],
        end_s=clip["end_s"],
    )


def _plain(model: Encoder, recalled: dict[str, float]) -> dict[str, float]:
    """Cosines of recall on the scale of the model's logits: what the model would say without a prompt."""
    scale = model.logit_scale.exp().item()
    return {clip_id: scale * cosine for clip_id, cosine in recalled.items()}


def _rerank(model: Encoder, text: str, clips: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The model's logit of each clip with the text."""
    if not clips:
        return {}
    video_ME, context_MPE = stored_tensors(model, list(clips.values()))
    with torch.inference_mode():
        logits_M1 = model.score(video_ME, context_MPE, encode_text_raw(model, [text]))
    return dict(zip(clips, logits_M1[:, 0].tolist(), strict=True))


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
