"""From a plan to the files that ship: everything is written, the card's tables are complete, nothing is left behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from xclip_core import load
from xclip_core.pretrain import Plan
from xclip_core.rehearsal import Rehearsal
from xclip_core.release import sources_of, write_release
from xclip_core.reproduce import read_card
from xclip_core.synthetic import Recipe
from xclip_core.training import TrainSettings

SHORT = TrainSettings(steps=1, lr=1e-4, train_text=True)
CLIPS = Recipe(frames=8, size=64, clips=2, captions=1, label_sets=0, shots=0.5)
PLAN = Plan(
    rehearsal=Rehearsal(steps=4, warmup_steps=2, pool=4, batch=2),
    frames=SHORT,
    clips=SHORT,
    shots=SHORT,
    evened=SHORT,
    frame_recipe=replace(CLIPS, frames=1, label_sets=1),
    clip_recipe=CLIPS,
    shot_recipe=CLIPS,
    evened_recipe=replace(CLIPS, evened=True),
)


@pytest.fixture(scope="module")
def backdrops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backdrops")
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((480, 420)).save(folder / f"{number}.png")
    return folder


def test_release_is_a_model_a_card_and_nothing_else(tmp_path, backdrops):
    out = tmp_path / "model.safetensors"
    measured = write_release(out, PLAN, clips=16, backdrops=backdrops)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.md", "model.safetensors"]
    assert load(out).config == PLAN.config
    stated = read_card(out.with_suffix(".md"))
    assert (stated.clips, stated.seed) == (16, 0)
    assert list(stated.tables) == [*measured.tables, *measured.shots]
    assert list(measured.shots) == ["generated textures", "2 real pictures"]
    card = out.with_suffix(".md").read_text(encoding="utf-8")
    assert "generated textures alone" in card
    assert card.count("| 1 | 0.0001 |") == 4


def test_pictures_say_where_they_are_from(tmp_path):
    assert "without a SOURCES.md" in sources_of(tmp_path)
    (tmp_path / "SOURCES.md").write_text("from my garden", encoding="utf-8")
    assert sources_of(tmp_path) == "from my garden"
