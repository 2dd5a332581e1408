"""The client, against the app, and against one that is busy."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from jobs.client import Client, ServerError


@pytest.fixture
def archive(client: TestClient) -> Client:
    """A client of the app, without a network."""
    return Client("http://testserver", http=client)


def test_it_asks_for_everything(archive: Client, made: Path, tmp_path: Path) -> None:
    hit = archive.search("a red circle moves to the left", also=["a circle"], top=1)["hits"][0]
    assert hit["name"] == "morning.mp4"
    assert archive.search(like_clips=[hit["clip_id"]], where="label = 'up'")["hits"]
    (tmp_path / "a.webp").write_bytes(archive.thumbnail(hit["clip_id"]))
    assert archive.search_picture(tmp_path / "a.webp", top=1)["hits"][0]["clip_id"] == hit["clip_id"]
    assert archive.classify("motions", clip_id=hit["clip_id"])[0]["label"] in {"left", "none of these"}
    assert archive.classify(["one thing"], clip_id=hit["clip_id"])[0]["score"]
    assert archive.videos(top=1)["total"] == 3
    assert archive.video(hit["video_id"])["clips"]
    assert archive.labels()[0]["clips"]
    assert archive.stats()["clips"] == 7
    archive.save_media(hit["video_id"], tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (made / "footage" / "morning.mp4").read_bytes()
    assert [len(page["hits"]) for page in archive.pages("something", top=3, clips=True)] == [3, 3, 1]


def test_a_refusal_says_what_the_server_said(archive: Client, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="there is no column colour") as refused:
        archive.search("x", where="colour = 'red'")
    assert refused.value.status == 400
    with pytest.raises(ServerError, match="404"):
        archive.save_media("unknown", tmp_path / "a.mp4")


def test_a_busy_server_is_asked_again_and_not_for_ever() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) < 3:
            return httpx.Response(429, headers={"retry-after": "0"}, json={"detail": "busy"})
        return httpx.Response(200, json={"clips": 1})

    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://a")
    with Client("http://a", http=http) as archive:
        assert archive.stats() == {"clips": 1}
        asked.clear()
    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://a")
    with Client("http://a", http=http, tries=2) as archive, pytest.raises(ServerError, match="busy"):
        archive.stats()


def test_no_server_is_told() -> None:
    with (
        Client("http://127.0.0.1:9", token="t") as archive,
        pytest.raises(ServerError, match="is `footage serve` there"),
    ):
        archive.stats()
