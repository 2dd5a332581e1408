"""`--where`: which clips may be found, as an SQL condition on columns. The only place that knows DuckDB.

DuckDB's own parser reads the condition, and every node of what it makes of it is looked at: columns that there are,
constants, operators, and functions of a list. There is nothing in them that reads files, other tables or settings, and
the database that evaluates them may not either.

A condition is held against a video, a clip of it, and one tag of that clip at a time, and a clip passes if it holds for
some tag. So all that is said of tags is said of one and the same: `label = 'dog' and probability > 0.5` is a tag `dog`
that is sure, and `label <> 'dog'` some tag that is another. A clip without tags has one in which all is NULL.

Of a clip that was tagged again only the newest tags are there, by the rule of `tag_rows`. That no label fits is not a
label: rows of `label_sets.NONE` are there for a condition that has its name in it, and for no other.
"""

# N clips or videos, R tags

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import keys, tag_rows
from pipeline.archive import Archive
from pipeline.current import SHOWN
from pipeline.keys import Keys, Numbers
from pipeline.label_sets import NONE
from schemas import tables
from schemas.errors import InputError, first_line

# No two tables have a column of one name: what a name alone means never depends on where it stands.
_HIDDEN = {"space", "frame_times_s", "embedding", "context", "thumbnail"}
_OWN = {"videos": set(), "clips": {"video_id", "revision"}, "tags": {"clip_id", "video_id"}}  # seen in another table
COLUMNS: dict[str, tuple[str, ...]] = {
    name: tuple(column for column in tables.TABLES[name].names if column not in _HIDDEN | elsewhere)
    for name, elsewhere in _OWN.items()
}
# Kinds of nodes, as DuckDB's parser calls them.
NODES = {
    *("COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "CASE", "FUNCTION", "CAST", "TYPE")
}
OPERATORS = {"+", "-", "*", "/", "//", "%", "||", "~~", "!~~", "~~*", "!~~*", "~~~", "like_escape", "not_like_escape"}
FUNCTIONS = {
    *("abs", "ceil", "ceiling", "floor", "round", "greatest", "least", "coalesce", "ifnull", "nullif"),
    *("lower", "upper", "length", "trim", "contains", "prefix", "suffix", "starts_with", "ends_with", "substring"),
    *("regexp_matches", "regexp_full_match", "date_trunc", "date_part", "year", "month", "day", "hour", "now"),
    *("to_days", "to_hours", "to_minutes", "to_seconds", "to_weeks", "to_months", "to_years"),  # of INTERVAL '1 day'
}
# What stands round a condition where it is parsed; a condition that closes the bracket and goes on changes it.
_ROUND = "SELECT 1 FROM rows WHERE ({}\n)"
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # of names in a query by variables of this process
}


def column_names() -> list[str]:
    """What a condition may name, table by table."""
    return [column for columns in COLUMNS.values() for column in columns]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which clips may be found. `share` of the archive's clips is how many that are."""

    text: str
    keys: Keys  # of videos' revisions, or of clips
    is_of_videos: bool
    share: float

    def mask(self, clips_N: Numbers, videos_N: Numbers) -> NDArray[np.bool_]:
        """Which of N clips pass: `clips_N` are the numbers of their ids, `videos_N` of (video, revision), N each."""
        passed = self.keys.has(videos_N if self.is_of_videos else clips_N)
        mask_N: NDArray[np.bool_] = passed.to_numpy(zero_copy_only=False)
        return mask_N


def of_condition(archive: Archive, space: str, text: str) -> Filter:
    """The filter that a condition is, over the clips of a space that can be seen now.

    Raises InputError for what is no condition, or one that asks for more than columns, and says which there are.
    """
    condition = _read(text)
    try:
        with _database() as database:
            if condition.columns.keys() <= {"videos"}:
                return _of_videos(database, archive, space, condition)
            return _of_clips(database, archive, space, condition)
    except (duckdb.DataError, duckdb.ProgrammingError) as error:
        raise _refused(text, first_line(error)) from error


@contextmanager
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in memory that opens no files, whose times are UTC, and whose settings nobody changes."""
    with duckdb.connect(":memory:", config=_CONFIG) as database:
        database.execute("SET TimeZone = 'UTC'").fetchall()
        database.execute("SET lock_configuration = true").fetchall()
        yield database


# --- the condition


@dataclass(frozen=True, slots=True)
class _Condition:
    """A condition on columns, and no more than that."""

    text: str
    columns: dict[str, list[str]]  # those in it, by table
    names_none: bool  # whether "none of these" is one of its constants


def _read(text: str) -> _Condition:
    """A condition. Raises InputError for what is none."""
    if not text.strip():
        raise _refused(text, "it is empty")
    with _database() as database:
        nodes = list(_nodes(_parsed(database, text)))
    used: dict[str, set[str]] = {}
    for node in nodes:
        _check(node, text)
        if node["class"] == "COLUMN_REF":
            table, column = _column(node["column_names"], text)
            used.setdefault(table, set()).add(column)
    names_none = any(node["class"] == "CONSTANT" and node["literal"].get("text") == NONE for node in nodes)
    return _Condition(text, {table: sorted(columns) for table, columns in used.items()}, names_none)


def _parsed(database: duckdb.DuckDBPyConnection, text: str) -> Any:
    """The tree of a condition."""
    tree, plain = (_tree(database, each, text) for each in (text, "true"))
    condition = tree["statements"][0]["node"].pop("where_clause", None) if len(tree["statements"]) == 1 else None
    plain["statements"][0]["node"].pop("where_clause")
    if condition is None or _without_places(tree) != _without_places(plain):
        raise _refused(text, "it is more than a condition")
    return condition


def _tree(database: duckdb.DuckDBPyConnection, condition: str, text: str) -> Any:
    """What DuckDB's parser makes of a condition and what stands round it."""
    ((found,),) = database.execute("SELECT json_serialize_sql(?::VARCHAR)", [_ROUND.format(condition)]).fetchall()
    tree = json.loads(found)
    if tree["error"]:
        raise _refused(text, str(tree["error_message"]))
    return tree


def _without_places(tree: Any) -> Any:
    """A tree without where in the text its nodes stood."""
    if isinstance(tree, dict):
        return {name: _without_places(value) for name, value in tree.items() if not name.startswith("query_location")}
    return [_without_places(each) for each in tree] if isinstance(tree, list) else tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every expression in a tree, and whatever else has a class."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from _nodes(each)


def _check(node: dict[str, Any], text: str) -> None:
    """Raises InputError for a node that is not of the list."""
    if node["class"] not in NODES:
        raise _refused(text, f"{node['class'].lower().replace('_', ' ')} is not allowed in it")
    if node["class"] == "FUNCTION" and node["function_name"].lower() not in OPERATORS | FUNCTIONS:
        raise _refused(text, f"the function {node['function_name']} is not allowed in it")


def _column(names: list[str], text: str) -> tuple[str, str]:
    """Table and column of a reference, such as `uri` or `videos.uri`."""
    *table, column = [name.lower() for name in names]
    found = [name for name, columns in COLUMNS.items() if column in columns and table in ([], [name])]
    if not found:
        raise _refused(text, f"there is no column {'.'.join(names)}")
    return found[0], column


def _refused(text: str, why: str) -> InputError:
    """That a condition cannot be used, why, and what could be in one."""
    there = "; ".join(f"of {name}: {', '.join(columns)}" for name, columns in COLUMNS.items())
    reason = re.sub(r"\s*LINE \d+:.*", "", why, flags=re.DOTALL)
    return InputError(
        f"--where {text!r} cannot be used: {reason}. Expected a condition such as "
        f"\"duration_s > 60 and uri like 's3://news/%'\" on columns {there}"
    )


# --- evaluated


def _of_videos(database: duckdb.DuckDBPyConnection, archive: Archive, space: str, condition: _Condition) -> Filter:
    """A filter that looks at videos alone."""
    videos = _videos(archive, space, [*condition.columns.get("videos", ()), "clip_count"])
    database.register("videos", videos)
    found = database.execute(f"SELECT _video, clip_count FROM videos WHERE ({condition.text}\n)").fetchnumpy()  # noqa: S608  # checked
    share = found["clip_count"].sum() / max(1, pc.sum(videos["clip_count"]).as_py() or 0)
    return Filter(condition.text, Keys([_numbers(found["_video"])]), is_of_videos=True, share=float(share))


def _of_clips(database: duckdb.DuckDBPyConnection, archive: Archive, space: str, condition: _Condition) -> Filter:
    """A filter that looks at clips or their tags too."""
    videos = _videos(archive, space, [*condition.columns.get("videos", ()), "clip_count"])
    database.register("videos", videos)
    database.register("clips", _clips(archive, space, condition.columns.get("clips", [])))
    joined = "clips JOIN videos ON clips._of = videos._video"
    if "tags" in condition.columns:
        database.register("tags", _tags(archive, space, condition))
        joined += " LEFT JOIN tags ON tags._tagged = clips._clip"
    found = database.execute(f"SELECT DISTINCT _clip FROM {joined} WHERE ({condition.text}\n)").fetchnumpy()  # noqa: S608  # checked
    passed = Keys([_numbers(found["_clip"])])
    share = len(passed) / max(1, pc.sum(videos["clip_count"]).as_py() or 0)
    return Filter(condition.text, passed, is_of_videos=False, share=min(1.0, share))


def _numbers(column: Any) -> Numbers:
    """A column of numbers that are all there."""
    return np.asarray(column, np.uint64)


def _videos(archive: Archive, space: str, columns: Iterable[str]) -> pa.Table:
    """The videos that can be seen, with the number of their revision as `_video`."""
    wanted = sorted({*columns, "video_id", "revision", "status"})
    videos = archive.current_videos(space, wanted)
    shown = videos.filter(pc.is_in(videos["status"], pa.array(SHOWN)))
    return shown.append_column("_video", pa.array(keys.of_revisions(shown)))


def _clips(archive: Archive, space: str, columns: list[str]) -> pa.RecordBatchReader:
    """The clips that can be seen, a batch at a time: their number as `_clip`, that of their revision as `_of`."""
    schema = pa.schema(
        [("_clip", pa.uint64()), ("_of", pa.uint64()), *(tables.CLIPS.field(column) for column in columns)]
    )
    found = archive.visible_batches(space, list(dict.fromkeys([*columns, "clip_id", "video_id", "revision"])))
    rows = (
        pa.record_batch(
            [keys.of_ids(batch["clip_id"]), keys.of_revisions(batch), *(batch[column] for column in columns)],
            schema=schema,
        )
        for batch in found
    )
    return pa.RecordBatchReader.from_batches(schema, rows)


def _tags(archive: Archive, space: str, condition: _Condition) -> pa.RecordBatchReader:
    """The tags that a condition is held against, a batch at a time, with the number of their clip as `_tagged`."""
    columns = condition.columns["tags"]
    schema = pa.schema([("_tagged", pa.uint64()), *(tables.TAGS.field(column) for column in columns)])
    rows = (
        pa.record_batch([batch["clip"], *(batch[column] for column in columns)], schema=schema)
        for batch in _labels(archive, space, condition)
    )
    return pa.RecordBatchReader.from_batches(schema, rows)


def _labels(archive: Archive, space: str, condition: _Condition) -> Iterator[pa.RecordBatch]:
    """The newest tags, without those that say that no label fits unless the condition names these."""
    for batch in tag_rows.that_count(archive, space, list(dict.fromkeys(["label", *condition.columns["tags"]]))):
        yield batch if condition.names_none else batch.filter(pc.not_equal(batch["label"], NONE))
