"""A pile in two states and the archive of the first, made once; tests copy the archive and kill runs on the copy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.archive import Archive
from tests.chaos import piles, runs
from tests.chaos.runs import Reader, Run, Shown


@dataclass(frozen=True)
class Stage:
    """Where the drama happens: two states of an archive, and what an unbroken run from one to the other gives."""

    first: Path  # the archive of the first state. Not to be changed
    unbroken: Run
    unbroken_s: float
    space: str
    before: Shown
    after: Shown
    vectors: list[tuple[str, np.ndarray]]

    def copy(self, folder: Path, **changes) -> Run:
        """A run from the first state to the second, on an archive of its own."""
        shutil.copytree(self.first, folder)
        return replace(self.unbroken, archive=folder, **changes)

    def reader(self, run: Run) -> Reader:
        """A reader of a run's archive."""
        return Reader(run.archive, self.space, self.before, self.after)

    def losses(self, run: Run) -> tuple[int, int]:
        """Clips that are lost and clips that are doubled, against the unbroken run; vectors must be the same."""
        found, wanted = runs.vectors_of(run.archive, self.space), dict(self.vectors)
        for clip_id, vector in found:
            np.testing.assert_allclose(vector, wanted[clip_id], atol=2**-9)
        ids = {clip_id for clip_id, _ in found}
        return len(wanted.keys() - ids), len(found) - len(ids)


@pytest.fixture(scope="session")
def stage(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The stage."""
    folder = tmp_path_factory.mktemp("stage")
    pile = piles.make_first_state(folder / "pile")
    first = Run(pile, folder / "first", tiny_weights)
    runs.complete(first)
    piles.change(pile)
    unbroken = replace(first, archive=Path(shutil.copytree(first.archive, folder / "unbroken")))
    space = Archive.open(first.archive).runs()[-1]["space"]
    before = runs.shown(first.archive, space)
    unbroken_s = runs.complete(unbroken, Reader(unbroken.archive, space, before, {}))
    after = runs.shown(unbroken.archive, space)
    assert sum(after.values()) == piles.CLIPS
    vectors = runs.vectors_of(unbroken.archive, space)
    return Stage(first.archive, unbroken, unbroken_s, space, before, after, vectors)
