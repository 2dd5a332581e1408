"""Filters: what a condition lets through is what SQL says of the rows that can be seen, and it can say nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from pipeline import filters, keys
from pipeline.archive import Archive
from pipeline.filters import COLUMNS, of_condition
from pipeline.indexes import build
from pipeline.label_sets import NONE
from schemas import tables
from schemas.errors import InputError
from tests.pipeline.factories import (
    NOON,
    SPACE,
    WIDTH,
    add_tags,
    add_video,
    commit,
    embedded,
    unit_of,
    unit_vectors,
    video_row,
)


def tag_row(clip: dict, label: str, probability: float | None, label_set: str = "set", **changes) -> dict:
    return {
        "clip_id": clip["clip_id"], "video_id": clip["video_id"], "space": SPACE, "label_set": label_set,
        "label": label, "rank": 1, "probability": probability, "score": 10 * (probability or 0.0), "tagged_at": NOON,
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Four videos of two clips, one of them gone, one with an older revision; tags of some of their clips."""
    archive = Archive.create(tmp_path_factory.mktemp("filtered") / "archive")
    add_video(archive, "s3://news/a.mp4", duration_s=100.0, minutes=1)
    add_video(archive, "s3://news/b's.mp4", duration_s=30.0, minutes=2, width=640)
    add_video(archive, "/videos/c.mp4", duration_s=200.0, minutes=3, revision=1)
    add_video(archive, "/videos/c.mp4", duration_s=70.0, minutes=4, revision=2)
    gone = add_video(archive, "s3://news/gone.mp4", duration_s=500.0, minutes=5)
    archive.commit_videos([replace(gone, status="gone", revision=2)])
    clips = archive.visible_clips(SPACE, ["clip_id", "video_id", "start_s"]).to_pylist()
    named = {(archive.uris(SPACE)[c["video_id"]][-6:], c["start_s"]): c for c in clips}
    tags = [
        tag_row(named["/a.mp4", 0.0], "juggling", 0.9),
        tag_row(named["/a.mp4", 0.0], "dog", 0.1),
        tag_row(named["/a.mp4", 10.0], "juggling", 0.2),
        tag_row(named["/a.mp4", 10.0], "dog", 0.8),
        tag_row(named["/c.mp4", 0.0], "dog", 0.6),
    ]
    add_tags(archive, tags)
    return archive


def passed(archive: Archive, condition: str) -> set[tuple[str, float]]:
    """The visible clips that a condition lets through, as the end of the uri and the start."""
    condition = of_condition(archive, SPACE, condition)
    clips = archive.visible_clips(SPACE, ["clip_id", "video_id", "revision", "start_s"])
    mask = condition.mask(keys.of_ids(clips["clip_id"]), keys.of_revisions(clips))
    assert mask.dtype == np.bool_
    assert condition.share == pytest.approx(mask.mean())
    uris = archive.uris(SPACE)
    return {(uris[c["video_id"]][-6:], c["start_s"]) for c in clips.filter(pa.array(mask)).to_pylist()}


A0, A1, B0, B1, C0, C1 = [(name, start) for name in ("/a.mp4", "'s.mp4", "/c.mp4") for start in (0.0, 10.0)]
ALL = {A0, A1, B0, B1, C0, C1}

CONDITIONS = {
    # videos alone
    "duration_s > 60": {A0, A1, C0, C1},
    "duration_s > 60 and uri like 's3://news/%'": {A0, A1},
    "duration_s between 50 and 80": {C0, C1},
    "revision = 2": {C0, C1},
    "uri ilike '%B''S%'": {B0, B1},
    "videos.width in (640, 1280)": {B0, B1},
    "WIDTH <> 640": {A0, A1, C0, C1},
    "error is null": ALL,
    "not (error is null)": set(),
    "ends_with(uri, 'a.mp4') or width * 2 = 1280": {A0, A1, B0, B1},
    "indexed_at > '2026-01-01'": ALL,
    "indexed_at >= '2026-01-01 12:02:00' and indexed_at < '2026-01-01 12:03:00'": {B0, B1},
    "indexed_at - INTERVAL '2 minutes' < '2026-01-01 12:00:00'": {A0, A1},
    "date_trunc('day', indexed_at) = '2026-01-01'": ALL,
    "case when width = 640 then false else true end": {A0, A1, C0, C1},
    "cast(duration_s as integer) % 100 = 0": {A0, A1},
    "regexp_matches(uri, 'news/[ab]')": {A0, A1, B0, B1},
    "true": ALL,
    "false": set(),
    "duration_s > 60 -- and a comment": {A0, A1, C0, C1},
    # clips
    "start_s >= 10": {A1, B1, C1},
    "end_s - start_s > 60": set(),
    "start_s = 0 and width = 640": {B0},
    "start_s = 0 or width = 640": {A0, B0, B1, C0},
    # tags
    "label = 'juggling'": {A0, A1},
    "label = 'juggling' and probability > 0.5": {A0},
    "label = 'dog' and probability > 0.5 and duration_s < 100": {C0},
    "label = 'dog' or width = 640": {A0, A1, B0, B1, C0},
    "label <> 'juggling'": {A0, A1, C0},
    "label is null": {B0, B1, C1},
    "label = 'dog' and start_s = 10": {A1},
    "tags.score > 5": {A0, A1, C0},
    "label = 'dog' and label = 'juggling'": set(),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_lets_through_what_sql_says(condition: str, archive: Archive) -> None:
    assert passed(archive, condition) == CONDITIONS[condition]


@pytest.fixture(scope="module")
def tagged_again(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Two videos of three clips, tagged with a background, and half of them again, calibrated and with another set."""
    archive = Archive.create(tmp_path_factory.mktemp("again") / "archive")
    for name in ("a", "b"):
        add_video(archive, f"/videos/{name}.mp4", clips=3)
    clips = archive.visible_clips(SPACE, ["clip_id", "video_id", "start_s"]).to_pylist()
    named = {(archive.uris(SPACE)[c["video_id"]][-6:], c["start_s"]): c for c in clips}
    old, new = "softmax, uncalibrated", "softmax, calibrated"
    later = {"tagged_at": NOON + timedelta(minutes=1), "basis": new, "tagging": "t2"}
    # The newest lot is not the last one written.
    add_tags(archive, [tag_row(named["/a.mp4", 0.0], "cat", 0.7, **later)])
    add_tags(archive, [tag_row(named["/a.mp4", 10.0], NONE, 0.6, **later)])
    add_tags(archive, [tag_row(named["/a.mp4", 10.0], "dog", 0.4, **later, rank=2)])
    firsts = [named["/a.mp4", 0.0], named["/a.mp4", 10.0], named["/b.mp4", 0.0]]
    add_tags(archive, [tag_row(clip, "dog", 0.9, basis=old, tagging="t1") for clip in firsts])
    add_tags(archive, [tag_row(named["/a.mp4", 20.0], NONE, None, basis="sigmoid, uncalibrated", tagging="t3")])
    add_tags(archive, [tag_row(named["/b.mp4", 0.0], "night", 0.5, "other", basis=old, tagging="t4")])
    return archive


A2, D0, D1, D2 = ("/a.mp4", 20.0), ("/b.mp4", 0.0), ("/b.mp4", 10.0), ("/b.mp4", 20.0)
AGAIN = {
    # of tags that were made again the newest
    "label = 'dog' and probability > 0.8": {D0},
    "label = 'dog'": {A1, D0},
    "label = 'cat'": {A0},
    "label = 'cat' or label = 'night'": {A0, D0},
    "tagging = 't1'": {D0},
    "basis like '%, calibrated'": {A0, A1},
    "tagged_at > '2026-01-01 12:00:30'": {A0, A1},
    "label_set = 'other' and label = 'night'": {D0},
    # that no label fits is no label
    "label <> 'dog'": {A0, D0},
    "label is not null": {A0, A1, D0},
    "label is null": {A2, D1, D2},
    "label_set is null": {A2, D1, D2},
    "probability > 0.5": {A0, D0},
    "label like 'none%'": set(),
    "rank = 1": {A0, D0},
    # unless it is asked for by name
    f"label = '{NONE}'": {A1, A2},
    f"label = '{NONE}' and probability > 0.5": {A1},
    f"label in ('cat', '{NONE}')": {A0, A1, A2},
    f"label = '{NONE}' or label is null": {A1, A2, D1, D2},
    f"label = '{NONE}' and end_s <= 20": {A1},
    f"'{NONE}' = label and uri like '%b.mp4'": set(),
}


@pytest.mark.parametrize("condition", AGAIN)
def test_only_tags_that_count_are_looked_at(condition: str, tagged_again: Archive) -> None:
    assert passed(tagged_again, condition) == AGAIN[condition]


def test_a_condition_on_videos_alone_looks_at_no_clip(archive: Archive) -> None:
    assert of_condition(archive, SPACE, "duration_s > 60").is_of_videos
    assert not of_condition(archive, SPACE, "duration_s > 60 and start_s > 0").is_of_videos


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("colour = 'red'", "there is no column colour"),
        ("videos.label = 'x'", "there is no column videos.label"),
        ("clips.uri = 'x'", "there is no column clips.uri"),
        ("uri.name = 'x'", "there is no column uri.name"),
        ("embedding is not null", "there is no column embedding"),
        ("_video = 1", "there is no column _video"),
        ("duration_s >", "syntax error"),
        ("", "it is empty"),
        ("duration_s > 'long'", "Could not convert"),
        ("uri > interval '1 day' + 1", "Binder Error"),
        ("getenv('HOME') = 'x'", "the function getenv is not allowed"),
        ("read_text('/etc/passwd') is not null", "the function read_text is not allowed"),
        ("repeat(uri, 1000000000) = 'x'", "the function repeat is not allowed"),
        ("count(*) > 1", "is not allowed"),
        ("max(duration_s) > 1", "the function max is not allowed"),
        ("exists (select 1)", "subquery is not allowed"),
        ("duration_s > (select 1)", "subquery is not allowed"),
        ("uri in (select uri from videos)", "subquery is not allowed"),
        ("uri in (select content from read_text('/etc/passwd'))", "subquery is not allowed"),
        ("row_number() over () = 1", "is not allowed"),
        ("list_transform([1], x -> x) is null", "is not allowed"),
        ("duration_s > $1", "more than a condition"),
        ("* is null", "is not allowed"),
        ("true) or (true", None),
        ("true) union all select 1 from videos where (true", "more than a condition"),
        ("true) group by (uri", "more than a condition"),
        ("true) order by (uri", "more than a condition"),
        ("true) limit (1", "more than a condition"),
        ("true) qualify (true", "more than a condition"),
        ("true); drop table videos; select 1 from rows where (true", None),
        ("true); select 1 from rows where (true", "more than a condition"),
        ("true /*", None),
    ],
)
def test_what_is_no_condition_is_refused_and_the_columns_are_named(condition, why, archive: Archive) -> None:
    if condition == "true) or (true":  # two conditions with `or` between them
        assert passed(archive, condition) == ALL
        return
    with pytest.raises(InputError, match="cannot be used") as caught:
        of_condition(archive, SPACE, condition)
    assert why is None or why.lower() in str(caught.value).lower()
    assert "of videos: video_id, uri, " in str(caught.value)
    assert "of tags: label_set, label, " in str(caught.value)


def test_no_two_tables_have_a_column_of_one_name_and_none_is_forgotten() -> None:
    names = [column for columns in COLUMNS.values() for column in columns]
    assert len(names) == len(set(names))
    hidden = {"space", "frame_times_s", "embedding", "context", "thumbnail"}
    assert set(names) == {n for table in ("videos", "clips", "tags") for n in tables.TABLES[table].names} - hidden


def test_what_was_committed_last_is_seen(tmp_path) -> None:
    archive = Archive.create(tmp_path / "archive")
    row = add_video(archive, "/videos/a.mp4", duration_s=10.0)
    assert of_condition(archive, SPACE, "duration_s > 60").share == 0
    longer = replace(row, revision=2, duration_s=100.0, indexed_at=NOON + timedelta(minutes=1))
    commit(archive, [embedded(unit_of(longer))], [longer])
    assert of_condition(archive, SPACE, "duration_s > 60").share == 1


def test_an_archive_with_nothing_in_it_lets_nothing_through(tmp_path) -> None:
    archive = Archive.create(tmp_path / "archive")
    for condition in ("duration_s > 1", "start_s > 1", "label = 'a'"):
        assert of_condition(archive, SPACE, condition).share == 0


@pytest.fixture(scope="module")
def thousands(tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, np.ndarray, list[str]]:
    """20,000 clips in 200 videos, of which one in 10,000 is shorter than the rest."""
    archive = Archive.create(tmp_path_factory.mktemp("thousands") / "archive")
    rows = [
        video_row(f"/videos/{number}.mp4", clip_count=100, duration_s=float(number), width=number % 2)
        for number in range(200)
    ]
    commit(archive, [embedded(unit_of(row, 100), unit_vectors(100, seed=n)) for n, row in enumerate(rows)], rows)
    clips = archive.visible_clips(SPACE, ["clip_id", "embedding"])
    return archive, np.array(clips["embedding"].to_pylist(), np.float32), clips["clip_id"].to_pylist()


@pytest.mark.parametrize(
    ("condition", "share"),
    [("duration_s = 7 and start_s < 20", 0.0001), ("duration_s < 2", 0.01), ("width = 1", 0.5)],
)
def test_a_filter_returns_as_many_hits_as_there_are_up_to_what_was_asked_for(
    condition: str, share: float, thousands: tuple
) -> None:
    """At 0.01 %, 1 % and 50 %: the very clips that an exact scan of those that pass finds."""
    archive, vectors_NE, ids = thousands
    condition: filters.Filter = of_condition(archive, SPACE, condition)
    assert condition.share == pytest.approx(share)
    index = build(archive, SPACE, WIDTH)
    query_E = unit_vectors(1, seed=99)[0]
    found = index.search(query_E, 100, condition.mask)
    rows = archive.visible_clips(SPACE, ["clip_id", "video_id", "revision"])
    mask = condition.mask(keys.of_ids(rows["clip_id"]), keys.of_revisions(rows))
    cosines = np.where(mask, vectors_NE @ query_E, -2)
    best = np.argsort(-cosines, kind="stable")[: min(100, mask.sum())]
    assert len(found) == min(100, round(share * 20_000))
    assert [score for _, score in found] == pytest.approx(cosines[best].tolist(), abs=1e-6)
    assert {clip_id for clip_id, _ in found} <= {ids[place] for place in np.flatnonzero(mask)}


def test_a_filter_that_nothing_passes_finds_nothing(thousands: tuple) -> None:
    archive, _, _ = thousands
    condition = of_condition(archive, SPACE, "duration_s < 0")
    assert build(archive, SPACE, WIDTH).search(unit_vectors(1)[0], 10, condition.mask) == []
