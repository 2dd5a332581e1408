"""The record of a training: every step once, also after a death in the middle of a line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pipeline import curves
from pipeline.curves import EVENTS, FILE, Curves, last_step


def written(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def record(folder: Path, steps: range, *, first: int = 0) -> None:
    notes = Curves(folder, first)
    for step in steps:
        notes.write("train", step, loss=1 / step)
    notes.force()
    notes.close()


def test_lines_are_complete_and_in_order(tmp_path: Path) -> None:
    record(tmp_path, range(1, 4))
    assert written(tmp_path) == [{"kind": "train", "step": n, "loss": 1 / n} for n in (1, 2, 3)]


def test_steps_after_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    record(tmp_path, range(1, 6))
    with (tmp_path / FILE).open("a") as stream:
        stream.write('{"kind": "train", "st')
    record(tmp_path, range(4, 7), first=3)
    assert [line["step"] for line in written(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_who_looks_from_outside_sees_the_last_whole_line(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    record(tmp_path, range(1, 6))
    with (tmp_path / FILE).open("a") as stream:
        stream.write('{"kind": "train", "st')
    assert last_step(tmp_path) == 5


def test_a_new_run_in_the_folder_starts_an_empty_record(tmp_path: Path) -> None:
    record(tmp_path, range(1, 6))
    record(tmp_path, range(1, 3))
    assert [line["step"] for line in written(tmp_path)] == [1, 2]


def test_tensorboard_reads_the_same_curve_without_doubles(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record(tmp_path, range(1, 6))
    time.sleep(1 - time.time() % 1)  # names of event files begin with their second, and are read in order
    record(tmp_path, range(4, 7), first=3)
    reader = events.EventAccumulator(str(tmp_path / EVENTS))
    reader.Reload()
    points = reader.Scalars("train/loss")
    assert [point.step for point in points] == [1, 2, 3, 4, 5, 6]
    assert [point.value for point in points] == pytest.approx([1 / n for n in range(1, 7)])


def test_without_tensorboard_lines_are_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "find_spec", lambda _: None)
    record(tmp_path, range(1, 3))
    assert len(written(tmp_path)) == 2
    assert not (tmp_path / EVENTS).exists()
