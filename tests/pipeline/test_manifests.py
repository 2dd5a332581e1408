"""Manifests: tables that name videos, with the number of the line in every complaint."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import manifests, sources
from schemas.errors import InputError
from schemas.records import SourceFile
from tests.stores import s3

NAMES = ["near.mp4", "sub/with, comma.mp4", "sub/größe.mp4"]
SPELLED = ("csv", "tsv", "jsonl", "ndjson", "parquet")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Files by the names."""
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


def write(file: Path, names: list, column: str = "uri") -> Path:
    """A manifest of the kind that its ending says, with a column that nobody asked for."""
    kind = file.suffix[1:]
    if kind == "parquet":
        pq.write_table(pa.table({"licence": ["cc0"] * len(names), column: names}), file)
    elif kind in {"jsonl", "ndjson"}:
        file.write_text("".join(json.dumps({"licence": "cc0", column: name}) + "\n" for name in names))
    else:
        tab = {"csv": ",", "tsv": "\t"}[kind]
        quoted = ['"{}"'.format(str(name).replace('"', '""')) for name in names]
        file.write_text(f"licence{tab}{column}\n" + "".join(f"cc0{tab}{name}\n" for name in quoted))
    return file


def found(place: Path) -> list[str]:
    return [each.uri for each in sources.take_inventory(place) if isinstance(each, SourceFile)]


@pytest.mark.parametrize("kind", SPELLED)
@pytest.mark.parametrize("column", ["uri", "path"])
def test_a_manifest_names_files_relative_to_itself(kind: str, column: str, videos: Path) -> None:
    manifest = write(videos / f"all.{kind}", [*NAMES[:2], str(videos / NAMES[2]), NAMES[0]], column)
    assert found(manifest) == [str(videos / name) for name in NAMES]
    inventory = sources.take_inventory(manifest)
    assert (inventory.places, inventory.folders) == ((str(manifest),), ())


def test_uri_goes_before_path(videos: Path) -> None:
    (videos / "all.csv").write_text(f"path,uri\nelsewhere.mp4,{NAMES[0]}\n")
    assert found(videos / "all.csv") == [str(videos / NAMES[0])]


def test_file_urls_marks_and_odd_line_ends(videos: Path) -> None:
    uri = (videos / NAMES[2]).as_uri()
    (videos / "all.csv").write_bytes(b"\xef\xbb\xbfuri\r\nnear.mp4\r\n\r\n" + uri.encode() + b"\r\n")
    assert found(videos / "all.csv") == [str(videos / NAMES[0]), str(videos / NAMES[2])]


def test_lines_are_whole_wherever_blocks_of_reading_end(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write(videos / "all.csv", NAMES * 3)
    manifest.write_bytes(manifest.read_bytes().replace(b"\n", b"\r\n"))
    expected = list(manifests.names(manifest))
    assert expected == NAMES * 3
    for size in range(1, 40):
        monkeypatch.setattr(manifests, "READ_BYTES", size)
        assert list(manifests.names(manifest)) == expected


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", b"name,size\nx.mp4,1\n", r"a\.csv has in line 1 only name, size; expected a column 'uri' or 'path'"),
        ("a.csv", b"", r"in line 1 only nothing"),
        ("a.csv", b"uri,size\na.mp4,1\n,2\n", r"in line 3 no name of a file, but ''"),
        ("a.csv", b"size,uri\n1,a.mp4\n\n2\n", r"in line 4 no name of a file, but None"),
        ("a.csv", b'uri\n"a\nb.mp4"\n"c" d\n', r"in line 4 no CSV"),
        ("a.csv", b"uri\na.mp4\n\xff\xfe.mp4\n", r"in line 3 no UTF-8 text"),
        ("a.csv", b"uri\n", r"names no files; expected a column"),
        ("a.jsonl", b'{"uri": "a.mp4"}\n\n{"uri": \n', r"in line 3 no JSON \("),
        ("a.jsonl", b'["a.mp4"]\n', r"in line 1 no JSON object"),
        ("a.jsonl", b'{"uri": "a.mp4"}\n{"url": "b.mp4"}\n', r"in line 2 only url"),
        ("a.jsonl", b'{"uri": 7}\n', r"in line 1 no name of a file, but 7"),
        ("a.parquet", b"uri\na.mp4\n", r"a\.parquet is no Parquet file"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=match):
        sources.take_inventory(tmp_path / name)


def test_a_parquet_row_without_a_name_is_told_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in line 3 no name of a file, but None"):
        sources.take_inventory(write(tmp_path / "a.parquet", ["a.mp4", "b.mp4", None]))
    pq.write_table(pa.table({"name": ["a.mp4"]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="in line 1 only name"):
        sources.take_inventory(tmp_path / "b.parquet")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_manifest_in_a_store_names_what_lies_beside_it(kind: str, bucket: str, tmp_path: Path) -> None:
    s3().pipe(f"{bucket}/lists/near.mp4", b"near")
    s3().pipe(f"{bucket}/far.mp4", b"far")
    manifest = write(tmp_path / f"all.{kind}", ["near.mp4", f"{bucket}/far.mp4"])
    s3().put(str(manifest), f"{bucket}/lists/all.{kind}")
    inventory = sources.take_inventory(f"{bucket}/lists/all.{kind}")
    assert [each.uri for each in inventory] == [f"{bucket}/lists/near.mp4", f"{bucket}/far.mp4"]
