"""Verifying: every kind of damage is made here, seen, and mended by the command that is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import delta_log, index_files, indexes, parts, sources, unfinished
from pipeline.archive import Archive
from pipeline.compact import CompactSettings, compact
from pipeline.repair import ERROR_KIND, repair
from pipeline.verify import VerifyReport, verify
from schemas.errors import ArchiveError
from schemas.records import SourceFile
from tests.pipeline.factories import (
    SPACE,
    WIDTH,
    add_tags,
    add_video,
    commit,
    embedded,
    flip_a_bit,
    log_run,
    unit_of,
    unit_vectors,
    video_row,
)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Three videos whose files are there, one of them in its second revision, one more that is gone."""
    archive = Archive.create(tmp_path / "archive")
    log_run(archive)
    for number in range(3):
        file = tmp_path / f"{number}.mp4"
        file.write_bytes(b"video %d" % number)
        add_video(
            archive, file, clips=number + 1, fingerprint=sources.fingerprint(SourceFile(str(file), 0, 0)).fingerprint
        )
    again = replace(archive.known_videos(SPACE)[str(tmp_path / "0.mp4")], revision=2, clip_count=2)
    commit(archive, [embedded(unit_of(again, 2))], [again])
    archive.commit_videos([replace(add_video(archive, "/videos/gone.mp4"), status="gone", revision=2)])
    indexes.build(archive, SPACE, WIDTH)
    return archive


def part_of(archive: Archive, name: str = "2.mp4") -> Path:
    """The file with the clips of one video."""
    (video_id,) = (row["video_id"] for row in archive.current_videos(SPACE).to_pylist() if row["uri"].endswith(name))
    for file in delta_log.files(archive, "clips"):
        path = archive.folder / "clips" / file.path
        (batch,) = parts.read_batches([path], parts.file_schema("clips"))
        if video_id in batch["video_id"].to_pylist():
            return path
    raise AssertionError(name)


def rewrite(archive: Archive, change: Callable[[list[dict]], list[dict]]) -> None:
    """Puts other rows in the place of a video's clips, properly encoded and committed."""
    path = part_of(archive)
    (old,) = (file for file in delta_log.files(archive, "clips") if path.name in file.path)
    (batch,) = parts.read_batches([path], parts.file_schema("clips"))
    rows = pa.Table.from_pylist(change(batch.to_pylist()), schema=parts.file_schema("clips"))
    new = path.with_name("part-changed.parquet")
    parts.write_batches(new, rows.schema, rows.to_batches())
    relative = str(new.relative_to(archive.folder / "clips"))
    delta_log.replace(archive, "clips", [old], [replace(old, path=relative, size_bytes=new.stat().st_size)])


def kinds(report: VerifyReport) -> list[str]:
    return sorted(problem.kind for problem in report.problems)


def index_file(archive: Archive, pattern: str = "*.faiss") -> Path:
    (file,) = (archive.index_folder(SPACE) / str(archive.version("videos"))).glob(pattern)
    return file


# --- damage


def delete_a_part(archive: Archive) -> None:
    part_of(archive).unlink()


def cut_a_part(archive: Archive) -> None:
    path = part_of(archive)
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_vector(archive: Archive) -> None:
    flip_a_bit(part_of(archive))


def flip_a_thumbnail(archive: Archive) -> None:
    flip_a_bit(part_of(archive), "thumbnail")


def lose_a_clip(archive: Archive) -> None:
    rewrite(archive, lambda rows: rows[:-1])


def double_a_clip(archive: Archive) -> None:
    rewrite(archive, lambda rows: [*rows[:-1], rows[0]])


def lengthen_a_vector(archive: Archive) -> None:
    rewrite(archive, lambda rows: [{**row, "embedding": [2 * x for x in row["embedding"]]} for row in rows])


def narrow_a_vector(archive: Archive) -> None:
    rewrite(archive, lambda rows: [*rows[:-1], {**rows[-1], "embedding": [0.6, 0.8]}])


def empty_a_vector(archive: Archive) -> None:
    rewrite(archive, lambda rows: [{**rows[0], "embedding": []}, *rows[1:]])


def spoil_a_vector(archive: Archive) -> None:
    rewrite(archive, lambda rows: [{**rows[0], "embedding": [float("nan")] * WIDTH}, *rows[1:]])


def spoil_a_thumbnail(archive: Archive) -> None:
    rewrite(archive, lambda rows: [{**row, "thumbnail": row["thumbnail"][:-20]} for row in rows])


def truncate_the_index(archive: Archive) -> None:
    file = index_file(archive)
    file.write_bytes(file.read_bytes()[:-9])


def exchange_the_index(archive: Archive) -> None:
    file = index_file(archive, "*.clips.npy")
    np.save(file, np.load(file) ^ np.uint64(1))


def mislabel_the_index(archive: Archive) -> None:
    file = index_file(archive, index_files.MANIFEST)
    file.write_text(json.dumps({**json.loads(file.read_text()), "videos_version": 1}))


def drop_a_video_row(archive: Archive) -> None:
    for file in delta_log.files(archive, "videos"):
        (batch,) = parts.read_batches([archive.folder / "videos" / file.path], parts.file_schema("videos"))
        if batch["uri"][0].as_py().endswith("2.mp4"):
            delta_log.replace(archive, "videos", [file], [])
    indexes.build(archive, SPACE, WIDTH)


def lose_a_source(archive: Archive) -> None:
    (archive.folder.parent / "1.mp4").unlink()


def change_a_source(archive: Archive) -> None:
    (archive.folder.parent / "1.mp4").write_bytes(b"Video 1")


DAMAGE = {
    delete_a_part: ["clip_count", "file_missing"],
    cut_a_part: ["clip_count", "file_size"],
    flip_a_vector: ["clip_count", "file_damaged"],
    flip_a_thumbnail: ["clip_count", "file_damaged"],
    lose_a_clip: ["clip_count"],
    double_a_clip: ["doubled"],
    lengthen_a_vector: ["vector"],
    narrow_a_vector: ["vector"],
    empty_a_vector: ["vector"],
    spoil_a_vector: ["vector"],
    truncate_the_index: ["index"],
    exchange_the_index: ["index"],
    mislabel_the_index: ["index"],
}
DEEP = {spoil_a_thumbnail: ["thumbnail"]}
BEYOND_REPAIR = {
    drop_a_video_row: ["unfinished"],
    lose_a_source: ["source_missing"],
    change_a_source: ["source_changed"],
}


def test_a_sound_archive_has_no_problems(archive: Archive) -> None:
    report = verify(archive.folder, deep=True)
    assert report.problems == ()
    assert (report.videos, report.clips) == (3, 1 + 2 + 3 + 2 + 2)
    assert report.files == sum(len(delta_log.files(archive, name)) for name in ("videos", "clips", "tags", "runs"))
    compact(archive.folder, CompactSettings(retention_days=0))
    assert verify(archive.folder, deep=True).problems == ()


@pytest.mark.parametrize("damage", [*DAMAGE, *DEEP])
def test_damage_is_named_and_the_repair_leaves_nothing_wrong(damage: Callable, archive: Archive) -> None:
    sound = archive.visible_clips(SPACE, ["clip_id", "video_id", "embedding"])
    hurt = archive.known_videos(SPACE)[str(archive.folder.parent / "2.mp4")].video_id
    damage(archive)
    report = verify(archive.folder, deep=damage in DEEP)
    assert kinds(report) == {**DAMAGE, **DEEP}[damage]
    assert all(f"footage verify {archive.folder} --repair" in problem.remedy for problem in report.problems)

    assert repair(archive, deep=damage in DEEP).left == ()
    assert verify(archive.folder, deep=True).problems == ()
    is_hurt = "index" not in kinds(report)
    rest = [row for row in sound.to_pylist() if not (is_hurt and row["video_id"] == hurt)]
    assert archive.visible_clips(SPACE, ["clip_id", "video_id", "embedding"]).to_pylist() == rest, "the others serve on"
    assert indexes.open_current(archive, SPACE, WIDTH).count == len(rest)
    row = archive.known_videos(SPACE)[str(archive.folder.parent / "2.mp4")]
    assert (row.status, row.error_kind) == (("failed", ERROR_KIND) if is_hurt else ("ok", None))


@pytest.mark.parametrize("damage", BEYOND_REPAIR)
def test_what_only_an_index_run_can_mend_says_so(damage: Callable, archive: Archive) -> None:
    damage(archive)
    report = verify(archive.folder, deep=True)
    assert kinds(report) == BEYOND_REPAIR[damage]
    (problem,) = report.problems
    assert problem.remedy.startswith(f"footage reindex {archive.folder}")
    assert repair(archive, deep=True).left == report.problems


@pytest.mark.parametrize("damage", [spoil_a_thumbnail, lose_a_source, change_a_source])
def test_files_and_pictures_are_looked_at_only_when_asked(damage: Callable, archive: Archive) -> None:
    damage(archive)
    assert verify(archive.folder).problems == ()
    assert verify(archive.folder, deep=True).problems != ()


@pytest.mark.parametrize("left", [0.0, 0.7])
@pytest.mark.parametrize("name", ["tags", "runs", "videos"])
def test_a_cut_file_of_a_small_table_is_named(name: str, left: float, archive: Archive) -> None:
    add_tags(archive, [{"clip_id": "1", "space": SPACE, "label_set": "s", "label": "run"}])
    path = archive.folder / name / delta_log.files(archive, name)[0].path
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    report = verify(archive.folder)
    assert "file_size" in kinds(report)
    left_over = repair(archive).left
    assert {problem.kind for problem in left_over} <= {"unfinished"}
    assert {problem.kind for problem in verify(archive.folder).problems} <= {"unfinished"}


@pytest.mark.parametrize("name", ["tags", "runs"])
def test_a_lost_file_of_a_small_table_is_named(name: str, archive: Archive) -> None:
    add_tags(archive, [{"clip_id": "1", "space": SPACE, "label_set": "s", "label": "run"}])
    log_run(archive, "second")
    first = delta_log.files(archive, name)[0]
    (archive.folder / name / first.path).unlink()
    report = verify(archive.folder)
    assert [(problem.kind, problem.subject) for problem in report.problems] == [
        ("file_missing", f"{name}/{first.path}")
    ]
    assert ("footage tag again" in report.problems[0].remedy) == (name == "tags")
    repair(archive)
    assert verify(archive.folder).problems == ()


def test_a_lost_file_of_video_rows_leaves_clips_for_the_next_run(archive: Archive) -> None:
    row = archive.known_videos(SPACE)[str(archive.folder.parent / "2.mp4")]
    (path,) = (
        path
        for file in delta_log.files(archive, "videos")
        if (path := archive.folder / "videos" / file.path)
        and row.uri in next(parts.read_batches([path], parts.file_schema("videos")))["uri"].to_pylist()
    )
    path.unlink()
    report = verify(archive.folder)
    assert kinds(report) == ["file_missing", "index", "unfinished"]
    (left,) = repair(archive).left
    assert left.kind == "unfinished"
    outcomes, revisions = unfinished.pending_units(archive, SPACE)
    assert revisions == {row.video_id: row.revision}
    assert sum(outcome.clip_count for outcome in outcomes.values()) == row.clip_count


@pytest.mark.parametrize("name", ["clips", "videos"])
def test_a_damaged_log_is_named_with_the_table(name: str, archive: Archive) -> None:
    log = archive.folder / name / "_delta_log" / f"{0:020}.json"
    log.write_text(log.read_text()[:50])
    report = verify(archive.folder)
    assert [(problem.kind, problem.subject) for problem in report.problems] == [("table", name)]
    assert "_delta_log from a backup" in report.problems[0].remedy


def test_no_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="there is no archive at"):
        verify(tmp_path)


def test_float16_precision_is_unit_length_and_a_thousandth_more_is_not(archive: Archive) -> None:
    for length, expected in ((1.0, []), (1.01, ["vector"])):
        row = video_row(f"/videos/{length}.mp4", clip_count=50)
        commit(archive, [embedded(unit_of(row, 50), np.float32(length) * unit_vectors(50))], [row])
        assert kinds(verify(archive.folder)) == expected
