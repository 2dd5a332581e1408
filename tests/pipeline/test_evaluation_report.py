"""The page of an evaluation: what it shows, and that labels and file names are shown and never run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.evaluation import ClassLine, Confusion, Evaluation, EvaluationSettings
from pipeline.evaluation_report import MATRIX_LABELS, figure_rows, matrix, render, setting_rows, write
from pipeline.metrics import Figures
from pipeline.multiview import Views
from schemas.records import Failure
from tests.pipeline.test_contact_sheet import ATTACKS, Page

FIGURES = Figures(
    top_1=0.75, top_5=1.0, mean_class_accuracy=2 / 3, calibration_error=0.123,
    recall_at_1=0.5, recall_at_5=0.875, recall_at_10=1.0, median_rank=1.5,
)  # fmt: skip
EVALUATION = Evaluation(
    settings=EvaluationSettings(
        model="some-model", protocol="full", views=Views(clips=4, crops=3, seed=9), split_camel_case=True
    ),
    notes=("the model's frame table was resampled from 16 to 8 frames",),
    weights_hash="abc123",
    frames=8,
    image_size=224,
    videos=13,
    scored=12,
    failed=1,
    figures=FIGURES,
    classes=(
        ClassLine("juggling", ("a juggling video",), 8, 6, 0.75, 1),
        ClassLine("waving", ("a waving video", "somebody waves"), 4, 4, 1.0, 2),
        ClassLine("flying", ("a flying video",), 0, 0, None, None),
    ),
    confusions=(Confusion("juggling", "waving", 2),),
    verdicts=(),
    failures=(Failure("/videos/bad.mp4", "not_a_video", "this is an empty file"),),
    decode_s=0.25,
    score_s=1.5,
    wall_s=30.0,
)
LIST = Path("/videos/list.csv")


def test_a_page_has_every_figure_and_everything_that_decided_them() -> None:
    page = Page(render(EVALUATION, LIST))
    shown = " | ".join(text for text in page.texts if text)
    for name, value in [*figure_rows(EVALUATION), *setting_rows(EVALUATION)]:
        assert f"{name} | {value}" in shown
    assert dict(figure_rows(EVALUATION))["mean per-class accuracy"] == "66.7 %"
    assert dict(figure_rows(EVALUATION))["text to video median rank"] == "1.5"
    said = dict(setting_rows(EVALUATION))
    assert said["sampling"] == "8 frames by number, random in equal parts, seed 9"
    assert said["views"].startswith("4x3 ")
    assert said["protocol"] == "full"
    assert said["note"] == "the model's frame table was resampled from 16 to 8 frames"
    assert said["weights"] == "sha256 abc123"
    assert said["CamelCase labels"] == "split into words"
    assert "/videos/bad.mp4 | not_a_video | this is an empty file" in shown
    assert "a waving video · somebody waves" in shown


def test_a_single_view_is_described_without_a_seed() -> None:
    single = replace(EVALUATION, settings=EvaluationSettings())
    assert dict(setting_rows(single))["sampling"] == "8 frames by number, centres of equal parts"


def test_the_matrix_has_a_cell_per_pair_and_is_as_dark_as_the_share_of_its_row() -> None:
    lines, rows = matrix(EVALUATION)
    assert [line.label for line in lines] == ["juggling", "waving", "flying"]
    assert [[cell.videos for cell in row] for row in rows] == [[6, 2, 0], [0, 4, 0], [0, 0, 0]]
    assert [[cell.shade for cell in row] for row in rows] == [[8, 2, 0], [0, 10, 0], [0, 0, 0]]
    assert rows[0][1].title == "juggling → waving: 2 of 8"
    cells = [(cell["class"], cell["title"]) for cell in Page(render(EVALUATION, LIST)).all("td") if "title" in cell]
    assert cells == [
        ("r8", "juggling → juggling: 6 of 8"), ("w2", "juggling → waving: 2 of 8"), ("r10", "waving → waving: 4 of 4")
    ]  # fmt: skip


def test_one_video_of_very_many_still_leaves_a_trace() -> None:
    many = replace(EVALUATION, classes=(ClassLine("a", ("a",), 999, 998, 0.9, 1), ClassLine("b", ("b",), 1, 1, 1.0, 1)),
                   confusions=(Confusion("a", "b", 1),))  # fmt: skip
    assert [cell.shade for cell in matrix(many)[1][0]] == [10, 1]


def test_of_too_many_labels_those_with_the_most_mistakes_are_shown() -> None:
    lines = [ClassLine(f"{n}", (f"{n}",), 3, 3, 1.0, 1) for n in range(MATRIX_LABELS + 20)]
    lines[70], lines[75] = ClassLine("70", ("70",), 3, 1, 1 / 3, 1), ClassLine("75", ("75",), 3, 2, 2 / 3, 1)
    wide = replace(EVALUATION, classes=tuple(lines), confusions=(Confusion("70", "79", 2), Confusion("75", "0", 1)))
    shown = [line.label for line in matrix(wide)[0]]
    assert len(shown) == MATRIX_LABELS
    assert {"70", "75", "79", "0"} <= set(shown)
    assert shown == sorted(shown, key=int), "the order of the label set"
    assert f"The {MATRIX_LABELS} labels with the most mistakes, of {MATRIX_LABELS + 20}." in " ".join(
        Page(render(wide, LIST)).texts
    )


def test_without_figures_there_is_no_matrix_and_the_failures_are_listed() -> None:
    nothing = replace(EVALUATION, figures=None, scored=0, videos=1, confusions=())
    page = Page(render(nothing, LIST))
    assert "No video could be scored, so there are no figures." in page.texts
    assert [cell for cell in page.all("td") if "title" in cell] == []
    assert "/videos/bad.mp4" in page.texts


@pytest.mark.parametrize("attack", ATTACKS)
def test_labels_prompts_names_and_models_are_shown_and_never_run(attack: str) -> None:
    hostile = replace(
        EVALUATION,
        settings=replace(EVALUATION.settings, model=attack, template=attack + "{}"),
        classes=(replace(EVALUATION.classes[0], label=attack, prompts=(attack,)), *EVALUATION.classes[1:]),
        confusions=(Confusion(attack, "waving", 2),),
        failures=(Failure(attack, attack, attack),),
    )
    plain, page = Page(render(EVALUATION, LIST)), Page(render(hostile, Path(attack)))
    assert [(tag, sorted(names)) for tag, names in page.elements] == [
        (tag, sorted(names)) for tag, names in plain.elements
    ]
    assert page.texts.count(attack) >= 8


def test_nothing_is_fetched_and_no_script_runs(tmp_path: Path) -> None:
    write(EVALUATION, LIST, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html == render(EVALUATION, LIST)
    assert not re.search(r"https?://|<script|<link|@import|url\(", html)
    policy = next(meta["content"] for meta in Page(html).all("meta") if meta.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
