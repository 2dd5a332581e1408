"""Files that move, are copied, change or vanish: content keeps its clips for as long as one file holds it."""

from __future__ import annotations

import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline import decode, demux, flows, relink, retire, sources
from pipeline.archive import Archive
from pipeline.flows import IndexReport, index
from pipeline.search import search
from pipeline.serving import open_space
from pipeline.settings import Policy
from schemas.errors import InputError, RefusedToRetire
from tests.footage import BROKEN, CLIPS, VIDEOS, film

FILES = len(VIDEOS) + len(BROKEN)
UP, THREE = "sub/up.mp4", "three scenes.mp4"


class Indexed:
    """A pile and its archive, indexed once by the plain loop."""

    def __init__(self, pile: Path, folder: Path, settings) -> None:
        self.pile, self.folder, self.settings = pile, folder, settings
        self.space = self.run().space
        self.archive = Archive.open(folder)
        self.opened: list[str] = []  # files whose packets were looked at since

    def run(self, *places: Path, **policy) -> IndexReport:
        return index(places or (self.pile,), self.folder, self.settings, policy=Policy(**{"yes": True, **policy}))

    def rows(self) -> dict[str, dict]:
        """The row of each file that is not gone."""
        rows = self.archive.current_videos(self.space).to_pylist()
        live = [row for row in rows if row["status"] != "gone"]
        assert len({row["uri"] for row in live}) == len(live), "a file has one row"
        return {str(Path(row["uri"]).relative_to(self.pile.parent)): row for row in live}

    def row(self, name: str) -> dict:
        return self.rows()[f"{self.pile.name}/{name}"]

    def clips(self) -> dict[str, set[str]]:
        """Ids of the visible clips by video."""
        found: dict[str, set[str]] = {}
        for clip in self.archive.visible_clips(self.space, ["clip_id", "video_id"]).to_pylist():
            found.setdefault(clip["video_id"], set()).add(clip["clip_id"])
        return found

    def shown(self, name: str) -> set[str]:
        return self.clips().get(self.row(name)["video_id"], set())


@pytest.fixture
def made(own_pile: Path, settings_for, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Indexed:
    made = Indexed(own_pile, tmp_path / "archive", settings_for())
    real = demux.inspect_files

    def watched(settings, costs, files):
        made.opened.extend(Path(file.file.uri).name for file in files)
        return real(settings, costs, files)

    monkeypatch.setattr(demux, "inspect_files", watched)
    return made


def accounted(report: IndexReport) -> int:
    return report.planned + report.unchanged + report.moved + report.duplicates


# --- moved


def test_a_moved_file_keeps_its_id_and_clips_and_nothing_is_decoded(made: Indexed) -> None:
    before, row = made.clips(), made.row(UP)
    (made.pile / "elsewhere").mkdir()
    (made.pile / UP).rename(made.pile / "elsewhere/renamed.mp4")
    report = made.run()
    assert (report.moved, report.planned, report.gone, report.unchanged) == (1, 0, 0, FILES - 1)
    after = made.row("elsewhere/renamed.mp4")
    assert (after["video_id"], after["revision"]) == (row["video_id"], row["revision"])
    assert made.clips() == before
    assert made.opened == []
    assert made.run().unchanged == FILES


def test_search_finds_a_moved_video_at_its_new_place(made: Indexed) -> None:
    (made.pile / UP).rename(made.pile / "renamed.mp4")
    made.run()
    hits = search(open_space(made.folder), "anything").hits
    assert len(hits) == CLIPS
    assert {Path(hit.uri).name for hit in hits} == {"renamed.mp4", THREE, "left_then_right.mp4"}


def test_a_whole_folder_may_be_renamed(made: Indexed) -> None:
    before = made.clips()
    moved = made.pile.parent / "moved"
    made.pile.rename(moved)
    made.pile = moved
    report = made.run(yes=False)
    assert (report.moved, report.failed, report.gone) == (len(VIDEOS), len(BROKEN), 0), (
        "the old folder was not looked at"
    )
    assert made.clips() == before


def test_two_files_may_change_places(made: Indexed) -> None:
    up, three = made.shown(UP), made.shown(THREE)
    (made.pile / UP).rename(made.pile / "aside")
    (made.pile / THREE).rename(made.pile / UP)
    (made.pile / "aside").rename(made.pile / THREE)
    report = made.run()
    assert (report.moved, report.planned, report.gone) == (2, 0, 0)
    assert (made.shown(UP), made.shown(THREE)) == (three, up)


def test_a_file_moved_over_another_replaces_it(made: Indexed) -> None:
    up = made.shown(UP)
    (made.pile / UP).replace(made.pile / THREE)
    report = made.run()
    assert (report.moved, report.planned, report.gone) == (1, 0, 0)
    assert made.shown(THREE) == up
    assert len(made.clips()) == len(VIDEOS) - 1
    assert made.run().unchanged == FILES - 1


def test_a_moved_file_whose_old_place_has_other_content_now(made: Indexed) -> None:
    up = made.shown(UP)
    (made.pile / UP).rename(made.pile / "kept.mp4")
    film(made.pile / UP, "down", "left", colour_seed=8)
    report = made.run()
    assert (report.moved, report.indexed) == (1, 1)
    assert made.shown("kept.mp4") == up
    assert len(made.shown(UP)) == 2


def test_content_that_returns_to_where_it_was_first_seen_gets_an_id_of_its_own(made: Indexed) -> None:
    (made.pile / UP).rename(made.pile / "moved.mp4")
    made.run()
    shutil.copy(made.pile / "moved.mp4", made.pile / UP)
    assert made.run().duplicates == 1
    film(made.pile / UP, "left", colour_seed=3)
    assert made.run().indexed == 1
    assert made.shown(UP)
    assert made.shown("moved.mp4")


# --- copies


def test_a_copy_is_accounted_for_and_not_decoded(made: Indexed) -> None:
    before = made.clips()
    shutil.copy(made.pile / UP, made.pile / "copy.mp4")
    report = made.run()
    assert (report.duplicates, report.planned, report.unchanged) == (1, 0, FILES)
    assert made.row("copy.mp4")["status"] == "duplicate"
    assert made.row("copy.mp4")["fingerprint"] == made.row(UP)["fingerprint"]
    assert made.clips() == before
    assert made.opened == []
    assert made.run().unchanged == FILES + 1
    assert len(search(open_space(made.folder), "anything").hits) == CLIPS


def test_copies_that_come_together_are_decoded_once(made: Indexed) -> None:
    film(made.pile / "a new.mp4", "left", "down", colour_seed=4)
    for name in ("b new.mp4", "c new.mp4"):
        shutil.copy(made.pile / "a new.mp4", made.pile / name)
    report = made.run()
    assert (report.indexed, report.duplicates, report.clips) == (1, 2, 2)
    assert made.opened == ["a new.mp4"]
    assert accounted(report) == FILES + 3
    assert {name: made.row(name)["status"] for name in ("a new.mp4", "b new.mp4", "c new.mp4")} == {
        "a new.mp4": "ok",
        "b new.mp4": "duplicate",
        "c new.mp4": "duplicate",
    }


def test_copies_of_what_is_no_video_fail_like_it_and_are_opened_once(made: Indexed) -> None:
    for name in ("x.mp4", "y.mp4"):
        (made.pile / name).write_text("another text that is no video")
    report = made.run()
    assert (report.planned, report.failed, report.duplicates) == (2, 2, 0)
    assert made.opened == ["x.mp4"]
    assert {made.row(name)["error_kind"] for name in ("x.mp4", "y.mp4")} == {"not_a_video"}
    assert made.run().unchanged == FILES + 2


def test_copies_of_a_video_that_cannot_be_decoded_fail_like_it(made: Indexed, monkeypatch) -> None:
    film(made.pile / "a.mp4", "left", colour_seed=4)
    shutil.copy(made.pile / "a.mp4", made.pile / "b.mp4")

    def undecodable(size, units):
        raise decode.UndecodableVideo("no intact frame")

    monkeypatch.setattr(decode, "decode_units", undecodable)
    report = made.run()
    assert (report.planned, report.failed, report.duplicates) == (2, 2, 0)
    assert {(made.row(name)["status"], made.row(name)["error_kind"]) for name in ("a.mp4", "b.mp4")} == {
        ("failed", "undecodable")
    }


@pytest.mark.parametrize("deleted", ["copy.mp4", UP])
def test_the_clips_stay_while_one_of_the_files_is_there(deleted: str, made: Indexed) -> None:
    before = made.shown(UP)
    shutil.copy(made.pile / UP, made.pile / "copy.mp4")
    made.run()
    (made.pile / deleted).unlink()
    report = made.run()
    (left,) = {"copy.mp4", UP} - {deleted}
    assert (report.gone, report.planned, report.unchanged) == (1, 0, FILES)
    assert made.row(left)["status"] == "ok"
    assert made.shown(left) == before
    assert made.opened == []
    (made.pile / left).unlink()
    assert made.run().gone == 1
    assert not before & set().union(*made.clips().values())


def test_a_copy_takes_over_when_the_first_file_changes(made: Indexed) -> None:
    before = made.shown(UP)
    shutil.copy(made.pile / UP, made.pile / "copy.mp4")
    made.run()
    film(made.pile / UP, "down", "right", colour_seed=6)
    report = made.run()
    assert (report.indexed, report.gone, report.moved) == (1, 0, 0)
    assert made.shown("copy.mp4") == before
    assert len(made.shown(UP)) == 2


def test_a_copy_that_becomes_something_else_is_indexed(made: Indexed) -> None:
    before = made.clips()
    shutil.copy(made.pile / UP, made.pile / "copy.mp4")
    made.run()
    film(made.pile / "copy.mp4", "down", colour_seed=6)
    assert made.run().indexed == 1
    assert len(made.clips()) == len(before) + 1


def test_a_video_that_becomes_a_copy_loses_its_own_clips(made: Indexed) -> None:
    three = made.shown(THREE)
    shutil.copy(made.pile / UP, made.pile / THREE)
    report = made.run()
    assert (report.duplicates, report.planned) == (1, 0)
    assert made.row(THREE)["status"] == "duplicate"
    assert not three & set().union(*made.clips().values())


def test_a_copy_in_a_place_that_is_not_looked_at_takes_over_if_it_is_there(made: Indexed) -> None:
    other = made.pile.parent / "other"
    other.mkdir()
    shutil.copy(made.pile / UP, other / "copy.mp4")
    before = made.shown(UP)
    made.run(other)
    (made.pile / UP).unlink()
    made.run()
    assert made.clips()[made.rows()["other/copy.mp4"]["video_id"]] == before


def test_a_copy_that_went_unseen_with_its_holder_is_read_when_it_is_seen_again(made: Indexed) -> None:
    other, away = made.pile.parent / "other", made.pile.parent / "away"
    other.mkdir()
    shutil.copy(made.pile / UP, other / "copy.mp4")
    made.run(other)
    other.rename(away)
    (made.pile / UP).unlink()
    made.run()
    assert "other/copy.mp4" not in made.rows()
    away.rename(other)
    assert made.run(other).indexed == 1


# --- changed


def test_old_clips_vanish_in_the_step_in_which_the_new_ones_appear(made: Indexed, monkeypatch) -> None:
    old = made.shown(UP)
    film(made.pile / UP, "down", "down", colour_seed=9)
    seen: list[set[str]] = []
    real = Archive.commit_videos

    def watched(archive: Archive, rows) -> None:
        seen.append(made.shown(UP))  # as a reader would just before the commit: the new clips are committed already
        real(archive, rows)
        seen.append(made.shown(UP))

    monkeypatch.setattr(Archive, "commit_videos", watched)
    made.run()
    states = [seen[0], *(after for before, after in pairwise(seen) if before != after)]
    assert len(states) == 2
    assert states[0] == old
    assert len(states[1]) == 2
    assert not states[1] & old


def test_content_that_changed_under_the_same_size_and_time_is_seen_by_rehash_alone(made: Indexed) -> None:
    path = made.pile / UP
    look = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(look.st_atime_ns, look.st_mtime_ns))
    assert made.run().unchanged == FILES
    assert made.row(UP)["revision"] == 1
    report = made.run(rehash=True)
    assert report.planned == 1
    assert made.row(UP)["revision"] == 2
    assert report.unchanged == FILES - 1


def test_rehash_writes_nothing_about_what_is_the_same(made: Indexed) -> None:
    before = made.archive.version("videos")
    assert made.run(rehash=True).unchanged == FILES
    assert made.archive.version("videos") == before


# --- trust


def test_a_renamed_file_is_taken_unread_when_times_are_trusted(made: Indexed, monkeypatch) -> None:
    before = made.clips()
    (made.pile / UP).rename(made.pile / "renamed.mp4")
    monkeypatch.setattr(sources, "fingerprint", lambda file: pytest.fail(f"{file} was read"))
    report = made.run(trust_mtime=True)
    assert (report.moved, report.planned) == (1, 0)
    assert made.clips() == before
    assert made.row("renamed.mp4")["fingerprint"]


def test_a_trusted_run_still_reads_what_is_new_or_touched(made: Indexed) -> None:
    os.utime(made.pile / UP, (5, 5))
    film(made.pile / "new.mp4", "left", colour_seed=5)
    report = made.run(trust_mtime=True)
    assert (report.indexed, report.unchanged) == (1, FILES)


def test_two_files_that_look_alike_are_not_taken_for_each_other(made: Indexed) -> None:
    rows = [made.archive.known_videos(made.space)[str(made.pile / name)] for name in (UP, THREE)]
    (file,) = sources.take_inventory(made.pile / UP)
    left = {row.uri for row in rows}
    assert len(relink.trusted([file], rows, left)) == 1
    assert relink.trusted([file, file], rows, left) == []
    assert relink.trusted([file], [rows[0], rows[0]], left) == []
    assert relink.trusted([file], rows, ()) == []


def test_the_two_extremes_exclude_each_other() -> None:
    with pytest.raises(InputError, match="expected one of them"):
        Policy(rehash=True, trust_mtime=True)


# --- gone


def test_a_vanished_file_is_gone_or_kept(made: Indexed) -> None:
    before = made.clips()
    (made.pile / UP).unlink()
    kept = made.run(keep_gone=True, yes=False)
    assert (kept.gone, kept.kept) == (0, 1)
    assert made.clips() == before
    gone = made.run()
    assert (gone.gone, gone.kept) == (1, 0)
    assert len(made.clips()) == len(before) - 1


def test_more_than_a_fifth_needs_a_yes(made: Indexed) -> None:
    before = made.clips()
    for name in (UP, THREE):
        (made.pile / name).unlink()
    version = made.archive.version("videos")
    with pytest.raises(RefusedToRetire, match=r"2 of the archive's 5 videos would be retired.*add --yes.*--keep-gone"):
        made.run(yes=False)
    assert made.archive.version("videos") == version
    assert made.clips() == before
    planned = index(made.pile, made.folder, made.settings, dry_run=True)
    assert (planned.gone, planned.asks_for_yes) == (2, True)
    assert made.run().gone == 2


def test_a_fifth_needs_none(made: Indexed) -> None:
    assert pytest.approx(1 / FILES) == retire.MOST
    (made.pile / UP).unlink()
    assert made.run(yes=False).gone == 1


def test_what_only_moved_is_not_counted(made: Indexed) -> None:
    for name in VIDEOS:
        (made.pile / name).rename(made.pile / f"moved {Path(name).name}")
    report = made.run(yes=False)
    assert (report.moved, report.gone) == (len(VIDEOS), 0)


def test_a_missing_root_retires_nothing(made: Indexed) -> None:
    before = made.clips()
    shutil.rmtree(made.pile)
    with pytest.raises(
        RefusedToRetire, match=r"there is nothing at .*knows 5 videos there, and none was retired.*mount"
    ):
        made.run()
    assert made.clips() == before


def test_an_empty_mount_point_retires_nothing(made: Indexed) -> None:
    before = made.clips()
    shutil.rmtree(made.pile)
    made.pile.mkdir()
    with pytest.raises(RefusedToRetire, match=r"no video files under .*knows 5 videos there"):
        made.run()
    with pytest.raises(RefusedToRetire, match=r"there is nothing at .*\*\.mp4.*knows 5 videos there"):
        made.run(made.pile / "*.mp4")
    assert made.clips() == before


def test_a_folder_that_cannot_be_listed_hides_nothing(made: Indexed, monkeypatch) -> None:
    before = made.clips()
    real = os.scandir

    def locked(path):
        if path == str(made.pile / "sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(sources.os, "scandir", locked)
    report = made.run()
    assert (report.gone, report.failed, report.unchanged) == (0, 1, FILES - 1)
    assert made.clips() == before


def test_a_file_that_cannot_be_looked_at_is_not_gone(made: Indexed) -> None:
    before = made.clips()
    (made.pile / UP).unlink()
    (made.pile / UP).symlink_to("nowhere")
    report = made.run()
    assert (report.gone, report.failed) == (0, 1)
    assert made.clips() == before


def test_a_run_that_is_killed_after_moving_goes_on_where_it_was(made: Indexed, monkeypatch) -> None:
    before = made.shown(UP)
    (made.pile / UP).rename(made.pile / "moved.mp4")
    shutil.copy(made.pile / "moved.mp4", made.pile / "copy.mp4")
    film(made.pile / "new.mp4", "left", colour_seed=2)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(flows, "index_units", killed)
    with pytest.raises(KeyboardInterrupt):
        made.run()
    monkeypatch.undo()
    report = made.run()
    assert (report.moved, report.duplicates, report.indexed) == (0, 0, 1)
    assert before in (made.shown("moved.mp4"), made.shown("copy.mp4"))
