"""How far a job is: the one record that whoever shows it, a bar or a test, gets to see."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Done and total: compare, inspect, evaluate: files; index: seconds of footage; train: steps;
    tag, export: clips.
    """

    phase: str
    done: float
    total: float
