"""Paths and URLs by one kind of path, and what is said when a store is not there or breaks off."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest
from pyarrow import fs

from pipeline import demux, sources, stores
from pipeline.settings import Sampling
from schemas.errors import InputError, MissingPlace, UnreadableFile
from schemas.records import Failed, HashedFile, SourceFile
from tests.stores import free_port, put, s3


@pytest.mark.parametrize(
    ("place", "is_one"),
    {
        "s3://bucket/key": True,
        "gs://b": True,
        "s3+x://b/k": True,
        "/s3://b": False,
        "videos/s3:/x": False,
        "C://videos": False,
        "file:///a%20b": False,
        "": False,
    }.items(),
)
def test_what_has_a_scheme_is_a_url(place: str, is_one) -> None:
    assert stores.is_url(place) is is_one


def test_a_path_of_this_machine_stays_a_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert stores.to_place("a/../b") == tmp_path / "b"
    assert type(stores.to_place("b")) is type(tmp_path)


@pytest.mark.parametrize("name", ["a b.mp4", "a#b?c.mp4", "a%20b.mp4", "ü.mp4", "x[1]*.mp4"])
def test_a_name_is_kept_as_it_is(name: str) -> None:
    assert str(stores.to_place(f"s3://bucket/{name}")) == f"s3://bucket/{name}"
    assert sources.to_uri(f"s3://bucket/videos/{name}/") == f"s3://bucket/videos/{name}"


def test_a_scheme_that_nobody_knows_says_which_are() -> None:
    with pytest.raises(InputError, match=r"foo://x has a scheme that is not known; expected s3://, gs://, az:// or"):
        stores.to_place("foo://x")


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(InputError, match=r"gs://x needs gcsfs, which is not installed; run: pip install gcsfs"):
        stores.to_place("gs://x")


def test_what_is_there_is_told_with_size_and_time(bucket: str) -> None:
    s3().pipe_file(f"{bucket}/videos/a b#1.mp4", b"12345")
    found = stores.look(f"{bucket}/videos/a b#1.mp4")
    assert found is not None
    assert (found.url, found.is_folder, found.size_bytes) == (f"{bucket}/videos/a b#1.mp4", False, 5)
    assert abs(found.mtime_s - time.time()) < 60
    assert stores.look(f"{bucket}/nothing") is None
    folder = stores.look(f"{bucket}/videos")
    assert folder is not None
    assert folder.is_folder


def test_a_listing_is_never_an_old_one(bucket: str) -> None:
    s3().pipe_file(f"{bucket}/videos/a.mp4", b"1")
    assert [entry.url for entry in stores.entries(f"{bucket}/videos")] == [f"{bucket}/videos/a.mp4"]
    s3().pipe_file(f"{bucket}/videos/b.mp4", b"1")
    assert len(list(stores.entries(f"{bucket}/videos"))) == 2


def test_an_inventory_of_a_store(bucket: str) -> None:
    for key in ("videos/a.mp4", "videos/sub/deep/b.MKV", "videos/notes.md", "videos/.hidden.mp4", "videos2/c.mp4"):
        s3().pipe_file(f"{bucket}/{key}", b"12")
    s3().touch(f"{bucket}/videos/sub/")  # as some tools make a folder
    expected = {f"{bucket}/videos/{name}" for name in ("a.mp4", "sub/deep/b.MKV", ".hidden.mp4")}
    found = list(sources.take_inventory(f"{bucket}/videos/"))
    assert all(isinstance(file, SourceFile) and file.size_bytes == 2 and file.mtime_s > 0 for file in found)
    assert {file.uri for file in found if isinstance(file, SourceFile)} == expected
    assert sources.take_inventory(f"{bucket}/videos/").folders == (f"{bucket}/videos",)


def test_globs_names_and_lists_of_a_store(bucket: str, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mkv"):
        s3().pipe_file(f"{bucket}/{name}", b"12")
    (tmp_path / "here.mp4").touch()
    (tmp_path / "list.txt").write_text(f"here.mp4\n# no\n{bucket}/c.mkv\n")
    s3().pipe_file(f"{bucket}/list.txt", b"a.mp4\n")
    assert sources.take_inventory(f"{bucket}/*.mp4").named == (f"{bucket}/a.mp4", f"{bucket}/b.mp4")
    assert sources.take_inventory(f"{bucket}/a.mp4").named == (f"{bucket}/a.mp4",)
    assert sources.take_inventory(tmp_path / "list.txt").named == (str(tmp_path / "here.mp4"), f"{bucket}/c.mkv")
    assert sources.take_inventory(f"{bucket}/list.txt").named == (f"{bucket}/a.mp4",)


def test_a_place_that_is_not_there_is_an_error(bucket: str) -> None:
    with pytest.raises(MissingPlace, match=f"there is nothing at {bucket}/none: expected a video file"):
        sources.take_inventory(f"{bucket}/none")
    with pytest.raises(MissingPlace, match="there is nothing at s3://no-such-bucket-here"):
        sources.take_inventory("s3://no-such-bucket-here")
    s3().pipe_file(f"{bucket}/videos/notes.md", b"1")
    with pytest.raises(MissingPlace, match=f"no video files under {bucket}/videos"):
        list(sources.take_inventory(f"{bucket}/videos"))


def test_a_named_object_that_vanished_is_a_problem(bucket: str) -> None:
    s3().pipe_file(f"{bucket}/a.mp4", b"1")
    inventory = sources.take_inventory(f"{bucket}/a.mp4")
    s3().rm(f"{bucket}/a.mp4")
    (problem,) = inventory
    assert isinstance(problem, Failed)
    assert (problem.kind, problem.error) == ("unreadable", "cannot be read: No such file or directory")


@pytest.fixture
def no_answer(bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a place in a store that has gone away."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3().clear_instance_cache()
    return f"{bucket}/videos"


def test_a_store_that_does_not_answer_is_no_empty_folder(no_answer: str) -> None:
    with pytest.raises(MissingPlace, match=f"{no_answer} cannot be looked at: the store does not answer"):
        sources.take_inventory(no_answer)
    (problem,) = sources.Inventory((no_answer,), (no_answer,), ())
    assert isinstance(problem, Failed), "and nothing below it counts as gone"
    assert not problem.permanent


def test_a_store_that_breaks_off_makes_an_unreadable_file(
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise RuntimeError("connection reset")

    s3().pipe_file(f"{bucket}/a.mp4", b"1")
    monkeypatch.setattr(type(stores.to_place(bucket)), "open", lambda *_: Broken())
    with pytest.raises(UnreadableFile, match=r"cannot be read: the store does not answer .connection reset"):
        sources.fingerprint(SourceFile(f"{bucket}/a.mp4", 1, 0.0))


def test_an_object_that_is_gone_when_it_is_decoded_says_so(bucket: str) -> None:
    gone = HashedFile(SourceFile(f"{bucket}/gone.mp4", 1, 0.0), "")
    with pytest.raises(UnreadableFile, match=r"^cannot be read: (?!None)"):
        demux.inspect(gone, Sampling())


def test_the_fingerprint_is_that_of_the_same_file_here(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(os.urandom(9 << 20))
    put(tmp_path, f"{bucket}/videos")
    here = sources.fingerprint(SourceFile(str(tmp_path / "a.mp4"), 0, 0.0))
    there = sources.fingerprint(SourceFile(f"{bucket}/videos/a.mp4", 0, 0.0))
    assert here.fingerprint == there.fingerprint


def test_folders_sizes_and_trees(bucket: str, tmp_path: Path) -> None:
    for name, content in {"a/x": b"1", "a/b/y": b"22", "c": b"333"}.items():
        file = tmp_path / "here" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    put(tmp_path / "here", f"{bucket}/here")
    for place in (tmp_path / "here", stores.to_place(f"{bucket}/here")):
        assert stores.sizes(place) == {"a/x": 1, "a/b/y": 2, "c": 3}
        assert stores.folders(place) == ["a"]
        stores.remove_tree(place / "a")
        assert stores.sizes(place) == {"c": 3}
        assert stores.sizes(place / "none") == {}
        stores.remove_tree(place / "none")
        with stores.local_copy(place / "c") as copy:
            assert copy.read_bytes() == b"333"


class Changing:
    """A file system whose folder is made by somebody else while it is listed, so often."""

    def __init__(self, times: int) -> None:
        self.times = times

    def get_file_info(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        self.times -= 1
        if self.times >= 0:
            raise FileNotFoundError(2, "Cannot list directory", selector.base_dir)
        return fs.LocalFileSystem().get_file_info(selector)


def test_a_folder_that_changes_while_it_is_listed_is_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    for times in (1, stores.LISTINGS - 1):
        changing = Changing(times)
        monkeypatch.setattr(stores, "arrow", lambda place, changing=changing: (changing, str(place)))
        assert stores.sizes(tmp_path) == {"a/x": 1}
    monkeypatch.setattr(stores, "arrow", lambda place: (Changing(stores.LISTINGS), str(place)))
    with pytest.raises(FileNotFoundError):
        stores.folders(tmp_path)
