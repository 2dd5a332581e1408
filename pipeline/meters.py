"""Numbers of a run at work, for the exporter that each node of Ray has: Prometheus sees them as `ray_footage_...`.

The driver says them as results come, by what workers report. Where Ray does not run (`--engine local`) nothing is said;
what a run did in the end is in its report, and in the file of `--metrics`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline import engine
from schemas.records import Failed, Part, Unit

# Names as Ray is given them: counters are exported with `_total` behind, all with `ray_` before.
COUNTERS = {
    "footage_indexed_seconds": "Footage in parts that were committed",
    "footage_decoded_packets": "Packets fed to decoders, by the plans of units; of units without a plan none are known",
    "footage_decode_seconds": "Time that decoding took, of all workers together",
    "footage_embed_seconds": "Time that embedding took, of all workers together",
}
FAILED = ("footage_units_failed", "Units that failed, by kind")
BUSY = ("footage_encoder_busy_ratio", "Share of their time that workers which embed were at work, of the last results")
STAMP_BYTES = 8  # of a packet's time in a unit's steps


@dataclass
class Meters:
    """The numbers of one run."""

    _known: dict[str, Any] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def add(self, results: Iterable[Any], units: dict[str, Unit], embedders: int) -> None:
        """Counts results of `units` (by id) in that `embedders` workers embedded."""
        metrics = engine.metrics()
        if metrics is None:
            return
        batch = list(results)
        took_s, self._since = time.monotonic() - self._since, time.monotonic()
        counts = counted(batch, units)
        for name, count in counts.items():
            self._metric(metrics.Counter, name, COUNTERS[name]).inc(count) if count else None
        for result in batch:
            if isinstance(result, Failed):
                self._metric(metrics.Counter, *FAILED, "kind").inc(tags={"kind": result.kind})
        busy = counts["footage_embed_seconds"] / (took_s * max(1, embedders)) if took_s else 0.0
        self._metric(metrics.Gauge, *BUSY).set(min(1.0, busy))

    def _metric(self, kind: Any, name: str, meaning: str, *tags: str) -> Any:
        """A metric of Ray's, made when it is needed first."""
        if name not in self._known:
            self._known[name] = kind(name, description=meaning, tag_keys=tags)
        return self._known[name]


def counted(results: Iterable[Any], units: dict[str, Unit]) -> dict[str, float]:
    """What results add to each counter."""
    outcomes = [outcome for result in results if isinstance(result, Part) for outcome in result.outcomes]
    done = [units[outcome.unit_id] for outcome in outcomes]
    return {
        "footage_indexed_seconds": sum(window.end_s - window.start_s for unit in done for window in unit.windows),
        "footage_decoded_packets": sum(len(unit.steps.feed) // STAMP_BYTES for unit in done if unit.steps),
        "footage_decode_seconds": sum(outcome.decode_s for outcome in outcomes),
        "footage_embed_seconds": sum(outcome.embed_s for outcome in outcomes),
    }
