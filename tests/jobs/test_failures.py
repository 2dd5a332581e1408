"""`footage failures` and `footage retry`: what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.footage import BROKEN, SCENE_S, make_pile


@pytest.fixture(scope="module")
def archive(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with two failures; retrying changes it."""
    folder = tmp_path_factory.mktemp("failures")
    pile, options = make_pile(folder / "pile"), ("--model", str(tiny_weights), "--window", str(SCENE_S))
    with pytest.raises(SystemExit) as end:
        main(["index", str(pile), str(folder / "archive"), *options, "--engine", "local"])
    assert end.value.code == 3
    return folder / "archive"


def test_failures_are_listed_for_people_and_for_programs(footage, archive: Path) -> None:
    code, out, err = footage("failures", archive)
    assert code == 0
    assert len(out.splitlines()) == len(BROKEN)
    assert "broken.mp4: this is no video container we read" in out
    assert "(not_a_video in inspect, t" in out
    assert f"{len(BROKEN)} failures" in err
    code, out, _ = footage("failures", archive, "--kind", "not_a_video", "--json")
    rows = json.loads(out)["failures"]
    assert code == 0
    assert {"uri", "unit_id", "stage", "error_kind", "error", "attempts", "first_seen", "last_seen", "decoder"} <= rows[
        0
    ].keys()
    assert json.loads(footage("failures", archive, "--kind", "crash", "--json")[1]) == {"failures": []}


def test_retry_names_the_files_and_refuses_an_unknown_kind(footage, archive: Path) -> None:
    code, out, err = footage("retry", archive, "--kind", "crash")
    assert (code, out) == (1, "")
    assert "there is no failure of the kind 'crash'; there are: not_a_video" in err
    code, out, err = footage("retry", archive)
    assert code == 0
    assert sorted(Path(line).name for line in out.splitlines()) == sorted(BROKEN)
    assert "2 files will be tried again" in err
    code, out, _ = footage("retry", archive, "--json")
    assert json.loads(out)["failures"] == len(BROKEN)
