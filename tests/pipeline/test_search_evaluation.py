"""Figures of a search: worked examples by hand, tables of queries, and a report that is as safe as its file names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import search_report
from pipeline.search import search
from pipeline.search_evaluation import (
    LabelledQuery,
    Ranking,
    Truth,
    average_precision,
    counted,
    evaluate,
    figures,
    read_queries,
    right_ranks,
)
from pipeline.serving import OpenSpace
from schemas.errors import InputError
from schemas.records import Hit
from tests.pipeline.test_contact_sheet import ATTACKS, Page


def hits(*places: tuple[str, float]) -> list[Hit]:
    """Hits of 10 s, best first."""
    return [
        Hit(rank, 1.0 / rank, 0.1, f"{rank:016x}", uri, uri, start_s, start_s + 10)
        for rank, (uri, start_s) in enumerate(places, start=1)
    ]


def of(*truths: Truth) -> LabelledQuery:
    return LabelledQuery("a text", truths)


# --- ranks


@pytest.mark.parametrize(
    ("found", "truths", "ranks"),
    [
        # Videos: each counts once, at its best clip.
        ([("a", 0), ("a", 10), ("b", 0), ("c", 0)], [Truth("b")], [2]),
        ([("a", 0), ("a", 10), ("b", 0), ("b", 10), ("c", 0)], [Truth("b"), Truth("c")], [2, 3]),
        ([("a", 0), ("b", 0)], [Truth("a"), Truth("b")], [1, 2]),
        ([("a", 0), ("b", 0)], [Truth("x")], []),
        ([], [Truth("x")], []),
        # Spans: every clip counts, one that shows an answer once more is passed over.
        ([("a", 0), ("a", 10), ("a", 20)], [Truth("a", 12.0, 14.0)], [2]),
        ([("a", 10), ("a", 12), ("b", 0), ("c", 0)], [Truth("a", 12.0, 30.0), Truth("c", 0.0, 1.0)], [1, 3]),
        ([("a", 0)], [Truth("a", 10.0, 20.0)], []),  # they touch and do not overlap
        ([("a", 0), ("b", 0)], [Truth("a", 1.0, 2.0), Truth("a", 3.0, 4.0), Truth("b", 0.0, 9.0)], [1, 1, 2]),
        ([("b", 0), ("b", 10), ("a", 0)], [Truth("a"), Truth("a", 500.0, 600.0)], [3]),
    ],
)
def test_ranks_of_right_answers(found, truths, ranks) -> None:
    assert right_ranks(hits(*found), of(*truths)) == ranks


@pytest.mark.parametrize(
    ("ranks", "answers", "expected"),
    [([1], 1, 1.0), ([4], 1, 0.25), ([1, 3], 2, (1 + 2 / 3) / 2), ([1], 2, 0.5), ([], 3, 0.0), ([1, 1, 2], 3, 1.0)],
)
def test_average_precision(ranks, answers, expected) -> None:
    assert average_precision(ranks, answers) == pytest.approx(expected)


def ranking(*ranks: int, took_s: float = 0.1) -> Ranking:
    return Ranking(ranks, average_precision(ranks, 1), took_s, (), ())


def test_figures_of_four_queries() -> None:
    found = figures([ranking(1, took_s=0.1), ranking(4, took_s=0.2), ranking(11, took_s=0.3), ranking(took_s=0.4)])
    assert (found.recall_at_1, found.recall_at_5, found.recall_at_10) == (0.25, 0.5, 0.5)
    assert found.mean_average_precision == pytest.approx((1 + 1 / 4 + 1 / 11) / 4)
    assert found.median_rank == 7.5
    assert found.latency_ms["p50"] == pytest.approx(250)


def test_a_median_behind_all_that_was_looked_at_is_not_made_up() -> None:
    assert figures([ranking(), ranking(), ranking(1)]).median_rank is None
    assert figures([ranking(), ranking(2)]).median_rank is None


def test_the_first_place_of_each_video_is_counted_or_every_hit() -> None:
    found = hits(("a", 0), ("a", 10), ("b", 0))
    assert counted(found, of(Truth("b"))) == [0, 2]
    assert counted(found, of(Truth("b", 0.0, 1.0))) == [0, 1, 2]


# --- tables


def table(folder: Path, text: str) -> Path:
    file = folder / "queries.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_rows_of_one_text_are_one_query_and_paths_are_relative_to_the_table(tmp_path: Path) -> None:
    text = "Text, URI ,start_s,end_s\na dog,a.mp4,,\n a cat,s3://b/c.mp4,1,2.5\na dog,/x/b.mp4,,\na dog,a.mp4,,\n"
    assert read_queries(table(tmp_path, text)) == [
        LabelledQuery("a dog", (Truth(str(tmp_path / "a.mp4")), Truth("/x/b.mp4"))),
        LabelledQuery("a cat", (Truth("s3://b/c.mp4", 1.0, 2.5),)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names the columns none; expected text and uri"),
        ("text\na\n", "expected text and uri"),
        ("text,uri,start_s\na,b,1\n", "start_s and end_s or neither"),
        ("text,uri\n", "holds no queries"),
        ("text,uri\na,\n", "line 2: the uri is empty"),
        ("text,uri\n,b\n", "line 2: the text is empty"),
        ("text,uri,start_s,end_s\na,b,1,\n", "line 2: start_s '1', end_s ''; expected seconds"),
        ("text,uri,start_s,end_s\na,b,x,2\n", "expected seconds, or neither"),
        ("text,uri,start_s,end_s\na,b,2,2\n", "has no length"),
        ("text,uri,start_s,end_s\na,b,nan,2\n", "has no length"),
        ('text,uri\n"a,b\n', "cannot be read as a table"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_queries(table(tmp_path, text))


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_queries(tmp_path / "lost.csv")


# --- asking


def test_an_evaluation_says_where_a_search_has_the_right_answers(stock: Callable[[str], OpenSpace]) -> None:
    opened = stock("int8")
    asked = [
        LabelledQuery("snow", (Truth("/videos/2.mp4"), Truth("/videos/4.mp4"))),
        LabelledQuery("a red square moves to the left", (Truth("/videos/1.mp4", 10.0, 20.0),)),
        LabelledQuery("nothing of the kind", (Truth("/videos/lost.mp4"),)),
    ]
    found = evaluate(opened, asked)
    assert found.reranked is not None
    for rerank in (False, True):
        expected = [right_ranks(search(opened, each.text, top=200, rerank=rerank).hits, each) for each in asked]
        rankings = [each.reranked if rerank else each.plain for each in found.asked]
        assert [list(each.ranks) for each in rankings if each] == expected
    assert [each.missing for each in found.asked] == [0, 0, 1]
    assert found.searched == 24
    assert found.misses(10)[-1].query.text == "nothing of the kind"
    assert found.reranked.recall_at_10 == pytest.approx(1 - len(found.misses(10)) / 3)
    assert all(0 < value < 60_000 for value in found.plain.latency_ms.values())


def test_without_contexts_there_is_nothing_to_rerank(stock: Callable[[str], OpenSpace]) -> None:
    found = evaluate(stock("none"), [LabelledQuery("snow", (Truth("/videos/2.mp4"),))])
    assert found.reranked is None
    assert found.asked[0].final is found.asked[0].plain
    assert search_report.figure_rows(found)[0][2] == ""


def test_a_text_that_cannot_be_asked_is_told_before_any_is(stock: Callable[[str], OpenSpace]) -> None:
    asked = [LabelledQuery(text, (Truth("/videos/2.mp4"),)) for text in ("snow", "word " * 100)]
    with pytest.raises(InputError, match="shorten it"):
        evaluate(stock("int8"), asked)


# --- the report


@pytest.mark.parametrize("attack", ATTACKS)
def test_texts_and_names_are_shown_and_never_run(attack: str, stock: Callable[[str], OpenSpace]) -> None:
    opened = stock("int8")
    name = attack.replace("/", "|")
    plain, hostile = (
        Page(search_report.render(evaluate(opened, [LabelledQuery(text, (Truth(uri),))]), place))
        for text, uri, place in (("snow", "/videos/lost.mp4", "/archive"), (attack, f"/videos/{name}", attack))
    )
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert f"“{attack}”" in hostile.texts


def test_the_report_shows_misses_or_everything_and_fetches_nothing(stock: Callable[[str], OpenSpace]) -> None:
    found = evaluate(
        stock("int8"),
        [LabelledQuery("snow", (Truth("/videos/2.mp4"),)), LabelledQuery("rain", (Truth("/videos/lost.mp4"),))],
    )
    page, whole = (search_report.render(found, "/archive", everything=each) for each in (False, True))
    assert "“rain”" in page
    assert "“snow”" not in page
    assert "“snow”" in whole
    assert Page(whole).all("li")[0].keys() <= {"class"}
    assert sum(item.get("class") == "right" for item in Page(whole).all("li")) == 2, "one in each order"
    assert all(picture["src"].startswith("data:image/webp;base64,") for picture in Page(whole).all("img"))
    assert not re.search(r"https?://|<script|<link|@import|url\(", whole)
    assert json.dumps(found.plain.latency_ms)
