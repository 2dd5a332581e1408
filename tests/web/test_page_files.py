"""The page's files, read and not run: what no test in a browser would notice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "jobs" / "web" / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
STYLE = (STATIC / "style.css").read_text(encoding="utf-8")
THEMES = dict(zip(("light", "dark"), re.findall(r":root(?:\[[^\]]*\])? \{(.*?)\n\}", STYLE, re.DOTALL), strict=True))
TEXTS = [("ink", "ground"), ("ink", "surface"), ("ink", "sunken"), ("faint", "ground"), ("faint", "surface")]
TEXTS += [("faint", "sunken"), ("on-accent", "accent"), ("accent-ink", "accent-soft"), ("accent-ink", "surface")]
TEXTS += [("danger", "danger-soft"), ("ink", "accent-soft")]
OUTLINES = [("outline", "surface"), ("outline", "ground"), ("accent", "surface"), ("accent", "ground")]
OUTLINES += [("accent", "sunken"), ("tag", "sunken")]


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of #rrggbb."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", THEMES)
def test_colours_have_the_contrast_of_wcag_aa(theme: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", THEMES[theme]))
    for pairs, least in ((TEXTS, 4.5), (OUTLINES, 3.0)):
        for one, other in pairs:
            dark, light = sorted((luminance(colours[one]), luminance(colours[other])))
            assert (light + 0.05) / (dark + 0.05) >= least, (theme, one, other)


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_scripts_never_make_markup_of_text(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("// "), "a module opens with its purpose"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", text)
    assert not re.search(r"(?<!w3\.org)https?://(?!www\.w3\.org)", text), "nothing comes from elsewhere"
    assert len(text.splitlines()) <= 400


def test_the_page_has_no_script_or_style_inside() -> None:
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|https?://", html)
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', html):
        assert (STATIC / address.removeprefix("/static/")).is_file(), address


def test_what_scripts_look_for_is_on_the_page() -> None:
    ids = set(re.findall(r'\sid="([^"]+)"', (STATIC / "index.html").read_text(encoding="utf-8")))
    for file in SCRIPTS:
        text = file.read_text(encoding="utf-8")
        assert set(re.findall(r'byId\("([^"]+)"\)', text)) <= ids, file.name
        assert {f"icon-{name}" for name in re.findall(r'\bicon: "([^"]+)"', text)} <= ids, file.name
