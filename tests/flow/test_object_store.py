"""Videos and archive in an S3 store: the same archive as on a disk, true after changes, kills and rivals."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipeline import deadletter, export, flows, lease, reindexing
from pipeline.archive import Archive
from pipeline.compact import CompactSettings, compact
from pipeline.flows import index
from pipeline.rollback import rollback
from pipeline.search import search
from pipeline.serving import open_space
from pipeline.verify import verify
from schemas.errors import ArchiveBusy, ArchiveError, LeaseLost, RefusedToRetire
from schemas.records import VideoRow
from tests.footage import BROKEN, CLIPS, VIDEOS, film
from tests.stores import free_port, keys, put, s3

ROOT = Path(__file__).parents[2]
COLUMNS = ["start_s", "end_s", "frame_times_s", "intact_samples", "embedding", "context", "thumbnail"]


@pytest.fixture
def there(bucket: str, pile: Path) -> tuple[str, str]:
    """The pile in a store, and the URL of an archive to be."""
    return put(pile, f"{bucket}/videos"), f"{bucket}/archive"


def rows_by_name(folder: str | Path, space: str) -> dict[str, list[dict]]:
    """All that can be seen of each video, but its ids, which are of its place."""
    archive = Archive.open(folder)
    names = {video_id: Path(uri).name for video_id, uri in archive.uris(space).items()}
    found: dict[str, list[dict]] = {}
    for row in archive.visible_clips(space, ["video_id", *COLUMNS]).sort_by("start_s").to_pylist():
        found.setdefault(names[row.pop("video_id")], []).append(row)
    return found


def test_the_archive_is_the_same_as_on_a_disk(there: tuple[str, str], indexed, settings_for) -> None:
    videos, url = there
    folder, here = indexed
    report = index(videos, url, settings_for())
    assert (report.planned, report.indexed, report.failed) == (here.planned, here.indexed, here.failed)
    assert {f.uri.rpartition("/")[2]: (f.error_kind, f.error) for f in report.failures} == {
        f.uri.rpartition("/")[2]: (f.error_kind, f.error) for f in here.failures
    }
    assert report.space == here.space
    assert rows_by_name(url, report.space) == rows_by_name(folder, here.space)
    assert verify(url, deep=True).problems == ()


def test_a_second_run_finds_everything_unchanged_and_writes_no_clips(there: tuple[str, str], settings_for) -> None:
    videos, url = there
    index(videos, url, settings_for())
    before = Archive.open(url).version("clips")
    again = reindexing.reindex(url)
    assert (again.planned, again.unchanged) == (0, len(VIDEOS) + len(BROKEN))
    assert Archive.open(url).version("clips") == before


def test_changed_new_moved_and_gone_objects(there: tuple[str, str], settings_for, tmp_path: Path) -> None:
    videos, url = there
    first = index(videos, url, settings_for())
    s3().mv(f"{videos}/sub/up.mp4", f"{videos}/elsewhere/moved.mp4")
    s3().rm(f"{videos}/three scenes.mp4")
    film(tmp_path / "new.mp4", "shrinking", colour_seed=7)
    film(tmp_path / "left_then_right.mp4", "right", "left", "up", colour_seed=9)
    put(tmp_path, videos)
    report = index(videos, url, settings_for(), policy=flows.Policy(yes=True))
    assert (report.moved, report.gone, report.indexed, report.unchanged) == (1, 1, 2, len(BROKEN))
    shown = rows_by_name(url, first.space)
    assert {name: len(clips) for name, clips in shown.items()} == {
        "moved.mp4": 1,
        "new.mp4": 1,
        "left_then_right.mp4": 3,
    }
    assert verify(url).problems == ()


def test_a_store_that_is_away_retires_nothing(
    there: tuple[str, str],
    settings_for,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    videos, _ = there
    folder = tmp_path / "archive"
    first = index(videos, folder, settings_for())
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        away.setenv("AWS_MAX_ATTEMPTS", "1")
        s3().clear_instance_cache()
        with pytest.raises(RefusedToRetire, match=f"{videos} cannot be looked at: the store does not answer"):
            index(videos, folder, settings_for())
    s3().clear_instance_cache()
    assert sum(map(len, rows_by_name(folder, first.space).values())) == CLIPS


def test_the_whole_life_of_an_archive(there: tuple[str, str], settings_for, tiny_weights: Path, tmp_path: Path) -> None:
    videos, url = there
    report = index(videos, url, settings_for())
    run_id = Archive.open(url).runs()[-1]["run_id"]
    opened = open_space(url, str(tiny_weights))
    answer = search(opened, "a camera pans left", top=3)
    assert [hit.uri.startswith(f"{videos}/") for hit in answer.hits] == [True] * 3
    assert verify(url).problems == ()
    assert len(deadletter.failures(url)) == len(BROKEN)
    assert len(deadletter.retry(url)) == len(BROKEN)
    film(tmp_path / "new.mp4", "left")
    put(tmp_path, videos)
    index(videos, url, settings_for())
    last = Archive.open(url).runs()[-1]["run_id"]
    assert last != run_id
    rollback(url, last)
    before = rows_by_name(url, report.space)
    assert "new.mp4" not in before
    compact(url, CompactSettings(retention_days=0))
    assert rows_by_name(url, report.space) == before
    assert verify(url, deep=True).problems == ()
    export.export(url, tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").stat().st_size > 0
    assert not [key for key in keys(url) if "_scratch" in key]


def test_another_thing_in_the_place_is_left_alone(there: tuple[str, str], settings_for) -> None:
    videos, _ = there
    with pytest.raises(ArchiveError, match=f"{videos} is not an archive and not an empty folder"):
        index(videos, videos, settings_for())
    with pytest.raises(ArchiveError, match=f"there is no archive at {videos}"):
        Archive.open(videos)


def test_a_playlist_dressed_as_a_video_opens_nothing_else(bucket: str, pile: Path, settings_for) -> None:
    real = put(pile, f"{bucket}/videos")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{real}/sub/up.mp4\n#EXT-X-ENDLIST\n"
    s3().pipe_file(f"{bucket}/dressed/list.mp4", playlist.encode())
    s3().pipe_file(f"{bucket}/dressed/concat.mp4", f"ffconcat version 1.0\nfile '{pile}/sub/up.mp4'\n".encode())
    report = index(f"{bucket}/dressed", f"{bucket}/archive", settings_for())
    assert [failure.error_kind for failure in report.failures] == ["not_a_video"] * 2


# --- rivals and kills


def test_an_index_that_is_cut_short_is_built_again(there: tuple[str, str], settings_for, tiny_weights: Path) -> None:
    videos, url = there
    report = index(videos, url, settings_for())
    expected = search(open_space(url, str(tiny_weights)), "left", top=3).hits
    (file,) = (key for key in keys(f"{url}/indexes") if key.endswith(".faiss"))
    s3().pipe_file(file, s3().cat_file(file)[:100])
    (problem,) = verify(url).problems
    assert (problem.kind, problem.subject) == ("index", report.space)
    assert search(open_space(url, str(tiny_weights)), "left", top=3).hits == expected
    assert verify(url).problems == ()


def race(url: str, results) -> None:
    """Tries for the lease once."""
    try:
        lease.acquire(url, f"run {os.getpid()}", wait_s=0.0, watch=lambda _: None)
    except ArchiveBusy:
        results.put("busy")
    else:
        results.put("held")
        time.sleep(3)  # alive until all have tried


def test_of_many_that_try_at_once_one_holds_the_lease(bucket: str) -> None:
    lease.acquire(f"{bucket}/a", "before", wait_s=0.0, watch=lambda _: None).release()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    rivals = [context.Process(target=race, args=(f"{bucket}/a", results)) for _ in range(4)]
    for rival in rivals:
        rival.start()
    found = sorted(results.get(timeout=120) for _ in rivals)
    for rival in rivals:
        rival.join(60)
    assert found == ["busy"] * 3 + ["held"]


def test_who_slept_through_the_expiry_can_write_no_clips(there: tuple[str, str], settings_for) -> None:
    videos, url = there
    space = index(videos, url, settings_for()).space
    first = lease.acquire(url, "first", wait_s=0.0, watch=lambda _: None)
    asleep = Archive(url, first.term)
    first.release()
    second = Archive(url, lease.acquire(url, "second", wait_s=0.0, watch=lambda _: None).term)
    second.fence()
    with pytest.raises(LeaseLost, match="another run has taken over the archive"):
        asleep.fence()
    rows: list[VideoRow] = list(second.known_videos(space).values())
    second.commit_videos(rows)
    with pytest.raises(LeaseLost, match="another run has taken over the archive"):
        asleep.commit_videos(rows)


KILLED = """
import sys
from pipeline import flows, indexing
from pipeline.settings import IndexSettings
indexing.COMMIT_EVERY_S = 0.01
flows.index(sys.argv[1], sys.argv[2], IndexSettings(model=sys.argv[3], window_s=2, engine="local"))
"""


def test_a_run_killed_after_its_first_commit_is_completed(
    there: tuple[str, str], settings_for, tiny_weights: Path
) -> None:
    videos, url = there
    run = subprocess.Popen([sys.executable, "-c", KILLED, videos, url, str(tiny_weights)], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not (DeltaTable.is_deltatable(f"{url}/clips", {"allow_http": "true"}) and Archive(url).version("clips")):
        assert run.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    report = index(videos, url, settings_for())
    shown = rows_by_name(url, report.space)
    assert {name: [row["start_s"] for row in clips] for name, clips in shown.items()} == {
        "left_then_right.mp4": [0, 2],
        "up.mp4": [0],
        "three scenes.mp4": [0, 2, 4],
    }
    compact(url, CompactSettings(retention_days=0))
    assert verify(url, deep=True).problems == ()


@pytest.mark.ray
def test_a_command_on_ray_from_store_to_store(there: tuple[str, str], tiny_weights: Path, tmp_path: Path) -> None:
    videos, url = there
    shutil.copy(tiny_weights, tmp_path / "weights.safetensors")
    command = ["index", videos, url, "--model", str(tmp_path / "weights.safetensors"), "--window", "2", "--json"]
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", *command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert (ended.returncode, ended.stderr) == (3, ""), "some files failed"
    assert Archive.open(url).runs()[-1]["report"]["indexed"] == len(VIDEOS)
    assert verify(url).problems == ()
