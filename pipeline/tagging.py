"""Labels for every clip: the model's own score of each clip with each label, and softmax over the label set.

A probability here is relative to the labels given (there is no "none of these") and is not calibrated. A label may
have several prompts; its score is the mean of their logits, each conditioned on the clip by the model.
"""

# B clips of a batch, K labels, Q prompts of all labels, E joint dimension

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipeline.label_sets import LabelSet, over_prompts
from pipeline.search import stored_tensors
from pipeline.serving import OpenSpace
from schemas.errors import InputError
from xclip_core import Encoder, encode_text_raw

CLIPS_PER_BATCH = 256


@dataclass(frozen=True, slots=True)
class Tag:
    """One label of one clip. `probability` is softmax over the label set, `score` the model's logit."""

    clip_id: str
    video_id: str
    uri: str
    start_s: float
    end_s: float
    rank: int
    label: str
    probability: float
    score: float


@dataclass(frozen=True, slots=True)
class TagReport:
    """What tagging did, with all tags kept, clip by clip, best first."""

    label_set: str
    clips: int
    tags: tuple[Tag, ...]


def tag(opened: OpenSpace, labels: LabelSet, *, top: int = 3) -> TagReport:
    """Scores every visible clip with every label, keeps the `top` best (0 keeps all), and writes the tags table.

    Tags that this label set had before are replaced.
    """
    if top < 0:
        raise InputError(f"--top {top} is not usable; expected 0 for all labels, or a number of them")
    columns = ["clip_id", "video_id", "start_s", "end_s", "embedding", "context"]
    clips = opened.archive.visible_clips(opened.space, columns)
    uris = opened.archive.uris(opened.space)
    text_QE = encode_text_raw(opened.model, labels.prompts)
    tags: list[Tag] = []
    # Texts are encoded once; the prompt conditioned on each clip is made inside the model's score.
    for batch in clips.to_batches(max_chunksize=CLIPS_PER_BATCH):
        rows = batch.to_pylist()
        logits_BK = label_logits(opened.model, rows, text_QE, labels)
        tags += _best(rows, uris, logits_BK, labels, top or len(labels.labels))
    _write(opened, labels, tags)
    return TagReport(labels.id, clips.num_rows, tuple(tags))


@torch.inference_mode()
def label_logits(model: Encoder, clips: list[dict[str, Any]], text_QE: Tensor, labels: LabelSet) -> Tensor:
    """Logits B x K of clip rows with labels whose prompts, in order, have the raw vectors `text_QE` (Q x E)."""
    return over_prompts(model.score(*stored_tensors(model, clips), text_QE), labels)


def _best(
    clips: list[dict[str, Any]], uris: dict[str, str], logits_BK: Tensor, labels: LabelSet, most: int
) -> Iterator[Tag]:
    """The best labels of each clip of a batch; `logits_BK` is B x K."""
    # In float64: over a thousand labels the float32 sum shows in the last printed digit.
    probability_BK = logits_BK.double().softmax(dim=1)
    order_BK = logits_BK.argsort(dim=1, descending=True, stable=True)[:, :most]
    for row, clip in enumerate(clips):
        for rank, place in enumerate(order_BK[row].tolist(), start=1):
            yield Tag(
                clip_id=clip["clip_id"],
                video_id=clip["video_id"],
                uri=uris[clip["video_id"]],
                start_s=clip["start_s"],
                end_s=clip["end_s"],
                rank=rank,
                label=labels.labels[place].name,
                probability=probability_BK[row, place].item(),
                score=logits_BK[row, place].item(),
            )


def _write(opened: OpenSpace, labels: LabelSet, tags: list[Tag]) -> None:
    """Puts the tags into the archive."""
    shared = {"space": opened.space, "label_set": labels.id, "tagged_at": datetime.now(UTC)}
    rows = [
        {
            **shared,
            **{name: getattr(tag, name) for name in ("clip_id", "video_id", "label", "rank", "probability", "score")},
        }
        for tag in tags
    ]
    opened.archive.replace_tags(rows, opened.space, labels.id)


# --- files


def _table(tags: tuple[Tag, ...]) -> pa.Table:
    """Tags as a table, a row each."""
    schema = pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in Tag.__annotations__.items()])
    return pa.Table.from_pylist([asdict(tag) for tag in tags], schema=schema)


_ARROW_TYPES = {"str": pa.string(), "float": pa.float64(), "int": pa.int32()}


def _write_csv(tags: tuple[Tag, ...], path: Path) -> None:
    pyarrow.csv.write_csv(_table(tags), path)


def _write_jsonl(tags: tuple[Tag, ...], path: Path) -> None:
    path.write_text("".join(json.dumps(asdict(tag), ensure_ascii=False) + "\n" for tag in tags), encoding="utf-8")


def _write_parquet(tags: tuple[Tag, ...], path: Path) -> None:
    pq.write_table(_table(tags), path)


EXPORTERS: dict[str, Callable[[tuple[Tag, ...], Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


def check_export(path: Path) -> None:
    """Raises InputError unless tags can be written to a file of this name."""
    if path.suffix.lower() not in EXPORTERS:
        raise InputError(f"{path} has no known ending; expected one of {', '.join(EXPORTERS)}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.absolute().parent} to write {path.name} into")


def export(tags: tuple[Tag, ...], path: Path) -> None:
    """Writes tags as CSV, JSON lines or Parquet, by the file's ending."""
    check_export(path)
    EXPORTERS[path.suffix.lower()](tags, path)
