"""A pile shared out among machines that know nothing of each other: n shards, merged, are the unsharded archive."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipeline import merging, reindexing, runs
from pipeline.archive import Archive
from pipeline.flows import IndexReport, index
from pipeline.merging import merge
from pipeline.portions import Portion
from pipeline.settings import Policy
from pipeline.verify import verify
from schemas.errors import ArchiveError, InputError, SpaceMismatch
from tests.footage import BROKEN, CLIPS, VIDEOS, film

RUN_COLUMNS = ("run_id", "indexed_at")
CLIP_COLUMNS = ["clip_id", "unit_id", "video_id", "revision", "start_s", "embedding", "context", "thumbnail"]
FILES = len(VIDEOS) + len(BROKEN)
COUNT = 3


def rows(folder: Path, space: str) -> list[dict]:
    """All that is known of each video, but when and by which run."""
    found = Archive.open(folder).current_videos(space).to_pylist()
    return [{name: value for name, value in row.items() if name not in RUN_COLUMNS} for row in found]


def clips(folder: Path, space: str) -> list[dict]:
    return Archive.open(folder).visible_clips(space, CLIP_COLUMNS).to_pylist()


def portion(number: int, count: int = COUNT) -> Policy:
    return Policy(portion=Portion(number, count), yes=True)


def shard_archives(pile: Path, folder: Path, settings) -> list[Path]:
    """The archive of each shard."""
    for number in range(1, COUNT + 1):
        index(pile, folder / str(number), settings, policy=portion(number))
    return [folder / str(number) for number in range(1, COUNT + 1)]


@pytest.fixture
def shards(own_pile: Path, settings_for, tmp_path: Path) -> list[Path]:
    """Archives of the shards of a pile that may change."""
    return shard_archives(own_pile, tmp_path / "shards", settings_for())


def test_shards_share_the_files_out_and_merge_to_the_unsharded_archive(
    pile: Path, indexed: tuple[Path, IndexReport], settings_for, tmp_path: Path
) -> None:
    folder, whole = indexed
    parts = shard_archives(pile, tmp_path / "shards", settings_for())
    uris = [row["uri"] for part in parts for row in rows(part, whole.space)]
    assert len(uris) == len(set(uris)) == FILES
    assert max(len(rows(part, whole.space)) for part in parts) < FILES, "no shard has it all"

    report = merge(tmp_path / "all", parts)
    assert (report.videos, report.clips, report.unchanged, report.space) == (FILES, CLIPS, 0, whole.space)
    assert rows(tmp_path / "all", whole.space) == rows(folder, whole.space)
    assert clips(tmp_path / "all", whole.space) == clips(folder, whole.space)
    assert verify(tmp_path / "all", deep=True).problems == ()
    letters = [Archive.open(each).letters(whole.space).keys() for each in (tmp_path / "all", folder)]
    assert letters[0] == letters[1]
    # What was merged is an archive like any other: it knows its places and its settings, and that it has them whole.
    again = reindexing.reindex(tmp_path / "all")
    assert (again.planned, again.unchanged, again.gone) == (0, FILES, 0)


def test_merging_again_takes_over_what_changed_and_nothing_else(
    own_pile: Path, shards: list[Path], settings_for, tmp_path: Path
) -> None:
    space = merge(tmp_path / "all", shards).space
    assert merge(tmp_path / "all", shards).videos == 0
    film(own_pile / "new.mp4", "left")
    film(own_pile / "sub/up.mp4", "down", "down", colour_seed=9)
    (own_pile / "left_then_right.mp4").unlink()
    os.utime(own_pile / "three scenes.mp4", (1, 1))
    for part in shards:
        reindexing.reindex(part, policy=Policy(yes=True))
    report = merge(tmp_path / "all", shards)
    assert (report.videos, report.clips, report.unchanged) == (4, 3, len(BROKEN))
    shown = {Path(row["uri"]).name: (row["status"], row["revision"]) for row in rows(tmp_path / "all", space)}
    assert {name: shown[name] for name in shown.keys() - set(BROKEN)} == {
        "new.mp4": ("ok", 1),
        "up.mp4": ("ok", 2),
        "left_then_right.mp4": ("gone", 2),
        "three scenes.mp4": ("ok", 1),
    }
    assert len(clips(tmp_path / "all", space)) == 1 + 2 + 3
    assert verify(tmp_path / "all").problems == ()
    assert index(own_pile, tmp_path / "all", settings_for()).planned == 0


def test_a_shard_retires_no_video_of_another(own_pile: Path, settings_for, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    first = index(own_pile, folder, settings_for())
    for name in VIDEOS:
        (own_pile / name).unlink()
    film(own_pile / "left behind.mp4", "left")
    gone = []
    for number in range(1, COUNT + 1):
        gone.append(index(own_pile, folder, settings_for(), policy=portion(number)).gone)
        live = [row["uri"] for row in rows(folder, first.space) if row["status"] != "gone"]
        for uri in live:
            is_done = not Path(uri).exists() and any(Portion(n, COUNT).has(uri) for n in range(1, number + 1))
            assert not is_done, "its shard had its turn"
        assert len(live) >= FILES - sum(gone)
    assert sum(gone) == len(VIDEOS)


def test_a_video_that_moved_to_another_shard_is_not_taken_for_gone(
    own_pile: Path, settings_for, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    space = index(own_pile, folder, settings_for()).space
    old = own_pile / "sub/up.mp4"
    number = next(n for n in range(1, COUNT + 1) if Portion(n, COUNT).has(str(old)))
    names = (own_pile / f"up {number}.mp4" for number in range(100))
    new = next(name for name in names if not Portion(number, COUNT).has(str(name)))
    old.rename(new)
    assert index(own_pile, folder, settings_for()).moved == 1
    report = index(own_pile, folder, settings_for(), policy=portion(number))
    assert (report.gone, report.planned) == (0, 0)
    assert str(new) in {row["uri"] for row in rows(folder, space) if row["status"] == "ok"}


def test_a_shard_s_archive_is_kept_up_to_date_as_one(own_pile: Path, shards: list[Path]) -> None:
    assert [runs.portion(Archive.open(part)) for part in shards] == [Portion(n, COUNT) for n in range(1, COUNT + 1)]
    film(own_pile / "new.mp4", "left")
    reports = [reindexing.reindex(part) for part in shards]
    assert sum(report.indexed for report in reports) == 1
    assert sum(report.unchanged for report in reports) == FILES
    assert sum(report.gone for report in reports) == 0


def test_merging_goes_on_where_a_crash_left_it(shards: list[Path], tmp_path: Path) -> None:
    report = merge(tmp_path / "all", shards)
    before = clips(tmp_path / "all", report.space)
    DeltaTable(tmp_path / "all" / "videos").restore(0)  # as if it had died before its first row
    again = merge(tmp_path / "all", shards)
    assert (again.videos, again.clips) == (FILES, 0), "no clip is copied twice"
    assert clips(tmp_path / "all", report.space) == before
    assert verify(tmp_path / "all", deep=True).problems == ()


def test_two_contents_of_one_revision_are_not_merged(own_pile: Path, shards: list[Path], settings_for, tmp_path: Path):
    merge(tmp_path / "all", shards)
    film(own_pile / "sub/up.mp4", "down", colour_seed=5)
    index(own_pile, tmp_path / "all", settings_for())
    film(own_pile / "sub/up.mp4", "left", colour_seed=6)
    for part in shards:
        reindexing.reindex(part)
    before = rows(tmp_path / "all", runs.serving_run(Archive.open(shards[0]))["space"])
    with pytest.raises(ArchiveError, match=r"have different contents of the same revision of .*up\.mp4"):
        merge(tmp_path / "all", shards)
    assert rows(tmp_path / "all", runs.serving_run(Archive.open(shards[0]))["space"]) == before


def test_spaces_do_not_mix(own_pile: Path, shards: list[Path], settings_for, tmp_path: Path) -> None:
    index(own_pile, tmp_path / "other", settings_for(window_s=1.0))
    with pytest.raises(SpaceMismatch, match="index them with the same model, window and sampling"):
        merge(tmp_path / "all", [shards[0], tmp_path / "other"])
    assert not (tmp_path / "all").exists()
    with pytest.raises(InputError, match="cannot be merged into itself"):
        merge(shards[0], shards)


def test_clips_are_copied_in_files_of_a_bounded_size(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = merge(tmp_path / "whole", shards)
    monkeypatch.setattr(merging, "BYTES_PER_FILE", 1)
    merge(tmp_path / "all", shards)
    assert clips(tmp_path / "all", report.space) == clips(tmp_path / "whole", report.space)


def test_the_run_of_a_merge_is_written_down(shards: list[Path], tmp_path: Path) -> None:
    report = merge(tmp_path / "all", shards)
    started, finished = Archive.open(tmp_path / "all").runs()
    assert (started["state"], finished["state"]) == ("started", "finished")
    assert finished["report"] == json.loads(json.dumps(asdict(report)))
    assert runs.portion(Archive.open(tmp_path / "all")) is None
