"""Care of an archive that the whole job made: what verify names is mended by the commands it names."""

from __future__ import annotations

from pathlib import Path

from pipeline import delta_log
from pipeline.archive import Archive
from pipeline.compact import CompactSettings, compact
from pipeline.flows import index
from pipeline.repair import repair
from pipeline.rollback import rollback
from pipeline.verify import verify
from tests.footage import CLIPS, film
from tests.pipeline.factories import flip_a_bit

COLUMNS = ["start_s", "end_s", "embedding", "context", "thumbnail"]


def seen(archive: Archive, space: str) -> list[str]:
    """What can be seen, but for the ids, which belong to a revision."""
    uris = archive.uris(space)
    rows = archive.visible_clips(space, ["video_id", *COLUMNS]).to_pylist()
    return sorted(str({**row, "video_id": uris[row["video_id"]]}) for row in rows)


def test_damaged_clips_and_lost_rows_are_mended_by_repair_and_index(
    own_pile: Path, settings_for, tmp_path: Path
) -> None:
    space = index(own_pile, tmp_path / "archive", settings_for()).space
    archive = Archive.open(tmp_path / "archive")
    before = seen(archive, space)
    assert verify(archive.folder, deep=True).problems == ()

    flip_a_bit(archive.folder / "clips" / delta_log.files(archive, "clips")[0].path)
    problems = verify(archive.folder).problems
    assert {problem.kind for problem in problems} == {"file_damaged", "clip_count"}
    assert repair(archive).left == ()
    assert index(own_pile, archive.folder, settings_for()).indexed > 0
    assert verify(archive.folder, deep=True).problems == ()
    assert seen(archive, space) == before

    delta_log.replace(archive, "videos", delta_log.files(archive, "videos"), [])
    assert "unfinished" in {problem.kind for problem in verify(archive.folder).problems}
    index(own_pile, archive.folder, settings_for())
    assert seen(archive, space) == before
    compact(archive.folder, CompactSettings(retention_days=0))
    assert verify(archive.folder, deep=True).problems == ()
    assert seen(archive, space) == before
    assert len(before) == CLIPS


def test_compacting_between_runs_changes_no_plan(own_pile: Path, settings_for, tmp_path: Path) -> None:
    first = index(own_pile, tmp_path / "archive", settings_for())
    compact(tmp_path / "archive", CompactSettings(retention_days=0))
    second = index(own_pile, tmp_path / "archive", settings_for())
    assert (second.planned, second.unchanged) == (0, first.planned)
    assert verify(tmp_path / "archive").problems == ()


def test_a_run_over_spoilt_files_is_rolled_back(own_pile: Path, settings_for, tmp_path: Path) -> None:
    space = index(own_pile, tmp_path / "archive", settings_for()).space
    archive = Archive.open(tmp_path / "archive")
    before = seen(archive, space), archive.current_videos(space)
    film(own_pile / "sub/up.mp4", "down", "down", colour_seed=9)
    (own_pile / "left_then_right.mp4").unlink()
    bad = index(own_pile, archive.folder, settings_for())
    assert seen(archive, space) != before[0]
    report = rollback(archive.folder, bad.run_id)
    assert (report.videos, report.clips_after) == (2, CLIPS)
    assert (seen(archive, space), archive.current_videos(space)) == before
    assert verify(archive.folder).problems == ()
    assert index(own_pile, archive.folder, settings_for()).indexed == 1, "what changed is found again"
