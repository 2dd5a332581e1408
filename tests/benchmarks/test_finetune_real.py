"""Fine-tuning on real clips: a run that did not come out the same does not pass for one that did."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.finetune_real import FILES, compare


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of two runs with the same files."""
    folders = (tmp_path / "whole", tmp_path / "broken")
    for folder in folders:
        folder.mkdir()
        for name in FILES:
            (folder / name).write_text(name)
    return folders


def test_the_same_files_end_with_0(runs: tuple[Path, Path]) -> None:
    assert compare(*runs) == 0


@pytest.mark.parametrize("name", FILES)
def test_any_different_file_ends_with_1(runs: tuple[Path, Path], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (runs[1] / name).write_text("other")
    assert compare(*runs) == 1
    assert f"{name}: DIFFERENT" in capsys.readouterr().out
