"""What the runs of an archive say: which space serves, what was indexed from where, and what a model made.

No model is loaded and torch is not imported here, so that a run which finds nothing to do takes no longer than that.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import costs, sources
from pipeline.archive import Archive
from pipeline.ledger import COLUMNS, Ledger
from pipeline.portions import Portion
from pipeline.settings import IndexSettings, Sampling, Space
from pipeline.versions import versions
from schemas.errors import ArchiveError
from schemas.records import DecodeCost
from xclip_core.config import FrameMeanConfig, ModelConfig, XClipConfig

Run = dict[str, Any]
# Settings that decide how a run works and no space; and the model's name, which is looked at by itself.
ALIKE = ("engine", "device", "precision", "decoder", "context", "model", "decode_resource", "embed_resource")
ROWS_AT_ONCE = 10_000  # of videos that a new space does not account for; usually there are none


def new_id() -> str:
    """The id of a run that starts now; those of later runs come later in order."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


def serving_run(archive: Archive) -> Run:
    """The run whose space serves: the last that completed one, or, before any has, the last that started."""
    found = archive.runs()
    complete = [run for run in found if serves(run)]
    if not found:
        raise ArchiveError(
            f"nothing has been indexed into {archive.folder}; run: footage index VIDEOS {archive.folder}"
        )
    return (complete or found)[-1]


def serves(run: Run) -> bool:
    """Whether a run ended with a space that is complete, and so began to serve."""
    # Runs of before there was such a question always switched.
    return run["state"] == "finished" and bool((run["report"] or {}).get("serves", True))


def run_of_space(archive: Archive, space: str | None) -> Run:
    """The last run in the space named, or the run whose space serves. Raises ArchiveError for an unknown one."""
    if space is None:
        return serving_run(archive)
    found = archive.runs()
    mine = [run for run in found if run["space"] == space]
    if not mine:
        known = ", ".join(dict.fromkeys(run["space"] for run in found)) or "none"
        raise ArchiveError(f"{archive.folder} has no space {space!r}; it has {known} (footage info lists them)")
    return mine[-1]


def places(archive: Archive) -> tuple[str, ...]:
    """Everything that was ever indexed from and not given up since: folders, globs, list files, files.

    Raises ArchiveError when no run says.
    """
    known: dict[str, None] = {}
    for run in archive.runs():
        known.update(dict.fromkeys(run["settings"].get("places", ())))
        for place in run["settings"].get("forgets", ()):
            known.pop(place, None)
    if not known:
        raise ArchiveError(
            f"the runs of {archive.folder} do not say where its videos came from; "
            f"run once: footage index VIDEOS {archive.folder}"
        )
    return tuple(known)


def portion(archive: Archive) -> Portion | None:
    """The part of its places that an archive is of, where all its runs were of the same; None: of all of them."""
    said = {Portion.stored(run["settings"].get("policy", {}).get("portion")) for run in archive.runs()}
    return said.pop() if len(said) == 1 else None


def rate(archive: Archive, space: str) -> float | None:
    """How much footage a second takes in: in the last run of a space that decoded any, else in the last of all."""
    found = [(run["space"], run["report"]) for run in archive.runs() if run["report"]]
    rates = [(of, done["footage_s"] / done["wall_s"]) for of, done in found if done["footage_s"] and done["wall_s"]]
    mine = [rate for of, rate in rates if of == space]  # another model may be a hundred times as fast
    known: list[float] = mine or [rate for _, rate in rates]
    return known[-1] if known else None


def covers(archive: Archive, space: str, folders: Iterable[str], *, everywhere: bool) -> bool:
    """Whether a space accounts for all that the serving one does, so that it may serve instead.

    A file that is not there any more needs no account if this run looked where it was: below `folders`, or everywhere.
    """
    found = [run for run in archive.runs() if serves(run)]
    if not found or found[-1]["space"] == space:
        return True
    looked = tuple(folders)
    with Ledger() as mine, Ledger() as serving:
        mine.know(archive.video_batches(space, COLUMNS))
        serving.know(archive.video_batches(found[-1]["space"], COLUMNS))
        missing = serving.live_without(mine)
    return all(
        (everywhere or any(sources.is_below(row.uri, folder) for folder in looked)) and sources.now_at(row.uri) is None
        for start in range(0, len(missing), ROWS_AT_ONCE)
        for row in archive.rows_of(found[-1]["space"], missing[start : start + ROWS_AT_ONCE]).values()
    )


def costs_of(archive: Archive, space: str) -> dict[str, DecodeCost]:
    """What decoding costs, as the last run of a space that knew has it."""
    found = (costs.read(run["settings"]) for run in reversed(archive.runs()) if run["space"] == space)
    return next(filter(None, found), {})


# --- spaces


@dataclass(frozen=True, slots=True)
class SpaceLine:
    """One space of an archive. A retired one is what `footage compact` may drop."""

    space: str
    state: str  # serves | building | kept | retired
    model: str
    sampling: dict[str, Any]


def spaces(archive: Archive) -> tuple[SpaceLine, ...]:
    """All spaces that runs made, oldest first."""
    found = archive.runs()
    serving = serving_run(archive)["space"] if found else None
    last = {run["space"]: run for run in found}
    return tuple(_space_line(run, _state(space, serving, found)) for space, run in last.items())


def retired(archive: Archive) -> tuple[str, ...]:
    """The spaces that served once, serve no more, and are not to be kept."""
    found = archive.runs()
    serving = serving_run(archive)["space"] if found else None
    names = dict.fromkeys(run["space"] for run in found)
    return tuple(space for space in names if _state(space, serving, found) == "retired")


def _state(space: str, serving: str | None, found: list[Run]) -> str:
    """What a space is to its archive."""
    if space == serving:
        return "serves"
    if not any(run["space"] == space and serves(run) for run in found):
        return "building"
    return "kept" if any(space in run["settings"].get("keeps", ()) for run in found) else "retired"


def _space_line(run: Run, state: str) -> SpaceLine:
    settings = run["settings"]
    return SpaceLine(run["space"], state, settings["index"]["model"], settings["space"]["sampling"])


# --- settings without the model


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an earlier run of the same settings, weights and libraries found out by loading the model."""

    settings: IndexSettings
    space: Space
    notes: tuple[str, ...]
    weights: dict[str, list[float]]


def stamp(weights: Path) -> dict[str, list[float]]:
    """Size and time of the files of a checkpoint, by path: as long as they stay, so do the weights."""
    files = sorted(weights.iterdir()) if weights.is_dir() else [weights]
    return {str(file): [file.stat().st_size, file.stat().st_mtime] for file in files if file.is_file()}


def remember(archive: Archive, asked: IndexSettings) -> Remembered | None:
    """The space that settings make, if a run knows it; None where the model must be loaded to know."""
    found = archive.runs() if archive.exists() else []
    now = versions()
    return next((made for run in reversed(found) if (made := _remembered(run, asked, now))), None)


def _remembered(run: Run, asked: IndexSettings, now: dict[str, str]) -> Remembered | None:
    weights = run["settings"].get("weights")
    if not weights or run["versions"] != now or not _is_unchanged(weights):
        return None
    stored = IndexSettings.stored(run["settings"]["index"])
    # Stored names are canonical: a name of a model, or the absolute path of a file.
    if stored.model not in (asked.model, str(Path(asked.model).absolute())):
        return None
    if replace(stored, **{name: getattr(asked, name) for name in ALIKE}) != asked:
        return None
    space = _space(run["settings"]["space"])
    notes = tuple(run["settings"].get("notes", ()))
    settings = replace(asked, model=stored.model)
    return Remembered(settings, space, notes, weights) if space.id == run["space"] else None


def _is_unchanged(weights: dict[str, list[float]]) -> bool:
    """Whether the files of a checkpoint are what they were."""
    try:
        return all(stamp(Path(path)) == {path: look} for path, look in weights.items())
    except OSError:
        return False


def _space(stored: dict[str, Any]) -> Space:
    """A space as it was written down."""
    sizes = stored["model"]
    config: type[ModelConfig] = FrameMeanConfig if "arch" in sizes else XClipConfig
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}
    return Space(
        weights_hash=stored["weights_hash"],
        model=config(**values),
        sampling=Sampling.stored(stored["sampling"]),
        preprocessing=stored["preprocessing"],
    )
