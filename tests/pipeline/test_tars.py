"""Tars as folders of videos: where members lie, and what hostile tars are told."""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline import sources, tars
from pipeline.tars import Member, Refused
from schemas.errors import InputError, MissingPlace
from schemas.records import Failed, SourceFile
from tests.stores import s3

CONTENT = {"a.mp4": b"film a" * 1000, "a.json": b"{}", "sub/b.mkv": b"film b", "c.txt": b"said of c", "c.webm": b""}
LONG = "folder/" * 40 + "long.mp4"


def pack(file: Path, content: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    """A tar of files by name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=form) as made:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return file


def odd(name: str, **fields: object) -> tarfile.TarInfo:
    """The header of something that is no plain file."""
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def refused(file: Path) -> list[Refused]:
    return [each for each in tars.members(file) if isinstance(each, Refused)]


def inventory(place: str | Path) -> tuple[list[SourceFile], list[Failed]]:
    found = list(sources.take_inventory(place))
    return [f for f in found if isinstance(f, SourceFile)], [f for f in found if isinstance(f, Failed)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_where_they_are_said_to_be(form: int, tmp_path: Path) -> None:
    content = CONTENT if form == tarfile.USTAR_FORMAT else {**CONTENT, LONG: b"deep"}
    file = pack(tmp_path / "shard.tar", content, form)
    data = file.read_bytes()
    found = list(tars.members(file))
    assert {each.name: data[each.offset : each.offset + each.size_bytes] for each in found} == content


def test_a_tar_is_a_folder_of_its_videos(tmp_path: Path) -> None:
    file = pack(tmp_path / "pile/shard.tar", {f"./{name}": data for name, data in CONTENT.items()})
    os.utime(file, (1, 77.0))
    (tmp_path / "pile/plain.mp4").write_bytes(b"plain")
    expected = {f"{file}/{name}": len(CONTENT[name]) for name in ("a.mp4", "sub/b.mkv", "c.webm")}
    for place in (file, str(file)):
        found, problems = inventory(place)
        assert ({each.uri: each.size_bytes for each in found}, problems) == (expected, [])
        assert {each.mtime_s for each in found} == {77.0}
        assert sources.take_inventory(place).folders == (str(file),), "what is there no longer is gone"
    walked, _ = inventory(tmp_path / "pile")
    assert {each.uri for each in walked} == {*expected, str(tmp_path / "pile/plain.mp4")}
    assert sources.now_at(f"{file}/a.mp4") == SourceFile(f"{file}/a.mp4", len(CONTENT["a.mp4"]), 77.0)


def test_a_member_is_read_as_a_file_of_its_own(tmp_path: Path) -> None:
    data = bytes(range(256)) * 300
    file = pack(tmp_path / "shard.tar", {"before.mp4": b"x" * 700, "film.mp4": data, "after.mp4": b"y" * 700})
    with sources.opened(f"{file}/film.mp4") as stream:
        assert stream.read() == data
        assert stream.read(1) == b""
        assert stream.seek(-3, os.SEEK_END) == len(data) - 3
        assert (stream.read(100), stream.tell()) == (data[-3:], len(data))
        assert stream.seek(1000) == 1000
        assert stream.seek(5, os.SEEK_CUR) == 1005
        assert stream.read(7) == data[1005:1012]
        assert stream.seek(-1) < 0
        assert stream.tell() == 1012
        assert stream.seek(len(data) + 50) == len(data) + 50
        assert stream.read(10) == b"", "what lies behind is another's"


def test_a_folder_that_is_called_like_a_tar_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "odd.tar").mkdir()
    (tmp_path / "odd.tar/film.mp4").write_bytes(b"film")
    for place in (tmp_path, tmp_path / "odd.tar"):
        assert [each.uri for each in inventory(place)[0]] == [str(tmp_path / "odd.tar/film.mp4")]
    assert sources.is_file(str(tmp_path / "odd.tar/film.mp4"))
    assert tars.inside(tmp_path / "odd.tar/film.mp4") is None


def test_of_two_members_of_one_name_the_later_counts(tmp_path: Path) -> None:
    file = pack(tmp_path / "shard.tar", {"a.mp4": b"old"})
    with tarfile.open(file, "a") as more:
        more.addfile(odd("a.mp4", size=5), io.BytesIO(b"newer"))
    found, _ = inventory(file)
    assert [(each.uri, each.size_bytes) for each in found] == [(f"{file}/a.mp4", 5)]
    with sources.opened(f"{file}/a.mp4") as stream:
        assert stream.read() == b"newer"


def test_a_tar_that_changed_is_looked_at_again(tmp_path: Path) -> None:
    file = pack(tmp_path / "shard.tar", {"a.mp4": b"first"})
    assert tars.find(file, "a.mp4").size_bytes == 5
    pack(file, {"b.mp4": b"before", "a.mp4": b"second!"})
    with sources.opened(f"{file}/a.mp4") as stream:
        assert stream.read() == b"second!"
    with pytest.raises(FileNotFoundError, match="no such member"):
        tars.find(file, "c.mp4")


@pytest.mark.parametrize("name", ["../up.mp4", "/etc/abs.mp4", "a/../../b.mp4", "a//b.mp4", "a/./b.mp4", "."])
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    file = pack(tmp_path / "shard.tar", {name: b"film", "good.mp4": b"good"})
    ((said,), (good,)) = refused(file), [each for each in tars.members(file) if isinstance(each, Member)]
    assert (said.why, good.name) == ("has a name that leads elsewhere", "good.mp4")


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (odd("x.mp4", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link, and no file"),
        (odd("x.mp4", type=tarfile.LNKTYPE, linkname="good.mp4"), "is a link, and no file"),
        (odd("x.mp4", type=tarfile.FIFOTYPE), "is no regular file"),
        (odd("x.mp4", type=tarfile.CHRTYPE), "is no regular file"),
    ],
)
def test_what_is_no_file_is_a_failure_and_stops_nothing(info: tarfile.TarInfo, why: str, tmp_path: Path) -> None:
    file = pack(tmp_path / "shard.tar", {"good.mp4": b"good"})
    with tarfile.open(file, "a") as more:
        more.addfile(info)
        more.addfile(odd("last.mp4"))
    found, (problem,) = inventory(file)
    assert {each.uri for each in found} == {f"{file}/good.mp4", f"{file}/last.mp4"}
    assert (problem.record.file.uri, problem.error) == (f"{file}/x.mp4", f"the member {why}")
    assert (problem.kind, problem.permanent) == ("not_a_video", True)


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    header = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x.mp4", "GNU.sparse.realsize": "9"}
    data = b"1\n0\n9\n".ljust(512, b"\0") + b"123456789"
    file = tmp_path / "shard.tar"
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as made:
        made.addfile(odd("GNUSparseFile.0/x.mp4", size=len(data), pax_headers=header), io.BytesIO(data))
        made.addfile(odd("good.mp4"))
    _, (problem,) = inventory(file)
    assert "has holes" in problem.error


def test_a_tar_that_is_cut_off_has_what_is_before(tmp_path: Path) -> None:
    file = pack(tmp_path / "shard.tar", {"a.mp4": b"a" * 5000, "b.mp4": b"b" * 5000})
    file.write_bytes(file.read_bytes()[:8000])
    found, problems = inventory(file)
    assert [each.uri for each in found] == [f"{file}/a.mp4"]
    assert {problem.record.file.uri: problem.error for problem in problems} == {
        f"{file}/b.mp4": "the member is cut off: the tar ends before it does",
        str(file): "the tar is no sound tar: unexpected end of data",
    }


GZIP = gzip.compress(b"x" * 2000, mtime=0)  # not of this second: processes that share tests must name them alike


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GZIP, r"is compressed \(gzip\), so that its members cannot be read where they lie"),
        (b"BZh9" + b"x" * 2000, r"is compressed \(bzip2\)"),
        (b"", "is no sound tar: empty file"),
        (b"this is no tar" * 200, "is no sound tar"),
        (os.urandom(5000), "is no sound tar"),
    ],
)
def test_what_is_no_tar_is_a_failure_with_a_reason(data: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "shard.tar").write_bytes(data)
    (tmp_path / "film.mp4").write_bytes(b"film")
    found, (problem,) = inventory(tmp_path)
    assert [each.uri for each in found] == [str(tmp_path / "film.mp4")]
    assert problem.record.file.uri == str(tmp_path / "shard.tar")
    assert re.search(why, problem.error)


def header_of(info: tarfile.TarInfo) -> bytearray:
    return bytearray(info.tobuf(tarfile.GNU_FORMAT))


def signed(header: bytearray) -> bytes:
    """A header whose checksum is right, whatever was done to it."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_a_header_that_leads_back_ends_it(tmp_path: Path) -> None:
    header = header_of(odd("x.mp4", size=512))
    header[124:136] = (-1024).to_bytes(12, "big", signed=True)
    (tmp_path / "shard.tar").write_bytes(signed(header) + bytes(5000))
    assert len(list(tars.members(tmp_path / "shard.tar"))) < 3


def test_a_header_that_says_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        file = tmp_path / "shard.tar"
        with file.open("wb") as made:
            made.write(signed(header_of(odd("x.mp4", type=kind, size=8 << 30))))
            made.truncate(9 << 30)  # holes: nothing is on the disk
        (said,) = tars.members(file)
        assert isinstance(said, Refused)
        assert "a header of" in said.why


def test_a_chain_of_long_names_is_no_crash(tmp_path: Path) -> None:
    one = signed(header_of(odd("././@LongLink", type=tarfile.GNUTYPE_LONGNAME, size=2))) + b"a\0".ljust(512, b"\0")
    (tmp_path / "shard.tar").write_bytes(one * 3000 + bytes(1024))
    assert all(isinstance(each, Refused) for each in tars.members(tmp_path / "shard.tar"))


def test_a_tar_without_videos_is_no_place(tmp_path: Path) -> None:
    file = pack(tmp_path / "shard.tar", {"a.json": b"{}"})
    with pytest.raises(MissingPlace, match="no video files under"):
        list(sources.take_inventory(file))
    with pytest.raises(InputError, match="there is nothing at"):
        sources.take_inventory(tmp_path / "other.tar")


def test_tars_in_a_store_are_the_same(bucket: str, tmp_path: Path) -> None:
    file = pack(tmp_path / "shard.tar", CONTENT)
    s3().put(str(file), f"{bucket}/pile/shard.tar")
    for place in (f"{bucket}/pile", f"{bucket}/pile/shard.tar"):
        found, problems = inventory(place)
        assert problems == []
        assert {each.uri: each.size_bytes for each in found} == {
            f"{bucket}/pile/shard.tar/{name}": len(CONTENT[name]) for name in ("a.mp4", "sub/b.mkv", "c.webm")
        }
    uri = f"{bucket}/pile/shard.tar/a.mp4"
    assert sources.now_at(uri) == next(each for each in found if each.uri == uri)
    with sources.opened(uri) as stream:
        assert stream.read() == CONTENT["a.mp4"]
