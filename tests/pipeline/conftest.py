"""Archives of a tiny random model, filled by the embedding stage itself, for tests that ask them something."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.archive import Archive
from pipeline.embed import Embed
from pipeline.serving import OpenSpace, open_space
from pipeline.settings import IndexSettings, Space, space_of
from schemas.records import DecodedUnit
from tests.models import WORDED, random_frames
from tests.pipeline.factories import NOON, commit, thumbnail, unit_of, video_row
from xclip_core import XClip

VIDEOS, CLIPS = 6, 4  # shown; one more is gone and one more was never committed as a whole


def run_row(settings: IndexSettings, space: Space, state: str = "finished", run_id: str = "run") -> dict:
    """A row of the runs table as the indexer writes it."""
    return {
        "run_id": run_id,
        "state": state,
        "space": space.id,
        "at": NOON,
        "settings": json.dumps({"index": asdict(settings), "space": asdict(space)}),
        "versions": "{}",
        "report": "{}",
    }


def _decoded(uri: str, space: str, seed: int) -> DecodedUnit:
    unit = unit_of(video_row(uri, space=space), CLIPS)
    # Noise alone gives clips that a random model cannot tell apart: tint each.
    frames = random_frames(WORDED, clips=CLIPS, seed=seed).float()
    tints = torch.randn(CLIPS, 1, 1, 1, 3, generator=torch.Generator().manual_seed(seed)) * 60
    tinted = (0.5 * frames + 64 + tints).clamp(0, 255).byte()
    return DecodedUnit(unit, unit.windows, tinted.numpy(), (thumbnail(),) * CLIPS, (4,) * CLIPS, 0.1)


@pytest.fixture(scope="session")
def stock(
    tiny_weights: Path, tiny_model: XClip, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], OpenSpace]:
    """Opens an archive whose contexts are stored in the code asked for. Not to be changed."""
    made: dict[str, OpenSpace] = {}

    def open_stock(code: str) -> OpenSpace:
        if code not in made:
            made[code] = fill(tmp_path_factory.mktemp(f"stock-{code}") / "archive", tiny_weights, tiny_model, code)
        return made[code]

    return open_stock


@pytest.fixture
def own_stock(tiny_weights: Path, tiny_model: XClip, tmp_path: Path) -> OpenSpace:
    """An archive with int8 contexts that a test may change."""
    return fill(tmp_path / "archive", tiny_weights, tiny_model, "int8")


def fill(folder: Path, weights: Path, model: XClip, code: str) -> OpenSpace:
    """Makes the archive and opens it."""
    settings = IndexSettings(model=str(weights), context=code, engine="local")
    space = space_of(model, settings)
    archive = Archive.create(folder)
    archive.log_run(run_row(settings, space))
    uris = [f"/videos/{number}.mp4" for number in range(VIDEOS)] + ["/videos/gone.mp4", "/videos/hidden.mp4"]
    units = Embed(str(weights), code, precision="float32")(
        [_decoded(uri, space.id, seed) for seed, uri in enumerate(uris)]
    )
    rows = [video_row(uri, space=space.id, clip_count=CLIPS) for uri in uris[:-1]]
    rows[-1] = replace(rows[-1], status="gone", revision=2)
    commit(archive, units, rows)
    return open_space(folder)


@pytest.fixture(scope="session")
def frames_of() -> Callable[[str], np.ndarray]:
    """The frames that a stocked video was embedded from, by uri: clips x T x S x S x 3."""
    return lambda uri: _decoded(uri, "", int(Path(uri).stem)).frames_NTHWC


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray, as the engine starts it on first use; it stays for the session's other tests and ends with them."""
    yield
    import ray

    ray.shutdown()
