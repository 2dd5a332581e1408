"""What decoding costs here, by codec: a short probe of a few files, kept with the run and used again by later ones.

The planner works with counts of frames until a probe says more. One is made where it can pay, for a large pile, or
where somebody asks for explanations; once a space has costs it keeps them, so that its runs choose alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from statistics import median
from typing import Any

from schemas.records import DecodeCost, HashedFile, SourceFile

PROBE_FILES = 8
PROBE_BYTES = 256 << 20  # of files to read; about a minute of work on one core

Costs = Mapping[str, DecodeCost]  # by codec


def sample(files: Sequence[SourceFile | HashedFile]) -> list[SourceFile | HashedFile]:
    """Up to PROBE_FILES files, from all over a pile."""
    step = max(1, len(files) // PROBE_FILES)
    return list(files[::step][:PROBE_FILES])


def by_codec(probed: Iterable[DecodeCost]) -> dict[str, DecodeCost]:
    """The median of what was measured of each codec."""
    groups: dict[str, list[DecodeCost]] = {}
    for cost in sorted(probed, key=lambda cost: cost.codec):
        groups.setdefault(cost.codec, []).append(cost)
    return {codec: _middle(codec, found) for codec, found in groups.items()}


def _middle(codec: str, found: list[DecodeCost]) -> DecodeCost:
    """The median of each number."""
    names = [field.name for field in fields(DecodeCost) if field.name != "codec"]
    return DecodeCost(codec, **{name: median(getattr(cost, name) for cost in found) for name in names})


def stored(costs: Costs) -> dict[str, dict[str, Any]]:
    """Costs as a run writes them down."""
    return {codec: asdict(cost) for codec, cost in costs.items()}


def read(settings: Mapping[str, Any]) -> dict[str, DecodeCost]:
    """Costs as a run wrote them down; none where it did not."""
    return {codec: DecodeCost(**values) for codec, values in settings.get("costs", {}).items()}
