"""What changed among many files, found without an object for each; no file is opened here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import heaps, ledger
from pipeline.ledger import Difference, Ledger, VideoIds, read_before
from schemas import tables
from schemas.records import HashedFile, SourceFile, VideoRow
from tests.pipeline.factories import video_row

A = SourceFile("/videos/a.mp4", 100, 1.0)


@dataclass(frozen=True)
class Found:
    """What a ledger says of some files."""

    to_read: tuple[SourceFile, ...]
    unchanged: int
    gone: tuple[VideoRow, ...]


def batches(rows) -> list[pa.RecordBatch]:
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=tables.VIDEOS).to_batches(max_chunksize=2)


def difference(files, *known, root="/videos") -> Found:
    files = list(files)
    found = compared(files, known, folders=(root,) if root else ())
    gone = tuple(row for row in known if row.video_id in found.missing)
    return Found(tuple(found.to_read), len(files) - len(found.to_read), gone)


def compared(files, known=(), *, lost=(), folders=(), **how) -> Difference:
    with Ledger() as made:
        made.know(batches(known), folders)
        made.see(files)
        made.mark_seen(list(lost))
        return made.difference(**how)


# --- files against archive


def test_a_file_the_archive_does_not_know_is_read() -> None:
    found = difference([A])
    assert (found.to_read, found.unchanged, found.gone) == ((A,), 0, ())


def test_a_file_of_the_same_size_and_time_is_not_read() -> None:
    found = difference([A], video_row())
    assert (found.to_read, found.unchanged, found.gone) == ((), 1, ())


@pytest.mark.parametrize("change", [{"size_bytes": 101}, {"mtime_s": 1.5}, {"mtime_s": 0.5}])
def test_a_file_of_another_size_or_time_is_read(change: dict) -> None:
    assert difference([replace(A, **change)], video_row()).to_read


@pytest.mark.parametrize(
    ("known", "is_read"),
    [
        pytest.param({"status": "failed", "permanent": True}, False, id="failed for good: left alone"),
        pytest.param({"status": "failed", "permanent": False, "attempts": 1}, True, id="failed by bad luck: once more"),
        pytest.param({"status": "failed", "permanent": False, "attempts": 2}, True, id="failed twice: a third time"),
        pytest.param(
            {"status": "failed", "permanent": False, "attempts": 3}, False, id="failed three times: left alone"
        ),
        pytest.param({"status": "partial", "permanent": True}, False, id="damaged: left alone"),
        pytest.param({"status": "partial", "permanent": False}, True, id="a part was lost by bad luck: once more"),
        pytest.param(
            {"status": "partial", "permanent": False, "attempts": 3}, False, id="lost three times: left alone"
        ),
        pytest.param({"status": "gone"}, True, id="gone and back"),
        pytest.param({"status": "gone", "attempts": 3}, True, id="gone and back after failures"),
    ],
)
def test_what_failed_is_tried_again_only_if_that_may_help(known: dict, is_read) -> None:
    found = difference([A], video_row(**known))
    assert bool(found.to_read) is is_read
    assert found.unchanged == (not is_read)


# --- what is gone


def test_a_known_file_that_is_not_there_is_gone() -> None:
    row = video_row("/videos/old.mp4")
    assert difference([A], row).gone == (row,)


def test_what_is_gone_already_is_not_gone_again() -> None:
    assert difference([A], video_row("/videos/old.mp4", status="gone")).gone == ()


def test_a_failed_file_that_is_not_there_is_gone() -> None:
    assert difference([A], video_row("/videos/old.mp4", status="failed", permanent=True)).gone


@pytest.mark.parametrize(
    "uri", ["/videos2/a.mp4", "/videos 2/b.mp4", "/other/videos/c.mp4", "/videos.mp4", "/videos", "/b.mp4"]
)
@pytest.mark.parametrize("root", ["/videos", "/videos/"])
def test_nothing_outside_the_folder_is_gone(uri: str, root: str) -> None:
    assert difference([A], video_row(uri), root=root).gone == ()


def test_a_vanished_file_whose_name_is_not_utf8_is_gone_too() -> None:
    assert difference([A], video_row("file:///videos/caf%E9.mp4")).gone
    assert not difference([A], video_row("file:///videos2/caf%E9.mp4")).gone


def test_below_the_root_of_the_file_system_everything_is_below() -> None:
    assert difference([A], video_row("/videos/old.mp4"), root="/").gone


def test_without_a_folder_nothing_is_gone() -> None:
    assert difference([A], video_row("/videos/old.mp4"), root=None).gone == ()


def test_a_deep_file_is_gone_from_a_folder_above_it() -> None:
    assert difference([A], video_row("/videos/x/y/z.mp4")).gone


uris = st.sampled_from([f"/videos/{name}.mp4" for name in "abcdefgh"])
statuses = st.sampled_from(["ok", "partial", "failed", "gone"])


@given(
    files=st.dictionaries(uris, st.integers(1, 2)),
    known=st.dictionaries(uris, st.tuples(statuses, st.booleans(), st.integers(1, 4), st.integers(1, 2))),
)
def test_every_file_is_read_or_unchanged_and_every_other_known_one_gone(files, known) -> None:
    rows = [
        video_row(uri, status=status, permanent=permanent, attempts=attempts, mtime_s=float(mtime))
        for uri, (status, permanent, attempts, mtime) in known.items()
    ]
    found = difference([SourceFile(uri, 100, float(mtime)) for uri, mtime in files.items()], *rows)
    assert len(found.to_read) + found.unchanged == len(files)
    assert {row.uri for row in found.gone} == {row.uri for row in rows if row.status != "gone"} - set(files)


# --- rows of a ledger


def test_the_last_row_of_a_video_counts() -> None:
    old, new = video_row(), video_row(revision=2, mtime_s=5.0, minutes=-1)
    touched = replace(video_row(minutes=1), mtime_s=7.0)
    assert difference([replace(A, mtime_s=5.0)], new, old, touched).unchanged == 1
    assert difference([replace(A, mtime_s=7.0)], old, touched).unchanged == 1
    assert difference([A], old, touched).to_read


@pytest.mark.parametrize("order", [1, -1])
def test_a_video_that_took_the_place_of_a_gone_one_counts(order: int) -> None:
    gone = video_row(video_id="1" * 16, status="gone", revision=9, minutes=5)
    rows = [gone, video_row()][::order]
    assert difference([A], *rows).unchanged == 1
    assert compared([], rows).live == 1
    ids = VideoIds(iter(batches(rows)))
    assert all(ids.has(row.video_id) for row in rows), "its id is taken for ever"


def test_files_are_compared_in_lots_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "FILES_PER_LOT", 3)
    rows = [video_row(f"/videos/{n}.mp4") for n in range(10)]
    files = [SourceFile(f"/videos/{n}.mp4", 100, 1.0 + (n == 7)) for n in range(20)]
    found = difference(files, *rows)
    assert {file.uri for file in found.to_read} == {f"/videos/{n}.mp4" for n in (7, *range(10, 20))}
    assert found.gone == ()


def test_many_rows_and_files_are_compared_on_the_disk_as_few_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [video_row(f"/videos/{n}.mp4", status="gone" if n % 7 == 0 else "ok") for n in range(300)]
    rows += [replace(row, revision=2, size_bytes=7, status="ok") for row in rows[:50]]
    files = [SourceFile(f"/videos/{n}.mp4", 100, 1.0) for n in range(40, 400)]
    in_memory = compared(files, rows, lost=["/videos/3.mp4"], folders=("/videos",))
    monkeypatch.setattr(heaps, "ROWS_HELD", 20)
    monkeypatch.setattr(ledger, "FILES_PER_LOT", 9)
    on_disk = compared(files, rows, lost=["/videos/3.mp4"], folders=("/videos",))
    for name in ("to_read", "known", "missing"):
        assert sorted(getattr(on_disk, name), key=str) == sorted(getattr(in_memory, name), key=str)
    gone = [n for n in range(50, 300) if n % 7 == 0]
    assert len(on_disk.to_read) == 10 + len(gone) + 100, "changed, back again, and new"
    assert len(on_disk.missing) == 40 - 1, "all that is not there but for one that could not be looked at"
    assert on_disk.live == 300 - len(gone)


def test_nothing_is_trusted_when_asked() -> None:
    found = compared([A], [video_row()], trust_nothing=True, anywhere=True)
    assert (found.to_read, found.missing) == ([A], [])


def test_what_could_not_be_looked_at_is_neither_missing_nor_read() -> None:
    row = video_row()
    found = compared([], [row], lost=[A.uri, "/videos/new.mp4"], folders=("/videos",))
    assert (found.to_read, found.missing, found.known) == ([], [], [row.video_id])


def test_anywhere_is_missing_what_lies_in_no_folder_that_was_walked() -> None:
    row = video_row("/elsewhere/a.mp4")
    assert compared([A], [row], folders=("/videos",)).missing == []
    assert compared([A], [row], folders=("/videos",), anywhere=True).missing == [row.video_id]


def test_files_of_the_same_size_and_place_are_found() -> None:
    rows = [video_row("/videos/a.mp4"), video_row("/videos/b.mp4", size_bytes=7), video_row("/c.mp4", status="gone")]
    with Ledger() as made:
        made.know(batches(rows))
        assert made.of_sizes({100, 8}) == [rows[0].video_id]
        made.see([SourceFile(uri, 9, 9.0) for uri in ("/videos/b.mp4", "/nowhere", "/c.mp4")])
        assert set(made.difference().known) == {rows[1].video_id, rows[2].video_id}
    ids = VideoIds(iter(batches(rows)))
    assert ids.has(rows[2].video_id)
    assert not ids.has("f" * 16)


def test_what_one_space_has_and_another_has_not() -> None:
    there = [video_row("/a.mp4"), video_row("/b.mp4"), video_row("/c.mp4"), video_row("/d.mp4", status="gone")]
    here = [video_row("/a.mp4", video_id="1" * 16), video_row("/b.mp4", video_id="2" * 16, status="gone")]
    with Ledger() as serving, Ledger() as mine:
        serving.know(batches(there))
        mine.know(batches(here))
        assert set(serving.live_without(mine)) == {there[1].video_id, there[2].video_id}
        assert mine.live_without(serving) == []


def test_an_empty_ledger_knows_nothing() -> None:
    assert compared([A]) == Difference(to_read=[A])
    with Ledger() as made:
        assert made.of_sizes({1}) == []
    assert not VideoIds(()).has("0" * 16)


def test_ids_are_not_read_before_one_is_asked_for() -> None:
    asked = []
    ids = VideoIds(asked.append(batch) or batch for batch in batches([video_row()]))
    assert asked == []
    assert ids.has(video_row().video_id)
    assert len(asked) == 1


# --- across spaces


def known_before(files, *rows) -> list[HashedFile]:
    return read_before(lambda columns: [batch.select(columns) for batch in batches(rows)], list(files))


def test_a_file_that_another_space_read_need_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heaps, "ROWS_HELD", 1)
    files = [A, replace(A, uri="/videos/b.mp4"), replace(A, uri="/videos/c.mp4")]
    rows = [video_row(space="one"), video_row("/videos/b.mp4", space="two", fingerprint="f2")]
    assert known_before(files, *rows) == [HashedFile(files[0], "f1"), HashedFile(files[1], "f2")]
    assert known_before(files) == []


@pytest.mark.parametrize(
    ("rows", "is_known"),
    [
        pytest.param([{}], True, id="as it was"),
        pytest.param([{"size_bytes": 101}], False, id="of another size"),
        pytest.param([{"mtime_s": 2.0}], False, id="of another time"),
        pytest.param([{"status": "duplicate"}], True, id="a copy"),
        pytest.param([{"status": "partial", "permanent": True}], True, id="damaged for good"),
        pytest.param([{"status": "partial", "attempts": 1}], False, id="to be tried again"),
        pytest.param([{"status": "failed", "permanent": True}], False, id="failed"),
        pytest.param([{}, {"revision": 2, "status": "gone"}], False, id="gone"),
        pytest.param([{}, {"revision": 2, "mtime_s": 2.0}], False, id="changed since"),
        pytest.param([{}, {"minutes": 1, "uri": "/videos/moved.mp4"}], False, id="moved since"),
        pytest.param([{"mtime_s": 2.0}, {"minutes": 1}], True, id="touched since"),
        pytest.param([{}, {"space": "two", "status": "failed"}], True, id="another space could not use it"),
        pytest.param([{}, {"space": "two"}], True, id="two spaces agree"),
        pytest.param([{}, {"space": "two", "fingerprint": "f2"}], False, id="two spaces do not agree"),
        pytest.param([{}, {"space": "two", "fingerprint": "f2", "mtime_s": 2.0}], True, id="one knows another state"),
    ],
)
def test_what_another_space_knows_of_a_file_is_its_current_row(rows, is_known) -> None:
    video_id = video_row().video_id
    found = known_before([A], *(video_row(**{"video_id": video_id, **changes}) for changes in rows))
    assert found == ([HashedFile(A, "f1")] if is_known else [])
