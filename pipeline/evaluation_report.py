"""An evaluation as one self-contained HTML page: figures, confusion matrix, classes, and what decided them."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import pages
from pipeline.evaluation import ClassLine, Evaluation
from pipeline.metrics import Figures
from schemas.errors import InputError

# A matrix of more labels is no picture any more; those that are confused most stand for the rest.
MATRIX_LABELS = 60
PAIRS_SHOWN = 20
# Shades of a cell, from none of a label's videos to all of them.
SHADES = 10

FIGURE_NAMES = {
    "top_1": "top-1",
    "top_5": "top-5",
    "mean_class_accuracy": "mean per-class accuracy",
    "calibration_error": "calibration error (15 bins)",
    "recall_at_1": "text to video R@1",
    "recall_at_5": "text to video R@5",
    "recall_at_10": "text to video R@10",
    "median_rank": "text to video median rank",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the matrix: videos of its row's label that were given its column's, and how dark it is."""

    videos: int
    shade: int
    title: str


def figure_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Names and values of all figures, as people read them: shares in percent."""
    return [] if evaluation.figures is None else figure_lines(evaluation.figures)


def figure_lines(figures: Figures) -> list[tuple[str, str]]:
    """Names and values of figures, as people read them."""
    values = asdict(figures)
    return [
        (name, f"{values[key]:g}" if key == "median_rank" else f"{100 * values[key]:.1f} %")
        for key, name in FIGURE_NAMES.items()
    ]


def setting_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Everything that decided the figures."""
    settings = evaluation.settings
    views = settings.views
    drawn = "centres of equal parts" if views.clips == 1 else f"random in equal parts, seed {views.seed}"
    crops = "centre crop after 256/224" if views.crops == 1 else "first, last and middle square"
    return [
        ("model", settings.model),
        ("weights", f"sha256 {evaluation.weights_hash}"),
        ("sampling", f"{evaluation.frames} frames by number, {drawn}"),
        ("protocol", settings.protocol or "none named"),
        ("views", f"{views} (samples in time x crops; {crops}), softmax summed"),
        ("image size", f"{evaluation.image_size} px"),
        ("template", settings.template),
        ("CamelCase labels", "split into words" if settings.split_camel_case else "as they are"),
        ("videos", f"{evaluation.videos} = {evaluation.scored} scored + {evaluation.failed} failed"),
        ("seconds per video", f"{evaluation.decode_s:.3f} decoding + {evaluation.score_s:.3f} scoring"),
        ("wall time", f"{evaluation.wall_s:.1f} s, engine {settings.engine}, device {settings.device}"),
        *(("note", note) for note in evaluation.notes),
    ]


def matrix(evaluation: Evaluation) -> tuple[list[ClassLine], list[list[Cell]]]:
    """The labels of the confusion matrix, and its rows of cells."""
    shown = _matrix_lines(evaluation)
    counts = {(pair.label, pair.said): pair.videos for pair in evaluation.confusions}
    counts |= {(line.label, line.label): line.right for line in shown}
    return shown, [[_cell(row, column.label, counts) for column in shown] for row in shown]


def _matrix_lines(evaluation: Evaluation) -> list[ClassLine]:
    """The labels that are shown: all, or of too many those with the most mistakes, in the order of the label set."""
    mistakes = {line.label: line.videos - line.right for line in evaluation.classes}
    for pair in evaluation.confusions:
        mistakes[pair.said] += pair.videos
    worst = sorted(mistakes, key=lambda label: -mistakes[label])[:MATRIX_LABELS]
    return [line for line in evaluation.classes if line.label in set(worst)]


def _cell(row: ClassLine, said: str, counts: dict[tuple[str, str], int]) -> Cell:
    """One cell; its shade is the share of the row's videos, never none for some."""
    videos = counts.get((row.label, said), 0)
    shade = max(1, round(SHADES * videos / row.videos)) if videos else 0
    return Cell(videos, shade, f"{row.label} → {said}: {videos} of {row.videos}")


def render(evaluation: Evaluation, labels: Path) -> str:
    """The page. `labels` is where the labelled videos came from."""
    shown, rows = matrix(evaluation)
    return pages.render(
        "evaluation.html",
        labels=os.fsencode(labels).decode("utf-8", "replace"),
        evaluation=evaluation,
        figures=figure_rows(evaluation),
        settings=setting_rows(evaluation),
        shown=shown,
        rows=list(zip(shown, rows, strict=True)),
        shades=SHADES,
        pairs=evaluation.confusions[:PAIRS_SHOWN],
    )


def check(file: Path) -> None:
    """Raises InputError unless a page can be written there: it must not turn out after hours of work."""
    if not file.absolute().parent.is_dir() or file.is_dir():
        raise InputError(f"the report {file} cannot be written; expected a file name in a folder that is there")


def write(evaluation: Evaluation, labels: Path, file: Path) -> None:
    """Writes the page to a file."""
    file.write_text(render(evaluation, labels), encoding="utf-8")
