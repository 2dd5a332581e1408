"""How units are decoded and what that takes: what was predicted beside what came true."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pipeline.plan import VideoPlan
from schemas.records import Unit, UnitExplained

STAMP_BYTES = 8  # of a time in a unit's steps


def explained(
    plans: Collection[VideoPlan], probed: Collection[str], decode_s: Mapping[str, float]
) -> tuple[UnitExplained, ...]:
    """A line for each unit to be done, by the codecs that were `probed` and what units took, by their ids."""
    return tuple(
        _line(unit, item.video.profile.codec, probed, decode_s.get(unit.unit_id))
        for item in plans
        for unit in item.todo
    )


def _line(unit: Unit, codec: str, probed: Collection[str], decode_s: float | None) -> UnitExplained:
    """One unit."""
    start_s, steps = unit.windows[0].start_s, unit.steps
    if steps is None:
        return UnitExplained(unit.uri, start_s, codec, None, None, 0, None, decode_s)
    fed, restarts = len(steps.feed) // STAMP_BYTES, len(steps.restarts) // STAMP_BYTES
    predicted_s = steps.cost if codec in probed else None
    return UnitExplained(unit.uri, start_s, codec, fed, steps.span, restarts, predicted_s, decode_s)
