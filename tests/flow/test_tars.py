"""Tars of videos, indexed where they lie: the same clips as of the unpacked files, and true after the tars change."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from jobs.web import media
from pipeline import contact_sheet, sources
from pipeline.archive import Archive
from pipeline.demux import read_packets
from pipeline.flows import index
from pipeline.reindexing import reindex
from pipeline.search import search
from pipeline.serving import open_space
from pipeline.settings import Policy
from pipeline.verify import verify
from schemas.errors import NotFound
from tests.footage import BROKEN, CLIPS, VIDEOS, film
from tests.stores import s3

COLUMNS = ["start_s", "end_s", "frame_times_s", "intact_samples", "embedding", "context", "thumbnail"]


def pack(folder: Path, tar: Path) -> Path:
    """All files of a folder as WebDataset has them, with what stands beside videos."""
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w") as made:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                made.add(file, file.relative_to(folder).as_posix())
    return tar


@pytest.fixture
def shard(own_pile: Path, tmp_path: Path) -> Path:
    """The pile in a tar."""
    (own_pile / "sub/up.json").write_text('{"caption": "up"}')
    return pack(own_pile, tmp_path / "shards/shard-000.tar")


def clips_by_name(folder: str | Path, space: str, root: str) -> dict[str, list[dict]]:
    """All that can be seen of each video, by its place below a folder or in a tar."""
    archive = Archive.open(folder)
    uris = archive.uris(space)
    found: dict[str, list[dict]] = {}
    for row in archive.visible_clips(space, ["video_id", *COLUMNS]).sort_by("start_s").to_pylist():
        found.setdefault(uris[row.pop("video_id")].removeprefix(f"{root}/"), []).append(row)
    return found


def test_members_are_indexed_as_the_files_they_were(
    shard: Path, pile: Path, indexed, settings_for, tmp_path: Path
) -> None:
    folder, whole = indexed
    planned = index(shard.parent, tmp_path / "archive", settings_for(), dry_run=True)
    report = index(shard.parent, tmp_path / "archive", settings_for())
    assert (planned.planned, planned.clips) == (report.planned, report.clips) == (len(VIDEOS) + len(BROKEN), CLIPS)
    assert {f.uri.removeprefix(f"{shard}/"): f.error for f in report.failures} == {
        f.uri.removeprefix(f"{pile}/"): f.error for f in whole.failures
    }
    mine = clips_by_name(tmp_path / "archive", report.space, str(shard))
    assert mine == clips_by_name(folder, whole.space, str(pile))
    assert verify(tmp_path / "archive", deep=True).problems == ()
    assert sorted(path.name for path in shard.parent.iterdir()) == [shard.name], "nothing was unpacked"


def test_a_tar_is_kept_true(shard: Path, own_pile: Path, settings_for, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "archive"
    space = index(shard, folder, settings_for()).space
    with monkeypatch.context() as unread:
        unread.setattr(sources, "fingerprint", lambda file: pytest.fail(f"{file.uri} was read"))
        again = index(shard, folder, settings_for())
    assert (again.planned, again.unchanged) == (0, len(VIDEOS) + len(BROKEN))

    film(own_pile / "sub/up.mp4", "down", "down", colour_seed=9)
    (own_pile / "left_then_right.mp4").unlink()
    film(own_pile / "new.mp4", "left")
    pack(own_pile, shard)
    os.utime(shard, (2e9, 2e9))
    report = reindex(folder, policy=Policy(yes=True))
    assert (report.indexed, report.gone) == (2, 1)
    rows = {Path(row["uri"]).name: row for row in Archive.open(folder).current_videos(space).to_pylist()}
    assert {name: (rows[name]["status"], rows[name]["revision"]) for name in rows.keys() - set(BROKEN)} == {
        "new.mp4": ("ok", 1),
        "up.mp4": ("ok", 2),
        "three scenes.mp4": ("ok", 1),
        "left_then_right.mp4": ("gone", 2),
    }
    assert verify(folder, deep=True).problems == ()


def test_a_tar_that_broke_retires_nothing(shard: Path, settings_for, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    space = index(shard.parent, folder, settings_for()).space
    shard.write_bytes(shard.read_bytes()[:700])
    film(shard.parent / "beside.mp4", "left")
    report = index(shard.parent, folder, settings_for())
    assert (report.indexed, report.gone) == (1, 0)
    assert any(str(shard) == failure.uri and "no sound tar" in failure.error for failure in report.failures)
    assert sum(map(len, clips_by_name(folder, space, str(shard)).values())) == CLIPS + 1


def test_hits_and_media_are_members(shard: Path, own_pile: Path, settings_for, tiny_weights: Path, tmp_path: Path):
    folder = tmp_path / "archive"
    index(shard, folder, settings_for())
    answer = search(open_space(folder, str(tiny_weights)), "a camera pans left", top=2)
    assert all(hit.uri.startswith(f"{shard}/") for hit in answer.hits)
    assert "shard-000.tar/" in contact_sheet.link(answer.hits[0])
    uri, data = f"{shard}/sub/up.mp4", (own_pile / "sub/up.mp4").read_bytes()
    assert len(read_packets(uri).index.time_n) == len(read_packets(str(own_pile / "sub/up.mp4")).index.time_n)
    for asked, status, expected in (
        (None, 200, data),
        ("bytes=0-9", 206, data[:10]),
        ("bytes=100-", 206, data[100:]),
        ("bytes=-7", 206, data[-7:]),
    ):
        response = media.response(uri, asked)
        assert (response.status_code, body(response)) == (status, expected)
        assert response.media_type == "video/mp4"
    assert media.response(uri, f"bytes={len(data)}-").status_code == 416
    with pytest.raises(NotFound, match="there is nothing at"):
        media.response(f"{shard}/none.mp4", None)
    shard.unlink()
    with pytest.raises(NotFound):
        media.response(uri, None)


def body(response) -> bytes:
    """What a streamed response sends."""
    import asyncio

    async def sent() -> bytes:
        return b"".join([chunk async for chunk in response.body_iterator])

    return asyncio.run(sent())


def test_tars_in_a_store_are_indexed_there(shard: Path, pile: Path, indexed, bucket: str, settings_for) -> None:
    folder, whole = indexed
    s3().put(str(shard), f"{bucket}/shards/{shard.name}")
    report = index(f"{bucket}/shards", f"{bucket}/archive", settings_for())
    assert report.clips == CLIPS
    mine = clips_by_name(f"{bucket}/archive", report.space, f"{bucket}/shards/{shard.name}")
    assert mine == clips_by_name(folder, whole.space, str(pile))
    again = index(f"{bucket}/shards", f"{bucket}/archive", settings_for())
    assert (again.planned, again.unchanged, again.gone) == (0, len(VIDEOS) + len(BROKEN), 0)
