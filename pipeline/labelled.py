"""Labelled videos: a table of path and label, a list in the reference's format, or a folder per class.

What training and evaluation start from. A list is made by hand or by a script, so its mistakes are told before hours of
work begin: files that are not there, labels that are empty, a video with two labels.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources import EXTENSIONS, LIST_EXTENSIONS
from schemas.errors import InputError

# Beside a list in the reference's format: a table of `id,name`.
CLASS_NAMES = "labels.csv"
# Problems of a kind that a message names; the rest is a count.
NAMED = 3
EXPECTED = "expected a .csv, .tsv or .parquet table of path and label, a .txt list, or a folder with one per class"

# Path as given and label of each video, and where that stands, for messages.
Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Example:
    """A video file and what it shows."""

    path: Path
    label: str


@dataclass(frozen=True, slots=True)
class LabelledVideos:
    """Videos in the order given, and all their labels, sorted, each once."""

    examples: tuple[Example, ...]
    labels: tuple[str, ...]


def read_labelled(source: Path, names: Path | None = None) -> LabelledVideos:
    """The labelled videos that a table, a list or a folder holds; all files exist, and each has one label.

    Relative paths are relative to the list's folder. `names` is the table of class names of a .txt list, `labels.csv`
    beside it unless given. Raises InputError for a source that cannot be used as it is.
    """
    if not source.exists():
        raise InputError(f"there is nothing at {source}; {EXPECTED}")
    if source.is_dir():
        return _gathered(source, source, _from_folder(source))
    if source.suffix.lower() in LIST_EXTENSIONS:
        return _gathered(source, source.parent, _from_list(source, names or source.parent / CLASS_NAMES))
    if source.suffix.lower() not in READERS:
        raise InputError(f"{source} is no list of labelled videos; {EXPECTED}")
    return _gathered(source, source.parent, READERS[source.suffix.lower()](source))


def _gathered(source: Path, folder: Path, rows: Iterable[Row]) -> LabelledVideos:
    """The rows as examples, each file once. Raises InputError for rows that contradict each other or the disk."""
    label_of: dict[Path, str] = {}
    for given, name, where in rows:
        label = name.strip()
        if not given.strip() or not label:
            raise InputError(f"{source}, {where}: the {'path' if label else 'label'} is empty; expected both")
        path = Path(os.path.abspath(folder / given))  # noqa: PTH100  # resolve() would rename what the user named
        if label_of.setdefault(path, label) != label:
            raise InputError(
                f"{source}, {where}: {given} is labelled {label!r} and before that {label_of[path]!r}; "
                "a video has one label, so remove one of the rows"
            )
    if not label_of:
        raise InputError(f"{source} names no videos; {EXPECTED}")
    _check_files(source, folder, list(label_of))
    examples = tuple(Example(path, label) for path, label in label_of.items())
    return LabelledVideos(examples, tuple(sorted(set(label_of.values()))))


def _check_files(source: Path, folder: Path, paths: list[Path]) -> None:
    """Raises InputError unless every file is there."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        first = ", ".join(map(str, missing[:NAMED])) + (", ..." if len(missing) > NAMED else "")
        raise InputError(
            f"{source} names {len(paths)} files, and {len(missing)} of them are not there: {first}. "
            f"Relative paths are relative to {folder.absolute()}"
        )


# --- tables


def _columns(source: Path, found: Iterable[str], wanted: tuple[str, str]) -> tuple[str, str]:
    """The names of the two wanted columns as the table spells them; case and spaces do not matter."""
    spelled = {name.strip().lower(): name for name in found}
    missing = [name for name in wanted if name not in spelled]
    if missing:
        raise InputError(
            f"{source} has no column {' and no column '.join(missing)}; its first row must name the columns "
            f"{' and '.join(wanted)}, and it names {', '.join(spelled) or 'nothing'}"
        )
    return spelled[wanted[0]], spelled[wanted[1]]


def _table_rows(source: Path, wanted: tuple[str, str], separator: str = ",") -> Iterator[Row]:
    """Two columns of a text table, row by row."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as stream:
            # Spaces after a separator are no part of a name, and a quote that never ends is a mistake.
            reader = csv.DictReader(stream, delimiter=separator, skipinitialspace=True, strict=True)
            yield from _rows(source, reader, wanted)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source} cannot be read as a table ({error}); expected UTF-8 text") from error


def _rows(source: Path, reader: csv.DictReader[str], wanted: tuple[str, str]) -> Iterator[Row]:
    """Two columns of an open table, row by row."""
    first, second = _columns(source, reader.fieldnames or (), wanted)
    for row in reader:
        where = f"line {reader.line_num}"
        if None in row:
            raise InputError(f"{source}, {where}: more fields than columns; put names that hold a separator in quotes")
        yield row[first] or "", row[second] or "", where


def _from_csv(source: Path) -> Iterator[Row]:
    return _table_rows(source, ("path", "label"))


def _from_tsv(source: Path) -> Iterator[Row]:
    return _table_rows(source, ("path", "label"), "\t")


def _from_parquet(source: Path) -> Iterator[Row]:
    """A Parquet file with two columns among others."""
    try:
        columns = _columns(source, pq.read_schema(source).names, ("path", "label"))
        table = pq.read_table(source, columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{source} cannot be read as Parquet ({error})") from error
    pairs = zip(*(table[name].to_pylist() for name in columns), strict=True)
    for number, (path, label) in enumerate(pairs, start=1):
        yield _text(path), _text(label), f"row {number}"


def _text(value: Any) -> str:
    """A cell of a table; nothing is an empty text."""
    return "" if value is None else str(value)


READERS: dict[str, Callable[[Path], Iterable[Row]]] = {
    ".csv": _from_csv,
    ".tsv": _from_tsv,
    ".parquet": _from_parquet,
}


# --- lists in the reference's format


def _from_list(source: Path, names: Path) -> Iterator[Row]:
    """A line `path number` for each video. The number is what follows the last space, so that paths may hold some."""
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list {source} cannot be read ({error}); expected UTF-8 lines `path number`") from error
    name_of = _class_names(source, names)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        *paths, label = line.strip().rsplit(maxsplit=1)
        if not paths or not label.isdecimal() or int(label) not in name_of:
            raise InputError(
                f"{source}, line {number}: {line.strip()!r} does not end in the number of a class in {names}; "
                "expected `path number`"
            )
        yield paths[0], name_of[int(label)], f"line {number}"


def _class_names(source: Path, names: Path) -> dict[int, str]:
    """Class names by number, from a table of `id,name`."""
    if not names.is_file():
        raise InputError(
            f"{source} has numbers for labels, and there is no {names} to name them; "
            "expected a table with a first row `id,name` and a row a class"
        )
    found: dict[int, str] = {}
    for number, name, where in _table_rows(names, ("id", "name")):
        if not number.strip().isdecimal() or not name.strip() or int(number) in found or name.strip() in found.values():
            raise InputError(f"{names}, {where}: expected a number and a name, each once; got {number!r}, {name!r}")
        found[int(number)] = name.strip()
    return found


# --- folders


def _from_folder(folder: Path) -> Iterator[Row]:
    """Every video below each sub-folder, labelled with the sub-folder's name."""
    loose = [entry.name for entry in folder.iterdir() if entry.is_file() and _is_video(entry.name)]
    if loose:
        raise InputError(
            f"{folder} holds {len(loose)} videos beside its sub-folders ({', '.join(sorted(loose)[:NAMED])}); "
            "expected a sub-folder per class with every video in one"
        )
    for group in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        found = [Path(parent, name) for parent, _, files in os.walk(group) for name in files if _is_video(name)]
        for path in sorted(found):
            yield str(path.relative_to(folder)), group.name, group.name


def _is_video(name: str) -> bool:
    """Whether a file's extension is that of a video."""
    return Path(name).suffix.lower() in EXTENSIONS
