"""The index: of the clips that can be seen, brought up to each version by segments, published at once."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import index_files, index_plan, indexes, recall_gate, vector_kinds, vectors
from pipeline.archive import Archive
from pipeline.places import PLACES_FILE
from schemas.errors import ArchiveError
from tests.pipeline.factories import SPACE, WIDTH, add_video, commit, embedded, unit_of, unit_vectors, video_row


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / "archive")


def entries(archive: Archive) -> list[str]:
    return sorted(path.name for path in archive.index_folder(SPACE).iterdir())


def by_hand(archive: Archive, query_E: np.ndarray) -> list[tuple[str, float]]:
    """Every visible clip with its cosine, best first, by NumPy."""
    rows = archive.visible_clips(SPACE, ["clip_id", "embedding"]).to_pylist()
    scores = np.array([row["embedding"] for row in rows], np.float32) @ query_E
    return sorted(((row["clip_id"], float(s)) for row, s in zip(rows, scores, strict=True)), key=lambda pair: -pair[1])


def test_search_is_exact(archive: Archive) -> None:
    for number in range(12):
        add_video(archive, f"/videos/{number}.mp4", clips=9)
    index = indexes.build(archive, SPACE, WIDTH)
    assert index.count == 108
    for query_E in unit_vectors(5, seed=77):
        expected = by_hand(archive, query_E)
        for most in (1, 10, 108):
            found = index.search(query_E, most)
            assert [clip_id for clip_id, _ in found] == [clip_id for clip_id, _ in expected[:most]]
            np.testing.assert_allclose([s for _, s in found], [s for _, s in expected[:most]], atol=1e-6)


def test_asking_for_more_than_there_is_gives_all(archive: Archive) -> None:
    add_video(archive, clips=3)
    assert len(indexes.build(archive, SPACE, WIDTH).search(unit_vectors(1)[0], 1000)) == 3


def test_an_empty_archive_has_an_empty_index(archive: Archive) -> None:
    index = indexes.open_current(archive, SPACE, WIDTH)
    assert (index.count, index.search(unit_vectors(1)[0], 10)) == (0, [])
    assert indexes.open_current(archive, SPACE, WIDTH).count == 0, "from the file, too"


def test_the_index_holds_what_can_be_seen_and_no_more(archive: Archive) -> None:
    kept = add_video(archive, "/videos/kept.mp4")
    gone = add_video(archive, "/videos/gone.mp4")
    archive.commit_videos([replace(gone, status="gone", revision=2)])
    commit(archive, [embedded(unit_of(video_row("/videos/hidden.mp4")))])
    add_video(archive, "/videos/other.mp4", space="other")
    index = indexes.build(archive, SPACE, WIDTH)
    found = {clip_id for clip_id, _ in index.search(unit_vectors(1)[0], 100)}
    visible = archive.visible_clips(SPACE, ["clip_id", "video_id"]).to_pylist()
    assert found == {row["clip_id"] for row in visible}
    assert {row["video_id"] for row in visible} == {kept.video_id}


def test_an_index_of_another_version_is_rebuilt(archive: Archive) -> None:
    add_video(archive, clips=2)
    first = indexes.build(archive, SPACE, WIDTH)
    add_video(archive, "/videos/b.mp4", clips=3)
    second = indexes.open_current(archive, SPACE, WIDTH)
    assert (first.count, second.count) == (2, 5)
    assert (first.videos_version, second.videos_version) == (1, 2)
    assert entries(archive) == ["2"], "the old one is dropped"


def test_an_index_of_this_version_is_read_and_not_built(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    add_video(archive)
    built = indexes.build(archive, SPACE, WIDTH)
    monkeypatch.setattr(indexes, "build", None)
    query_E = unit_vectors(1)[0]
    assert indexes.open_current(archive, SPACE, WIDTH).search(query_E, 9) == built.search(query_E, 9)


def test_an_index_that_is_mapped_answers_as_one_that_is_read_and_after_it_was_swept(archive: Archive) -> None:
    for number in range(5):
        add_video(archive, f"/videos/{number}.mp4", clips=9)
    indexes.build(archive, SPACE, WIDTH)
    (file,) = archive.index_folder(SPACE).glob("5/*.faiss")
    mapped = indexes.open_current(archive, SPACE, WIDTH)
    assert str(file) in Path("/proc/self/maps").read_text(), "it is mapped"
    read = replace(mapped, segments=(replace(mapped.segments[0], index=faiss.read_index(str(file))),))
    shutil.rmtree(archive.index_folder(SPACE))
    for query_E in unit_vectors(5, seed=7):
        assert mapped.search(query_E, 45) == read.search(query_E, 45)


def test_a_lost_index_is_rebuilt_from_the_archive(archive: Archive) -> None:
    add_video(archive)
    query_E = unit_vectors(1)[0]
    before = indexes.build(archive, SPACE, WIDTH).search(query_E, 9)
    shutil.rmtree(archive.index_folder(SPACE))
    assert indexes.open_current(archive, SPACE, WIDTH).search(query_E, 9) == before


@pytest.mark.parametrize("keep", [0, 10, 60])
def test_a_damaged_index_is_rebuilt_from_the_archive(keep: int, archive: Archive) -> None:
    add_video(archive)
    query_E = unit_vectors(1)[0]
    before = indexes.build(archive, SPACE, WIDTH).search(query_E, 9)
    (file,) = archive.index_folder(SPACE).rglob("*.faiss")
    file.write_bytes(file.read_bytes()[:keep])
    assert indexes.open_current(archive, SPACE, WIDTH).search(query_E, 9) == before
    (file,) = archive.index_folder(SPACE).rglob("*.faiss")
    assert file.stat().st_size > 60, "and written anew"


def test_a_published_index_is_whole_and_leaves_no_draft(archive: Archive) -> None:
    add_video(archive, clips=4)
    indexes.build(archive, SPACE, WIDTH)
    indexes.build(archive, SPACE, WIDTH)
    assert entries(archive) == ["1"]
    folder = archive.index_folder(SPACE) / "1"
    manifest = json.loads((folder / index_files.MANIFEST).read_text())
    (segment,) = manifest.pop("segments")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*vectors.file_names(segment["name"]), index_files.MANIFEST, PLACES_FILE]
    )
    assert manifest == {"format": index_files.FORMAT, "videos_version": 1, "clips": 4}
    assert (segment["kind"], segment["clips"], segment["shown"]) == ("flat", 4, 4)


def test_a_draft_that_a_crash_left_is_never_read_and_goes_with_the_next_index(archive: Archive) -> None:
    draft = archive.index_folder(SPACE) / ".draft-of-a-run-that-died"
    draft.mkdir(parents=True)
    (draft / "0123abcd.faiss").write_bytes(b"half an index")
    add_video(archive)
    assert indexes.open_current(archive, SPACE, WIDTH).count == 2
    assert entries(archive) == ["1"]


def test_a_failure_while_writing_publishes_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    add_video(archive)

    def full_disk(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vectors.faiss, "write_index", full_disk)
    with pytest.raises(OSError, match="No space left"):
        indexes.build(archive, SPACE, WIDTH)
    assert not (archive.index_folder(SPACE) / "1").exists()


@pytest.mark.parametrize("moment", ["before it writes", "after it wrote"])
@pytest.mark.parametrize("version", ["the same", "a newer"])
def test_the_other_one_of_two_builders_may_be_first(
    version: str, moment: str, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two searches find the index stale at the same time, or one commit apart; the other publishes first."""
    add_video(archive)
    write = vectors.faiss.write_index

    def other() -> None:
        monkeypatch.setattr(vectors.faiss, "write_index", write)
        if version == "a newer":
            add_video(archive, "/videos/newer.mp4")
        indexes.build(archive, SPACE, WIDTH)

    def overtaken(index, path: str) -> None:
        if moment == "before it writes":
            other()
        write(index, path)
        if moment == "after it wrote":
            other()

    monkeypatch.setattr(vectors.faiss, "write_index", overtaken)
    assert indexes.build(archive, SPACE, WIDTH).count == 2, "it answers from what it built"
    assert entries(archive) == ["2" if version == "a newer" else "1"]
    assert indexes.open_current(archive, SPACE, WIDTH).count == (4 if version == "a newer" else 2)


def test_an_index_that_is_swept_while_it_is_opened_is_built(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    add_video(archive)
    indexes.build(archive, SPACE, WIDTH)
    read = vectors.faiss.read_index

    def too_late(path: str, flags: int) -> faiss.Index:
        monkeypatch.setattr(vectors.faiss, "read_index", read)
        shutil.rmtree(archive.index_folder(SPACE) / "1")
        return read(path, flags)

    monkeypatch.setattr(vectors.faiss, "read_index", too_late)
    assert indexes.open_current(archive, SPACE, WIDTH).count == 2


def test_vectors_of_another_width_are_an_error(archive: Archive) -> None:
    add_video(archive)
    with pytest.raises(ArchiveError, match=r"2 clips hold 16 values; expected 9 each"):
        indexes.build(archive, SPACE, WIDTH + 1)


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system does not tell what it holds of a file")
def test_segments_are_read_into_the_systems_cache_if_it_holds_them(archive: Archive) -> None:
    add_video(archive, clips=40)
    folder = archive.index_folder(SPACE) / str(indexes.build(archive, SPACE, WIDTH).videos_version)
    (segment,) = index_files.segments_of(folder)
    files = [folder / name for name in vectors.file_names(segment["name"])]
    size_bytes = sum(map(forgotten, files))
    assert index_files.read_ahead(folder, [segment["name"]], size_bytes - 1) == 0
    assert index_files.read_ahead(folder, [segment["name"]], size_bytes) == size_bytes
    assert all(map(in_memory, files))


def forgotten(file: Path) -> int:
    """Has the system forget what it holds of a file; returns its bytes."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return file.stat().st_size


def in_memory(file: Path) -> bool:
    """Whether a file's last bytes can be had without waiting for a disk."""
    with file.open("rb") as opened:
        try:
            return os.preadv(opened.fileno(), [bytearray(1)], file.stat().st_size - 1, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False
        except OSError as error:
            return pytest.skip(f"this file system does not tell what is held of a file: {error}")


# --- from one version to the next


def names(index: index_files.VectorIndex) -> list[str]:
    return [segment.name for segment in index.segments]


def assert_right(archive: Archive, index: index_files.VectorIndex) -> None:
    """The index finds what can be seen, with the very scores of one that is built anew."""
    visible = set(archive.visible_clips(SPACE, ["clip_id"])["clip_id"].to_pylist())
    anew = indexes.build(Archive(archive.folder), SPACE, WIDTH)
    for query_E in unit_vectors(3, seed=5):
        found = index.search(query_E, len(visible) + 5)
        assert {clip_id for clip_id, _ in found} == visible
        assert found == anew.search(query_E, len(visible) + 5)


def test_what_is_new_becomes_a_segment_and_the_rest_is_taken_over(archive: Archive) -> None:
    add_video(archive, "/videos/large.mp4", clips=40)
    first = indexes.open_current(archive, SPACE, WIDTH)
    (file,) = archive.index_folder(SPACE).glob("1/*.faiss")
    inode = file.stat().st_ino
    add_video(archive, "/videos/small.mp4", clips=3)
    second = indexes.open_current(archive, SPACE, WIDTH)
    assert names(second)[0] == names(first)[0]
    assert [segment.count for segment in second.segments] == [40, 3]
    assert (archive.index_folder(SPACE) / "2" / file.name).stat().st_ino == inode, "linked, not copied"
    assert_right(archive, second)


def test_small_segments_are_merged(archive: Archive) -> None:
    add_video(archive, "/videos/large.mp4", clips=100)
    indexes.open_current(archive, SPACE, WIDTH)
    for number in range(8):
        add_video(archive, f"/videos/{number}.mp4", clips=3)
        index = indexes.open_current(archive, SPACE, WIDTH)
        assert len(index.segments) <= 4
    assert index.count == 124
    assert_right(archive, index)


def test_what_can_no_longer_be_seen_is_hidden_at_once_and_dropped_when_it_is_much(archive: Archive) -> None:
    rows = [add_video(archive, f"/videos/{number}.mp4", clips=10) for number in range(10)]
    first = indexes.open_current(archive, SPACE, WIDTH)
    archive.commit_videos([replace(rows[0], status="gone", revision=2)])
    second = indexes.open_current(archive, SPACE, WIDTH)
    assert names(second) == names(first)
    assert (second.count, len(second.segments[0].clips_N)) == (90, 100)
    assert_right(archive, second)
    indexes.build(archive, SPACE, WIDTH, anew=False)
    archive.commit_videos(replace(row, status="gone", revision=2) for row in rows[1:3])
    third = indexes.open_current(archive, SPACE, WIDTH)
    assert (third.count, len(third.segments[0].clips_N)) == (70, 70)
    assert_right(archive, third)


def test_a_new_revision_takes_the_place_of_the_old(archive: Archive) -> None:
    add_video(archive, "/videos/other.mp4", clips=30)
    row = add_video(archive, "/videos/a.mp4", clips=4)
    indexes.open_current(archive, SPACE, WIDTH)
    newer = replace(row, revision=2)
    commit(archive, [embedded(unit_of(newer, 4), unit_vectors(4, seed=50))], [newer])
    assert_right(archive, indexes.open_current(archive, SPACE, WIDTH))


def test_an_index_with_hidden_clips_is_read_as_it_was_written(archive: Archive) -> None:
    rows = [add_video(archive, f"/videos/{number}.mp4", clips=10) for number in range(10)]
    indexes.open_current(archive, SPACE, WIDTH)
    archive.commit_videos([replace(rows[4], status="gone", revision=2)])
    built, read = (indexes.open_current(archive, SPACE, WIDTH) for _ in range(2))
    query_E = unit_vectors(1, seed=8)[0]
    assert built.search(query_E, 100) == read.search(query_E, 100)
    assert read.count == 90


def test_a_reader_keeps_the_version_it_opened(archive: Archive) -> None:
    rows = [add_video(archive, f"/videos/{number}.mp4", clips=5) for number in range(3)]
    opened = indexes.open_current(archive, SPACE, WIDTH)
    query_E = unit_vectors(1, seed=8)[0]
    before = opened.search(query_E, 15)
    archive.commit_videos([replace(rows[0], status="gone", revision=2)])
    assert indexes.open_current(archive, SPACE, WIDTH).count == 10
    assert opened.search(query_E, 15) == before


def test_a_segment_that_cannot_be_read_is_made_anew_with_the_next_version(archive: Archive) -> None:
    add_video(archive, "/videos/a.mp4", clips=20)
    indexes.open_current(archive, SPACE, WIDTH)
    (file,) = archive.index_folder(SPACE).glob("1/*.faiss")
    file.write_bytes(file.read_bytes()[:50])
    add_video(archive, "/videos/b.mp4", clips=2)
    assert_right(archive, indexes.open_current(archive, SPACE, WIDTH))


def test_an_index_of_an_earlier_format_is_replaced(archive: Archive) -> None:
    add_video(archive)
    folder = archive.index_folder(SPACE) / "1"
    folder.mkdir(parents=True)
    (folder / index_files.MANIFEST).write_text(json.dumps({"videos_version": 1, "clips": 2, "type": "flat"}))
    assert indexes.open_current(archive, SPACE, WIDTH).count == 2
    assert json.loads((folder / index_files.MANIFEST).read_text())["format"] == index_files.FORMAT


@pytest.fixture
def many(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """More clips than are compared one by one."""
    monkeypatch.setattr(vector_kinds, "FLAT_CLIPS", 500)
    monkeypatch.setattr(index_plan, "FLAT_CLIPS", 500)
    monkeypatch.setattr(vector_kinds, "SAMPLE_PER_LIST", 39)
    monkeypatch.setattr(vectors, "PICKED", 0)
    for number in range(8):
        row = video_row(f"/videos/{number}.mp4", clip_count=1000)
        commit(archive, [embedded(unit_of(row, 1000), unit_vectors(1000, seed=number))], [row])
    return archive


def test_many_clips_are_sorted_into_lists_and_nearly_all_is_found(many: Archive) -> None:
    texts_QE = unit_vectors(20, seed=100)
    index = indexes.build(many, SPACE, WIDTH, rules=index_plan.Rules(texts=lambda: texts_QE))
    (segment,) = index.segments
    assert (segment.kind.name, segment.kind.lists > 1, index.is_exact) == ("fp16", True, True)
    recall = index.recall[segment.name]
    assert set(recall) == {"clips", "texts"}
    assert min(recall[group][at] for group in recall for at in ("at_10", "at_100")) >= 0.99
    for query_E in texts_QE:
        expected = [clip_id for clip_id, _ in by_hand(many, query_E)[:10]]
        found = {clip_id for clip_id, _ in index.search(query_E, recall_gate.CANDIDATES)}
        assert len(found & set(expected)) >= 8
    again = indexes.open_current(many, SPACE, WIDTH)
    assert again.search(texts_QE[0], 50) == index.search(texts_QE[0], 50)
    assert again.recall == index.recall


def widely(index: index_files.VectorIndex) -> index_files.VectorIndex:
    """All lists are looked into."""
    return replace(index, segments=tuple(segment.with_probes(segment.kind.lists) for segment in index.segments))


def test_little_memory_makes_several_segments_that_find_the_same(
    many: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = indexes.build(many, SPACE, WIDTH)
    monkeypatch.setattr(index_plan, "SEGMENT_PART", 8000 * (2 * WIDTH + 16) / 3.5 / (8 * index_plan.GB))
    parts = indexes.build(many, SPACE, WIDTH)
    assert [segment.count for segment in parts.segments] == [2000] * 4
    for query_E in unit_vectors(5, seed=100):
        one, other = (widely(index).search(query_E, 20) for index in (whole, parts))
        assert one == other


@pytest.mark.parametrize("kind", ["pca", "sq8", "pq"])
def test_what_is_found_in_codes_has_the_scores_of_vectors_as_they_are_stored(
    kind: vector_kinds.KindName, many: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = widely(indexes.build(many, SPACE, WIDTH))
    monkeypatch.setattr(vector_kinds, "SAMPLE_OF_CODES", 2560)
    monkeypatch.setattr(index_plan, "kind_for", lambda *_: vector_kinds.Kind(kind, vector_kinds.lists_for(kind, 256)))
    index = widely(indexes.build(many, SPACE, WIDTH, rules=index_plan.Rules(recall=0)))
    assert (index.segments[0].kind.name, index.is_exact) == (kind, False)
    monkeypatch.setattr(vectors, "NEAR", index.count)  # these vectors fill all directions alike, so heads say nothing
    reader = many.clip_reader(SPACE, index.places)
    for query_E in unit_vectors(5, seed=100):
        expected = exact.search(query_E, 10)
        assert dict(index.search(query_E, 10)) != dict(expected), "what codes alone would say"
        assert indexes.nearest(index, reader, query_E, 10) == expected
        assert indexes.nearest(exact, reader, query_E, 10) == expected


def test_a_code_that_finds_too_little_gives_way_to_a_finer_one(many: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    real = recall_gate.tuned

    def tuned(segment, groups, least):
        tried.append(segment.kind.name)
        segment, found, _ = real(segment, groups, least)
        return segment, found, segment.kind.name == "flat"

    monkeypatch.setattr(recall_gate, "tuned", tuned)
    index = indexes.build(many, SPACE, WIDTH)
    assert tried == ["fp16", "flat"]
    assert index.is_exact
    folder = many.index_folder(SPACE) / str(index.videos_version)
    assert len(list(folder.glob("*.faiss"))) == 1, "of what was tried nothing is left"


def test_few_new_clips_beside_many_are_exact(many: Archive) -> None:
    indexes.build(many, SPACE, WIDTH)
    add_video(many, "/videos/new.mp4", clips=9)
    index = indexes.open_current(many, SPACE, WIDTH)
    assert [(s.kind.name, s.count) for s in index.segments] == [("fp16", 8000), ("flat", 9)]


@given(lots=st.lists(st.integers(1, 9), max_size=6), counts=st.lists(st.integers(0, 12), max_size=4))
def test_lots_are_cut_anew_without_loss(lots: list[int], counts: list[int]) -> None:
    total = sum(lots)
    edges = np.cumsum([0, *lots])
    numbers = np.arange(total, dtype=np.uint64)
    parts = [(numbers[a:b], numbers[a:b], np.zeros((b - a, 1), np.float32)) for a, b in itertools.pairwise(edges)]
    groups = [[int(n) for clips, *_ in group for n in clips] for group in indexes.recut(iter(parts), counts)]
    assert [n for group in groups for n in group] == list(range(min(total, sum(counts))))
    for group, count in zip(groups[:-1], counts, strict=False):
        assert len(group) == count or sum(counts) >= total


# --- of this machine


def test_a_rebuilt_index_takes_the_place_of_that_of_the_same_version(archive: Archive) -> None:
    add_video(archive, clips=5)
    first = indexes.build(archive, SPACE, WIDTH)
    second = indexes.build(archive, SPACE, WIDTH)
    read = indexes.open_current(archive, SPACE, WIDTH)
    assert names(read) == names(second) != names(first)
    query_E = unit_vectors(1, seed=8)[0]
    assert first.search(query_E, 5) == read.search(query_E, 5), "who opened the first keeps it"
    assert len(list(archive.index_folder(SPACE).rglob("*.faiss"))) == 1


def test_a_draft_of_a_living_builder_stays(archive: Archive) -> None:
    add_video(archive)
    with index_files.draft(archive.index_folder(SPACE)) as mine:
        indexes.build(archive, SPACE, WIDTH)
        assert mine.is_dir()
    assert entries(archive) == ["1"]


def test_an_index_that_is_replaced_while_it_is_opened_is_read_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_video(archive)
    indexes.build(archive, SPACE, WIDTH)
    read = vectors.faiss.read_index

    def too_late(path: str, flags: int) -> faiss.Index:
        monkeypatch.setattr(vectors.faiss, "read_index", read)
        indexes.build(archive, SPACE, WIDTH)
        monkeypatch.setattr(indexes, "build", None)
        return read(path, flags)

    monkeypatch.setattr(vectors.faiss, "read_index", too_late)
    assert indexes.open_current(archive, SPACE, WIDTH).count == 2
