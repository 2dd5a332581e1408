"""How good a model is at a labelled set of videos: decode views, score them with every label, work out the figures.

The score is the model's own, text conditioned on the video. Views are fused as in the reference, by summing softmax;
what a text finds among videos goes by the mean logit over views, since softmax is relative to the labels given. Every
video of the list ends as scored or failed: a bad file is counted and listed, and the run goes on.
"""

# B videos, V views, T frames, S pixels, C = 3 channels, K labels, Q prompts of all labels, E joint dimension

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import engine, metrics, sources
from pipeline.embed import CLIPS_PER_PASS, device_named
from pipeline.engine import Stage
from pipeline.label_scores import over_texts
from pipeline.label_sets import Label, LabelSet
from pipeline.labelled import LabelledVideos
from pipeline.metrics import Figures
from pipeline.multiview import ViewedVideo, Views, ViewStage, deadline_s
from pipeline.progress import Progress
from pipeline.protocols import ProtocolName, other_frames
from pipeline.settings import EngineName
from pipeline.survey import died
from schemas.errors import InputError
from schemas.records import Failed, Failure, SourceFile
from xclip_core import (
    DEFAULT_MODEL,
    Encoder,
    canonical_source,
    encode_text_raw,
    encode_video_with_context,
    load_encoder,
)
from xclip_core.tokenise import split_camel_case


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """Everything that decides the figures, and where they are worked out."""

    model: str = DEFAULT_MODEL
    frames: int | None = None  # of a view, and below pixels of a side; other than the model's by resampling its tables
    image_size: int | None = None
    protocol: ProtocolName | None = None  # of the paper, where one was named: its frames are held against the model's
    views: Views = field(default_factory=Views)
    template: str = "{}"  # what is said of a label; `{}` stands for its name
    split_camel_case: bool = False
    engine: EngineName = "ray"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise InputError(
                f"the template {self.template!r} has no place for the label; expected such as 'a video of {{}}'"
            )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the model said of one video. `rank` is that of its true label among all, from 1."""

    uri: str
    label: str
    said: str
    probability: float
    rank: int


@dataclass(frozen=True, slots=True)
class ClassLine:
    """One label. `accuracy` and `found_at`, the rank of its text's first video, are None where it has no videos."""

    label: str
    prompts: tuple[str, ...]
    videos: int
    right: int
    accuracy: float | None
    found_at: int | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many videos of one label were given another."""

    label: str
    said: str
    videos: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The outcome. `videos` = `scored` + `failed`; without a scored video there are no figures."""

    settings: EvaluationSettings
    notes: tuple[str, ...]  # what a user must know of the model and the protocol before believing the figures
    weights_hash: str
    frames: int
    image_size: int
    videos: int
    scored: int
    failed: int
    figures: Figures | None
    classes: tuple[ClassLine, ...]
    confusions: tuple[Confusion, ...]  # most frequent first
    verdicts: tuple[Verdict, ...]  # in the order of the list
    failures: tuple[Failure, ...]
    decode_s: float  # mean per scored video, of one worker
    score_s: float
    wall_s: float  # of the run, models loaded and workers started


def evaluate(
    labelled: LabelledVideos,
    settings: EvaluationSettings,
    *,
    label_set: LabelSet | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """Scores every video with every label. `label_set` may hold more labels than the videos have, and prompts.

    Raises InputError when a video's label is not in it, or a text is none that the model can read.
    """
    labels = _worded(label_set or LabelSet(tuple(Label(name, (name,)) for name in labelled.labels)), settings)
    _check_names(labelled, labels)
    model = load_encoder(
        settings.model, frames=settings.frames, image_size=settings.image_size, device=device_named(settings.device)
    )
    # Workers run in other folders.
    settings = replace(settings, model=canonical_source(settings.model), device=device_named(settings.device))
    assert model.provenance is not None, "models come from xclip_core.load"
    # Once, and before any video: a label that cannot be read must not cost hours first.
    text_QE = encode_text_raw(model, labels.texts).cpu()
    began = time.perf_counter()
    scored, failures = _run(labelled, settings, model, Score(settings, labels, text_QE), watch)
    return Evaluation(
        settings=settings,
        notes=(*model.provenance.notes, *_departures(settings, model)),
        weights_hash=model.provenance.weights_hash,
        frames=model.config.frames,
        image_size=model.config.image_size,
        videos=len(labelled.examples),
        scored=len(scored),
        failed=len(failures),
        failures=failures,
        decode_s=_mean([video.decode_s for video in scored]),
        score_s=_mean([video.score_s for video in scored]),
        wall_s=time.perf_counter() - began,
        **_outcome(labelled, labels, scored),
    )


def _departures(settings: EvaluationSettings, model: Encoder) -> tuple[str, ...]:
    """Where the protocol that was named is not kept."""
    return other_frames(settings.protocol, model.config.frames) if settings.protocol else ()


def _worded(labels: LabelSet, settings: EvaluationSettings) -> LabelSet:
    """The labels with the texts that the model is given. Prompts that were written out stay as they are.

    Every video has one of the labels: parents that stand for others, and the background, are no answers here.
    """

    def text(label: Label) -> tuple[str, ...]:
        if label.prompts != (label.name,):
            return label.prompts
        name = split_camel_case(label.name) if settings.split_camel_case else label.name
        return (settings.template.replace("{}", name),)

    own = (replace(label, parent=None) for label in labels.labels if not label.is_derived)
    return LabelSet(tuple(replace(label, prompts=text(label)) for label in own))


def _check_names(labelled: LabelledVideos, labels: LabelSet) -> None:
    """Raises InputError unless every video's label is in the label set."""
    unknown = sorted(set(labelled.labels) - {label.name for label in labels.labels})
    if unknown:
        raise InputError(
            f"{len(unknown)} labels of the videos are not in the label set, such as {', '.join(unknown[:3])}; "
            "expected the same names in both"
        )


# --- running it


@dataclass(frozen=True, slots=True)
class ScoredVideo:
    """A video's mean logits and summed softmax, which sums to 1 here, each (K,) float64."""

    uri: str
    logits_K: NDArray[np.float64]
    probability_K: NDArray[np.float64]
    decode_s: float
    score_s: float


@dataclass(frozen=True)
class Score:
    """Scoring as a stage: holds the model, loaded where it runs, and the raw text vectors Q x E."""

    settings: EvaluationSettings
    labels: LabelSet
    text_QE: Tensor

    @cached_property
    def model(self) -> Encoder:
        """Loaded on first use, in the process that uses it."""
        asked = self.settings
        return load_encoder(asked.model, frames=asked.frames, image_size=asked.image_size, device=asked.device)

    def __call__(self, videos: list[ViewedVideo]) -> list[ScoredVideo]:
        """One result for each video, in order; forward passes are filled across their borders."""
        began = time.perf_counter()
        logits_VK = self._logits(np.concatenate([video.frames_VTHWC for video in videos]))
        # In float64: over hundreds of labels the float32 sum shows in the last printed digit.
        probability_VK = torch.from_numpy(logits_VK).softmax(dim=1).numpy()
        per_view_s = (time.perf_counter() - began) / len(logits_VK)
        edges = pairwise(accumulate((len(video.frames_VTHWC) for video in videos), initial=0))
        return [
            ScoredVideo(
                uri=video.uri,
                logits_K=logits_VK[first:last].mean(axis=0),
                probability_K=probability_VK[first:last].mean(axis=0),
                decode_s=video.decode_s,
                score_s=per_view_s * (last - first),
            )
            for video, (first, last) in zip(videos, edges, strict=True)
        ]

    @torch.inference_mode()
    def _logits(self, frames_VTHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The model's logits V x K of views V x T x S x S x 3."""
        text_QE = self.text_QE.to(self.model.device)
        parts = []
        for frames_BTHWC in torch.split(torch.from_numpy(frames_VTHWC), CLIPS_PER_PASS):
            logits_BQ = self.model.score(*encode_video_with_context(self.model, frames_BTHWC), text_QE)
            parts.append(over_texts(logits_BQ, self.labels).double().cpu())
        return torch.cat(parts).numpy()


def _run(
    labelled: LabelledVideos,
    settings: EvaluationSettings,
    model: Encoder,
    score: Score,
    watch: Callable[[Progress], None] | None,
) -> tuple[list[ScoredVideo], tuple[Failure, ...]]:
    """Every file scored or failed, both in the order of the list."""
    files = [_source(example.path) for example in labelled.examples]
    found: dict[str, ScoredVideo | Failed] = {}
    with tempfile.TemporaryDirectory(prefix="footage-") as scratch:
        stages = _stages(settings, model, score)
        for result in engine.run(stages, files, engine=settings.engine, scratch=Path(scratch)):
            found[result.record.uri if isinstance(result, Failed) else result.uri] = result
            if watch is not None:
                watch(Progress("evaluate", len(found), len(files)))
    # Workers finish in any order, and what a dying worker held never comes back.
    settled = [found.get(file.uri) or died(file, "decode", deadline_s(file)) for file in files]
    failures = (result for result in settled if isinstance(result, Failed))
    return (
        [result for result in settled if isinstance(result, ScoredVideo)],
        tuple(Failure(failed.record.uri, failed.kind, failed.error) for failed in failures),
    )


def _source(path: Path) -> SourceFile:
    """A file of the list as stages take it. One that vanished since the list was read fails when it is opened."""
    try:
        found = path.stat()
    except OSError:
        return SourceFile(sources.to_uri(path), 0, 0.0)
    return SourceFile(sources.to_uri(path), found.st_size, found.st_mtime)


def _stages(settings: EvaluationSettings, model: Encoder, score: Score) -> list[Stage]:
    """Decode views, score them."""
    T, S = model.config.frames, model.config.image_size
    on_gpu = settings.device.startswith("cuda")
    return [
        Stage(name="decode", work=ViewStage(views=settings.views, frames=T, image_size=S), deadline_s=deadline_s),
        Stage(
            name="score",
            work=score,
            batch_size=max(1, CLIPS_PER_PASS // settings.views.count),
            resident=True,
            num_gpus=1.0 if on_gpu else 0.0,
        ),
    ]


# --- what came out


def _outcome(labelled: LabelledVideos, labels: LabelSet, scored: list[ScoredVideo]) -> Mapping[str, Any]:
    """Figures, classes, confusions and verdicts, as `Evaluation` has them."""
    names = [label.name for label in labels.labels]
    if not scored:
        lines = tuple(ClassLine(label.name, label.prompts, 0, 0, None, None) for label in labels.labels)
        return {"figures": None, "classes": lines, "confusions": (), "verdicts": ()}
    place_of = {name: place for place, name in enumerate(names)}
    label_of = {sources.to_uri(example.path): example.label for example in labelled.examples}
    truth_B = np.array([place_of[label_of[video.uri]] for video in scored])
    logits_BK, probability_BK = (np.stack([getattr(v, name) for v in scored]) for name in ("logits_K", "probability_K"))
    confusion_KK = metrics.confusion(probability_BK.argmax(axis=1), truth_B, len(names))
    pairs = metrics.worst_pairs(confusion_KK, confusion_KK.size)
    return {
        "figures": metrics.figures(probability_BK, logits_BK, truth_B),
        "classes": _class_lines(labels, confusion_KK, metrics.retrieval_ranks(logits_BK, truth_B)),
        "confusions": tuple(Confusion(names[truth], names[said], count) for truth, said, count in pairs),
        "verdicts": tuple(_verdict(video, names, truth) for video, truth in zip(scored, truth_B.tolist(), strict=True)),
    }


def _class_lines(
    labels: LabelSet, confusion_KK: NDArray[np.int64], ranks_Q: NDArray[np.int64]
) -> tuple[ClassLine, ...]:
    """A line for each label; `ranks_Q` are those of the labels that have videos, in order."""
    ranks = iter(ranks_Q.tolist())
    lines = []
    for place, label in enumerate(labels.labels):
        videos, right = int(confusion_KK[place].sum()), int(confusion_KK[place, place])
        shown = (right / videos, next(ranks)) if videos else (None, None)
        lines.append(ClassLine(label.name, label.prompts, videos, right, *shown))
    return tuple(lines)


def _verdict(video: ScoredVideo, names: list[str], truth: int) -> Verdict:
    """What was said of one video."""
    order = np.argsort(-video.probability_K, kind="stable").tolist()
    best = order[0]
    return Verdict(video.uri, names[truth], names[best], float(video.probability_K[best]), 1 + order.index(truth))


def _mean(values: list[float]) -> float:
    """The mean; of nothing, nothing."""
    return sum(values) / len(values) if values else 0.0
