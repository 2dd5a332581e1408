"""The page in a browser, against the real server over a real archive.

FOOTAGE_SCREENSHOTS=FOLDER keeps the pictures that the tests take.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web import browsing
from tests.web.browsing import CHROMIUM, HOSTILE, HOSTILE_FILE, Watched

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no Chromium at {CHROMIUM}")

TEXT = "a red circle moves to the left"
CARD = "#grid .card:not(.skeleton) .card-open"
WAIT_MS = 30_000
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 800}
SHOTS: tuple[tuple[dict[str, int], str], ...] = tuple(
    (size, scheme) for size in (DESK, PHONE) for scheme in ("light", "dark")
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return browsing.make_archive(tmp_path_factory.mktemp("browsed"))


@pytest.fixture(scope="module")
def address(archive: Path) -> Iterator[str]:
    with browsing.served(archive) as server:
        yield server.url


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Any]:
    """Chromium, which ends before the server does: what it holds open is nothing to wait for."""
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        with browsing.bounded():
            chromium.close()


@pytest.fixture
def watched(browser: Any, address: str) -> Iterator[Watched]:
    """A fresh page; nothing may have gone wrong on it at the end but what the test expects."""
    context = browser.new_context(viewport=DESK, base_url=address)
    context.set_default_timeout(WAIT_MS)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    held = Watched(context.new_page())
    yield held
    with browsing.bounded():
        context.close()
    assert held.wrong == []


@pytest.fixture(scope="module")
def shoot(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, str], None]:
    folder = Path(os.environ.get("FOOTAGE_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=str(folder / f"{name}.png"))


def look_for(page: Any, text: str = TEXT) -> None:
    """Types a text on the start page and waits for moments."""
    page.goto("/")
    page.wait_for_selector(".hero")
    page.keyboard.press("/")
    page.keyboard.type(text)
    page.wait_for_selector(CARD)


def names(page: Any) -> list[str]:
    return page.locator("#grid .card-name").all_inner_texts()


def wait_for(page: Any, condition: str) -> None:
    """Waits until JavaScript is true. Playwright's own way polls with `eval`, which the page's policy forbids."""
    deadline = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never came true: {condition}"
        page.wait_for_timeout(50)


def test_the_start_shows_what_there_is(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.wait_for_selector(".hero")
    facts = page.locator(".facts div").evaluate_all("all => all.map((e) => [...e.children].map((c) => c.textContent))")
    assert ["videos", "5"] in facts
    shown = set(page.locator("#start .card-name").all_inner_texts())
    assert shown == {"morning.mp4", HOSTILE_FILE, "going away.mp4", "tape.avi", "tall.mp4"}
    page.fill("#start input[type=search]", "tap")
    wait_for(page, "document.querySelectorAll('#start .card').length === 1")
    assert page.locator("#start .card-name").all_inner_texts() == ["tape.avi"]


def test_searching_while_typing_and_playing_at_the_time(watched: Watched) -> None:
    page = watched.page
    look_for(page)
    wait_for(page, f"new URL(location).searchParams.get('q') === '{TEXT}'")
    wait_for(page, "document.querySelector('#live').textContent.includes('found')")
    page.fill("#q", "something moves up")  # and on at once: what was typed must not be lost
    page.click("#open-where")
    page.fill("#where", "uri like '%morning%'")
    page.keyboard.press("Enter")
    wait_for(page, "document.querySelector('#grid .card-name')?.textContent === 'morning.mp4'")
    wait_for(page, "new Set([...document.querySelectorAll('#grid .card-name')].map((e) => e.textContent)).size === 1")
    wait_for(page, "new URL(location).searchParams.get('q') === 'something moves up'")
    late = page.locator("#grid .card", has_text="0:20 \u2013").first
    late.locator(".card-open").click()
    wait_for(page, "document.querySelector('#video').currentTime >= 20 && !document.querySelector('#video').error")
    assert page.locator("#time-code").inner_text() >= "00:00:20"
    page.wait_for_selector(".bar.hit")
    assert page.locator(".lane:has(.bar.tag)").count() >= 1


def test_a_search_that_begins_leaves_a_condition_to_who_types_it(watched: Watched) -> None:
    page = watched.page
    look_for(page)
    wait_for(page, f"new URL(location).searchParams.get('q') === '{TEXT}'")
    page.fill("#q", "something moves up")
    page.click("#open-where")
    page.fill("#where", "uri like '%morning%'")
    wait_for(page, "new URL(location).searchParams.get('q') === 'something moves up'")
    page.keyboard.press("Enter")
    wait_for(page, "new URL(location).searchParams.get('where') === \"uri like '%morning%'\"")
    page.locator(".chip.active", has_text="morning").click()
    wait_for(page, "document.querySelector('#where').value === ''")


def test_a_click_on_a_tag_goes_there(watched: Watched) -> None:
    page = watched.page
    look_for(page)
    page.locator("#grid .card", has_text="morning.mp4").first.locator(".card-open").click()
    page.wait_for_selector(".bar.tag")
    page.locator(".lane", has_text="right").locator(".bar.tag").first.click()
    start_s = float(page.locator(".lane", has_text="right").locator(".bar.tag").first.get_attribute("data-start"))
    wait_for(page, f"document.querySelector('#video').currentTime >= {start_s}")
    wait_for(page, f"Number(new URL(location).searchParams.get('t')) === {start_s}")


def test_an_address_restores_everything_and_back_leads_back(watched: Watched) -> None:
    page = watched.page
    look_for(page)
    page.click("#open-labels")
    page.locator("#label-list button", has_text="left").first.click()
    page.wait_for_selector("#chips .chip")
    wait_for(page, "document.querySelector('#progress').hidden")
    page.locator(CARD).first.click()
    page.wait_for_selector(".bar.hit")
    there = page.url
    page.keyboard.press("Escape")
    wait_for(page, "!document.querySelector('#player').open")
    wait_for(page, "!new URL(location).searchParams.has('v')")
    page.go_back()
    wait_for(page, "!document.querySelector('#chips .chip')")
    page.goto(there)
    page.wait_for_selector(".bar.hit")
    assert page.locator("#q").input_value() == TEXT
    assert page.locator("#chips .chip-words").all_inner_texts() == ["left"]
    assert page.locator("#player").is_visible()


def test_a_label_with_a_quote_filters(watched: Watched) -> None:
    page = watched.page
    look_for(page, "something moves up")
    page.click("#open-labels")
    page.locator("#label-list button", has_text="up's").click()
    page.wait_for_selector("#chips .chip")
    wait_for(page, "document.querySelector('#progress').hidden")
    assert page.locator("#message").is_hidden()
    asked = page.evaluate(
        """async () => (await import('/static/where.js')).condition(
            {labels: ["up's", 'left'], min: 5, max: null, where: 'a = 1 or b = 2'})"""
    )
    assert asked == "(label in ('up''s', 'left') and rank = 1) and (duration_s >= 5) and (a = 1 or b = 2)"


def test_the_keyboard_is_enough(watched: Watched) -> None:
    page = watched.page
    look_for(page)
    wait_for(page, "document.querySelector('#progress').hidden")
    page.keyboard.press("ArrowDown")
    label = "document.activeElement.getAttribute('aria-label')"
    first = page.evaluate(label)
    columns = page.evaluate("getComputedStyle(document.querySelector('#grid')).gridTemplateColumns.split(' ').length")
    page.keyboard.press("ArrowRight")
    second = page.evaluate(label)
    page.keyboard.press("ArrowDown")
    below = page.evaluate(label)
    labels = page.locator(CARD).evaluate_all("all => all.map((each) => each.getAttribute('aria-label'))")
    assert [first, second, below] == [labels[0], labels[1], labels[min(1 + columns, len(labels) - 1)]]
    page.keyboard.press("c")
    page.wait_for_selector("#toast.is-shown")
    assert "&v=" in page.evaluate("navigator.clipboard.readText()")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_selector("#player[open] .bar.hit")
    page.keyboard.press("Escape")
    wait_for(page, "!document.querySelector('#player').open")
    wait_for(page, f"{label} === {second!r}")
    page.keyboard.press("m")
    wait_for(page, "new URL(location).searchParams.has('like')")
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.wait_for_selector(".hero")


def test_a_wrong_condition_is_explained_where_it_stands(watched: Watched) -> None:
    watched.expected = (400,)
    page = watched.page
    look_for(page)
    page.click("#open-where")
    page.fill("#where", "colour = 'red'")
    page.keyboard.press("Enter")
    page.wait_for_selector("#where-problem:not([hidden])")
    assert "there is no column colour" in page.locator("#where-problem").inner_text()
    assert {"duration_s", "label"} <= set(page.locator("#columns button").all_inner_texts())
    page.locator("#message button", has_text="Remove").click()
    page.wait_for_selector(CARD)
    assert page.locator("#where-problem").is_hidden()


def test_names_and_labels_are_text_whatever_they_say(watched: Watched) -> None:
    page = watched.page
    look_for(page, "a purple triangle")
    page.locator("#grid .card", has_text=HOSTILE_FILE).first.locator(".card-open").click()
    page.wait_for_selector(".bar.tag")
    assert page.locator("#player-name").inner_text() == HOSTILE_FILE
    page.keyboard.press("Escape")
    page.click("#open-labels")
    page.wait_for_selector("#label-list button")
    assert HOSTILE in [text.split("\n")[0] for text in page.locator("#label-list button").all_inner_texts()]
    page.goto("/?q=" + HOSTILE.replace(" ", "+") + "&label=" + HOSTILE.replace(" ", "+"))
    page.wait_for_selector("#chips .chip")
    wait_for(page, "document.querySelector('#progress').hidden")
    assert page.locator("#chips .chip-words").all_inner_texts() == [HOSTILE]
    assert page.evaluate("document.querySelectorAll('img[src=x], img[onerror]').length") == 0


def test_a_video_that_vanished_says_so_and_keeps_its_pictures(watched: Watched) -> None:
    watched.expected = (404,)
    page = watched.page
    page.goto("/?q=a+square&where=uri+like+'%25going%25'")
    page.locator(CARD).first.click()
    page.wait_for_selector("#player-note:not([hidden])")
    assert "not where the archive last saw it" in page.locator("#player-note").inner_text()
    wait_for(page, "document.querySelector('#stand-in img')?.naturalWidth > 0")


def test_what_browsers_cannot_play_comes_as_a_preview(watched: Watched) -> None:
    page = watched.page
    page.goto("/?q=grey&where=uri+like+'%25tape%25'")
    page.locator(CARD).last.click()
    wait_for(page, "document.querySelector('#video').readyState >= 2")
    assert "/preview/" in page.evaluate("document.querySelector('#video').currentSrc")
    assert "small preview" in page.locator("#player-note").inner_text()
    at_s = float(page.evaluate("new URL(location).searchParams.get('t')"))
    assert page.evaluate("document.querySelector('#time-code').textContent") >= f"00:00:{int(at_s):02d}"


def test_a_picture_finds_moments(watched: Watched, address: str) -> None:
    page = watched.page
    look_for(page, "a purple triangle")
    source = page.locator("#grid .card img").first.get_attribute("src")
    picture = page.request.get(source).body()
    page.goto("/")
    page.wait_for_selector(".hero")
    page.set_input_files("#picture", {"name": "still.webp", "mimeType": "image/webp", "buffer": picture})
    page.wait_for_selector(CARD)
    assert page.locator("#chips .chip-words").all_inner_texts() == ["like still.webp"]
    page.locator("#chips .chip").click()
    page.wait_for_selector(".hero")


DROPPED = """([kind, base64, name]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const held = new DataTransfer();
  held.items.add(new File([bytes], name, { type: "image/webp" }));
  const init = { bubbles: true, cancelable: true };
  if (kind === "paste") {
    document.body.dispatchEvent(new ClipboardEvent("paste", { ...init, clipboardData: held }));
    return null;
  }
  document.body.dispatchEvent(new DragEvent("dragover", { ...init, dataTransfer: held }));
  const covered = !document.querySelector("#drop").hidden;
  document.body.dispatchEvent(new DragEvent("drop", { ...init, dataTransfer: held }));
  return covered && document.querySelector("#drop").hidden;
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(kind: str, watched: Watched) -> None:
    page = watched.page
    look_for(page, "a purple triangle")
    picture = page.request.get(page.locator("#grid .card img").first.get_attribute("src")).body()
    page.goto("/")
    page.wait_for_selector(".hero")
    covered = page.evaluate(DROPPED, [kind, base64.b64encode(picture).decode(), "held.webp"])
    assert covered == (True if kind == "drop" else None)
    page.wait_for_selector(CARD)
    assert page.locator("#chips .chip-words").all_inner_texts() == ["like held.webp"]


def test_a_dropped_file_that_is_no_picture_is_refused_in_words(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    page.wait_for_selector(".hero")
    page.evaluate(DROPPED.replace("image/webp", "text/plain"), ["drop", "aGVsbG8=", "letter.txt"])
    wait_for(page, "document.querySelector('#toast').textContent.includes('PNG, JPEG or WebP')")
    assert page.locator("#grid .card").count() == 0


def test_a_moment_that_is_pointed_at_moves_and_stops(watched: Watched) -> None:
    page = watched.page
    look_for(page)
    card = page.locator("#grid .card", has_text="morning.mp4").first
    assert page.locator("video.moving").count() == 0
    card.hover()
    wait_for(page, "document.querySelector('video.moving.is-moving')?.currentTime > 0")
    assert page.evaluate("document.querySelector('video.moving').muted")
    page.mouse.move(1, 1)
    wait_for(page, "document.querySelector('video.moving') === null")


def test_a_moment_does_not_move_for_who_wants_little_motion(watched: Watched) -> None:
    page = watched.page
    page.emulate_media(reduced_motion="reduce")
    look_for(page)
    page.locator("#grid .card", has_text="morning.mp4").first.hover()
    page.wait_for_timeout(1_000)  # three times the rest after which it would
    assert page.locator("video.moving").count() == 0


def test_more_moments_come_below_and_an_address_keeps_them(watched: Watched) -> None:
    page = watched.page
    fewer = re.compile(r"\btop=\d+")
    page.route("**/search?*", lambda route: route.continue_(url=fewer.sub("top=3", route.request.url)))
    look_for(page)
    first = page.locator(CARD).all_inner_texts()
    assert len(first) == 3
    page.click("#more")
    wait_for(page, f"document.querySelectorAll('{CARD}').length > 3")
    shown = page.locator(CARD).all_inner_texts()
    assert shown[:3] == first
    assert len(set(shown)) == len(shown)
    assert "page=2" in page.url
    page.reload()
    wait_for(page, f"document.querySelectorAll('{CARD}').length === {len(shown)}")
    assert page.locator(CARD).all_inner_texts() == shown
    while page.locator("#more").is_visible():  # to the end, after which there is nothing to press
        before = page.locator(CARD).count()
        page.click("#more")
        wait_for(page, f"document.querySelectorAll('{CARD}').length > {before}")


def test_a_server_that_is_busy_is_asked_again(watched: Watched) -> None:
    watched.expected = (429,)
    page = watched.page
    answers = iter([True])

    def busy_once(route: Any) -> None:
        if next(answers, False):
            route.fulfill(status=429, headers={"retry-after": "1"}, json={"status": 429, "detail": "busy"})
        else:
            route.continue_()

    page.route("**/search?*", busy_once)
    page.goto("/?q=left")
    page.wait_for_selector("#wait-note:not([hidden])")
    page.wait_for_selector(CARD)
    assert page.locator("#wait-note").is_hidden()


def test_a_server_that_is_away_is_waited_for(watched: Watched) -> None:
    page = watched.page
    look_for(page)
    page.context.set_offline(True)
    page.fill("#q", "something else")
    page.wait_for_selector("#message:not([hidden])")
    assert "does not answer" in page.locator("#message").inner_text()
    watched.wrong.clear()  # a browser tells of every request that failed
    page.context.set_offline(False)
    page.locator("#message button").click()
    page.wait_for_selector(CARD)


def test_a_server_with_a_token_asks_for_it(browser: Any, archive: Path) -> None:
    token = "a-token-for-the-tests"
    with browsing.served(archive, token=token) as server:
        context = browser.new_context(base_url=server.url)
        context.set_default_timeout(WAIT_MS)
        held = Watched(context.new_page())
        held.expected = (401,)
        held.page.goto("/?q=left")
        held.page.wait_for_selector("#token[open]")
        held.page.fill("#token-field", "not it")
        held.page.keyboard.press("Enter")
        held.page.wait_for_selector("#token-problem:not([hidden])")
        held.page.fill("#token-field", token)
        held.page.keyboard.press("Enter")
        held.page.wait_for_selector(CARD)
        wait_for(held.page, "document.querySelector('#grid img').naturalWidth > 0")
        with browsing.bounded():
            context.close()
    assert held.wrong == []


def test_the_theme_is_chosen_and_kept(watched: Watched) -> None:
    page = watched.page
    page.emulate_media(color_scheme="dark")
    page.goto("/")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.click("#theme")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


@pytest.mark.parametrize(
    ("size", "scheme"), SHOTS, ids=lambda value: str(value if isinstance(value, str) else value["width"])
)
def test_nothing_is_wider_than_the_window(size, scheme, watched: Watched, shoot: Callable[[Any, str], None]) -> None:
    page = watched.page
    watched.expected = (400,)
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme)

    def fits(name: str) -> None:
        shoot(page, f"{size['width']}-{scheme}-{name}")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name

    page.goto("/")
    page.wait_for_selector(".hero")
    fits("start")
    look_for(page)
    wait_for(page, "document.querySelector('#progress').hidden")
    fits("results")
    page.click("#open-labels")
    page.wait_for_selector("#label-list button")
    fits("labels")
    page.goto("/?q=left&where=colour+%3D+1")
    page.wait_for_selector("#where-problem:not([hidden])")
    fits("error")
    page.goto(f"/?q={TEXT.replace(' ', '+')}")
    page.locator("#grid .card", has_text="morning.mp4").first.locator(".card-open").click()
    page.wait_for_selector(".bar.hit")
    wait_for(page, "document.querySelector('#video').readyState >= 2")
    fits("player")
    assert (
        page.evaluate(
            "(() => { const p = document.querySelector('.player-body'); return p.scrollWidth - p.clientWidth; })()"
        )
        <= 0
    )
