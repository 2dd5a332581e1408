"""The front, with one replica in this process: the same answers, and what it says when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from jobs.web.app import create_app
from jobs.web.front import Front, NoReplica
from jobs.web.guard import Guard, Metrics
from jobs.web.limits import Limits
from jobs.web.replicas import Replica
from pipeline.service import Service
from schemas.errors import NotFound
from tests.web.test_api import TEXT, problem

TOKEN = "a" * 16


def asking(app: FastAPI):
    """How a replica here is asked, as Serve's would be."""
    replica = Replica.__new__(Replica)  # Serve makes it with what only Serve has: texts in batches
    replica._app = app

    async def ask(method: str, *given):
        return await getattr(replica, method)(*given)

    return ask


def behind_guard(ask, limits: Limits) -> Guard:
    metrics = Metrics()
    return Guard(Front(ask, metrics, limits.seconds), limits, metrics)


@pytest.fixture
def front(service: Service) -> Iterator[TestClient]:
    limits = Limits(body_bytes=1 << 20)
    app = create_app(service, limits=limits)
    with TestClient(app):  # a replica enters the app's life too
        yield TestClient(behind_guard(asking(app), limits), raise_server_exceptions=False)


@pytest.mark.parametrize(
    "path",
    [
        f"/search?q={TEXT}&top=3",
        "/search?q=x&where=colour=1",
        "/videos",
        "/labels",
        "/stats",
        "/",
        "/static/app.js",
        "/nothing",
        "/ready",
        "/media/unknown",
        "/media/a.b",
    ],
)
def test_answers_are_those_of_the_app(path: str, front: TestClient, client: TestClient) -> None:
    there, here = front.get(path), client.get(path)
    assert there.status_code == here.status_code
    if here.headers["content-type"] == "application/json":
        assert {**there.json(), "took_s": 0} == {**here.json(), "took_s": 0}
    else:
        assert there.content == here.content
    assert {**there.headers, "content-length": ""} == {**here.headers, "content-length": ""}


def test_a_file_comes_in_ranges(front: TestClient, made: Path) -> None:
    video = next(v for v in front.get("/videos").json()["videos"] if v["name"] == "kite.mp4")
    content = (made / "footage" / "kite.mp4").read_bytes()
    assert front.get(f"/media/{video['video_id']}").content == content
    part = front.get(f"/media/{video['video_id']}", headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    preview = front.get(f"/preview/{video['video_id']}", headers={"range": "bytes=0-9"})
    assert (preview.status_code, len(preview.content)) == (206, 10)


def test_a_picture_and_a_set_are_handed_over(front: TestClient) -> None:
    hit = front.get("/search", params={"q": TEXT}).json()["hits"][0]
    sent = {"image": ("a.webp", front.get(hit["thumbnail"]).content, "image/webp")}
    assert front.post("/search", files=sent).json()["hits"][0]["clip_id"] == hit["clip_id"]
    asked = {"labels": ["a", "b"], "clip_id": hit["clip_id"]}
    assert len(front.post("/classify", json=asked).json()["labels"]) == 3


def test_counts_are_of_all_that_was_asked(front: TestClient) -> None:
    front.get("/search", params={"q": TEXT})
    front.get("/videos/unknown")
    video_id = front.get("/videos").json()["videos"][0]["video_id"]
    front.get(f"/media/{video_id}")
    said = front.get("/metrics").text
    assert 'footage_requests_total{route="/search",status="200"} 1.0' in said
    assert 'route="/videos/{video_id}",status="404"' in said
    assert 'route="/media/{video_id}",status="200"' in said
    assert "footage_clips 7.0" in said


def test_who_may_ask_is_decided_before(service: Service) -> None:
    asked = []

    async def ask(method: str, *given):
        asked.append(method)
        return await asking(create_app(service, limits=limits))(method, *given)

    limits = Limits(token=TOKEN)
    client = TestClient(behind_guard(ask, limits))
    for path in ("/stats", "/metrics", "/media/abc", "/search?q=x"):
        problem(client.get(path), 401)
    assert asked == []
    assert client.get("/stats", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.post("/session", json={"token": TOKEN}).status_code == 204
    assert client.get("/stats").status_code == 200, "by the cookie"
    assert TOKEN not in repr(limits)


def test_too_much_is_not_handed_over(front: TestClient) -> None:
    large = b"x" * ((1 << 20) + 1)
    problem(front.post("/search", files={"image": ("a.png", large, "image/png")}), 413)
    pieces = (b"x" * 1000 for _ in range(2_000))
    problem(front.post("/classify", content=pieces), 413)


async def _gone(*_) -> None:
    raise NoReplica("a replica is gone: ActorDiedError")


async def _silent(*_) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize(("ask", "grace_s"), [(_gone, 10.0), (_silent, 0.0)])
@pytest.mark.parametrize("path", ["/search?q=x", "/media/abc", "/metrics", "/videos"])
def test_no_replica_is_a_reason_to_come_again(ask, grace_s, path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.web.front.GRACE_S", grace_s)
    client = TestClient(behind_guard(ask, Limits(seconds=0.1)))
    answer = client.get(path)
    assert "ask again" in problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    assert "default-src" in answer.headers["content-security-policy"]


def test_a_bug_is_told_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(*_):
        raise ZeroDivisionError("secret")

    client = TestClient(behind_guard(ask, Limits()))
    answer = client.get("/stats")
    assert "bug" in problem(answer, 500)
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_a_bug_of_the_app_comes_as_the_app_tells_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_):
        raise ZeroDivisionError("secret")

    limits = Limits()
    monkeypatch.setattr("jobs.web.answers.video", broken)
    client = TestClient(behind_guard(asking(create_app(service, limits=limits)), limits))
    assert "bug" in problem(client.get("/videos"), 500)


def test_places_are_those_of_videos(service: Service) -> None:
    ask = asking(create_app(service, limits=Limits()))
    video_id = service.current.page_of_videos("", 1, 1)[0][0]["video_id"]
    found = asyncio.run(ask("place_of", video_id))
    assert found == service.current.video(video_id).uri
    assert asyncio.run(ask("place_of", "unknown")) is None
    with pytest.raises(NotFound):
        service.current.video("unknown")
