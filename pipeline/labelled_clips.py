"""Clips whose labels are known, from a CSV file: what a calibration is fitted on.

A row names a video, perhaps a stretch of it, and one label; several rows of a stretch are several labels, and a row
without a label says that none of the set fits. A clip has the labels of every row that covers at least half of it. A
clip that no row covers is unknown and left out; of one that is known every other label of the set is false.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import sources
from pipeline.label_sets import NONE, LabelSet
from schemas.errors import InputError

COLUMNS = ("uri", "start_s", "end_s", "label")


@dataclass(frozen=True, slots=True)
class LabelledSpan:
    """A stretch of a video, all of it where there are no times, and one label; None: no label of the set."""

    start_s: float | None
    end_s: float | None
    label: str | None


Labelled = Mapping[str, list[LabelledSpan]]  # by uri


def read_labelled_clips(source: Path, labels: LabelSet) -> Labelled:
    """The rows of a table with the columns uri, label and perhaps start_s and end_s.

    Labels are names or synonyms of the set. A relative path is relative to the table's folder. Raises InputError, with
    the line, for a row that cannot be meant.
    """
    found: defaultdict[str, list[LabelledSpan]] = defaultdict(list)
    try:
        with source.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True, strict=True)
            _check_columns(reader.fieldnames or (), source)
            for row in reader:
                uri, span = _span(row, labels, f"{source}, line {reader.line_num}")
                found[_uri(uri, source.parent)].append(span)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the labelled clips {source} cannot be read ({error}); expected CSV in UTF-8") from error
    if not found:
        raise InputError(f"{source} names no clips; expected a row for each label of a clip")
    return found


def _check_columns(found: Iterable[str], source: Path) -> None:
    """Raises InputError unless the first row names the columns."""
    names = list(found)
    if missing := [name for name in ("uri", "label") if name not in names]:
        raise InputError(f"{source} has no column {missing[0]}; its first row must name uri, label [, start_s, end_s]")


def _span(row: Mapping[str, str | None], labels: LabelSet, where: str) -> tuple[str, LabelledSpan]:
    """A row as the place of a video and what is said of it."""
    uri, text, *times = ((row.get(name) or "").strip() for name in ("uri", "label", "start_s", "end_s"))
    if not uri:
        raise InputError(f"{where}: the uri is empty; expected the file of a video")
    if bool(times[0]) != bool(times[1]):
        raise InputError(f"{where}: one of start_s and end_s is there without the other; expected both, or neither")
    try:
        start_s, end_s = (float(time) if time else None for time in times)
    except ValueError as error:
        raise InputError(f"{where}: {error}; expected times in seconds") from error
    if start_s is not None and end_s is not None and not start_s < end_s:
        raise InputError(f"{where}: {start_s:g} to {end_s:g} s is no stretch of a video; expected start_s before end_s")
    label = None if text in ("", NONE) else labels.named(text)
    if label is None and text not in ("", NONE):
        raise InputError(f"{where}: {text!r} is no label of the set; it has {', '.join(labels.names[:5])} ...")
    return uri, LabelledSpan(start_s, end_s, label)


def _uri(text: str, folder: Path) -> str:
    """A place as archives have it."""
    if "://" in text:
        return text
    return sources.to_uri(folder / text)


def labels_of_clip(spans: Iterable[LabelledSpan], start_s: float, end_s: float) -> frozenset[str] | None:
    """The labels of a clip; empty where it has none of the set, None where nobody says."""
    covering = [span for span in spans if _covers(span, start_s, end_s)]
    return frozenset(span.label for span in covering if span.label is not None) if covering else None


def _covers(span: LabelledSpan, start_s: float, end_s: float) -> bool:
    """Whether a stretch has at least half of a clip."""
    if span.start_s is None or span.end_s is None:
        return True
    return min(end_s, span.end_s) - max(start_s, span.start_s) >= (end_s - start_s) / 2
