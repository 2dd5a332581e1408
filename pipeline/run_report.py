"""A run's report as files: Markdown for people, and a text file for Prometheus' node exporter."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

from pipeline.flows import IndexReport
from schemas.errors import InputError

# Counts of a report that a dashboard shows, with what they are.
COUNTS = {
    "planned": "Videos that had to be indexed",
    "indexed": "Videos indexed",
    "partial": "Videos indexed with damaged or missing stretches",
    "unchanged": "Videos found unchanged",
    "moved": "Videos found at another place",
    "duplicates": "New copies of known videos",
    "failed": "Videos that could not be indexed",
    "gone": "Videos retired because their files vanished",
    "kept": "Videos shown although their files vanished",
    "clips": "Clips added",
}


def check(path: Path) -> None:
    """Raises InputError unless a file can be written at a path: before an hour's work rather than after it."""
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.absolute().parent} to write {path.name} into")


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all: a collector may read at any moment."""
    check(path)
    draft = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)  # noqa: PTH105  # atomic, and says so
    finally:
        draft.unlink(missing_ok=True)


def prometheus(report: IndexReport) -> str:
    """The report in Prometheus' text format. `footage_run_*` are of the last run and no running totals."""
    lines = [
        line
        for name, meaning in COUNTS.items()
        for line in _gauge(f"footage_run_{name}", meaning, getattr(report, name))
    ]
    lines += _gauge("footage_run_footage_seconds", "Length of the footage decoded", report.footage_s)
    lines += _gauge("footage_run_duration_seconds", "Time the run took", report.wall_s)
    lines += _gauge("footage_run_serves", "Whether the run's space serves searches", int(report.serves))
    lines += _gauge("footage_run_finished_timestamp_seconds", "When the run finished", time.time())
    return "\n".join(lines) + "\n"


def _gauge(name: str, meaning: str, value: float) -> list[str]:
    return [f"# HELP {name} {meaning}.", f"# TYPE {name} gauge", f"{name} {value}"]


def markdown(report: IndexReport) -> str:
    """The report as a page to read."""
    title = "Plan of a run (nothing was changed)" if report.dry_run else "Run"
    lines = [f"# {title} {report.run_id}", "", "| what | videos |", "| --- | ---: |"]
    lines += [f"| {name} | {getattr(report, name)} |" for name in COUNTS if name != "clips"]
    lines += ["", f"{report.clips} clips from {report.footage_s:.0f} s of footage in {report.wall_s:.1f} s."]
    if (unit := report.slowest_unit) is not None:
        where = f"{_cell(unit.uri)} from {unit.start_s:.0f} s"
        lines += ["", f"Nearest to its deadline: {where}, decoded in {unit.decode_s:.1f} of {unit.deadline_s:.0f} s."]
    lines += ["", f"Placement: {_cell(report.placement)}."] if report.placement else []
    for title, said in (("Decoders", report.decoders), ("Decoded on a CPU after all", report.fallbacks)):
        lines += ["", f"{title}: {_cell('; '.join(said))}."] if said else []
    if report.expected_s is not None:
        lines += ["", f"Expected to take {report.expected_s:.0f} s at the rate of an earlier run."]
    if not report.serves:
        lines += ["", f"The space {report.space} does not cover all videos yet; another one serves."]
    if report.failures:
        lines += ["", "## Failures", "", "| file | kind | why |", "| --- | --- | --- |"]
        lines += [f"| {_cell(f.uri)} | {_cell(f.error_kind)} | {_cell(f.error)} |" for f in report.failures]
    return "\n".join([*lines, *(f"\nNote: {note}" for note in report.notes)]) + "\n"


def _cell(text: str) -> str:
    """Text that stays in its cell and is no markup: file names may look like anything."""
    flat = " ".join(text.split())
    for character in "\\`*_[]<>|":
        flat = flat.replace(character, f"\\{character}")
    return flat
