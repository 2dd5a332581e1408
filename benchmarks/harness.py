"""What comparisons share: rounds that alternate, medians of ratios, a table, and results with the machine they are of.

Two things timed a minute apart on a shared machine say little; timed in turn, each round gives a ratio, and the median
of ratios is steady. Every result is appended to build/bench/NAME.jsonl as a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path("build/bench")
MISSING = "missing"  # in a table: a peer that is not installed


def alternate(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """What each way measures (seconds, say) in each round; rounds begin with another one in turn."""
    names = list(ways)
    taken: dict[str, list[Any]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(ways[name]())
    return taken


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median over rounds of slow / fast: how many times as fast the second is."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


class Descendants:
    """A process and all that it starts, those that nobody waits for too. Knows nothing where there is no /proc.

    CPU time depends less than time on the wall on what else the machine does. What a process takes between the last
    look at it and its end is missed.
    """

    def __init__(self, pid: int) -> None:
        self._root = pid
        self._ticks: dict[int, int] = {}

    def cpu_s(self) -> float:
        """CPU seconds that all of them have taken, as far as they were seen."""
        _look(self._root, self._ticks)
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")


def _look(root: int, ticks: dict[int, int]) -> None:
    """Updates what is known of a process's descendants: ticks of the clock that each has taken so far."""
    parents: dict[int, int] = {}
    taken: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            pid = int(folder.name)
            parents[pid], taken[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    for pid, own in taken.items():
        line = [pid]
        while line[-1] in parents and line[-1] != root and line[-1] not in ticks:
            line.append(parents[line[-1]])
        if line[-1] == root or line[-1] in ticks:  # orphans stay known by what they were
            ticks[pid] = own


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is words, the others are figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def record(name: str, result: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Appends a result and the machine to NAME.jsonl; returns that file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.jsonl"
    with file.open("a") as lines:
        lines.write(json.dumps({**result, "machine": machine()}) + "\n")
    return file


def machine() -> dict[str, Any]:
    """Where and with what something was measured."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "av", "ray", "transformers", "torchcodec")},
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def version(package: str) -> str:
    """An installed package's version, or that it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return MISSING


def _cpu_model() -> str:
    """As Linux names it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _commit() -> str:
    """The commit of this checkout, with + if files differ from it; "unknown" outside of git."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
