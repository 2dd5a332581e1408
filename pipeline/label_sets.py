"""Label sets: what a clip may be called, and the texts that stand for each name. Text or YAML, checked before use."""

# B videos or clips, K labels, Q prompts of all labels

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from schemas.errors import InputError


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

    @property
    def prompts(self) -> list[str]:
        """The prompts of all labels, in order."""
        return [prompt for label in self.labels for prompt in label.prompts]


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


def over_prompts(logits_BQ: Tensor, labels: LabelSet) -> Tensor:
    """Logits B x K of labels: the mean over each label's prompts, which stand in order in `logits_BQ`, B x Q."""
    sizes = [len(label.prompts) for label in labels.labels]
    return torch.stack([part.mean(dim=1) for part in torch.split(logits_BQ, sizes, dim=1)], dim=1)
