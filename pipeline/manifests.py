"""Tables that name videos, one a row: CSV, TSV, JSON lines and Parquet, here or in a store.

The column `uri` names the file, or `path` where there is no `uri`; other columns are passed over. Rows are read one by
one (Parquet: a batch at a time), and what is wrong with one is an error that says in which line it is: a table of a
million rows with a mistake is a mistake, and no pile with some videos less.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from pipeline import stores
from pipeline.stores import AnyPath
from schemas.errors import InputError, first_line

COLUMNS = ("uri", "path")
READ_BYTES = 1 << 20
EXPECTED = f"expected a column {COLUMNS[0]!r} or {COLUMNS[1]!r} with the path or URL of a video"


def is_manifest(file: AnyPath) -> bool:
    """Whether a file is one, by its ending."""
    return file.suffix.lower() in READERS


def names(file: AnyPath) -> Iterator[str]:
    """The paths and URLs in a manifest, as they stand there.

    Raises InputError, with the number of the line or row, for what is no such table or a row without a name; OSError
    where it cannot be read.
    """
    yield from READERS[file.suffix.lower()](file)


def _in_csv(file: AnyPath, delimiter: str = ",") -> Iterator[str]:
    """Of a table with a header."""
    with stores.open_binary(file) as stream:
        rows = csv.reader(_lines(file, stream), delimiter=delimiter, strict=True)
        try:
            header = next(rows, [])
            column = header.index(_column(file, 1, header))
            for row in filter(None, rows):  # an empty line is no row
                yield _named(file, rows.line_num, row[column] if column < len(row) else None)
        except csv.Error as error:
            raise _wrong(file, rows.line_num, f"no CSV ({first_line(error)})") from error


def _in_tsv(file: AnyPath) -> Iterator[str]:
    """Of the same with tabs."""
    yield from _in_csv(file, "\t")


def _in_json_lines(file: AnyPath) -> Iterator[str]:
    """Of an object a line."""
    with stores.open_binary(file) as stream:
        for number, line in enumerate(_lines(file, stream), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise _wrong(file, number, f"no JSON ({first_line(error)})") from error
            if not isinstance(row, dict):
                raise _wrong(file, number, "no JSON object")
            yield _named(file, number, row[_column(file, number, row)])


def _in_parquet(file: AnyPath) -> Iterator[str]:
    """Of a Parquet file, whose rows are counted from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    system, path = stores.arrow(file)
    try:
        with pq.ParquetFile(path, filesystem=system) as table:
            column = _column(file, 1, table.schema_arrow.names)
            batches = table.iter_batches(columns=[column])
            values = (value for batch in batches for value in batch[column].to_pylist())
            for number, value in enumerate(values, start=1):
                yield _named(file, number, value)
    except pa.ArrowInvalid as error:
        raise InputError(f"the manifest {file} is no Parquet file ({first_line(error)})") from error


READERS: dict[str, Callable[[AnyPath], Iterator[str]]] = {
    ".csv": _in_csv,
    ".tsv": _in_tsv,
    ".jsonl": _in_json_lines,
    ".ndjson": _in_json_lines,
    ".parquet": _in_parquet,
}


def _lines(file: AnyPath, stream: IO[bytes]) -> Iterator[str]:
    """The lines of a text, with their ends."""
    number, rest = 0, b""
    while block := stream.read(READ_BYTES):
        *whole, rest = (rest + block).splitlines(keepends=True)
        for raw in whole:
            number += 1
            yield _text(file, number, raw)
        # A line that is whole, unless what comes next is the other half of its end.
        if rest.endswith(b"\n"):
            number += 1
            yield _text(file, number, rest)
            rest = b""
    if rest:
        yield _text(file, number + 1, rest)


def _text(file: AnyPath, number: int, raw: bytes) -> str:
    """A line as text; a mark that says which order bytes have may stand before the first."""
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise _wrong(file, number, "no UTF-8 text") from error


def _column(file: AnyPath, number: int, given: Iterable[str]) -> str:
    """The column that names videos."""
    known = list(given)
    found = next((name for name in COLUMNS if name in known), None)
    if found is None:
        raise _wrong(file, number, f"only {', '.join(map(str, known)) or 'nothing'}")
    return found


def _named(file: AnyPath, number: int, value: Any) -> str:
    """The name in a row."""
    if not isinstance(value, str) or not value.strip():
        raise _wrong(file, number, f"no name of a file, but {value!r}")
    return value.strip()


def _wrong(file: AnyPath, number: int, what: str) -> InputError:
    """What is wrong with a line."""
    return InputError(f"the manifest {file} has in line {number} {what}; {EXPECTED}")
