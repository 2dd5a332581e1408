"""Label sets from files: YAML in a short and a full form, CSV with a row a wording, or text with a label a line."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pipeline.label_sets import BACKGROUND, Label, LabelSet, checked
from schemas.errors import InputError

COLUMNS = ("label", "wording", "synonyms", "parent", "threshold", "negatives")  # of a CSV file; the first is needed
BETWEEN = ";"  # synonyms, or negatives, in a cell
# The full form is known by a key that only it has. A label of that name is had by listing it in the full form.
FULL = "labels"
FULL_KEYS = ("version", "background", FULL)
LABEL_KEYS = ("label", "wordings", "synonyms", "parent", "threshold", "negatives")


def read_labels(path: str | Path) -> LabelSet:
    """The label set in a file, by its ending: .yaml or .yml, .csv, anything else a label a line.

    Raises InputError for a missing, empty or unreadable file and for labels that cannot be meant, with the line where
    that is known.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the label file {file} cannot be read ({error}); expected UTF-8 text or YAML") from error
    found = READERS.get(file.suffix.lower(), _from_lines)(text, file)
    return checked(found, f"the label file {file}")


def _from_lines(text: str, _: Path) -> LabelSet:
    """A label a line; empty lines and # comments are skipped."""
    names = [line.strip() for line in text.splitlines()]
    return LabelSet(tuple(Label(name, (name,)) for name in names if name and not name.startswith("#")))


# --- YAML


class _UniqueKeys(yaml.SafeLoader):
    """YAML whose mappings name a key once: the plain loader keeps the last of two in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """A mapping; raises InputError for a key that comes twice."""
        names = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        if twice:
            line = node.start_mark.line + 1
            raise InputError(
                f"the label file names {', '.join(twice)} more than once (in what starts at line {line}); "
                "expected each label once"
            )
        return super().construct_mapping(node, deep=deep)


def _from_yaml(text: str, file: Path) -> LabelSet:
    """The full form, or one of the short ones: a list of labels, or a mapping from label to prompt or prompts."""
    try:
        content = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        raise InputError(f"the label file {file} is not YAML: {error}") from error
    if not isinstance(content, list | dict):
        raise InputError(f"the label file {file} holds a {type(content).__name__}; expected a list or a mapping")
    if isinstance(content, dict) and _is_full(content):
        return _full(content, file)
    pairs = content.items() if isinstance(content, dict) else [(name, None) for name in content]
    return LabelSet(tuple(_short(name, prompts, file) for name, prompts in pairs))


def _short(name: Any, prompts: Any, file: Path) -> Label:
    """A label of a short form: its prompts, or its name."""
    texts = tuple(_text(prompt, file) for prompt in _as_list(prompts))
    return Label(_text(name, file), texts or (_text(name, file),))


def _is_full(content: dict[Any, Any]) -> bool:
    """Whether a mapping is the full form: it lists labels that say more than their prompts, or nothing but its keys."""
    listed = content.get(FULL)
    if not isinstance(listed, list):
        return False
    return set(content) <= set(FULL_KEYS) and (len(content) > 1 or any(isinstance(each, dict) for each in listed))


def _full(content: dict[Any, Any], file: Path) -> LabelSet:
    """The full form."""
    background = content.get("background")
    texts = BACKGROUND if background is True else [] if background is False else _as_list(background)
    parents = {str(each.get("parent")) for each in content[FULL] if isinstance(each, dict)}
    return LabelSet(
        tuple(_full_label(each, parents, file) for each in content[FULL]),
        tuple(_text(text, file) for text in texts),
        "" if content.get("version") is None else _text(content["version"], file),
    )


def _full_label(entry: Any, parents: set[str], file: Path) -> Label:
    """A label of the full form: its name alone, or a mapping. What says no wordings has its name, or its children."""
    if not isinstance(entry, dict):
        entry = {"label": _text(entry, file)}
    unknown = [str(key) for key in entry if key not in LABEL_KEYS]
    if unknown or "label" not in entry:
        what = f"a label with {', '.join(unknown)}" if unknown else f"an entry without its label: {entry!r}"
        raise InputError(f"the label file {file} has {what}; expected {', '.join(LABEL_KEYS)}")
    name = _text(entry["label"], file)
    lists = {key: tuple(_text(text, file) for text in _as_list(entry.get(key))) for key in LABEL_KEYS}
    prompts = lists["wordings"] if "wordings" in entry or name in parents else (name,)
    parent = None if entry.get("parent") is None else _text(entry["parent"], file)
    threshold = None if entry.get("threshold") is None else _number(entry["threshold"], f"{file}, label {name!r}")
    return Label(name, prompts, lists["synonyms"], parent, threshold, lists["negatives"])


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


def _number(value: Any, where: str) -> float:
    """A threshold."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"the label file {where}: the threshold {value!r} is no number; expected 0 to 1") from error


# --- CSV


def _from_csv(text: str, file: Path) -> LabelSet:
    """A table with a column `label` and some of the others; rows of one label are several wordings of it."""
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    rows: dict[str, list[tuple[int, dict[str, str]]]] = {}
    try:
        _check_columns(reader.fieldnames or (), file)
        for row in reader:
            if None in row:
                raise InputError(f"{file}, line {reader.line_num}: more fields than columns; quote texts with commas")
            values = {name: (value or "").strip() for name, value in row.items()}
            if not values["label"]:
                raise InputError(f"{file}, line {reader.line_num}: the label is empty; expected one in every row")
            rows.setdefault(values["label"], []).append((reader.line_num, values))
    except csv.Error as error:
        raise InputError(f"the label file {file}, line {reader.line_num}: {error}; expected CSV") from error
    parents = {row["parent"] for found in rows.values() for _, row in found if row.get("parent")}
    return LabelSet(tuple(_csv_label(name, found, parents, file) for name, found in rows.items()))


def _check_columns(found: Any, file: Path) -> None:
    """Raises InputError unless the first row names columns that are known, `label` among them."""
    unknown = [name for name in found if name not in COLUMNS]
    if "label" not in found or unknown:
        what = f"has the columns {', '.join(unknown)}" if unknown else "has no column label"
        raise InputError(f"the label file {file} {what}; its first row must name some of {', '.join(COLUMNS)}")


def _csv_label(name: str, rows: list[tuple[int, dict[str, str]]], parents: set[str], file: Path) -> Label:
    """A label of the rows that name it. Without wordings it has its name, or its children."""
    wordings, synonyms, negatives = (
        tuple(dict.fromkeys(text for _, row in rows for text in _cell(row.get(column, ""), between)))
        for column, between in (("wording", None), ("synonyms", BETWEEN), ("negatives", BETWEEN))
    )
    parent, threshold = (_same(column, rows, file) for column in ("parent", "threshold"))
    prompts = wordings or (() if name in parents else (name,))
    number = _number(threshold, f"{file}, line {rows[0][0]}") if threshold else None
    return Label(name, prompts, synonyms, parent or None, number, negatives)


def _cell(value: str, between: str | None) -> list[str]:
    """The texts in a cell."""
    parts = [value] if between is None else value.split(between)
    return [part.strip() for part in parts if part.strip()]


def _same(column: str, rows: list[tuple[int, dict[str, str]]], file: Path) -> str:
    """What all rows of a label say in a column, as far as they say anything."""
    said = {row.get(column, ""): line for line, row in rows if row.get(column)}
    if len(said) > 1:
        first, second = list(said)[:2]
        raise InputError(f"{file}, line {said[second]}: the {column} is {second!r} and before that {first!r}")
    return next(iter(said), "")


READERS: dict[str, Callable[[str, Path], LabelSet]] = {".yaml": _from_yaml, ".yml": _from_yaml, ".csv": _from_csv}
