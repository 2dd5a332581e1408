"""Labels for every clip: the model's own score of each clip with each label, and softmax over the label set.

A probability here is relative to the labels given (there is no "none of these") and is not calibrated. A label may
have several prompts; its score is the mean of their logits, each conditioned on the clip by the model.
"""

# B clips of a batch, K labels, Q prompts of all labels, E joint dimension

from __future__ import annotations

import hashlib
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
import yaml
from torch import Tensor

from pipeline.search import stored_tensors
from pipeline.serving import OpenSpace
from schemas.errors import InputError
from xclip_core import Encoder, encode_text_raw

CLIPS_PER_BATCH = 256


@dataclass(frozen=True, slots=True)
class Label:
    """A label and the texts that stand for it."""

    name: str
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels in the order given. `id` is a fingerprint of labels and prompts."""

    labels: tuple[Label, ...]

    @property
    def id(self) -> str:
        """Twelve hex digits: tags of different label sets are kept apart by it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


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


def read_labels(path: str | Path) -> LabelSet:
    """A text file with a label a line, or YAML: a list of labels, or a mapping from label to prompt or prompts.

    Raises InputError for a missing, empty or unreadable file and for a label that comes twice.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the label file {file} cannot be read ({error}); expected UTF-8 text or YAML") from error
    is_yaml = file.suffix.lower() in {".yaml", ".yml"}
    labels = list(_from_yaml(text, file) if is_yaml else _from_lines(text))
    names = [label.name for label in labels]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not labels or twice:
        what = f"names {', '.join(twice)} more than once" if twice else "holds no labels"
        raise InputError(f"the label file {file} {what}; expected one label a line, or YAML with prompts per label")
    return LabelSet(tuple(labels))


def _from_lines(text: str) -> Iterator[Label]:
    """Labels of a text file; empty lines and # comments are skipped."""
    for line in text.splitlines():
        name = line.strip()
        if name and not name.startswith("#"):
            yield Label(name, (name,))


class _UniqueKeys(yaml.SafeLoader):
    """YAML whose mappings name a key once: the plain loader keeps the last of two in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """A mapping; raises InputError for a key that comes twice."""
        names = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"the label file names {', '.join(twice)} more than once; expected each label once")
        return super().construct_mapping(node, deep=deep)


def _from_yaml(text: str, file: Path) -> Iterator[Label]:
    """Labels of a YAML file."""
    try:
        content = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        raise InputError(f"the label file {file} is not YAML: {error}") from error
    if not isinstance(content, list | dict):
        raise InputError(f"the label file {file} holds a {type(content).__name__}; expected a list or a mapping")
    pairs = content.items() if isinstance(content, dict) else [(name, None) for name in content]
    for name, prompts in pairs:
        yield Label(
            _text(name, file), tuple(_text(prompt, file) for prompt in _as_list(prompts)) or (_text(name, file),)
        )


def _text(value: Any, file: Path) -> str:
    """A label or prompt of a YAML file. Numbers and `yes` are words too; anything nested is a mistake."""
    if isinstance(value, list | dict) or value is None:
        raise InputError(f"the label file {file} has {value!r} in place of a text; expected a label or a prompt there")
    return str(value)


def _as_list(prompts: Any) -> list[Any]:
    """Prompts as YAML may give them: nothing, one, or several."""
    if prompts is None:
        return []
    return prompts if isinstance(prompts, list) else [prompts]


def tag(opened: OpenSpace, labels: LabelSet, *, top: int = 3) -> TagReport:
    """Scores every visible clip with every label, keeps the `top` best (0 keeps all), and writes the tags table.

    Tags that this label set had before are replaced.
    """
    if top < 0:
        raise InputError(f"--top {top} is not usable; expected 0 for all labels, or a number of them")
    columns = ["clip_id", "video_id", "start_s", "end_s", "embedding", "context"]
    clips = opened.archive.visible_clips(opened.space, columns)
    uris = opened.archive.uris(opened.space)
    text_QE = encode_text_raw(opened.model, [prompt for label in labels.labels for prompt in label.prompts])
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
    logits_BQ = model.score(*stored_tensors(model, clips), text_QE)
    sizes = [len(label.prompts) for label in labels.labels]
    return torch.stack([part.mean(dim=1) for part in torch.split(logits_BQ, sizes, dim=1)], dim=1)


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
