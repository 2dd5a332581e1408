"""docs/troubleshooting.md quotes messages: each stands in the source, word for word."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs.blocks import ROOT

PAGE = ROOT.joinpath("docs/troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
ANYTHING = "…"


@cache
def said() -> tuple[str, ...]:
    """Every text in the source, with an ellipsis for what is put in, and for a `{}` that `format` fills."""
    found = []
    for layer in ("schemas", "xclip_core", "pipeline", "jobs"):
        for file in sorted((ROOT / layer).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found += [_text(node) for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.Constant))]
    return tuple(filter(None, found))


def _text(node: ast.JoinedStr | ast.Constant) -> str:
    if isinstance(node, ast.Constant):
        return node.value.replace("{}", ANYTHING) if isinstance(node.value, str) else ""
    return "".join(part.value if isinstance(part, ast.Constant) else ANYTHING for part in node.values)


def is_said(message: str) -> bool:
    """Whether some text of the source has this message in it; what it puts in may be part of a quoted word."""
    pattern = re.compile(re.escape(message).replace(ANYTHING, f".*{ANYTHING}.*|.*").replace(f".*{ANYTHING}.*|.*", ".*"))
    return any(pattern.search(text) for text in said())


def test_there_are_messages() -> None:
    assert len(QUOTED) > 25


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_source(message: str) -> None:
    assert is_said(message)


def test_a_message_that_nobody_says_would_be_found() -> None:
    assert not is_said("there is no archive at …; make one with: footage idnex VIDEOS ARCHIVE")
