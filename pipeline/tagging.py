"""Labels for every clip that can be seen: scored by the model, chosen by a rule, written to the archive's tags.

Clips stream through a few hundred at a time and their tags are committed in lots, so that memory does not grow with the
archive and an interrupted run has lost nothing. A clip that has tags of the label set under the same settings is left
alone; rows of other settings, and of clips that are seen no more, go when all that is new is there.
"""

# B clips of a batch, K labels, Q texts of all labels, E joint dimension, R tags

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from pipeline import delta_log, interrupts, keys, tag_rows
from pipeline.calibration_file import Calibration
from pipeline.interrupts import Stopped
from pipeline.keys import Keys
from pipeline.label_scores import Chosen, Mode, Rule, Scores, choose, of_background, over_texts, thresholds_of
from pipeline.label_sets import BACKGROUND, NONE, LabelSet
from pipeline.progress import Progress
from pipeline.search import stored_tensors
from pipeline.serving import OpenSpace
from pipeline.settings import Precision
from schemas import tables
from schemas.errors import InputError
from xclip_core import encode_text_raw
from xclip_core.fast import faster_dtype
from xclip_core.fast_score import scorer

CLIPS_PER_BATCH = 256
COMMIT_EVERY_S = 60.0  # of work that a kill may cost
ROWS_PER_LOT = 1 << 18  # held until they are committed
_COLUMNS = ["clip_id", "video_id", "embedding", "context"]
_ID = pa.schema([("clip_id", pa.string())])

Score = Callable[[Tensor, Tensor], Tensor]  # clips B x E and contexts B x P x E to logits B x Q


@dataclass(frozen=True, kw_only=True, slots=True)
class TagSettings:
    """What decides which tags a clip gets, beside the label set."""

    mode: Mode = "single"
    top: int = 3  # labels of a clip at most; 0 for all
    background: bool = False  # "none of these" is an answer, by texts of our own where the set has none
    calibration: Calibration | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.top < 0:
            raise InputError(f"--top {self.top} is not usable; expected 0 for all labels, or a number of them")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCount:
    """How often a label came first. `mean_probability` is None where it has none."""

    label: str
    clips: int
    mean_probability: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TagReport:
    """What tagging did. The tags themselves are in the archive; see `pipeline.tagged`."""

    label_set: str
    tagging: str  # the fingerprint of all settings
    basis: str  # what the probabilities are
    space: str
    clips: int  # that can be seen, all of which have tags now
    new: int  # that had none
    dropped: int  # rows of other settings, and of clips that are seen no more
    labels: tuple[LabelCount, ...]  # most frequent first
    wall_s: float


def tag(
    opened: OpenSpace,
    labels: LabelSet,
    settings: TagSettings | None = None,
    *,
    watch: Callable[[Progress], None] | None = None,
) -> TagReport:
    """Gives every visible clip tags of a label set; only those that have none under these settings are scored.

    Raises InputError for a text that the model cannot read, SpaceMismatch for a calibration of another space or set,
    and Stopped after a signal, with what was done committed.
    """
    began = time.perf_counter()
    settings = settings or TagSettings()
    asked, rule = prepared(labels, settings, opened.space)
    tagging = _fingerprint(labels, asked, settings)
    # Texts are encoded once, and before anything is written; each clip's own prompts are made in the score.
    score = text_scorer(opened, asked, settings.precision)
    delta_log.widen(opened.archive, "tags")
    shown = visible_clips(opened)
    done = tag_rows.tagged_clips(opened.archive, opened.space, labels.id, tagging)
    batches = _untagged(opened, done, len(shown), watch or (lambda _: None))
    row = {"space": opened.space, "label_set": labels.id, "basis": rule.basis, "tagging": tagging}
    lots = _Lots(opened, row, asked)
    with interrupts.held() as hold:
        for batch in hold.listen(batches):
            scores = label_scores(opened, batch, score, asked)
            lots.add(batch, choose(*scores, asked, rule, settings.top))
        lots.commit()
        if hold.signum is not None:
            raise Stopped(hold.signum)
    dropped = tag_rows.drop_others(opened.archive, opened.space, labels.id, tagging, shown)
    return TagReport(
        label_set=labels.id,
        tagging=tagging,
        basis=rule.basis,
        space=opened.space,
        clips=len(shown),
        new=lots.clips,
        dropped=dropped,
        labels=_counts(opened, labels.id, tagging),
        wall_s=time.perf_counter() - began,
    )


# --- what is asked


def prepared(labels: LabelSet, settings: TagSettings, space: str) -> tuple[LabelSet, Rule]:
    """The label set with the background that the settings need, and the rule that scores are judged by.

    Raises SpaceMismatch for a calibration of another label set or space, InputError for one without the mode asked.
    """
    needs_background = settings.background or settings.mode == "multi" or settings.calibration is not None
    asked = replace(labels, background=labels.background or BACKGROUND) if needs_background else labels
    rule = Rule(mode=settings.mode, thresholds=thresholds_of(labels))
    if settings.calibration is None:
        return asked, rule
    settings.calibration.check(labels, space)
    return asked, settings.calibration.rule(settings.mode, labels)


def _fingerprint(labels: LabelSet, asked: LabelSet, settings: TagSettings) -> str:
    """Twelve hex digits of all that decides which rows a clip gets."""
    calibration = settings.calibration.id if settings.calibration else None
    content = [labels.id, asked.id, settings.mode, settings.top, calibration]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def text_scorer(opened: OpenSpace, labels: LabelSet, precision: Precision) -> Score:
    """The logits of clips with the texts of a label set, which are encoded now."""
    device = str(opened.model.device)
    dtype = faster_dtype(device) if precision == "auto" else getattr(torch, precision)
    return scorer(opened.model, encode_text_raw(opened.model, labels.texts), dtype)


@torch.inference_mode()
def label_scores(
    opened: OpenSpace, clips: pa.RecordBatch, score: Score, labels: LabelSet
) -> tuple[Scores, Scores | None]:
    """Scores B x K of clips with labels, and (B,) with the background, float64."""
    logits_BQ = score(*stored_tensors(opened.model, clips.select(["embedding", "context"]).to_pylist())).double().cpu()
    none_B = of_background(logits_BQ, labels)
    return over_texts(logits_BQ, labels).numpy(), None if none_B is None else none_B.numpy()


# --- clips


def visible_clips(opened: OpenSpace) -> Keys:
    """The clips that can be seen: eight bytes each."""
    return Keys(keys.of_ids(batch["clip_id"]) for batch in opened.archive.visible_batches(opened.space, ["clip_id"]))


def _untagged(opened: OpenSpace, done: Keys, total: int, watch: Callable[[Progress], None]) -> Iterator[pa.RecordBatch]:
    """The visible clips that are not done, in batches; `watch` hears of each that was taken."""
    seen = 0
    watch(Progress("tag", 0, total))
    for batch in opened.archive.visible_batches(opened.space, _COLUMNS):
        new = batch.filter(pc.invert(done.has(keys.of_ids(batch["clip_id"])))) if len(done) else batch
        for start in range(0, new.num_rows, CLIPS_PER_BATCH):
            yield new.slice(start, CLIPS_PER_BATCH)
            watch(Progress("tag", seen + min(start + CLIPS_PER_BATCH, new.num_rows), total))
        seen += batch.num_rows
        watch(Progress("tag", seen, total))


class _Lots:
    """Tags on their way into the archive, committed when there are many or when that was long ago."""

    def __init__(self, opened: OpenSpace, row: dict[str, str], labels: LabelSet) -> None:
        self.clips = 0
        self._archive, self._row = opened.archive, row
        self._names = pa.array([*labels.names, NONE], pa.string())
        self._waiting: list[pa.RecordBatch] = []
        self._since_s = time.monotonic()

    def add(self, clips: pa.RecordBatch, chosen: Chosen) -> None:
        """Takes the tags of some clips."""
        self.clips += clips.num_rows
        self._waiting.append(self._rows(clips, chosen))
        is_long_ago = time.monotonic() - self._since_s > COMMIT_EVERY_S
        if is_long_ago or sum(batch.num_rows for batch in self._waiting) >= ROWS_PER_LOT:
            self.commit()

    def commit(self) -> None:
        """Makes what was taken part of the archive."""
        if self._waiting:
            tag_rows.add(self._archive, self._waiting)
        self._waiting = []
        self._since_s = time.monotonic()

    def _rows(self, clips: pa.RecordBatch, chosen: Chosen) -> pa.RecordBatch:
        """Tags as rows of the table."""
        count, now = len(chosen.clip_R), pa.scalar(datetime.now(UTC), tables.TAGS.field("tagged_at").type)
        columns = {
            **{name: clips[name].take(pa.array(chosen.clip_R)) for name in ("clip_id", "video_id")},
            **{name: pa.repeat(pa.scalar(value, pa.string()), count) for name, value in self._row.items()},
            "label": self._names.take(pa.array(chosen.place_R)),
            "rank": pa.array(chosen.rank_R, pa.int32()),
            "probability": pa.array(chosen.probability_R, pa.float64(), from_pandas=True),  # NaN becomes null
            "score": pa.array(chosen.score_R, pa.float64(), from_pandas=True),
            "tagged_at": pa.repeat(now, count),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in tables.TAGS.names], schema=tables.TAGS)


def _counts(opened: OpenSpace, label_set: str, tagging: str) -> tuple[LabelCount, ...]:
    """How often each label came first, and how sure of it the model was, by what is in the archive now."""
    clips: Counter[str] = Counter()
    known: Counter[str] = Counter()
    sums: defaultdict[str, float] = defaultdict(float)
    for batch in opened.archive.tag_batches(opened.space, ["label_set", "tagging", "label", "rank", "probability"]):
        firsts = batch.filter(
            pc.and_(
                pc.equal(batch["rank"], 1),
                pc.fill_null(
                    pc.and_(pc.equal(batch["label_set"], label_set), pc.equal(batch["tagging"], tagging)), False
                ),
            )
        )
        what = [("label", "count"), ("probability", "sum"), ("probability", "count")]
        for row in pa.Table.from_batches([firsts]).group_by("label").aggregate(what).to_pylist():
            clips[row["label"]] += row["label_count"]
            sums[row["label"]] += row["probability_sum"] or 0.0
            known[row["label"]] += row["probability_count"]
    return tuple(
        LabelCount(label=label, clips=count, mean_probability=sums[label] / known[label] if known[label] else None)
        for label, count in sorted(clips.items(), key=lambda pair: (-pair[1], pair[0]))
    )
