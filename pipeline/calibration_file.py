"""What `footage calibrate` found out, as a file beside the label set: read, written, and refused where it does not fit.

It holds for one label set in one space: another model or window gives other scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.label_scores import THRESHOLD, Mode, Rule
from pipeline.label_sets import LabelSet
from schemas.errors import InputError, SpaceMismatch
from xclip_core.durable import write_text

FORMAT = 1  # of the file
ENDING = ".calibration.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What was fitted of one mode; see `label_scores.Rule`. `thresholds` are by the names of labels."""

    temperature: float
    bias: float
    thresholds: Mapping[str, float] = field(default_factory=dict)
    abstain_below: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How to read the scores of a label set in a space. A mode that was not fitted is None."""

    label_set: str
    space: str
    background: tuple[str, ...]  # the texts of "none of these" that it was fitted with
    single: Fitted | None
    multi: Fitted | None
    measured: Mapping[str, Any] = field(default_factory=dict)  # how good it is, for people; decides nothing

    @property
    def id(self) -> str:
        """Twelve hex digits of all that decides numbers."""
        content = {name: value for name, value in asdict(self).items() if name != "measured"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def check(self, labels: LabelSet, space: str) -> None:
        """Raises SpaceMismatch unless it is of this label set and space."""
        for what, mine, given in (("label set", self.label_set, labels.id), ("space", self.space, space)):
            if mine != given:
                raise SpaceMismatch(
                    f"the calibration was made for the {what} {mine}, and this is the {what} {given}; "
                    "calibrate this one with: footage calibrate ARCHIVE LABELED.csv --labels LABELS"
                )

    def rule(self, mode: Mode, labels: LabelSet) -> Rule:
        """The rule of a mode. Raises InputError for a mode that was not fitted."""
        found = {"single": self.single, "multi": self.multi}[mode]
        if found is None:
            raise InputError(
                f"the calibration has nothing for --mode {mode}: no labelled clips were fit for it; take the other mode"
            )
        given = {label.name: THRESHOLD if label.threshold is None else label.threshold for label in labels.labels}
        return Rule(
            mode=mode,
            temperature=found.temperature,
            bias=found.bias,
            thresholds=tuple(found.thresholds.get(name, given[name]) for name in labels.names),
            abstain_below=found.abstain_below,
            is_calibrated=True,
        )


def beside(labels: Path) -> Path:
    """Where the calibration of a label file is by default."""
    return labels.with_name(f"{labels.stem}{ENDING}")


def write(calibration: Calibration, file: Path) -> None:
    """Writes a calibration, whole or not at all."""
    content = {"footage_calibration": FORMAT, "id": calibration.id, **asdict(calibration)}
    write_text(file, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def read(file: Path) -> Calibration:
    """What `write` wrote. Raises InputError for anything else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("footage_calibration") != FORMAT:
            raise InputError(f"the calibration {file} is of another version of footage; calibrate again")
        stated = content.pop("id")
        modes = {mode: None if content[mode] is None else Fitted(**content.pop(mode)) for mode in ("single", "multi")}
        found = Calibration(**(content | modes | {"background": tuple(content["background"])}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the calibration {file} cannot be read ({error!r}); expected a file that footage calibrate wrote"
        ) from error
    if found.id != stated:
        raise InputError(
            f"the calibration {file} was changed by hand; calibrate again, or set thresholds in the labels"
        )
    return found
