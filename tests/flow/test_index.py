"""Indexing end to end: every file accounted for, twice the same, and true after files change or runs die."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from pipeline import indexing, run_report
from pipeline.archive import Archive
from pipeline.flows import IndexReport, index
from pipeline.progress import Progress
from schemas.errors import ArchiveError, WeightsError
from tests.footage import BROKEN, CLIPS, VIDEOS, film

CLIP_COLUMNS = ["clip_id", "unit_id", "video_id", "revision", "start_s", "end_s", "frame_times_s", "intact_samples"]
# What may differ between two runs over the same files.
RUN_COLUMNS = {"run_id", "indexed_at"}


def clips(folder: Path, space: str, columns: list[str]) -> list[dict]:
    return Archive.open(folder).visible_clips(space, columns).to_pylist()


def videos(folder: Path, space: str) -> dict[str, dict]:
    rows = Archive.open(folder).current_videos(space).to_pylist()
    return {Path(row["uri"]).name: row for row in rows}


def test_every_file_is_accounted_for(indexed: tuple[Path, IndexReport]) -> None:
    folder, report = indexed
    assert (report.planned, report.indexed, report.failed) == (len(VIDEOS) + len(BROKEN), len(VIDEOS), len(BROKEN))
    assert report.clips == CLIPS == len(clips(folder, report.space, ["clip_id"]))
    assert {Path(failure.uri).name: failure.error_kind for failure in report.failures} == dict.fromkeys(
        BROKEN, "not_a_video"
    )
    assert {name: row["status"] for name, row in videos(folder, report.space).items()} == {
        **dict.fromkeys((Path(name).name for name in VIDEOS), "ok"),
        **dict.fromkeys(BROKEN, "failed"),
    }


def test_the_unit_that_came_nearest_to_its_deadline_is_told(indexed: tuple[Path, IndexReport], pile: Path) -> None:
    slowest = indexed[1].slowest_unit
    assert slowest is not None
    assert (Path(slowest.uri).relative_to(pile).as_posix() in VIDEOS, slowest.start_s) == (True, 0.0)
    assert 0 < slowest.share < 1
    assert f"decoded in {slowest.decode_s:.1f} of {slowest.deadline_s:.0f} s" in run_report.markdown(indexed[1])


def test_clips_have_the_times_of_their_scenes(indexed: tuple[Path, IndexReport]) -> None:
    folder, report = indexed
    three = videos(folder, report.space)["three scenes.mp4"]["video_id"]
    rows = [row for row in clips(folder, report.space, CLIP_COLUMNS) if row["video_id"] == three]
    assert sorted((row["start_s"], row["end_s"]) for row in rows) == [(0, 2), (2, 4), (4, 6)]
    assert all(row["start_s"] <= time_s < row["end_s"] for row in rows for time_s in row["frame_times_s"])


def test_vectors_have_unit_length_at_float16_precision(indexed: tuple[Path, IndexReport]) -> None:
    folder, report = indexed
    vectors = np.array([row["embedding"] for row in clips(folder, report.space, ["embedding"])], np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    np.testing.assert_array_equal(vectors, vectors.astype(np.float16).astype(np.float32))


def test_a_second_run_finds_everything_unchanged(own_pile: Path, settings_for, tmp_path: Path) -> None:
    first = index(own_pile, tmp_path / "archive", settings_for())
    before = Archive.open(tmp_path / "archive").version("clips")
    second = index(own_pile, tmp_path / "archive", settings_for())
    assert (second.planned, second.unchanged, second.failed) == (0, first.planned, 0)
    assert Archive.open(tmp_path / "archive").version("clips") == before


def test_a_dry_run_changes_nothing_and_tells_the_same_counts(own_pile: Path, settings_for, tmp_path: Path) -> None:
    report = index(own_pile, tmp_path / "archive", settings_for(), dry_run=True)
    assert (report.planned, report.failed, report.clips) == (len(VIDEOS) + len(BROKEN), len(BROKEN), CLIPS)
    assert report.expected_s is None
    assert not (tmp_path / "archive").exists()


def test_a_dry_run_after_a_run_expects_the_same_rate(own_pile: Path, settings_for, tmp_path: Path) -> None:
    first = index(own_pile, tmp_path / "archive", settings_for())
    film(own_pile / "new.mp4", "left")
    planned = index(own_pile, tmp_path / "archive", settings_for(), dry_run=True)
    assert planned.planned == 1
    assert planned.expected_s == pytest.approx(planned.footage_s * first.wall_s / first.footage_s)


def test_a_dry_run_expects_the_rate_of_its_own_space(own_pile: Path, settings_for, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    first = index(own_pile, folder, settings_for())
    slow = {"footage_s": 1.0, "wall_s": 1e6}
    archive = Archive.open(folder)
    run = archive.runs()[-1]
    texts = {"settings": json.dumps(run["settings"]), "versions": json.dumps(run["versions"])}
    archive.log_run(
        {**run, **texts, "run_id": "slow", "space": "other", "at": datetime.now(UTC), "report": json.dumps(slow)}
    )
    film(own_pile / "new.mp4", "down")
    mine = index(own_pile, folder, settings_for(), dry_run=True)
    assert mine.expected_s == pytest.approx(mine.footage_s * first.wall_s / first.footage_s)
    unknown = index(own_pile, folder, settings_for(window_s=1.0), dry_run=True)
    assert unknown.expected_s == pytest.approx(unknown.footage_s * 1e6), "by the last run of all"


def test_new_changed_touched_and_vanished_files(own_pile: Path, settings_for, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    first = index(own_pile, folder, settings_for())
    film(own_pile / "new.mp4", "left")
    film(own_pile / "sub/up.mp4", "down", "down", colour_seed=9)
    os.utime(own_pile / "three scenes.mp4", (1, 1))
    (own_pile / "left_then_right.mp4").unlink()

    second = index(own_pile, folder, settings_for())
    assert (second.planned, second.indexed, second.gone) == (2, 2, 1)
    assert second.unchanged == 1 + len(BROKEN)
    rows = videos(folder, first.space)
    assert {name: (row["status"], row["revision"]) for name, row in rows.items() if name not in BROKEN} == {
        "new.mp4": ("ok", 1),
        "up.mp4": ("ok", 2),
        "three scenes.mp4": ("ok", 1),
        "left_then_right.mp4": ("gone", 2),
    }
    shown = {(row["video_id"], row["revision"]) for row in clips(folder, first.space, CLIP_COLUMNS)}
    assert shown == {(row["video_id"], row["revision"]) for row in rows.values() if row["status"] == "ok"}
    assert index(own_pile, folder, settings_for()).planned == 0


def test_a_video_that_comes_back_is_indexed_again(own_pile: Path, settings_for, tmp_path: Path) -> None:
    folder, away = tmp_path / "archive", tmp_path / "away.mp4"
    space = index(own_pile, folder, settings_for()).space
    before = clips(folder, space, ["start_s", "embedding"])
    shutil.move(own_pile / "sub/up.mp4", away)
    assert index(own_pile, folder, settings_for()).gone == 1
    shutil.move(away, own_pile / "sub/up.mp4")
    assert index(own_pile, folder, settings_for()).indexed == 1
    assert sorted(map(str, clips(folder, space, ["start_s", "embedding"]))) == sorted(map(str, before))


def test_indexing_one_file_retires_no_other(own_pile: Path, settings_for, tmp_path: Path) -> None:
    index(own_pile, tmp_path / "archive", settings_for())
    report = index(own_pile / "sub/up.mp4", tmp_path / "archive", settings_for())
    assert (report.unchanged, report.gone) == (1, 0)


def test_a_run_that_died_before_its_video_rows_is_taken_over(own_pile: Path, settings_for, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    space = index(own_pile, folder, settings_for()).space
    before = clips(folder, space, [*CLIP_COLUMNS, "embedding"])
    DeltaTable(folder / "videos").restore(0)  # as if the driver had been killed before its first video row
    assert clips(folder, space, ["clip_id"]) == []

    parts = DeltaTable(folder / "clips").file_uris()
    report = index(own_pile, folder, settings_for())
    assert report.indexed == len(VIDEOS)
    assert report.clips == CLIPS
    assert DeltaTable(folder / "clips").file_uris() == parts, "no clip was decoded again"
    assert clips(folder, space, [*CLIP_COLUMNS, "embedding"]) == before


def test_an_interrupt_keeps_what_is_committed_and_the_next_run_finishes(
    own_pile: Path, settings_for, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "COMMIT_EVERY_S", 0.0)  # commit each result, so that there is something to keep
    folder = tmp_path / "archive"

    def interrupt(progress: Progress) -> None:
        if progress.phase == "index":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(own_pile, folder, settings_for(), watch=interrupt)
    report = index(own_pile, folder, settings_for())
    assert report.planned < len(VIDEOS) + len(BROKEN)
    found = clips(folder, report.space, ["clip_id"])
    assert len(found) == len({row["clip_id"] for row in found}) == CLIPS
    assert not (folder / "_scratch").exists()


def test_content_that_changed_after_a_crash_never_meets_the_old_clips(
    own_pile: Path, settings_for, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    space = index(own_pile, folder, settings_for()).space
    first = Archive.open(folder).version("videos")
    film(own_pile / "sub/up.mp4", "still", colour_seed=5)
    index(own_pile, folder, settings_for())
    DeltaTable(folder / "videos").restore(first)  # the second run's row is lost, its clips are not
    film(own_pile / "sub/up.mp4", "left", "right", colour_seed=7)
    index(own_pile, folder, settings_for())
    row = videos(folder, space)["up.mp4"]
    mine = [clip for clip in clips(folder, space, CLIP_COLUMNS) if clip["video_id"] == row["video_id"]]
    assert (row["revision"], len(mine)) == (3, 2)


def test_another_window_is_another_space(own_pile: Path, settings_for, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    first = index(own_pile, folder, settings_for())
    second = index(own_pile, folder, settings_for(window_s=1.0))
    assert first.space != second.space
    assert second.clips == 2 * CLIPS
    assert len(clips(folder, first.space, ["clip_id"])) == CLIPS


@pytest.mark.usefixtures("multiplies_bytes")
def test_bytes_are_multiplied_where_that_is_asked_for(
    own_pile: Path, settings_for, indexed: tuple[Path, IndexReport], tmp_path: Path
) -> None:
    report = index(own_pile, tmp_path / "archive", settings_for(precision="int8"))
    assert all(said.startswith("int8 on cpu, ") for said in report.encoders)
    folder, exact = indexed
    assert report.space == exact.space, "precision is no part of a space"
    found, expected = (vectors_by_moment(each, exact.space) for each in (tmp_path / "archive", folder))
    assert len(found) == CLIPS
    cosines = [float(found[moment] @ expected[moment]) for moment in expected]
    assert min(cosines) > 0.99
    assert any(not np.array_equal(found[moment], expected[moment]) for moment in expected), "bytes were multiplied"


def vectors_by_moment(folder: Path, space: str) -> dict[tuple[str, float], np.ndarray]:
    names = {row["video_id"]: name for name, row in videos(folder, space).items()}
    rows = clips(folder, space, ["video_id", "start_s", "embedding"])
    return {(names[row["video_id"]], row["start_s"]): np.array(row["embedding"]) for row in rows}


def test_a_list_file_reports_what_it_cannot_find(own_pile: Path, settings_for, tmp_path: Path) -> None:
    listed = own_pile / "list.txt"
    listed.write_text("sub/up.mp4\nnot there.mp4\n# a note\n")
    report = index(listed, tmp_path / "archive", settings_for())
    assert (report.planned, report.indexed, report.failed) == (2, 1, 1)
    assert report.failures[0].error_kind == "unreadable"


def test_a_manifest_is_indexed_and_looked_at_again(own_pile: Path, settings_for, tmp_path: Path) -> None:
    manifest = own_pile / "all.csv"
    manifest.write_text("uri,licence\nsub/up.mp4,cc0\nbroken.mp4,cc0\nmissing.mp4,cc0\n")
    report = index(manifest, tmp_path / "archive", settings_for())
    assert (report.planned, report.indexed, report.failed) == (3, 1, 2)
    manifest.write_text("uri\nsub/up.mp4\nthree scenes.mp4\n")
    again = index(manifest, tmp_path / "archive", settings_for())
    assert (again.indexed, again.unchanged, again.gone) == (1, 1, 0)


def test_a_foreign_folder_is_not_taken_for_an_archive(pile: Path, settings_for, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(ArchiveError, match="is not an archive and not an empty folder"):
        index(pile, tmp_path, settings_for())
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]


def test_a_model_that_cannot_be_read_leaves_no_archive_behind(pile: Path, settings_for, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be read"):
        index(pile, tmp_path / "archive", settings_for(model=str(tmp_path / "bad.safetensors")))
    assert not (tmp_path / "archive").exists()


def test_the_run_is_written_down(indexed: tuple[Path, IndexReport]) -> None:
    folder, report = indexed
    started, finished = Archive.open(folder).runs()
    assert (started["state"], finished["state"]) == ("started", "finished")
    assert finished["report"] == {
        **asdict(report),
        "failures": [asdict(failure) for failure in report.failures],
        "notes": [],
        "encoders": list(report.encoders),
        "pools": list(report.pools),
        "decoders": list(report.decoders),
        "fallbacks": list(report.fallbacks),
        "explained": [],
    }
    assert finished["settings"]["space"]["sampling"]["window_s"] == 2
    assert {"python", "torch", "av", "ray"} <= finished["versions"].keys()


@pytest.mark.ray
def test_ray_and_the_plain_loop_make_the_same_archive(
    pile: Path, indexed: tuple[Path, IndexReport], settings_for, tmp_path: Path
) -> None:
    folder, local = indexed
    ray = index(pile, tmp_path / "archive", settings_for("ray"))
    counts = ("space", "planned", "indexed", "partial", "unchanged", "failed", "gone", "clips", "footage_s")
    assert [getattr(ray, name) for name in counts] == [getattr(local, name) for name in counts]
    assert sorted(map(str, ray.failures)) == sorted(map(str, local.failures))

    def rows_of(folder: Path) -> list[dict]:
        rows = videos(folder, local.space).values()
        return [{name: value for name, value in row.items() if name not in RUN_COLUMNS} for row in rows]

    assert rows_of(tmp_path / "archive") == rows_of(folder)
    by_ray = clips(tmp_path / "archive", local.space, [*CLIP_COLUMNS, "thumbnail", "embedding"])
    by_loop = clips(folder, local.space, [*CLIP_COLUMNS, "thumbnail", "embedding"])
    vectors = [np.array([row.pop("embedding") for row in rows]) for rows in (by_ray, by_loop)]
    assert by_ray == by_loop
    np.testing.assert_allclose(*vectors, atol=2**-11)  # one step of float16 just below 1
