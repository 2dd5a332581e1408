"""The index: exact, of the clips that can be seen, rebuilt when it is of another version, published at once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import vectors
from pipeline.archive import Archive
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


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_every_64_bit_id_goes_to_faiss_and_back(numbers: list[int]) -> None:
    clip_ids = [f"{number:016x}" for number in numbers]
    faiss_ids = vectors.to_faiss_ids(clip_ids)
    assert faiss_ids.dtype == np.int64
    assert [vectors.from_faiss_id(number) for number in faiss_ids] == clip_ids


def test_ids_with_the_highest_bit_survive_the_index_itself() -> None:
    ids = ["fffffffffffffffe", "8000000000000000", "0000000000000000", "7fffffffffffffff", "0000000000000001"]
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(WIDTH))
    stored = unit_vectors(len(ids))
    index.add_with_ids(stored, vectors.to_faiss_ids(ids))
    opened = vectors.VectorIndex(index, 0)
    for clip_id, vector_E in zip(ids, stored, strict=True):
        assert opened.search(vector_E, 1)[0][0] == clip_id


def test_search_is_exact(archive: Archive) -> None:
    for number in range(12):
        add_video(archive, f"/videos/{number}.mp4", clips=9)
    index = vectors.build(archive, SPACE, WIDTH)
    assert index.count == 108
    for query_E in unit_vectors(5, seed=77):
        expected = by_hand(archive, query_E)
        for most in (1, 10, 108):
            found = index.search(query_E, most)
            assert [clip_id for clip_id, _ in found] == [clip_id for clip_id, _ in expected[:most]]
            np.testing.assert_allclose([s for _, s in found], [s for _, s in expected[:most]], atol=1e-6)


def test_asking_for_more_than_there_is_gives_all(archive: Archive) -> None:
    add_video(archive, clips=3)
    assert len(vectors.build(archive, SPACE, WIDTH).search(unit_vectors(1)[0], 1000)) == 3


def test_an_empty_archive_has_an_empty_index(archive: Archive) -> None:
    index = vectors.open_current(archive, SPACE, WIDTH)
    assert (index.count, index.search(unit_vectors(1)[0], 10)) == (0, [])
    assert vectors.open_current(archive, SPACE, WIDTH).count == 0, "from the file, too"


def test_the_index_holds_what_can_be_seen_and_no_more(archive: Archive) -> None:
    kept = add_video(archive, "/videos/kept.mp4")
    gone = add_video(archive, "/videos/gone.mp4")
    archive.commit_videos([replace(gone, status="gone", revision=2)])
    commit(archive, [embedded(unit_of(video_row("/videos/hidden.mp4")))])
    add_video(archive, "/videos/other.mp4", space="other")
    index = vectors.build(archive, SPACE, WIDTH)
    found = {clip_id for clip_id, _ in index.search(unit_vectors(1)[0], 100)}
    visible = archive.visible_clips(SPACE, ["clip_id", "video_id"]).to_pylist()
    assert found == {row["clip_id"] for row in visible}
    assert {row["video_id"] for row in visible} == {kept.video_id}


def test_an_index_of_another_version_is_rebuilt(archive: Archive) -> None:
    add_video(archive, clips=2)
    first = vectors.build(archive, SPACE, WIDTH)
    add_video(archive, "/videos/b.mp4", clips=3)
    second = vectors.open_current(archive, SPACE, WIDTH)
    assert (first.count, second.count) == (2, 5)
    assert (first.videos_version, second.videos_version) == (1, 2)
    assert entries(archive) == ["2"], "the old one is dropped"


def test_an_index_of_this_version_is_read_and_not_built(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    add_video(archive)
    built = vectors.build(archive, SPACE, WIDTH)
    monkeypatch.setattr(vectors, "build", None)
    query_E = unit_vectors(1)[0]
    assert vectors.open_current(archive, SPACE, WIDTH).search(query_E, 9) == built.search(query_E, 9)


def test_an_index_that_is_mapped_answers_as_one_that_is_read_and_after_it_was_swept(archive: Archive) -> None:
    for number in range(5):
        add_video(archive, f"/videos/{number}.mp4", clips=9)
    vectors.build(archive, SPACE, WIDTH)
    file = archive.index_folder(SPACE) / "5" / vectors.INDEX_FILE
    read, mapped = faiss.read_index(str(file)), vectors.open_current(archive, SPACE, WIDTH)
    assert str(file) in Path("/proc/self/maps").read_text(), "it is mapped"
    shutil.rmtree(archive.index_folder(SPACE))
    for query_E in unit_vectors(5, seed=7):
        assert mapped.search(query_E, 45) == vectors.VectorIndex(read, 5).search(query_E, 45)


def test_a_lost_index_is_rebuilt_from_the_archive(archive: Archive) -> None:
    add_video(archive)
    query_E = unit_vectors(1)[0]
    before = vectors.build(archive, SPACE, WIDTH).search(query_E, 9)
    shutil.rmtree(archive.index_folder(SPACE))
    assert vectors.open_current(archive, SPACE, WIDTH).search(query_E, 9) == before


@pytest.mark.parametrize("keep", [0, 10, 60])
def test_a_damaged_index_is_rebuilt_from_the_archive(keep: int, archive: Archive) -> None:
    add_video(archive)
    query_E = unit_vectors(1)[0]
    before = vectors.build(archive, SPACE, WIDTH).search(query_E, 9)
    (file,) = archive.index_folder(SPACE).rglob(vectors.INDEX_FILE)
    file.write_bytes(file.read_bytes()[:keep])
    assert vectors.open_current(archive, SPACE, WIDTH).search(query_E, 9) == before
    assert file.stat().st_size > 60, "and written anew"


def test_a_published_index_is_whole_and_leaves_no_draft(archive: Archive) -> None:
    add_video(archive, clips=4)
    vectors.build(archive, SPACE, WIDTH)
    vectors.build(archive, SPACE, WIDTH)
    assert entries(archive) == ["1"]
    folder = archive.index_folder(SPACE) / "1"
    assert sorted(path.name for path in folder.iterdir()) == [
        vectors.INDEX_FILE,
        vectors.MANIFEST,
        vectors.PLACES_FILE,
    ]
    manifest = json.loads((folder / vectors.MANIFEST).read_text())
    assert manifest == {"videos_version": 1, "clips": 4, "type": "flat"}


def test_a_draft_that_a_crash_left_is_never_read_and_goes_with_the_next_index(archive: Archive) -> None:
    draft = archive.index_folder(SPACE) / ".draft-of-a-run-that-died"
    draft.mkdir(parents=True)
    (draft / vectors.INDEX_FILE).write_bytes(b"half an index")
    add_video(archive)
    assert vectors.open_current(archive, SPACE, WIDTH).count == 2
    assert entries(archive) == ["1"]


def test_a_failure_while_writing_publishes_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    add_video(archive)

    def full_disk(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vectors.faiss, "write_index", full_disk)
    with pytest.raises(OSError, match="No space left"):
        vectors.build(archive, SPACE, WIDTH)
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
        vectors.build(archive, SPACE, WIDTH)

    def overtaken(index, path: str) -> None:
        if moment == "before it writes":
            other()
        write(index, path)
        if moment == "after it wrote":
            other()

    monkeypatch.setattr(vectors.faiss, "write_index", overtaken)
    assert vectors.build(archive, SPACE, WIDTH).count == 2, "it answers from what it built"
    assert entries(archive) == ["2" if version == "a newer" else "1"]
    assert vectors.open_current(archive, SPACE, WIDTH).count == (4 if version == "a newer" else 2)


def test_an_index_that_is_swept_while_it_is_opened_is_built(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    add_video(archive)
    vectors.build(archive, SPACE, WIDTH)
    read = vectors.faiss.read_index

    def too_late(path: str, flags: int) -> faiss.Index:
        monkeypatch.setattr(vectors.faiss, "read_index", read)
        shutil.rmtree(archive.index_folder(SPACE) / "1")
        return read(path, flags)

    monkeypatch.setattr(vectors.faiss, "read_index", too_late)
    assert vectors.open_current(archive, SPACE, WIDTH).count == 2


def test_vectors_of_another_width_are_an_error(archive: Archive) -> None:
    add_video(archive)
    with pytest.raises(ArchiveError, match=r"2 clips hold 16 values; expected 9 each"):
        vectors.build(archive, SPACE, WIDTH + 1)
