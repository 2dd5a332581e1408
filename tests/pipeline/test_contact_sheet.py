"""The page of hits: file names and texts are as hostile as files, and links lead to the moment."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest

from pipeline import sources
from pipeline.contact_sheet import link, render, timecode, write
from pipeline.search import Answer
from schemas.records import Hit, ScoredClip
from tests.pipeline.factories import thumbnail

ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; alert(1); '",
    "{{ 7 * 7 }}",
    "{% include '/etc/passwd' %}",
    "&lt;script&gt;",
    "</title><script>alert(1)</script>",
    "javascript:alert(1)",
]


def hit(uri: str = "/videos/a.mp4", *, rank: int = 1, start_s: float = 12.5, end_s: float = 20.0) -> Hit:
    return Hit(rank, 3.14159, 0.27183, "0" * 16, "v", uri, start_s, end_s)


def answer(*hits: Hit, text: str = "a dog", reranked: bool = True) -> Answer:
    return Answer(text, hits, (thumbnail(),) * len(hits), 42, reranked, 0.1)


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0:00.0"),
        (0.04, "0:00.0"),
        (0.99, "0:00.9"),
        (1, "0:01.0"),
        (9.95, "0:09.9"),
        (59.99, "0:59.9"),
        (60, "1:00.0"),
        (75.25, "1:15.2"),
        (600, "10:00.0"),
        (3599.99, "59:59.9"),
        (3600, "1:00:00.0"),
        (3725.5, "1:02:05.5"),
        (36_000, "10:00:00.0"),
        (90_061.1, "25:01:01.1"),
    ],
)
def test_timecodes(seconds: float, expected: str) -> None:
    assert timecode(seconds) == expected


@pytest.mark.parametrize("tenths", [1, 2, 3, 7, 11, 23, 57, 1003, 36_007])
def test_a_time_in_tenths_is_shown_as_it_is(tenths: int) -> None:
    """0.3 is 0.299999999999999988897769753748 and 10 * 0.3 is not: no tenth may be lost on the way."""
    minutes, rest = divmod(tenths, 600)
    assert timecode(tenths / 10).endswith(f"{minutes % 60:02}:{rest // 10:02}.{rest % 10}".lstrip("0"))


@pytest.mark.parametrize(
    "name",
    [
        "a.mp4",
        "with space.mp4",
        "#1?really=yes&no.mp4",
        "100%.mp4",
        "100%25.mp4",
        "quote\"'.mp4",
        "[a](b){c}.mp4",
        "new\nline.mp4",
        "party 🎉 時.mp4",
        "a;b:c@d.mp4",
    ],
)
def test_a_link_leads_to_the_file_and_the_moment(name: str) -> None:
    parts = urlsplit(link(hit(f"/my videos/{name}")))
    assert (parts.scheme, parts.netloc, parts.query) == ("file", "", "")
    assert unquote_to_bytes(parts.path) == os.fsencode(f"/my videos/{name}")
    assert parts.fragment == "t=12.50,20.00"
    assert re.fullmatch(r"[A-Za-z0-9/_.~%-]+", parts.path), "nothing that a browser would read otherwise"


def test_a_name_that_is_not_utf8_has_a_link_and_a_card() -> None:
    uri = sources.to_uri(os.fsdecode(b"/videos/caf\xe9.mp4"))
    page = Page(render(answer(hit(uri)), Path("/archive")))
    assert unquote_to_bytes(urlsplit(page.all("a")[0]["href"]).path) == b"/videos/caf\xe9.mp4"
    assert any("caf" in text for text in page.texts)


def test_such_a_page_can_be_written(tmp_path: Path) -> None:
    uri = sources.to_uri(os.fsdecode(b"/videos/caf\xe9.mp4"))
    write(answer(hit(uri)), Path("/archive"), tmp_path / "sheet.html")
    assert b"caf%E9.mp4" in (tmp_path / "sheet.html").read_bytes()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_query_is_shown_and_never_run(attack: str) -> None:
    plain = Page(render(answer(hit()), Path("/archive")))
    page = Page(render(answer(hit(), text=attack), Path("/archive")))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert f"“{attack}”" in page.texts


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_name_is_shown_and_never_run(attack: str) -> None:
    name = attack.replace("/", "|")  # a slash cannot be in a name
    plain = Page(render(answer(hit()), Path("/archive")))
    page = Page(render(answer(hit(f"/videos/{name}")), Path("/archive")))
    assert [(tag, sorted(names)) for tag, names in page.elements] == [
        (tag, sorted(names)) for tag, names in plain.elements
    ], "no element and no attribute more"
    assert name in page.texts
    (anchor,) = page.all("a")
    assert anchor["title"] == f"/videos/{name}"
    assert anchor["href"].startswith("file:///videos/")


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_path_is_shown_and_never_run(attack: str) -> None:
    plain = Page(render(answer(hit()), Path("/archive")))
    page = Page(render(answer(hit()), Path("/archive", attack)))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]


def test_a_page_has_a_card_for_each_hit_in_order() -> None:
    hits = [hit(f"/videos/{n}.mp4", rank=n, start_s=60.0 * n, end_s=60.0 * n + 10) for n in (1, 2, 3)]
    page = Page(render(answer(*hits), Path("/archive")))
    assert [anchor["href"] for anchor in page.all("a")] == [link(each) for each in hits]
    assert [picture["alt"] for picture in page.all("img")] == [f"{n}.mp4 at {n}:00.0" for n in (1, 2, 3)]
    assert "1:00.0 \N{EN DASH} 1:10.0" in page.texts
    assert "score 3.14 · cosine 0.272" in page.texts
    assert "3 hits, 42 clips searched, in /archive" in page.texts


def test_a_long_name_breaks_behind_underscores_and_stays_whole() -> None:
    html = render(answer(hit("/videos/a_long_<b>_name_.mp4")), Path("/archive"))
    assert '<span class="name">a_<wbr>long_<wbr>&lt;b&gt;_<wbr>name_<wbr>.mp4</span>' in html


def test_a_card_says_where_else_the_same_is_seen() -> None:
    other = ScoredClip("1" * 16, "w", 0.0, 10.0, 3.0, 0.2)
    page = Page(render(answer(replace(hit(), folded=(other, other)), hit()), Path("/archive")))
    assert [text for text in page.texts if text.startswith("and the same")] == ["and the same in 2 more"]


def test_pictures_are_in_the_page_itself_and_nothing_is_fetched() -> None:
    html = render(answer(hit()), Path("/archive"))
    (picture,) = Page(html).all("img")
    head, data = picture["src"].split(",", 1)
    assert head == "data:image/webp;base64"
    assert base64.b64decode(data) == thumbnail()
    assert not re.search(r"https?://|<script|<link|@import|url\(", html)
    policy = next(meta["content"] for meta in Page(html).all("meta") if meta.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_a_page_says_how_its_scores_were_made() -> None:
    assert "re-ranked" not in render(answer(hit()), Path("/archive"))
    assert "clips were not re-ranked" in render(answer(hit(), reranked=False), Path("/archive"))


def test_no_hits_make_a_page_without_cards() -> None:
    page = Page(render(answer(), Path("/archive")))
    assert page.all("li") == []
    assert "0 hits, 42 clips searched, in /archive" in page.texts


def test_the_page_is_written_as_utf8(tmp_path: Path) -> None:
    write(answer(hit("/videos/時.mp4"), text="zażółć 🎉"), Path("/archive"), tmp_path / "sheet.html")
    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert text == render(answer(hit("/videos/時.mp4"), text="zażółć 🎉"), Path("/archive"))
    assert "🎉" in text
