"""Inventories: what a folder, a glob, a list file or a name stands for, and what is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import sources
from schemas.errors import InputError, UnreadableFile
from schemas.records import Failed, SourceFile


def touch(folder: Path, *names: str) -> list[Path]:
    """Files with their own names as content."""
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    return paths


def files_of(inventory: sources.Inventory) -> list[SourceFile]:
    return [each for each in inventory if isinstance(each, SourceFile)]


def problems_of(inventory: sources.Inventory) -> list[Failed]:
    return [each for each in inventory if isinstance(each, Failed)]


def found(inventory: sources.Inventory, folder: Path) -> list[str]:
    """In order, but for what is walked, which comes as the file system has it."""
    names = [str(Path(file.uri).relative_to(folder)) for file in files_of(inventory)]
    return sorted(names) if inventory.folders else names


def test_a_folder_is_walked_to_the_bottom_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a.MP4", "sub/deep/c.MkV", "sub/d.webm", "notes.txt", "no_extension", ".mp4", "x.mp4.part")
    inventory = sources.take_inventory(tmp_path)
    assert found(inventory, tmp_path) == ["a.MP4", "b.mp4", "sub/d.webm", "sub/deep/c.MkV"]
    assert problems_of(inventory) == []
    assert inventory.folders == (str(tmp_path),)


@pytest.mark.parametrize("extension", sorted(sources.EXTENSIONS))
def test_every_extension_is_found_in_either_case(extension: str, tmp_path: Path) -> None:
    touch(tmp_path, f"a{extension}", f"b{extension.upper()}")
    assert len(files_of(sources.take_inventory(tmp_path))) == 2


def test_size_and_time_are_those_of_the_file(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "film.mp4")
    os.utime(path, (1, 1234.5))
    assert files_of(sources.take_inventory(path)) == [SourceFile(str(path), len("film.mp4"), 1234.5)]


def test_a_file_that_is_named_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "recording.dat")
    inventory = sources.take_inventory(path)
    assert found(inventory, tmp_path) == ["recording.dat"]
    assert inventory.folders == (), "naming one file retires no other"


def test_a_relative_path_and_an_absolute_one_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "sub/film.mp4")
    monkeypatch.chdir(tmp_path)
    absolute = sources.take_inventory(tmp_path / "sub")
    for spelling in ("sub", "./sub/", "sub/../sub"):
        assert sources.take_inventory(spelling) == absolute


def test_a_glob_takes_the_files_it_matches_and_no_folders(tmp_path: Path) -> None:
    touch(tmp_path, "b1.mp4", "a1.mp4", "a2.mkv", "a_folder/c.mp4", "a_folder/sub/d.mp4")
    assert found(sources.take_inventory(f"{tmp_path}/a*"), tmp_path) == ["a1.mp4", "a2.mkv"]
    everywhere = sources.take_inventory(f"{tmp_path}/**/*.mp4")
    assert found(everywhere, tmp_path) == ["a1.mp4", "a_folder/c.mp4", "a_folder/sub/d.mp4", "b1.mp4"]
    assert everywhere.folders == ()


def test_a_name_with_glob_characters_is_a_name_first(tmp_path: Path) -> None:
    touch(tmp_path, "te[s]t*.mp4", "test.mp4")
    assert found(sources.take_inventory(tmp_path / "te[s]t*.mp4"), tmp_path) == ["te[s]t*.mp4"]


def test_a_list_file_names_a_path_a_line_relative_to_itself(tmp_path: Path) -> None:
    touch(tmp_path, "lists/near.mp4", "far/away film.mp4")
    listed = tmp_path / "lists" / "all.txt"
    listed.write_text(
        f"# what to index\n\n  near.mp4  \n../far/away film.mp4\n{tmp_path}/lists/near.mp4\nmissing.mp4\n"
    )
    inventory = sources.take_inventory(listed)
    assert found(inventory, tmp_path) == ["lists/near.mp4", "far/away film.mp4"]
    (problem,) = problems_of(inventory)
    assert problem.record.file.uri == str(tmp_path / "lists" / "missing.mp4")
    assert (problem.kind, problem.stage, problem.permanent) == ("unreadable", "scan", False)
    assert "No such file" in problem.error


def test_a_folder_in_a_list_file_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "folder/film.mp4")
    (tmp_path / "all.lst").write_text("folder\n")
    inventory = sources.take_inventory(tmp_path / "all.lst")
    assert files_of(inventory) == []
    assert [problem.error for problem in problems_of(inventory)] == ["cannot be read: not a regular file"]


@pytest.mark.parametrize("content", ["", "\n\n", "# only a note\n"])
def test_an_empty_list_file_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text(content)
    with pytest.raises(InputError, match="names no files; expected a path a line"):
        sources.take_inventory(tmp_path / "all.txt")


def test_a_list_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        sources.take_inventory(tmp_path / "all.txt")


def test_a_folder_without_videos_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "readme.md")
    with pytest.raises(InputError, match=r"no video files under .*; looked for .*\.mp4"):
        list(sources.take_inventory(tmp_path))


@pytest.mark.parametrize("name", ["missing", "missing.mp4", "missing/*.mp4", "missing.txt"])
def test_naming_nothing_is_an_error_that_says_what_is_expected(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a video file, a folder, a glob or a \.txt list file"):
        sources.take_inventory(tmp_path / name)


def test_a_folder_that_cannot_be_listed_is_a_problem_and_the_rest_is_found(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "locked/b.mp4")
    (tmp_path / "locked").chmod(0)
    try:
        if os.access(tmp_path / "locked", os.R_OK):
            pytest.skip("this user may read everything")
        inventory = list(sources.take_inventory(tmp_path))
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert [each.uri for each in inventory if isinstance(each, SourceFile)] == [str(tmp_path / "a.mp4")]
    assert [problem.error for problem in inventory if isinstance(problem, Failed)] == [
        "cannot be read: Permission denied"
    ]


def test_the_fingerprint_is_of_the_content_and_not_of_the_name(tmp_path: Path) -> None:
    first, second, third = touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    first.write_bytes(b"same")
    second.write_bytes(b"same")
    third.write_bytes(b"sane")
    os.utime(second, (5, 5))
    a, b, c = (sources.fingerprint(next(iter(sources.take_inventory(path)))) for path in (first, second, third))
    assert a.fingerprint == b.fingerprint != c.fingerprint
    assert len(a.fingerprint) == 32


def test_the_whole_file_is_read_and_not_only_its_first_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", 16)
    path = tmp_path / "long.mp4"
    seen = set()
    for place in (0, 15, 16, 40, 99):
        content = bytearray(100)
        content[place] = 1
        path.write_bytes(content)
        seen.add(sources.fingerprint(next(iter(sources.take_inventory(path)))).fingerprint)
    assert len(seen) == 5


def test_block_size_does_not_change_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(1000))
    (file,) = sources.take_inventory(path)
    whole = sources.fingerprint(file)
    monkeypatch.setattr(sources, "READ_BYTES", 7)
    assert sources.fingerprint_files([file]) == [whole]


def test_a_file_that_vanished_after_it_was_found_is_unreadable(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "film.mp4")
    (file,) = sources.take_inventory(path)
    path.unlink()
    with pytest.raises(UnreadableFile, match="cannot be read: No such file"):
        sources.fingerprint(file)


names = st.binary(min_size=1, max_size=40).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in {b".", b".."}
)


@given(name=names)
def test_every_file_name_goes_to_a_uri_and_back(name: bytes) -> None:
    path = Path(os.fsdecode(b"/videos/" + name))
    uri = sources.to_uri(path)
    uri.encode("utf-8")
    assert os.fsencode(sources.to_path(uri)) == b"/videos/" + name
