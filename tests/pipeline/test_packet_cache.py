"""Packets kept by content: found by lots, recalled from the row groups that hold them, tidied like other tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import decode, delta_log, demux, packet_cache, packing, parts
from pipeline.archive import Archive
from pipeline.compact import CompactSettings, compact
from pipeline.repair import repair
from pipeline.settings import Sampling
from pipeline.verify import verify
from schemas import tables
from schemas.records import HashedFile, InspectedVideo, PackedPackets, PacketsPart, SourceFile
from tests.media import make_video
from tests.pipeline.factories import add_video, log_run
from tests.pipeline.steps import source

SAMPLING = Sampling(window_s=1, stride_s=1, frames=4)
NOW = CompactSettings(retention_days=0)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> InspectedVideo:
    """A video that was read, with its packets."""
    file = source(make_video(tmp_path_factory.mktemp("cache") / "a.mp4"))
    (video,) = demux.inspect_files(SAMPLING, {}, [file])
    assert video.packets is not None
    return video


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive.create(tmp_path / "archive")
    log_run(archive)
    return archive


def file_of(number: int) -> HashedFile:
    """A file that nobody can open."""
    return HashedFile(SourceFile(f"/videos/{number}.mp4", number, 1.0), f"{number:032x}")


def video_of(real: InspectedVideo, number: int) -> InspectedVideo:
    """The same packets under another content."""
    packets = packing.unpack(real.packets, real.source.fingerprint)
    content = file_of(number).fingerprint
    return replace(real, source=file_of(number), packets=packing.pack(packets, content))


def keep(archive: Archive, videos: list[InspectedVideo], **changes) -> PacketsPart:
    """Keeps packets and commits them; `changes` are to the rows."""
    *_, part = packet_cache.keep(archive.folder, videos)
    assert isinstance(part, PacketsPart)
    if changes:
        file = archive.folder / "packets" / part.path
        changed = [{**row, **changes} for row in pq.read_table(file).to_pylist()]
        table = pa.Table.from_pylist(changed, schema=tables.PACKETS)
        parts.write_batches(file, table.schema, table.to_batches())
        part = replace(part, size_bytes=file.stat().st_size)
    archive.commit_packets([part])
    return part


def recalled(archive: Archive, files: list[HashedFile]) -> list[InspectedVideo]:
    return packet_cache.recall(archive.folder, SAMPLING, {}, packet_cache.lots(archive, files))


def rows_kept(archive: Archive) -> list[str]:
    return sorted(archive.table("packets").to_pyarrow_table(columns=["fingerprint"])["fingerprint"].to_pylist())


# --- keeping and recalling


def test_a_video_is_recalled_as_it_was_inspected(archive: Archive, real: InspectedVideo) -> None:
    bare, part = packet_cache.keep(archive.folder, [real])
    assert bare == replace(real, packets=None) == demux.inspect(real.source, SAMPLING)
    assert packet_cache.lots(archive, [real.source]) == [], "nothing is there until it is committed"
    archive.commit_packets([part])
    assert recalled(archive, [real.source]) == [bare]
    assert recalled(archive, [file_of(1)]) == []


def test_nothing_to_keep_makes_no_part(archive: Archive, real: InspectedVideo) -> None:
    bare = replace(real, packets=None)
    assert packet_cache.keep(archive.folder, [bare]) == [bare]
    assert list((archive.folder / "packets").glob("*.parquet")) == []


def test_files_of_one_content_are_all_recalled(archive: Archive, real: InspectedVideo) -> None:
    keep(archive, [real])
    copy = replace(real.source, file=replace(real.source.file, uri="/videos/copy.mp4"))
    assert [video.source for video in recalled(archive, [real.source, copy])] == [real.source, copy]


def test_lots_are_of_one_file_and_in_its_order(archive: Archive, real: InspectedVideo) -> None:
    count = packet_cache.VIDEOS_PER_LOT + 6
    first = keep(archive, [video_of(real, number) for number in range(count)])
    second = keep(archive, [video_of(real, number) for number in range(count, count + 3)])
    files = [file_of(number) for number in reversed(range(count + 5))]
    found = packet_cache.lots(archive, files)
    assert sorted((lot.path, len(lot.files)) for lot in found) == sorted(
        [(first.path, packet_cache.VIDEOS_PER_LOT), (first.path, 6), (second.path, 3)]
    )
    of_first = [file for lot in found if lot.path == first.path for file in lot.files]
    assert of_first == [file_of(number) for number in range(count)]
    made = packet_cache.recall(archive.folder, SAMPLING, {}, found)
    assert {video.source.fingerprint for video in made} == {f"{number:032x}" for number in range(count + 3)}


def test_only_row_groups_with_something_wanted_are_read(archive: Archive, real: InspectedVideo) -> None:
    """The packets of the others may be damaged: nobody sees them."""
    part = keep(archive, [video_of(real, number) for number in range(1030)])
    file = archive.folder / "packets" / part.path
    about = pq.ParquetFile(file).metadata
    assert [about.row_group(number).num_rows for number in range(about.num_row_groups)] == [512, 512, 6]
    (blob,) = [c for c in map(about.row_group(0).column, range(about.num_columns)) if c.path_in_schema == "packets"]
    content = bytearray(file.read_bytes())
    content[blob.data_page_offset + blob.total_compressed_size - 1] ^= 1
    file.write_bytes(content)
    assert [len(recalled(archive, [file_of(number)])) for number in (3, 700, 1029)] == [0, 1, 1]


def test_row_groups_of_long_videos_are_no_larger(
    archive: Archive, real: InspectedVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PACKETS_BYTES_PER_GROUP", 2000)
    part = keep(archive, [video_of(real, number) for number in range(20)])
    about = pq.ParquetFile(archive.folder / "packets" / part.path).metadata
    sizes = [about.row_group(number).num_rows for number in range(about.num_row_groups)]
    assert 1 < max(sizes) < 10
    assert sum(sizes) == 20
    assert len(recalled(archive, [file_of(number) for number in range(20)])) == 20


def test_the_last_kept_counts_and_what_cannot_be_used_does_not(archive: Archive, real: InspectedVideo) -> None:
    keep(archive, [real], decoder="av 1")
    keep(archive, [real], format=packing.FORMAT + 1)
    assert recalled(archive, [real.source]) == []
    earlier = keep(archive, [real], kept_at=datetime.now(UTC) - timedelta(days=1))
    later = keep(archive, [real])
    (lot,) = packet_cache.lots(archive, [real.source])
    assert lot.path == later.path != earlier.path
    assert len(recalled(archive, [real.source])) == 1


def test_a_row_of_another_video_is_not_believed(archive: Archive, real: InspectedVideo) -> None:
    keep(archive, [real], fingerprint=file_of(1).fingerprint)
    assert len(packet_cache.lots(archive, [file_of(1)])) == 1
    assert recalled(archive, [file_of(1)]) == []


def test_a_video_that_cannot_be_cut_so_is_left_to_who_opens_it(archive: Archive, real: InspectedVideo) -> None:
    packets = packing.unpack(real.packets, real.source.fingerprint)
    days = packing.index(
        *(getattr(packets.index, name) for name in ("stamp_n", "size_n", "key_n", "reference_n")),
        tick_s=1e4,
        zero_s=0.0,
    )
    long = replace(packets, index=days, tick_s=1e4, end_s=float(days.time_n.max()))
    keep(archive, [replace(real, packets=packing.pack(long, real.source.fingerprint)), video_of(real, 1)])
    assert [video.source for video in recalled(archive, [real.source, file_of(1)])] == [file_of(1)]


def test_parts_are_of_some_videos_and_a_run_of_some_parts() -> None:
    assert [packet_cache.together(count) for count in (1, 100, 300, 1024, 10**6)] == [8, 8, 18, 64, 64]


# --- care


def test_a_part_that_was_never_committed_is_swept(archive: Archive, real: InspectedVideo) -> None:
    keep(archive, [real])
    packet_cache.keep(archive.folder, [video_of(real, 1)])
    assert len(list((archive.folder / "packets").glob("*.parquet"))) == 2
    compact(archive.folder, CompactSettings())
    assert len(list((archive.folder / "packets").glob("*.parquet"))) == 2, "a run may be about to commit it"
    compact(archive.folder, NOW)
    assert len(list((archive.folder / "packets").glob("*.parquet"))) == 1
    assert len(recalled(archive, [real.source])) == 1


def test_compacting_keeps_packets_of_each_content_once(archive: Archive, real: InspectedVideo) -> None:
    ages = {name: datetime.now(UTC) - timedelta(days=days) for name, days in (("old", 8), ("young", 6))}
    for number, (status, kept_at) in enumerate(
        [("ok", "old"), ("duplicate", "old"), ("failed", "old"), ("gone", "young"), (None, "old"), (None, "young")]
    ):
        keep(archive, [video_of(real, number)], kept_at=ages[kept_at])
        if status:
            add_video(archive, f"/videos/{number}.mp4", fingerprint=file_of(number).fingerprint, status=status)
    keep(archive, [video_of(real, 0)])
    report = compact(archive.folder, NOW)
    kept = [file_of(number).fingerprint for number in (0, 1, 2, 5)]
    assert rows_kept(archive) == kept
    change = report.tables["packets"]
    assert (change.files_before, change.files_after, change.rows_dropped) == (7, 1, 3)
    assert len(recalled(archive, [file_of(number) for number in range(6)])) == 4
    assert compact(archive.folder, NOW).tables["packets"].rows_dropped == 0


def test_a_content_stays_for_as_long_as_one_space_has_it(archive: Archive, real: InspectedVideo) -> None:
    keep(archive, [video_of(real, 1)], kept_at=datetime.now(UTC) - timedelta(days=30))
    for space in ("serves", "dropped"):
        log_run(archive, space, space_id=space)
    add_video(archive, "/videos/1.mp4", fingerprint=file_of(1).fingerprint, space="dropped")
    log_run(archive, "last", space_id="serves")
    compact(archive.folder, NOW)
    assert len(rows_kept(archive)) == 1
    compact(archive.folder, CompactSettings(retention_days=0, drop_spaces=("dropped",)))
    assert rows_kept(archive) == []


def test_verify_names_packets_that_do_not_unpack_and_repair_drops_them(archive: Archive, real: InspectedVideo) -> None:
    sound = keep(archive, [real])
    wrong = keep(archive, [video_of(real, 1)], packet_count=3)
    keep(archive, [video_of(real, 2)], packets=b"not read", format=packing.FORMAT + 1)
    (problem,) = verify(archive.folder).problems
    assert (problem.kind, problem.subject) == ("packets", f"packets/{wrong.path}")
    assert problem.remedy == f"footage verify {archive.folder} --repair"
    assert repair(archive).left == ()
    assert verify(archive.folder).problems == ()
    assert wrong.path not in {file.path for file in delta_log.files(archive, "packets")}
    assert sound.path in {file.path for file in delta_log.files(archive, "packets")}


def test_what_is_kept_says_by_what_it_was_read(archive: Archive, real: InspectedVideo) -> None:
    keep(archive, [real])
    (row,) = archive.table("packets").to_pyarrow_table().to_pylist()
    assert (row["decoder"], row["format"]) == (decode.decoder(), packing.FORMAT)
    assert PackedPackets(**{name: row[name] for name in packet_cache.PACKED}) == real.packets
