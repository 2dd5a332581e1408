"""The archive: six Delta tables in a folder, on a disk or in an object store.

`delta_log` works on the log of the tables itself, `lease` says who may write.

Workers write Parquet parts of clips; the driver commits them. Nothing is visible until it is committed, and a video
only as a whole revision: its clips first, its row in `videos` last. A crash between the two leaves rows nobody sees.
"""

# N clips, E joint dimension

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction
from pyarrow import fs

from pipeline import keys, parts, places, stores
from pipeline.current import CURRENT, current_rows, shown_keys
from pipeline.keys import Keys
from pipeline.places import ClipReader, Places
from pipeline.stores import AnyPath
from schemas import tables
from schemas.errors import ArchiveError, LeaseLost, first_line
from schemas.records import Letter, PacketsPart, Part, Place, VideoRow

# By this name Delta keeps the highest term of a lease that wrote a table; see pipeline/lease.py.
WRITER = "footage-index"
FENCED = ("clips", "videos", "failures", "packets")
LATER = ("failures", "packets")  # tables that archives of earlier schema versions lack


class Archive:
    """An archive. Methods read the latest committed state unless they say otherwise.

    `folder` is a path, or the URL of a place in an object store. `term` is that of the lease under which this process
    writes; None for who holds none.
    """

    def __init__(self, folder: str | AnyPath, term: int | None = None) -> None:
        self.folder = stores.to_place(folder)
        self.term = term

    @classmethod
    def create(cls, folder: str | AnyPath) -> Archive:
        """The archive at `folder`, made if it is not there. Refuses a folder that holds something else."""
        archive = cls(folder)
        if archive.exists():
            for name in LATER:
                archive._create_table(name)
            return archive
        if archive.folder.is_file() or not _is_begun(archive.folder):
            raise ArchiveError(f"{archive.folder} is not an archive and not an empty folder; name another place")
        # `videos` comes last: with it the archive exists, so a crash in here leaves something that is made again.
        for name in sorted(tables.TABLES, key=lambda name: name == "videos"):
            archive._create_table(name)
        return archive

    @classmethod
    def open(cls, folder: str | AnyPath) -> Archive:
        """The archive at `folder`. Raises ArchiveError when there is none."""
        archive = cls(folder)
        if not archive.exists():
            raise ArchiveError(f"there is no archive at {archive.folder}; make one with: footage index VIDEOS ARCHIVE")
        return archive

    def exists(self) -> bool:
        """Whether all tables are there."""
        return self.has_table("videos")

    def has_table(self, name: str) -> bool:
        """Whether a table is there: those in `LATER` may not be."""
        return DeltaTable.is_deltatable(self._path(name), self._options)

    def _path(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def _options(self) -> dict[str, str] | None:
        return stores.delta_options(self.folder)

    def _create_table(self, name: str) -> None:
        try:
            DeltaTable.create(
                self._path(name),
                schema=tables.TABLES[name],
                partition_by=tables.PARTITIONS.get(name),
                mode="ignore",
                description=f"footage archive, schema version {tables.SCHEMA_VERSION}",
                storage_options=self._options,
            )
        except DeltaError:  # another process is making it in this instant
            if not self.has_table(name):
                raise

    def table(self, name: str, version: int | None = None) -> DeltaTable:
        """A table at its last version, or at an older one. Raises ArchiveError when it cannot be read."""
        try:
            return DeltaTable(self._path(name), version=version, storage_options=self._options)
        except (TableNotFoundError, DeltaError, OSError) as error:
            asked = "" if version is None else f" at version {version}"
            raise ArchiveError(
                f"the table {name!r} of {self.folder} cannot be read{asked}: {first_line(error)}"
            ) from error

    def _dataset(self, name: str, columns: Iterable[str] | None = None) -> Any:
        """A table for scanning, or some columns of it, through Arrow's own file system.

        With Delta's, which is Python, read-ahead threads that outlive the interpreter abort the process at its end.
        """
        system, path = stores.arrow(self.folder / name)
        native = fs.SubTreeFileSystem(path, system)
        table = self.table(name)
        # Of each column of each file the log says what it is between, which takes longer to tell Arrow than to read.
        schema = pa.schema(table.schema().to_arrow())
        known = {field.name: field for field in (*tables.TABLES[name], *schema)}  # a column that files lack is null
        wanted = pa.schema([known[column] for column in (tables.TABLES[name].names if columns is None else columns)])
        return table.to_pyarrow_dataset(filesystem=native, schema=wanted)

    def read(self, name: str, columns: list[str] | None = None, **equal: str) -> pa.Table:
        """Rows of a table where each column in `equal` has that value."""
        condition = None
        for column, value in equal.items():
            term = pc.field(column) == value
            condition = term if condition is None else condition & term
        needed = None if columns is None else dict.fromkeys([*columns, *equal])
        return self._dataset(name, needed).to_table(columns=columns, filter=condition)

    def version(self, name: str) -> int:
        """The number of the table's last commit."""
        return int(self.table(name).version())

    # --- videos

    def current_videos(self, space: str, columns: list[str] | None = None) -> pa.Table:
        """The current row of every video ever seen in a space, in uri order; columns as in `tables.VIDEOS`, or some."""
        needed = [*CURRENT, *(name for name in columns if name not in CURRENT)] if columns is not None else None
        return current_rows(self.read("videos", needed, space=space))

    def video_batches(self, space: str | None, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """All rows of a space (None: of all), current or not, a batch at a time: for archives too large to hold."""
        wanted = None if space is None else pc.field("space") == space
        yield from self._dataset("videos").to_batches(columns=columns, filter=wanted, **parts.STREAM)

    def rows_of(self, space: str, video_ids: list[str]) -> dict[str, VideoRow]:
        """The current rows of the named videos, by video_id."""
        if not video_ids:
            return {}
        wanted = pc.is_in(pc.field("video_id"), pa.array(video_ids, pa.string())) & (pc.field("space") == space)
        rows = current_rows(self._dataset("videos").scanner(filter=wanted, **parts.STREAM).to_table()).to_pylist()
        return {row["video_id"]: VideoRow(**row) for row in rows}

    def shown_revisions(self, space: str) -> Keys:
        """Every revision whose clips can be seen."""
        return shown_keys(self.current_videos(space, ["status"]))

    def last_revisions(self, space: str, video_ids: list[str]) -> dict[str, int]:
        """The highest revision that a row names, by video_id, of some videos."""
        wanted = pc.is_in(pc.field("video_id"), pa.array(video_ids, pa.string())) & (pc.field("space") == space)
        rows = self._dataset("videos").scanner(["video_id", "revision"], filter=wanted, **parts.STREAM).to_table()
        highest = rows.group_by("video_id").aggregate([("revision", "max")])
        return dict(zip(highest["video_id"].to_pylist(), highest["revision_max"].to_pylist(), strict=True))

    def spaces(self) -> list[str]:
        """Every space that a video or a clip belongs to."""
        named = {partition["space"] for partition in self.table("clips").partitions()}
        for batch in self._dataset("videos").to_batches(columns=["space"], **parts.STREAM):
            named.update(pc.unique(batch["space"]).to_pylist())
        return sorted(named)

    def widths(self) -> dict[str, int]:
        """How wide the vectors of each space are, as the runs that made them wrote down."""
        return {run["space"]: run["settings"]["space"]["model"]["embed_dim"] for run in self.runs()}

    def known_videos(self, space: str, statuses: Sequence[str] | None = None) -> dict[str, VideoRow]:
        """The current rows by uri, or those of some statuses. One that is gone gives way to who took its place."""
        found = self.current_videos(space)
        rows = (found if statuses is None else found.filter(pc.is_in(found["status"], pa.array(statuses)))).to_pylist()
        return {row["uri"]: VideoRow(**row) for row in sorted(rows, key=lambda row: row["status"] != "gone")}

    def uris(self, space: str, video_ids: Iterable[str] | None = None) -> dict[str, str]:
        """Where each current video of a space is, or each of those named, by video_id."""
        wanted = pc.field("space") == space
        if video_ids is not None:
            wanted &= pc.is_in(pc.field("video_id"), pa.array(sorted(set(video_ids)), pa.string()))
        videos = self._dataset("videos", [*CURRENT, "space"])
        rows = current_rows(videos.to_table(columns=CURRENT, filter=wanted))
        return dict(zip(rows["video_id"].to_pylist(), rows["uri"].to_pylist(), strict=True))

    def commit_videos(self, rows: Iterable[VideoRow]) -> None:
        """Makes revisions visible, failed or gone, in one transaction."""
        self._append("videos", map(asdict, rows))

    # --- the writer

    @contextmanager
    def as_writer(self, table: DeltaTable) -> Iterator[CommitProperties | None]:
        """What a commit to `table` must carry, so that nobody can write after another has taken over the lease."""
        if self.term is None:
            yield None
            return
        self._check_term(table)
        try:
            yield CommitProperties(app_transactions=[Transaction(WRITER, self.term)])
        except (DeltaError, OSError):  # of two terms in one instant perhaps; or the draft of who slept was swept away
            self._check_term(DeltaTable(table.table_uri, storage_options=self._options))
            raise

    def _check_term(self, table: DeltaTable) -> None:
        """Raises LeaseLost when a higher term has written a table."""
        if (table.transaction_version(WRITER) or 0) > (self.term or 0):
            raise LeaseLost(
                "another run has taken over the archive, because this one gave no sign of life; nothing is lost: "
                "run the same command again when that has ended"
            )

    def _append(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Adds rows to a table in one transaction; none makes no transaction."""
        found = pa.Table.from_pylist(list(rows), schema=tables.TABLES[name])
        if found.num_rows:
            table = self.table(name)
            with self.as_writer(table) as properties:
                write_deltalake(table, found, mode="append", commit_properties=properties)

    def fence(self) -> None:
        """Makes this term the lowest that may write: whoever held the lease before is shut out of every table."""
        for name in filter(self.has_table, FENCED):  # earlier versions had less
            try:
                self._transact(name, [])
            except CommitFailedError:  # who held the lease before committed in this very instant: once more, behind it
                self._transact(name, [])

    # --- clips

    def commit_parts(self, parts: Iterable[Part]) -> None:
        """Adds written parts to the clips table in one transaction."""
        self._add("clips", [_addition(part, {"space": part.space}) for part in parts])

    def commit_packets(self, parts: Iterable[PacketsPart]) -> None:
        """Adds written parts to the packets table in one transaction."""
        self._add("packets", [_addition(part, {}) for part in parts])

    def _add(self, name: str, actions: list[AddAction | RemoveAction]) -> None:
        """Adds files to a table; none makes no transaction."""
        if actions:
            self._transact(name, actions)

    def _transact(self, name: str, actions: list[AddAction | RemoveAction]) -> None:
        table = self.table(name)
        with self.as_writer(table) as properties:
            table.create_write_transaction(
                actions, "append", tables.TABLES[name], tables.PARTITIONS.get(name), commit_properties=properties
            )

    def visible_clips(self, space: str, columns: list[str]) -> pa.Table:
        """Committed clips of the current revisions in a space, in clip_id order, with the columns asked for."""
        # Read before the clips: a video that becomes visible in between is missed whole, never shown in part.
        shown = self.shown_revisions(space)
        needed = list(dict.fromkeys([*columns, "clip_id", "video_id", "revision"]))
        clips = self.read("clips", needed, space=space)
        return clips.filter(shown.has(keys.of_revisions(clips))).sort_by("clip_id").select(columns)

    def visible_batches(self, space: str, columns: list[str], shown: Keys | None = None) -> Iterator[pa.RecordBatch]:
        """As `visible_clips`, a few hundred at a time in no order: memory does not grow with the archive.

        `shown` are the revisions that can be seen, if that was decided already.
        """
        shown = self.shown_revisions(space) if shown is None else shown
        needed = list(dict.fromkeys([*columns, "video_id", "revision"]))
        for batch in self.clip_batches(space, needed):
            yield batch.filter(shown.has(keys.of_revisions(batch))).select(columns)

    def clip_batches(self, space: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """All clips of a space, shown or not, a few hundred at a time."""
        stream = parts.STREAM | {"batch_size": parts.ROWS_PER_BATCH}
        yield from self._dataset("clips").to_batches(columns=columns, filter=pc.field("space") == space, **stream)

    def clips_of(self, space: str, video_id: str, revision: int, columns: list[str]) -> pa.Table:
        """The clips of one revision of a video, in time order."""
        wanted = (pc.field("video_id") == video_id) & (pc.field("revision") == revision) & (pc.field("space") == space)
        return self._dataset("clips").to_table(columns=columns, filter=wanted).sort_by([("start_s", "ascending")])

    def first_clips(self, space: str, video_ids: list[str]) -> dict[str, str]:
        """The first clip of each of some videos that has any, by video_id."""
        wanted = pc.is_in(pc.field("video_id"), pa.array(video_ids, pa.string())) & (pc.field("space") == space)
        rows = self._dataset("clips").to_table(columns=["video_id", "clip_id", "revision", "start_s"], filter=wanted)
        order = [("revision", "descending"), ("start_s", "descending")]
        by_id = rows.sort_by(order).to_pylist()
        newest = {row["video_id"]: row["revision"] for row in reversed(by_id)}
        return {row["video_id"]: row["clip_id"] for row in by_id if row["revision"] == newest[row["video_id"]]}

    def tags_of(self, space: str, video_id: str, columns: list[str]) -> pa.Table:
        """All rows of tags of one video, superseded ones too."""
        wanted = (pc.field("video_id") == video_id) & (pc.field("space") == space)
        tags = self._dataset("tags", dict.fromkeys([*columns, "video_id", "space"]))
        return tags.to_table(columns=columns, filter=wanted)

    def clip_reader(self, space: str, known: Places | None = None) -> ClipReader:
        """Rows of named clips of a space, as the table is now. `known` says where they were, if that is known."""
        return ClipReader(self._dataset("clips"), space, known)

    def places(self, space: str, known: Places | None = None) -> Places:
        """Where the clips of a space lie; what is `known` of files that are still there is taken as it is."""
        return places.of_dataset(self._dataset("clips"), space, known)

    def vector_batches(
        self, space: str, files: Collection[str], *, seed: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """`clip_id`, `video_id`, `revision` and `embedding` of the clips in some files, shown or not.

        In the order of the files, or with a seed row groups in a random order.
        """
        yield from places.vector_batches(self._dataset("clips"), space, files, seed)

    def clip_files(self, space: str) -> set[str]:
        """The files that the clips of a space are in, as `places` names them."""
        found = self._dataset("clips").get_fragments(filter=pc.field("space") == space)
        return {fragment.path for fragment in found}

    # --- the dead-letter

    def letters(self, space: str) -> dict[Place, Letter]:
        """The current letter of each place in a space, settled ones too, oldest first."""
        if not self.has_table("failures"):
            return {}  # schema version 1, not indexed into since
        rows = self.read("failures", space=space).sort_by("last_seen").to_pylist()
        return {letter.place: letter for letter in (Letter(**row) for row in rows)}

    def commit_letters(self, letters: Iterable[Letter]) -> None:
        """Adds letters in one transaction; each replaces the one before it at its place."""
        self._append("failures", map(asdict, letters))

    # --- tags and runs

    def tag_count(self, space: str) -> int:
        """How many tags a space has."""
        return int(self._dataset("tags", ["space"]).count_rows(filter=pc.field("space") == space))

    def tag_batches(self, space: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """All tags of a space, a batch at a time in no order: there may be too many to hold."""
        tags = self._dataset("tags", dict.fromkeys([*columns, "space"]))
        yield from tags.to_batches(columns=columns, filter=pc.field("space") == space, **parts.STREAM)

    def log_run(self, row: Mapping[str, Any]) -> None:
        """Adds one row to the runs table."""
        self._append("runs", [dict(row)])

    def runs(self, *, undone: bool = False) -> list[dict[str, Any]]:
        """Rows of the runs table, oldest first, JSON columns parsed; those of runs rolled back only if `undone`."""
        rows: list[dict[str, Any]] = self.read("runs").sort_by([("at", "ascending")]).to_pylist()
        forgotten = set() if undone else {row["run_id"] for row in rows if row["state"] == "rolled_back"}
        rows = [row for row in rows if row["run_id"] not in forgotten]
        for row in rows:
            for column in ("settings", "versions", "report"):
                row[column] = json.loads(row[column]) if row[column] else None
        return rows

    # --- folders

    def index_folder(self, space: str) -> AnyPath:
        """Where the FAISS indexes of a space live."""
        return self.folder / "indexes" / space

    def size_bytes(self) -> dict[str, int]:
        """Bytes stored by top-level folder."""
        found: Counter[str] = Counter()
        for path, size_bytes in stores.sizes(self.folder).items():
            found[path.partition("/")[0]] += size_bytes
        return dict(sorted(found.items()))


def _addition(part: Part | PacketsPart, partition: dict[str, str | None]) -> AddAction:
    """What puts a written part into a table."""
    return AddAction(
        part.path,
        part.size_bytes,
        partition,
        int(time.time() * 1000),
        data_change=True,
        # Delta's own writer would collect minima and maxima; over hashes and vectors they prune nothing.
        stats=json.dumps({"numRecords": part.row_count}),
    )


def _is_begun(folder: AnyPath) -> bool:
    """Whether nothing is in a folder but tables of ours, as a `create` that was killed or is under way leaves them."""
    paths = map(PurePosixPath, stores.sizes(folder))
    return all(path.parts[0] in tables.TABLES and path.parts[1:-1] == ("_delta_log",) for path in paths)
