"""From labelled files to figures, with the model that ships: it knows motions, and the figures say so."""

from __future__ import annotations

from pathlib import Path

from pipeline.evaluation import EvaluationSettings, evaluate
from pipeline.label_sets import Label, LabelSet
from pipeline.labelled import read_labelled
from pipeline.multiview import Views
from tests.footage import film
from xclip_core.scenes import DIRECTIONS

TEXTS = {motion: f"something moves {motion.replace('-', ' and ')}" for motion in DIRECTIONS}


def test_the_embedded_model_knows_the_directions_of_real_files_in_one_view_and_in_many(tmp_path: Path) -> None:
    for seed, motion in enumerate(DIRECTIONS):
        film(tmp_path / motion / "a film.mp4", motion, colour_seed=seed)
    labelled = read_labelled(tmp_path)
    prompts = LabelSet(tuple(Label(motion, (text,)) for motion, text in TEXTS.items()))
    for views in (Views(), Views(clips=4, seed=1)):
        found = evaluate(labelled, EvaluationSettings(views=views, engine="local"), label_set=prompts)
        assert (found.scored, found.failed) == (8, 0)
        assert found.figures.top_1 >= 6 / 8
        assert found.figures.recall_at_1 >= 6 / 8
        assert found.figures.median_rank == 1
