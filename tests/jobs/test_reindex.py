"""`footage reindex` and what it shares with `index`: reports in three forms, and exit codes for schedulers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline import run_report
from pipeline.flows import IndexReport
from schemas.errors import InputError
from schemas.records import Failure
from tests.footage import BROKEN, SCENE_S, VIDEOS, film, make_pile

FILES = len(VIDEOS) + len(BROKEN)


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    return make_pile(tmp_path / "pile")


@pytest.fixture
def archive(footage, pile: Path, tiny_weights: Path, tmp_path: Path) -> Path:
    options = ("--model", tiny_weights, "--window", SCENE_S, "--engine", "local", "--json")
    assert footage("index", pile, tmp_path / "archive", *options)[0] == 3
    return tmp_path / "archive"


def test_the_same_report_and_codes_as_index(footage, archive: Path, pile: Path, tmp_path: Path) -> None:
    metrics, page = tmp_path / "footage.prom", tmp_path / "report.md"
    (pile / "sub/up.mp4").rename(pile / "renamed.mp4")
    code, out, _ = footage("reindex", archive, "--json", "--metrics", metrics, "--report", page)
    report = json.loads(out)
    assert code == 0
    assert (report["moved"], report["unchanged"], report["gone"]) == (1, FILES - 1, 0)
    assert "footage_run_moved 1\n" in metrics.read_text()
    assert "| moved | 1 |" in page.read_text()
    assert {file.name for file in tmp_path.iterdir()} >= {"footage.prom", "report.md"}
    assert not list(tmp_path.glob(".*")), "no draft is left"

    (pile / "bad.mp4").write_text("bad")
    code, out, _ = footage("reindex", archive)
    assert code == 3
    assert "bad.mp4: this is no video container we read" in out


def test_a_dry_run_prints_the_plan_as_a_table_and_as_json(footage, archive: Path, pile: Path) -> None:
    film(pile / "new.mp4", "left", "up", colour_seed=4)
    for name in ("sub/up.mp4", "three scenes.mp4"):
        (pile / name).unlink()
    code, out, _ = footage("reindex", archive, "--dry-run", "--json")
    plan = json.loads(out)
    assert (code, plan["dry_run"], plan["planned"], plan["gone"], plan["asks_for_yes"]) == (0, True, 1, 2, True)
    assert plan["expected_s"] > 0
    code, out, _ = footage("reindex", archive, "--dry-run")
    assert code == 0
    assert "nothing was changed" in out
    assert "2 (asks for --yes)" in out
    assert footage("info", archive, "--json")[1].count('"ok": 3') == 1


def test_a_dry_run_leaves_the_counts_of_the_last_run(footage, archive: Path, pile: Path, tmp_path: Path) -> None:
    metrics, page = tmp_path / "footage.prom", tmp_path / "plan.md"
    film(pile / "new.mp4", "left", colour_seed=4)
    assert footage("reindex", archive, "--dry-run", "--metrics", metrics, "--report", page)[0] == 0
    assert (metrics.exists(), "| planned | 1 |" in page.read_text()) == (False, True)
    assert footage("reindex", archive, "--metrics", metrics)[0] == 0
    before = metrics.read_text()
    assert footage("index", pile, archive, "--engine", "local", "--dry-run", "--metrics", metrics)[0] == 0
    assert metrics.read_text() == before


def test_a_refusal_ends_with_5_and_one_sentence(footage, archive: Path, pile: Path, tmp_path: Path) -> None:
    pile.rename(tmp_path / "unmounted")
    metrics = tmp_path / "footage.prom"
    code, out, err = footage("reindex", archive, "--json", "--metrics", metrics)
    assert (code, out) == (5, "")
    assert f"The archive knows {FILES} videos there, and none was retired" in err
    assert not metrics.exists()
    assert footage("index", pile, archive, "--engine", "local")[0] == 5

    (tmp_path / "unmounted").rename(pile)
    for name in ("sub/up.mp4", "three scenes.mp4"):
        (pile / name).unlink()
    code, _, err = footage("reindex", archive)
    assert code == 5
    assert f"2 of the archive's {FILES} videos would be retired" in err
    assert footage("reindex", archive, "--keep-gone")[0] == 0
    code, out, _ = footage("reindex", archive, "--yes", "--json")
    assert (code, json.loads(out)["gone"]) == (0, 2)


def test_reports_that_cannot_be_written_are_refused_before_the_work(footage, archive: Path, tmp_path: Path) -> None:
    for option in ("--metrics", "--report"):
        code, out, err = footage("reindex", archive, option, tmp_path / "no/such/file")
        assert (code, out) == (1, "")
        assert "there is no folder" in err


def test_extremes_that_exclude_each_other_are_an_error(footage, archive: Path) -> None:
    assert "expected one of them" in footage("reindex", archive, "--rehash", "--trust-mtime")[2]


def test_other_spaces_can_be_asked_by_name(footage, archive: Path) -> None:
    space = json.loads(footage("info", archive, "--json")[1])["space"]
    assert footage("search", archive, "anything", "--space", space)[0] == 0
    code, _, err = footage("search", archive, "anything", "--space", "nonsense")
    assert code == 1
    assert f"has no space 'nonsense'; it has {space}" in err
    assert f"{space} serves" in footage("info", archive)[1].replace("\n", " ")


# --- the files


REPORT = IndexReport(
    run_id="run", space="s", dry_run=False, planned=3, indexed=2, failed=1, serves=False,
    failures=(Failure("/a|b_*<x>\n.mp4", "not_a_video", "this is [text]"),), notes=("mind",),
)  # fmt: skip


def test_metrics_are_in_the_text_format_of_prometheus() -> None:
    text = run_report.prometheus(REPORT)
    assert text.endswith("\n")
    values = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r"([a-z_]+) (-?[0-9.e+]+)", line)
            assert match, line
            values[match[1]] = float(match[2])
    assert (values["footage_run_indexed"], values["footage_run_failed"], values["footage_run_serves"]) == (2, 1, 0)
    for name in values:
        assert text.count(f"# HELP {name} ") == text.count(f"# TYPE {name} gauge") == 1


def test_a_page_shows_names_as_they_are_and_keeps_its_table() -> None:
    page = run_report.markdown(REPORT)
    (row,) = [line for line in page.splitlines() if "mp4" in line]
    assert row == r"| /a\|b\_\*\<x\> .mp4 | not\_a\_video | this is \[text\] |"
    assert "another one serves" in page
    assert "Note: mind" in page


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.md"
    run_report.write(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_report.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        run_report.write(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]
    with pytest.raises(InputError, match="there is no folder"):
        run_report.write(tmp_path / "no" / "x", "text")
