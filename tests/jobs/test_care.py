"""The commands that look after an archive: what they print and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import delta_log
from pipeline.archive import Archive
from tests.pipeline.factories import SPACE, add_video, commit, embedded, log_run, unit_of, video_row


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two runs; in the second, one of two videos is new."""
    archive = Archive.create(tmp_path / "archive")
    for run_id, uri in (("one", "/videos/a.mp4"), ("two", "/videos/b [x].mp4")):
        log_run(archive, run_id, "started", tables=delta_log.versions(archive))
        add_video(archive, uri)
        log_run(archive, run_id)
    return archive.folder


def first_part(archive: Path) -> Path:
    return archive / "clips" / delta_log.files(Archive.open(archive), "clips")[0].path


def count(archive: Path) -> int:
    return Archive.open(archive).visible_clips(SPACE, ["clip_id"]).num_rows


def test_compact_says_what_it_does_and_did(footage, archive: Path) -> None:
    code, out, _ = footage("compact", archive, "--dry-run", "--json")
    planned = json.loads(out)
    assert code == 0
    assert planned["dry_run"]
    assert (planned["tables"]["clips"]["files_before"], planned["tables"]["clips"]["files_after"]) == (2, 1)
    code, out, _ = footage("compact", archive, "--retention", 0)
    assert code == 0
    assert "2 -> 1" in out
    assert "deleted: " in out
    assert count(archive) == 4


def test_compact_offers_the_space_that_serves_no_more(footage, archive: Path) -> None:
    row = video_row(space="newer")
    opened = Archive.open(archive)
    commit(opened, [embedded(unit_of(row))], [row])
    log_run(opened, "three", space_id="newer")
    code, out, _ = footage("compact", archive)
    assert code == 0
    assert f"space {SPACE} serves no more and takes" in out
    command = out.split("to drop it: footage ")[1].split()
    assert footage(*command)[0] == 0
    assert "serves no more" not in footage("compact", archive)[1]
    assert opened.spaces() == ["newer"]


def test_compact_refuses_what_cannot_be(footage, archive: Path) -> None:
    code, _, err = footage("compact", archive, "--target-mb", 0)
    assert code == 1
    assert "expected more than 0 MB" in err
    code, _, err = footage("compact", archive, "--drop-space", SPACE)
    assert code == 1
    assert "is the one that answers" in err


def test_verify_ends_well_when_all_is_well(footage, archive: Path) -> None:
    code, out, _ = footage("verify", archive)
    assert code == 0
    assert "2 videos, 4 clips looked at" in out
    assert "no problems" in out


def test_verify_names_damage_with_its_remedy_and_mends_it(footage, archive: Path) -> None:
    first_part(archive).unlink()
    code, out, _ = footage("verify", archive)
    assert code == 1
    assert f"to mend: footage verify {archive} --repair, then footage reindex {archive}" in out
    assert "file_missing: clips/space=" in out
    code, out, _ = footage("verify", archive, "--json")
    assert code == 1
    assert {problem["kind"] for problem in json.loads(out)["problems"]} == {"file_missing", "clip_count"}
    code, out, err = footage("verify", archive, "--repair")
    assert code == 0
    assert "2 problems found" in err
    assert "no problems" in out
    assert count(archive) == 2


def test_rollback_asks_for_a_yes(footage, archive: Path) -> None:
    code, out, err = footage("rollback", archive, "two")
    assert code == 1
    assert "1 videos change; clips: 4 -> 2" in out
    assert "nothing was changed; to do it, say --yes" in err
    assert count(archive) == 4
    assert footage("rollback", archive, "two", "--dry-run")[0] == 0
    assert count(archive) == 4
    code, out, _ = footage("rollback", archive, "two", "--yes", "--json")
    assert code == 0
    assert json.loads(out)["runs"] == ["two"]
    assert count(archive) == 2


def test_rollback_of_an_unknown_run_names_the_known(footage, archive: Path) -> None:
    code, _, err = footage("rollback", archive, "three", "--yes")
    assert code == 1
    assert "its runs are one (finished), two (finished)" in err


def test_export_writes_and_refuses_to_overwrite(footage, archive: Path, tmp_path: Path) -> None:
    code, out, _ = footage("export", archive, tmp_path / "out.npy", "--json")
    assert code == 0
    assert json.loads(out)["clips"] == len(np.load(tmp_path / "out.npy")) == 4
    code, _, err = footage("export", archive, tmp_path / "out.npy")
    assert code == 1
    assert "overwrite it with --force" in err
    code, _, err = footage("export", archive, tmp_path / "out.jsonl", "--no-vectors")
    assert code == 0
    assert "4 clips" in err
    assert {json.loads(line)["uri"] for line in (tmp_path / "out.jsonl").read_text().splitlines()} == {
        "/videos/a.mp4",
        "/videos/b [x].mp4",
    }


@pytest.mark.parametrize("command", ["compact", "verify", "export", "rollback"])
def test_no_archive_is_one_clear_sentence(command: str, footage, tmp_path: Path) -> None:
    more = {"export": [tmp_path / "out.csv"], "rollback": ["run"]}.get(command, [])
    code, out, err = footage(command, tmp_path / "nothing", *more)
    assert (code, out) == (1, "")
    assert "error: there is no archive at" in err
