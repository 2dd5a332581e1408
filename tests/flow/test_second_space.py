"""Another space over the same files: planned from the packets that were kept, as if every file had been opened."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import delta_log, demux, flows
from pipeline.archive import Archive
from pipeline.compact import CompactSettings, compact
from pipeline.flows import IndexReport, index
from pipeline.reindexing import reindex
from pipeline.repair import repair
from pipeline.rollback import rollback
from pipeline.settings import Policy
from pipeline.survey import Survey, survey
from pipeline.verify import verify
from tests.footage import BROKEN, VIDEOS
from tests.media import halves, make_video
from tests.pipeline.factories import flip_a_bit
from tests.stores import put

OTHER = {"window_s": 1.0, "stride_s": 0.5, "tolerance_s": 0.0}
ODD = {
    "open groups.mp4": {"b_frames": 3, "gop": 40, "options": {"x264-params": "open-gop=1", "preset": "medium"}},
    "late.ts": {"b_frames": 2, "start_s": 30.0, "sound": True},
    "turned.mp4": {"rotation": 90},
    "untimed.avi": {"codec": "mpeg4"},
}
GOOD = len(VIDEOS) + len(ODD)
OF_RUN = ("run_id", "indexed_at")


@pytest.fixture
def footage(own_pile: Path) -> Path:
    """The pile, with files of which packets have more to tell."""
    for name, how in ODD.items():
        make_video(own_pile / name, frames=120, paint=halves, **how)
    return own_pile


@pytest.fixture
def folder(footage: Path, settings_for, tmp_path: Path) -> Path:
    """An archive with one space of it."""
    index(footage, tmp_path / "archive", settings_for())
    return tmp_path / "archive"


@pytest.fixture
def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose packets were read since there is an archive."""
    names: list[str] = []
    real = demux.inspect_files

    def watched(settings, costs, files):
        names.extend(Path(file.file.uri).name for file in files)
        return real(settings, costs, files)

    monkeypatch.setattr(demux, "inspect_files", watched)
    return names


def blank(footage: Path) -> None:
    """Takes the content out of every file; what is left looks the same to who does not open it."""
    for path in footage.rglob("*"):
        if path.is_file():
            look = path.stat()
            path.write_bytes(bytes(look.st_size))
            os.utime(path, ns=(look.st_atime_ns, look.st_mtime_ns))


def rows(folder: Path, space: str) -> tuple[list[dict], list[dict]]:
    """Every row of videos and of clips, but for which run made it and when."""
    archive = Archive.open(folder)
    columns = [name for name in archive.table("clips").schema().to_arrow().names if name != "space"]
    videos = archive.current_videos(space).to_pylist()
    clips = archive.visible_clips(space, columns).to_pylist()
    return [{name: row[name] for name in row if name not in OF_RUN} for row in videos], clips


@pytest.fixture
def anew(footage: Path, settings_for, tmp_path: Path) -> Callable[[str], tuple[list[dict], list[dict]]]:
    """What the other space is in an archive that never had another."""

    def made(space: str) -> tuple[list[dict], list[dict]]:
        assert index(footage, tmp_path / "anew", settings_for(**OTHER)).space == space
        return rows(tmp_path / "anew", space)

    return made


def parts_of(folder: Path) -> list[Path]:
    archive = Archive.open(folder)
    return [archive.folder / "packets" / file.path for file in delta_log.files(archive, "packets")]


# --- the same


def test_all_rows_are_those_of_an_archive_that_opened_every_file(
    footage: Path, folder: Path, opened: list[str], anew, settings_for
) -> None:
    report = index(footage, folder, settings_for(**OTHER))
    assert sorted(opened) == sorted(BROKEN), "what failed is read again"
    assert (report.indexed, report.failed) == (GOOD, len(BROKEN))
    assert rows(folder, report.space) == anew(report.space)
    assert verify(folder, deep=True).problems == ()


def test_plans_are_equal_down_to_the_steps(
    footage: Path, folder: Path, opened: list[str], settings_for, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Survey] = []

    def kept(*given) -> Survey:
        plans.append(survey(*given))
        return plans[-1]

    monkeypatch.setattr(flows, "survey", kept)
    for place in (folder, tmp_path / "none"):
        index(footage, place, settings_for(**OTHER), dry_run=True)
    cached, fresh = (found.plans for found in plans)
    assert cached == fresh
    assert len(cached) == GOOD
    assert all(item.video.packets is None for item in cached)
    assert [bool(unit.steps) for item in cached for unit in item.units].count(False) == 1, "of the file without times"
    assert sorted(opened[len(BROKEN) :]) == sorted([*BROKEN, *ODD, *(Path(name).name for name in VIDEOS)])


def test_no_file_is_opened_for_it(footage: Path, folder: Path, settings_for) -> None:
    expected = index(footage, folder, settings_for(**OTHER), dry_run=True)
    blank(footage)
    found = index(footage, folder, settings_for(**OTHER), dry_run=True)
    assert (found.planned, found.failed, found.clips) == (GOOD + len(BROKEN), len(BROKEN), expected.clips)
    assert found.footage_s == expected.footage_s
    rehashed = index(footage, folder, settings_for(**OTHER), dry_run=True, policy=Policy(rehash=True))
    assert (rehashed.planned, rehashed.failed) == (GOOD + len(BROKEN), GOOD + len(BROKEN)), "it reads everything"


@pytest.mark.ray
def test_on_ray_it_is_the_same(footage: Path, folder: Path, anew, settings_for) -> None:
    report = index(footage, folder, settings_for("ray", window_s=3.0))
    assert report.indexed == GOOD
    blank(footage)
    found, local = (index(footage, folder, settings_for(engine, **OTHER), dry_run=True) for engine in ("ray", "local"))
    counts = ("planned", "failed", "clips", "footage_s")
    assert [getattr(found, name) for name in counts] == [getattr(local, name) for name in counts]
    assert found.failed == len(BROKEN)


@pytest.mark.ray
def test_workers_on_ray_keep_packets(footage: Path, opened: list[str], settings_for, tmp_path: Path) -> None:
    folder = tmp_path / "by ray"
    index(footage, folder, settings_for("ray"))
    assert len(parts_of(folder)) == 2, "of eight videos at most"
    index(footage, folder, settings_for(**OTHER), dry_run=True)
    assert sorted(opened) == sorted(BROKEN)


def test_in_a_store_it_is_the_same(footage: Path, opened: list[str], bucket: str, settings_for) -> None:
    videos = put(footage, f"{bucket}/videos")
    index(videos, f"{bucket}/archive", settings_for())
    opened.clear()
    report = index(videos, f"{bucket}/archive", settings_for(**OTHER))
    assert (report.indexed, sorted(opened)) == (GOOD, sorted(BROKEN))
    assert verify(f"{bucket}/archive").problems == ()


# --- what is taken for the same


def test_a_changed_file_is_opened_and_a_touched_one_is_read(
    footage: Path, folder: Path, opened: list[str], settings_for
) -> None:
    make_video(footage / "turned.mp4", frames=30)
    os.utime(footage / "late.ts", (7, 7))
    shutil.copy2(footage / "late.ts", footage / "another.ts")  # so that both are compared before they are opened
    report = index(footage, folder, settings_for(**OTHER))
    assert sorted(opened) == sorted([*BROKEN, "turned.mp4"])
    assert (report.indexed, report.duplicates) == (GOOD, 1)


def test_a_file_that_another_space_retired_is_opened(footage: Path, folder: Path, opened: list[str], settings_for):
    away = footage / "turned.mp4"
    content, look = away.read_bytes(), away.stat()
    away.unlink()
    assert reindex(folder).gone == 1
    away.write_bytes(content)
    os.utime(away, ns=(look.st_atime_ns, look.st_mtime_ns))
    opened.clear()
    index(footage, folder, settings_for(**OTHER), dry_run=True)
    assert sorted(opened) == sorted([*BROKEN, "turned.mp4"])


def test_spaces_that_do_not_agree_on_a_content_are_not_believed(
    footage: Path, folder: Path, opened: list[str], settings_for
) -> None:
    """Who changes a file and sets its time back is found out by `--rehash`, in that space alone."""
    path = footage / "turned.mp4"
    look = path.stat()
    box = (16).to_bytes(4, "big") + b"free" + bytes(8)  # players skip it
    path.write_bytes(path.read_bytes() + box)
    os.utime(path, ns=(look.st_atime_ns, look.st_mtime_ns))
    index(footage, folder, settings_for(window_s=3.0))
    changed = path.read_bytes()[:-8] + b"changed!"
    path.write_bytes(changed)
    os.utime(path, ns=(look.st_atime_ns, look.st_mtime_ns))
    index(footage, folder, settings_for(window_s=4.0), policy=Policy(rehash=True))
    opened.clear()
    index(footage, folder, settings_for(**OTHER), dry_run=True)
    assert sorted(opened) == sorted([*BROKEN, "turned.mp4"])


# --- what goes wrong


def lose(part: Path) -> None:
    part.unlink()


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-100])


def flip(column: str) -> Callable[[Path], None]:
    return lambda part: flip_a_bit(part, column)


@pytest.mark.parametrize("harm", [lose, cut, *map(flip, ("packets", "fingerprint", "end_s"))])
def test_packets_that_are_lost_or_damaged_are_read_again(
    harm: Callable[[Path], None], footage: Path, folder: Path, opened: list[str], anew, settings_for
) -> None:
    for part in parts_of(folder):
        harm(part)
    assert any(problem.subject.startswith("packets/") for problem in verify(folder).problems)
    report = index(footage, folder, settings_for(**OTHER))
    assert len(opened) == GOOD + len(BROKEN)
    assert rows(folder, report.space) == anew(report.space)
    opened.clear()
    index(footage, folder, settings_for(window_s=3.0), dry_run=True)
    assert sorted(opened) == sorted(BROKEN), "they are kept again"
    assert repair(Archive.open(folder)).left == ()
    assert verify(folder).problems == ()


def test_an_archive_of_before_gets_the_table_with_its_next_run(
    footage: Path, folder: Path, opened: list[str], settings_for
) -> None:
    shutil.rmtree(folder / "packets")
    assert verify(folder).problems == ()
    assert index(footage, folder, settings_for(**OTHER), dry_run=True).clips > 0
    assert not (folder / "packets").exists(), "a dry run writes nothing"
    assert "packets" not in compact(folder, CompactSettings()).tables
    rollback(folder, Archive.open(folder).runs()[0]["run_id"], dry_run=True)
    index(footage, folder, settings_for(**OTHER))
    opened.clear()
    index(footage, folder, settings_for(window_s=3.0), dry_run=True)
    assert sorted(opened) == sorted(BROKEN)


def test_a_dry_run_keeps_nothing(footage: Path, folder: Path, opened: list[str], settings_for) -> None:
    make_video(footage / "new.mp4")
    before = sorted((folder / "packets").rglob("*"))
    index(footage, folder, settings_for(), dry_run=True)
    assert sorted(opened) == sorted([*BROKEN, "new.mp4"][-1:])
    assert sorted((folder / "packets").rglob("*")) == before


def test_a_run_with_nothing_to_open_commits_nothing(footage: Path, folder: Path, settings_for) -> None:
    before = Archive.open(folder).version("packets")
    index(footage, folder, settings_for())
    index(footage, folder, settings_for(**OTHER))
    assert Archive.open(folder).version("packets") == before


def test_what_a_run_learned_outlives_it(footage: Path, folder: Path, opened: list[str], settings_for) -> None:
    first: IndexReport = index(footage, folder, settings_for(**OTHER))
    make_video(footage / "new.mp4")
    bad = reindex(folder)
    rollback(folder, bad.run_id)
    opened.clear()
    assert reindex(folder).indexed == 1
    assert opened == ["new.mp4"], "of no space, so it is read and opened in one go"
    assert first.space == Archive.open(folder).runs()[-1]["space"]
    assert verify(folder).problems == ()


def test_compacting_drops_what_no_video_holds(footage: Path, folder: Path, opened: list[str], settings_for) -> None:
    (footage / "turned.mp4").unlink()
    make_video(footage / "new.mp4")
    reindex(folder)
    report = compact(folder, CompactSettings(retention_days=0))
    change = report.tables["packets"]
    assert (change.files_after, change.rows_dropped) == (1, 1)
    assert change.files_before > 1
    assert [path.name for path in (folder / "packets").glob("*.parquet")] == [path.name for path in parts_of(folder)]
    opened.clear()
    index(footage, folder, settings_for(**OTHER))
    assert sorted(opened) == sorted(BROKEN)
    assert verify(folder).problems == ()
