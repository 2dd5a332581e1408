"""Labelled videos from every kind of list, and the mistakes that lists have."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.labelled import Example, LabelledVideos, read_labelled
from schemas.errors import InputError

NAMES = ("a.mp4", "sub/two words.mp4", 'sub/comma, quote " and ünï.mkv')
LABELS = ("juggling", "tai chi, slowly", "juggling")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files; nobody looks into them."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def expected(folder: Path) -> LabelledVideos:
    pairs = zip(NAMES, LABELS, strict=True)
    return LabelledVideos(
        tuple(Example(folder / name, label) for name, label in pairs), ("juggling", "tai chi, slowly")
    )


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def write(file: Path, text: str, encoding: str = "utf-8") -> Path:
    file.write_text(text, encoding=encoding)
    return file


def table(separator: str = ",", head: tuple[str, str] = ("path", "label"), end: str = "\n") -> str:
    rows = [separator.join(map(quoted, pair)) for pair in zip(NAMES, LABELS, strict=True)]
    return end.join([separator.join(head), *rows, ""])


def test_a_csv_names_videos_relative_to_itself(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "list.csv", table())
    assert read_labelled(folder / "list.csv") == expected(folder)
    monkeypatch.chdir(folder / "sub")
    assert read_labelled(Path("../list.csv")) == expected(folder)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_from_a_spreadsheet_is_read(end: str, encoding: str, folder: Path) -> None:
    file = folder / "list.csv"
    file.write_bytes(table(head=(" Path", "LABEL "), end=end).encode(encoding))
    assert read_labelled(file) == expected(folder)


def test_a_tsv_needs_no_quotes_round_commas(folder: Path) -> None:
    rows = [f"{label}\t{name}\tignored" for name, label in zip(NAMES[:2], LABELS[:2], strict=True)]
    file = write(folder / "list.TSV", "\n".join(["label\tpath\tsplit", *rows]))
    assert read_labelled(file).examples == expected(folder).examples[:2]


def test_a_parquet_table_is_read(folder: Path) -> None:
    columns = {"label": pa.array(LABELS).dictionary_encode(), "n": [1, 2, 3], "path": pa.array(NAMES)}
    pq.write_table(pa.table(columns), folder / "list.parquet")
    assert read_labelled(folder / "list.parquet") == expected(folder)


def test_absolute_paths_are_taken_as_they_are(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = write(tmp_path_factory.mktemp("elsewhere") / "list.csv", f"path,label\n{folder / NAMES[1]},walking\n")
    assert read_labelled(file).examples == (Example(folder / NAMES[1], "walking"),)


def test_a_video_named_twice_with_one_label_is_one_example(folder: Path) -> None:
    file = write(folder / "list.csv", "path,label\na.mp4,x\n./sub/../a.mp4,x\n")
    assert read_labelled(file) == LabelledVideos((Example(folder / "a.mp4", "x"),), ("x",))


@pytest.mark.parametrize("given", ["labels.csv", "names.csv"])
def test_the_references_list_has_numbers_and_names_beside_it(given: str, folder: Path) -> None:
    names = write(folder / given, 'id,name\n0,juggling\n7,"tai chi, slowly"\n')
    file = write(
        folder / "train.txt", "".join(f"{name} {n}\n" for name, n in zip(NAMES, (0, 7, 0), strict=True)) + "\n"
    )
    assert read_labelled(file, None if given == "labels.csv" else names) == expected(folder)


def test_a_folder_has_a_sub_folder_per_class(folder: Path) -> None:
    (folder / "a.mp4").unlink()
    deep = folder / "tai chi" / "day 1"
    deep.mkdir(parents=True)
    for name in ("B.MOV", "a.webm", "notes.txt"):
        (deep / name).touch()
    (folder / "nothing here").mkdir()
    found = read_labelled(folder)
    assert found.labels == ("sub", "tai chi")
    assert [example.path.relative_to(folder).as_posix() for example in found.examples] == [
        NAMES[2], NAMES[1], "tai chi/day 1/B.MOV", "tai chi/day 1/a.webm"
    ]  # fmt: skip


def test_a_file_name_that_is_not_utf8_is_an_example(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    odd = tmp_path / "x" / os.fsdecode(b"caf\xe9.mp4")
    odd.touch()
    assert read_labelled(tmp_path).examples == (Example(odd, "x"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.mp4,x\n", "has no column path; its first row must name .*, and it names file, label"),
        ("a.mp4,x\n", "has no column path and no column label"),
        ("", "it names nothing"),
        ("path,label\n", "names no videos; expected a .csv"),
        ("path,label\na.mp4,x\na.mp4\n", "line 3: the label is empty"),
        ("path,label\na.mp4,  \n", "line 2: the label is empty"),
        ("path,label\n,x\n", "line 2: the path is empty"),
        ("path,label\nsub/comma, quote.mp4,x\n", "line 2: more fields than columns"),
        ('path,label\n"a.mp4,x\n', "cannot be read as a table"),
        ("path,label\na.mp4,x\na.mp4,y\n", "line 3: a.mp4 is labelled 'y' and before that 'x'"),
        (
            "path,label\na.mp4,x\nb.mp4,x\nc.mp4,x\n",
            "names 3 files, and 2 of them are not there: .*b.mp4, .*c.mp4. Rel",
        ),
        ("path,label\n" + "".join(f"{n}.mp4,x\n" for n in range(9)), r"9 of them .*0.mp4, .*1.mp4, .*2.mp4, \.\.\.\. "),
        ("path,label\nsub,x\n", "1 of them are not there"),
    ],
)
def test_mistakes_of_tables_are_named(text: str, message: str, folder: Path) -> None:
    file = write(folder / "list.csv", text)
    with pytest.raises(InputError, match=message) as raised:
        read_labelled(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
def test_bytes_that_are_no_utf8_are_a_mistake(name: str, folder: Path) -> None:
    write(folder / "labels.csv", "id,name\n0,x\n")
    write(folder / name, "path,label\nä.mp4,x\n", "latin-1")
    with pytest.raises(InputError, match="expected UTF-8"):
        read_labelled(folder / name)


def test_a_parquet_file_without_the_columns_or_of_another_kind_is_a_mistake(folder: Path) -> None:
    pq.write_table(pa.table({"path": ["a.mp4"], "class": ["x"]}), folder / "list.parquet")
    with pytest.raises(InputError, match="has no column label"):
        read_labelled(folder / "list.parquet")
    write(folder / "list.parquet", "path,label\n")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_labelled(folder / "list.parquet")
    pq.write_table(pa.table({"path": ["a.mp4"], "label": pa.array([None], pa.string())}), folder / "list.parquet")
    with pytest.raises(InputError, match="row 1: the label is empty"):
        read_labelled(folder / "list.parquet")


@pytest.mark.parametrize("name", ["list.csv", "list.parquet", "list.txt", "folder", "list.xlsx"])
def test_a_source_that_is_not_there_is_a_mistake(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"there is nothing at .*{name}; expected a .csv"):
        read_labelled(tmp_path / name)


def test_a_file_of_another_kind_is_a_mistake(folder: Path) -> None:
    with pytest.raises(InputError, match=r"a\.mp4 is no list of labelled videos; expected a \.csv"):
        read_labelled(folder / "a.mp4")


@pytest.mark.parametrize("line", ["a.mp4", "a.mp4 x", "a.mp4 2", "a.mp4 -1", "0", "a.mp4 ²"])
def test_lines_without_the_number_of_a_class_are_a_mistake(line: str, folder: Path) -> None:
    write(folder / "labels.csv", "id,name\n0,x\n1,y\n")
    file = write(folder / "list.txt", f"a.mp4 0\n{line}\n")
    with pytest.raises(InputError, match=r"line 2: .* does not end in the number of a class in .*labels.csv"):
        read_labelled(file)


def test_numbers_without_names_are_a_mistake(folder: Path) -> None:
    file = write(folder / "list.txt", "a.mp4 0\n")
    with pytest.raises(InputError, match=r"there is no .*labels.csv to name them; expected a table"):
        read_labelled(file)


@pytest.mark.parametrize("row", ["0,z", "2,x", "one,z", "2,"])
def test_class_names_are_numbers_and_names_each_once(row: str, folder: Path) -> None:
    write(folder / "labels.csv", f"id,name\n0,x\n{row}\n")
    with pytest.raises(InputError, match=r"labels.csv, line 3: expected a number and a name, each once"):
        read_labelled(write(folder / "list.txt", "a.mp4 0\n"))


def test_videos_beside_class_folders_are_a_mistake(folder: Path) -> None:
    with pytest.raises(InputError, match=r"holds 1 videos beside its sub-folders \(a.mp4\)"):
        read_labelled(folder)


def test_a_folder_without_videos_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    with pytest.raises(InputError, match="names no videos"):
        read_labelled(tmp_path)
