"""Requests that nobody thought of, made from the API's own description: refused or answered, never a bug."""

from __future__ import annotations

from pathlib import Path

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402

from jobs.web.app import create_app  # noqa: E402
from jobs.web.limits import Limits  # noqa: E402
from pipeline.service import Service  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of the library's own
EXAMPLES = 40
ROUTES = (
    *("GET /search", "POST /search", "POST /classify", "GET /videos", "GET /videos/{video_id}", "GET /stats"),
    *("GET /media/{video_id}", "GET /preview/{video_id}", "GET /thumbnails/{clip_id}", "GET /labels", "POST /session"),
)


@pytest.fixture(scope="session")
def operations(made: Path) -> dict:
    """What the app's API describes, by method and path."""
    app = create_app(Service(made / "archive", device="cpu"), limits=Limits(seconds=20.0))
    found = (each.ok() for each in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations())
    return {f"{each.method.upper()} {each.path}": each for each in found}


def test_every_route_is_tried(operations: dict) -> None:
    assert operations.keys() == set(ROUTES)


@pytest.mark.parametrize("route", ROUTES)
def test_no_request_is_a_bug(route: str, operations: dict) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operations[route].as_strategy())
    def run(case) -> None:
        case.call_and_validate(checks=[not_a_server_error])

    run()
