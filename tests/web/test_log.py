"""What the server says to its log while it runs."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import pytest

from jobs.web import app
from pipeline import logs
from schemas.errors import ArchiveError


def test_newer_versions_are_told_as_records(capsys: pytest.CaptureFixture[str]) -> None:
    stop, answers = threading.Event(), iter([True, ArchiveError("the disk is gone"), False])

    def refresh() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        if answer is False:
            stop.set()
        return answer

    logs.set_up(as_json=True)
    try:
        app._watch(SimpleNamespace(refresh=refresh, current=SimpleNamespace(version=("s1", 7, 8, 9))), stop, 0.001)
    finally:
        logs.set_up(as_json=False)
    opened, failed = map(json.loads, capsys.readouterr().err.splitlines())
    assert (opened["level"], opened["logger"], opened["space"], opened["version"]) == (
        "info",
        "footage.serve",
        "s1",
        [7, 8, 9],
    )
    assert (failed["level"], failed["message"]) == ("warning", "a newer version cannot be opened: the disk is gone")
