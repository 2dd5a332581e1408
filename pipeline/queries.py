"""What is looked for: texts with weights, what is not wanted, pictures, clips; and what that means as numbers.

A query has parts that are wanted, of weights w, and texts that are not, of weights n. With u a part's unit vector, s
its score of a clip, and W the sum of all w:

    recall vector   E = unit(sum of w u / W  -  sum of n u)          what the index is asked for, by cosine
    score           S = sum of w s / W  -  sum of n s                what candidates are re-ranked by, a logit

A text stands for its wordings, each in every template: c are their raw vectors. Then u = unit(mean of unit(c)), and s
is the mean of the model's own scores of c, each conditioned on the clip, as tags have it over the prompts of a label. A
picture or clip has its vector as u, and s = exp(logit_scale) <clip, u>: the model knows no prompt for it. A picture is
shown to the model as a clip in which nothing moves. A single text of one wording has the model's very score.
"""

# M clips, E joint dimension, P patches, Q prompts of all texts, V pictures and clips, T frames, S pixels

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline import pictures
from pipeline.settings import Sampling
from pipeline.text_batches import TextEncoder
from schemas.errors import InputError
from xclip_core import Encoder, encode_text_raw

# What a text that is not wanted takes away, where one that is wanted alone weighs 1. All texts share a part of their
# logits; at 1 that would cancel, and little but the difference of the two texts would be looked for.
UNWANTED_WEIGHT = 0.5
SMALLEST_NORM = 1e-4  # of what is left where wanted and unwanted cancel out
CLIP_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text: one or more wordings of the same thing."""

    wordings: tuple[str, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Still:
    """A picture file."""

    file: Path
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Example:
    """A clip of a video file: a window of the archive's length round a moment; None is the middle of the video."""

    uri: str
    at_s: float | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Known:
    """A clip of the archive, which is not itself a hit."""

    clip_id: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """Parts that are wanted, at least one, and texts that are not. `templates` each hold one `{}`, for a wording."""

    phrases: tuple[Phrase, ...] = ()
    unwanted: tuple[Phrase, ...] = ()
    stills: tuple[Still, ...] = ()
    examples: tuple[Example, ...] = ()
    known: tuple[Known, ...] = ()
    templates: tuple[str, ...] = ("{}",)

    def __post_init__(self) -> None:
        if not self.wanted:
            raise InputError("there is nothing to look for; expected a text, a picture or a clip that is wanted")
        weights = [part.weight for part in (*self.wanted, *self.unwanted)]
        if not all(0 < weight < np.inf for weight in weights):
            raise InputError(f"weights of {', '.join(map(str, weights))} are not usable; expected numbers over 0")
        odd = [template for template in self.templates if template.count("{}") != 1]
        if odd or not self.templates:
            raise InputError(
                f"the template {odd[0] if odd else ''!r} is not usable; expected one {{}} in it, for the text"
            )
        odd = [part.clip_id for part in self.known if not CLIP_ID.fullmatch(part.clip_id)]
        if odd:
            raise InputError(
                f"{odd[0]!r} is no id of a clip; expected 16 hex digits, as `footage search --json` has them"
            )

    @property
    def wanted(self) -> tuple[Phrase | Still | Example | Known, ...]:
        """All parts that are wanted, in the order in which weights are given."""
        return (*self.phrases, *self.stills, *self.examples, *self.known)

    @property
    def has_texts(self) -> bool:
        """Whether the model's own score is asked, which needs the clips' contexts."""
        return bool(self.phrases or self.unwanted)

    @property
    def prompts(self) -> list[list[str]]:
        """What the model reads: of each text, wanted ones first, every wording in every template."""
        return [_prompts(phrase, self.templates) for phrase in (*self.phrases, *self.unwanted)]

    @property
    def said(self) -> str:
        """The query in words; a single text is just that."""
        total = sum(part.weight for part in self.wanted)
        texts = [_weighed(part, _name(part), total) for part in self.wanted]
        return ", ".join([*texts, *(f"not {' / '.join(part.wordings)}" for part in self.unwanted)])


def of_text(text: str) -> Query:
    """The query that a text alone is."""
    return Query(phrases=(Phrase((text,)),))


def weights(given: Sequence[float] | None, parts: int) -> Iterator[float]:
    """A weight for each wanted part: those given, or 1 for all. Raises InputError where their number differs."""
    if given and len(given) != parts:
        raise InputError(
            f"{len(given)} weights for {parts} parts; expected one for each text, picture and clip wanted, or none"
        )
    return iter(given or [1.0] * parts)


def _name(part: Phrase | Still | Example | Known) -> str:
    """What people call a part."""
    if isinstance(part, Phrase):
        return " / ".join(part.wordings)
    if isinstance(part, Known):
        return f"clip {part.clip_id}"
    if isinstance(part, Still):
        return f"picture {part.file}"
    return f"{part.uri} in the middle" if part.at_s is None else f"{part.uri} at {part.at_s:g} s"


def _weighed(part: Phrase | Still | Example | Known, name: str, total: float) -> str:
    """A part's name, with its share where there are others and it is not 1."""
    return name if part.weight in {1, total} else f"{part.weight:g} x {name}"


# --- as numbers


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query as a model has it. Weights are those of the formula above, minus for what is not wanted."""

    recall_E: NDArray[np.float32]
    prompts_QE: Tensor  # raw, those of one text after the other
    prompt_counts: tuple[int, ...]  # how many of them each text has
    text_weights: tuple[float, ...]
    visual_VE: Tensor  # unit vectors
    visual_weights: tuple[float, ...]

    @torch.inference_mode()
    def scores(self, model: Encoder, video_ME: Tensor, context_MPE: Tensor) -> Tensor:
        """The score of each clip, M, from its vector and context, which is not looked at where there is no text."""
        parts: list[Tensor] = []
        if self.prompt_counts:
            logits_MQ = model.score(video_ME, context_MPE, self.prompts_QE)
            of_text = torch.split(logits_MQ, list(self.prompt_counts), dim=1)
            parts += [weight * part.mean(dim=1) for weight, part in zip(self.text_weights, of_text, strict=True)]
        if self.visual_weights:
            unit_ME = F.normalize(video_ME, dim=-1)
            logits_MV = model.logit_scale.exp() * unit_ME @ self.visual_VE.T
            parts += [weight * logits_MV[:, place] for place, weight in enumerate(self.visual_weights)]
        return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]


def prepare(
    model: Encoder,
    query: Query,
    sampling: Sampling,
    vectors_of: Callable[[list[str]], dict[str, Sequence[float]]],
    encode: TextEncoder = encode_text_raw,
) -> Prepared:
    """A query as numbers: texts, pictures and clips encoded, once for both stages.

    `sampling` is that of the space, by which windows round moments are made; `vectors_of` gives vectors of the
    archive's clips by id. Raises InputError for what cannot be read, is not there, or cancels out, and VideoError for a
    bad video.
    """
    total = sum(part.weight for part in query.wanted)
    text_weights = [part.weight / total for part in query.phrases] + [-part.weight for part in query.unwanted]
    prompts = query.prompts
    prompts_QE = encode(model, [prompt for group in prompts for prompt in group]) if prompts else _no(model)
    counts = [len(group) for group in prompts]
    visual_VE = _visual(model, query, sampling, vectors_of)
    visual_weights = [part.weight / total for part in query.wanted[len(query.phrases) :]]
    texts = [_mean_unit(part_QE) for part_QE in torch.split(prompts_QE, counts)] if counts else []
    recall_E = _weighted([*texts, *visual_VE], [*text_weights, *visual_weights])
    return Prepared(recall_E, prompts_QE, tuple(counts), tuple(text_weights), visual_VE, tuple(visual_weights))


def _no(model: Encoder) -> Tensor:
    """No vectors: 0 x E."""
    return torch.zeros(0, model.config.embed_dim, device=model.device, dtype=model.dtype)


def _prompts(phrase: Phrase, templates: Sequence[str]) -> list[str]:
    """Every wording in every template; one that is empty is told by the tokeniser, and not hidden in a template."""
    return [
        template.replace("{}", text) if text.strip() else text for text in phrase.wordings for template in templates
    ]


def _mean_unit(raw_QE: Tensor) -> Tensor:
    """Raw vectors Q x E of one text to its unit vector E: each at length 1, their mean, that at length 1."""
    unit_QE = F.normalize(raw_QE.float(), dim=-1)
    # At length 1 already: once more would change the last bit, and with it perhaps the order of two hits.
    return unit_QE[0] if len(unit_QE) == 1 else F.normalize(unit_QE.mean(dim=0), dim=-1)


def _weighted(units: Sequence[Tensor], weights: Sequence[float]) -> NDArray[np.float32]:
    """Unit vectors E of parts as the unit vector E of a query. Raises InputError where they cancel out."""
    if len(units) == 1:
        alone: NDArray[np.float32] = units[0].cpu().numpy()
        return alone
    sum_E = torch.stack([weight * unit for weight, unit in zip(weights, units, strict=True)]).sum(dim=0)
    if sum_E.norm() < SMALLEST_NORM:
        raise InputError(
            "what is wanted and what is not cancel out; expected them to differ, or a smaller --not-weight"
        )
    summed: NDArray[np.float32] = F.normalize(sum_E, dim=-1).cpu().numpy()
    return summed


def _visual(
    model: Encoder,
    query: Query,
    sampling: Sampling,
    vectors_of: Callable[[list[str]], dict[str, Sequence[float]]],
) -> Tensor:
    """Unit vectors V x E of pictures, examples and known clips, in that order."""
    found = [*_seen(model, query, sampling), *_stored(model, query.known, vectors_of)]
    return torch.stack(found) if found else _no(model)


def _seen(model: Encoder, query: Query, sampling: Sampling) -> Iterator[Tensor]:
    """Unit vectors E of pictures and of clips of files."""
    config = model.config
    for still in query.stills:
        frames_THWC = pictures.of_still(still.file, config.frames, config.image_size)
        yield pictures.encode(model, frames_THWC)
    for example in query.examples:
        frames_THWC = pictures.of_moment(example.uri, example.at_s, sampling, config.image_size)
        yield pictures.encode(model, frames_THWC)


def _stored(
    model: Encoder, known: Sequence[Known], vectors_of: Callable[[list[str]], dict[str, Sequence[float]]]
) -> Iterator[Tensor]:
    """Unit vectors E of the archive's clips."""
    stored = vectors_of([part.clip_id for part in known]) if known else {}
    for part in known:
        if part.clip_id not in stored:
            raise InputError(
                f"the archive has no clip {part.clip_id} in this space; expected an id that `footage search --json` has"
            )
        vector_E = torch.tensor(stored[part.clip_id], device=model.device, dtype=torch.float32)
        yield F.normalize(vector_E, dim=-1)
