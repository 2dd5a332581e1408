"""The API: what it answers, what it refuses, and that nobody waits for a newer version of the archive."""

from __future__ import annotations

import dataclasses
import io
import queue
import shutil
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
from PIL import Image
from starlette.testclient import TestClient

from jobs import serve
from jobs.web import media
from jobs.web.app import create_app
from jobs.web.limits import LOOPBACK_HOSTS, Limits, is_loopback
from pipeline import flows, index_files, queries, search, serving, tagging
from pipeline.gpu_index import GpuCopies
from pipeline.moments import Grouping
from pipeline.preview import Previews
from pipeline.search import SearchSettings
from pipeline.service import Kept, Service, checked_labels, name_of, plays
from schemas.errors import InputError
from tests.web.conftest import SETTINGS, VIDEOS

TEXT = "a red circle moves to the left"


def problem(response, status: int) -> str:
    """What a problem says, which must be one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    said = response.json()
    assert said["status"] == status
    return said["detail"]


# --- search


def test_hits_are_those_of_a_search(client: TestClient, service: Service) -> None:
    found = client.get("/search", params={"q": TEXT, "top": 3}).json()
    settings = SearchSettings(top=3, grouping=Grouping(per_video=3))
    expected = search.ask(service.current.opened, queries.of_text(TEXT), settings)
    assert [hit["clip_id"] for hit in found["hits"]] == [hit.clip_id for hit in expected.hits]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in expected.hits])
    best = found["hits"][0]
    assert best["name"] == "morning.mp4"
    assert best["start_s"] <= best["peak_s"] <= best["end_s"]
    assert found["searched"] == 7
    assert found["query"] == TEXT


def test_a_condition_narrows_the_search(client: TestClient) -> None:
    found = client.get("/search", params={"q": TEXT, "where": "uri like '%kite%'"}).json()
    assert {hit["name"] for hit in found["hits"]} == {"kite.mp4"}


def test_texts_clips_and_what_is_not_wanted_go_together(client: TestClient) -> None:
    best = client.get("/search", params={"q": TEXT}).json()["hits"][0]
    asked = {"and": ["a circle"], "not": ["a square"], "like_clip": [best["clip_id"]], "clips": True}
    found = client.get("/search", params=asked).json()
    assert best["clip_id"] not in {hit["clip_id"] for hit in found["hits"]}, "a clip is not like itself"
    assert "a circle" in found["query"]
    assert "not a square" in found["query"]


def test_pages_follow_one_another(client: TestClient) -> None:
    pages = [client.get("/search", params={"q": TEXT, "top": 2, "page": n, "clips": True}).json() for n in (1, 2, 3, 4)]
    ranks = [hit["rank"] for page in pages for hit in page["hits"]]
    assert ranks == list(range(1, 8))
    assert [page["has_more"] for page in pages] == [True, True, True, False]


def test_a_picture_finds_what_looks_like_it(client: TestClient, service: Service) -> None:
    clip_id = client.get("/search", params={"q": "a purple triangle", "clips": True}).json()["hits"][0]["clip_id"]
    picture = io.BytesIO()
    Image.open(io.BytesIO(service.current.thumbnail(clip_id))).save(picture, "PNG")
    sent = {"image": ("a.png", picture.getvalue(), "image/png")}
    found = client.post("/search", files=sent, data={"top": "3"}).json()
    best = client.get("/search", params={"like_clip": clip_id, "clips": True}).json()["hits"][0]["video_id"]
    assert best in {hit["video_id"] for hit in found["hits"]}
    assert found["query"] == "like a picture"


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({}, 400, "nothing to look for"),
        ({"q": " "}, 400, "empty"),
        ({"q": "x" * 1_001}, 422, "q: String should have at most 1000"),
        ({"q": TEXT, "top": 0}, 422, "top: "),
        ({"q": TEXT, "top": 201}, 400, "expected top up to 200"),
        ({"q": TEXT, "page": 100_000}, 400, "narrow the search"),
        ({"q": TEXT, "where": "colour = 'red'"}, 400, "there is no column colour"),
        ({"like_clip": "nonsense"}, 400, "no id of a clip"),
        ({"like_clip": "0" * 16}, 400, "no clip 0000"),
    ],
)
def test_what_cannot_be_asked_is_explained(asked, status, said, client: TestClient) -> None:
    assert said in problem(client.get("/search", params=asked), status)


def test_a_bad_condition_comes_with_the_columns(client: TestClient) -> None:
    said = client.get("/search", params={"q": TEXT, "where": "colour = 'red'"}).json()
    assert {"duration_s", "label", "uri"} <= set(said["columns"])


def test_what_is_no_picture_is_refused(client: TestClient) -> None:
    sent = {"image": ("a.png", b"no picture", "image/png")}
    assert "picture" in problem(client.post("/search", files=sent), 400)


# --- classify


def test_a_clip_is_classified_by_labels_of_the_request(client: TestClient) -> None:
    clip_id = client.get("/search", params={"q": "something goes up", "clips": True}).json()["hits"][0]["clip_id"]
    asked = {"labels": ["something moves up", "something moves down"], "clip_id": clip_id}
    found = client.post("/classify", json=asked).json()["labels"]
    assert {each["label"] for each in found} == {*asked["labels"], "none of these"}
    assert sum(each["probability"] for each in found) == pytest.approx(1)
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)


def test_a_part_of_a_video_is_classified_by_a_set_of_the_server(client: TestClient) -> None:
    video = next(v for v in client.get("/videos").json()["videos"] if v["name"] == "morning.mp4")
    spans = [{"start_s": 0, "end_s": 5}, {"start_s": 21, "end_s": 30}]
    best = []
    for span in spans:
        found = client.post("/classify", json={"set": "motions", "video_id": video["video_id"], **span}).json()[
            "labels"
        ]
        best.append(
            max((each for each in found if each["label"] != "none of these"), key=lambda e: e["score"])["label"]
        )
    assert best == ["left", "up"]


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"labels": ["a"]}, 400, "a clip_id or a video_id"),
        ({"clip_id": "0" * 16}, 400, "labels or the name of a set"),
        ({"labels": ["a"], "clip_id": "0" * 16}, 404, "none of these clips"),
        ({"labels": ["a", "a"], "clip_id": "0" * 16}, 400, "more than once"),
        ({"labels": [" "], "clip_id": "0" * 16}, 400, "empty"),
        ({"set": "colours", "clip_id": "0" * 16}, 400, "expected one of: motions"),
        ({"labels": [], "clip_id": "0" * 16}, 422, "labels"),
        ({"label": ["a"], "clip_id": "0" * 16}, 422, "label: Extra inputs"),
    ],
)
def test_what_cannot_be_classified_is_explained(asked, status, said, client: TestClient) -> None:
    assert said in problem(client.post("/classify", json=asked), status)


def test_a_label_set_is_encoded_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(made / "archive", device="cpu")
    clip_ids = [hit.clip_id for hit in service.current.ask(queries.of_text(TEXT), SearchSettings(top=2)).hits]
    labels, other = checked_labels(["a circle", "a square"]), checked_labels(["a circle"])
    first = [service.current.classify(labels, [clip_id]) for clip_id in clip_ids]
    one = service.current.classify(other, clip_ids)
    monkeypatch.setattr("pipeline.tagging.encode_text_raw", None)
    assert [service.current.classify(checked_labels(["a circle", "a square"]), [each]) for each in clip_ids] == first
    assert service.current.classify(other, clip_ids) == one
    assert first[0] != first[1]


def test_a_copy_of_the_index_on_a_device_answers_the_same(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Service(made / "archive", device="cpu").current
    monkeypatch.setattr(GpuCopies, "quicker", lambda copies, index: (copies.of(index), "cuda: because"))
    copied = search.corpus(usual.opened, GpuCopies("cpu"))
    other = dataclasses.replace(usual, corpus=copied)
    for where in (None, "uri like '%kite%'"):
        asked = (queries.of_text(TEXT), SearchSettings(top=5), where)
        assert other.ask(*asked).hits == usual.ask(*asked).hits
    assert (usual.stats["searched_by"], other.stats["searched_by"]) == ("CPUs", "cuda: because")


# --- videos, files, pictures


def test_pictures_of_hits_are_not_read_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(made / "archive", device="cpu")
    answer = service.current.ask(queries.of_text(TEXT), SearchSettings(top=1))
    hits = {hit.clip_id for hit in answer.hits}
    row = next(service.current.video(hit.video_id) for hit in answer.hits)
    other = next(clip["clip_id"] for clip in service.current.clips_of(row) if clip["clip_id"] not in hits)
    read = service.current.thumbnail(other)
    monkeypatch.setattr("pipeline.places.ClipReader.rows", None)
    assert [service.current.thumbnail(hit.clip_id) for hit in answer.hits] == list(answer.thumbnails)
    assert service.current.thumbnail(other) == read


def test_what_is_kept_is_bounded() -> None:
    kept: Kept[int] = Kept(3)
    assert [kept.of(key, lambda key=key: 10 * key) for key in range(8)] == [10 * key for key in range(8)]
    assert kept.of(7, lambda: -1) == 70
    assert kept.of(0, lambda: -1) == -1
    assert len(kept._found) <= 3


def test_videos_are_listed_and_found_by_name(client: TestClient) -> None:
    found = client.get("/videos").json()
    assert found["total"] == len(VIDEOS)
    assert {video["name"] for video in found["videos"]} == {f"{name}.mp4" for name in VIDEOS}
    assert client.get(found["videos"][0]["thumbnail"]).headers["content-type"] == "image/webp"
    some = client.get("/videos", params={"q": "HARB"}).json()
    assert [video["name"] for video in some["videos"]] == ["harbour.mp4"]
    first = client.get("/videos", params={"top": 2}).json()
    assert (len(first["videos"]), first["has_more"]) == (2, True)


def test_a_video_has_its_clips_and_tags(client: TestClient) -> None:
    listed = next(v for v in client.get("/videos").json()["videos"] if v["name"] == "morning.mp4")
    video = client.get(f"/videos/{listed['video_id']}").json()
    assert [clip["start_s"] for clip in video["clips"]] == pytest.approx([0, 10, 20])
    first = {tag["clip_id"]: tag["label"] for tag in reversed(video["tags"])}
    assert [first[clip["clip_id"]] for clip in video["clips"]] == ["left", "right", "up"]
    assert (video["plays"], video["gone"]) == (True, False)


def test_a_file_comes_in_ranges(client: TestClient, made: Path) -> None:
    video = next(v for v in client.get("/videos").json()["videos"] if v["name"] == "kite.mp4")
    content = (made / "footage" / "kite.mp4").read_bytes()
    whole = client.get(f"/media/{video['video_id']}")
    assert (whole.content, whole.headers["accept-ranges"]) == (content, "bytes")
    part = client.get(f"/media/{video['video_id']}", headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    beyond = client.get(f"/media/{video['video_id']}", headers={"range": f"bytes={len(content) + 1}-"})
    assert beyond.status_code == 416


def test_a_file_of_a_store_comes_in_ranges(bucket: str) -> None:
    from pipeline import stores

    with stores.to_place(f"{bucket}/a.mp4").open("wb") as stream:
        stream.write(bytes(range(256)))

    async def app(scope, receive, send) -> None:
        await media.response(f"{bucket}/a.mp4", asked)(scope, receive, send)

    client = TestClient(app)
    for asked, status, content in (
        (None, 200, bytes(range(256))),
        ("bytes=10-19", 206, bytes(range(10, 20))),
        ("bytes=250-", 206, bytes(range(250, 256))),
        ("bytes=-6", 206, bytes(range(250, 256))),
        ("bytes=256-", 416, b""),
        ("bytes=9-3", 416, b""),
    ):
        got = client.get("/")
        assert (got.status_code, got.content) == (status, content), asked


def test_a_video_that_vanished_says_so_and_keeps_its_pictures(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "footage", tmp_path / "footage")
    flows.index(str(tmp_path / "footage"), tmp_path / "archive", SETTINGS)
    service = Service(tmp_path / "archive", device="cpu")
    with TestClient(create_app(service)) as client:
        video = client.get("/videos").json()["videos"][0]
        (tmp_path / "footage" / video["name"]).unlink()
        assert "index again" in problem(client.get(f"/media/{video['video_id']}"), 404)
        problem(client.get(f"/preview/{video['video_id']}"), 404)
        assert client.get(video["thumbnail"]).status_code == 200


def test_a_preview_is_a_small_video_that_starts_there(client: TestClient) -> None:
    video = next(v for v in client.get("/videos").json()["videos"] if v["name"] == "morning.mp4")
    got = client.get(f"/preview/{video['video_id']}", params={"start_s": 8, "length_s": 4})
    assert got.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(got.content)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == pytest.approx(4 * 12, abs=2)
    original = client.get(f"/media/{video['video_id']}")
    with av.open(io.BytesIO(original.content)) as container:
        expected = next(f.to_ndarray(format="rgb24") for f in container.decode(video=0) if f.time >= 8 - 1e-6)
    assert abs(frames[0].astype(int) - expected).mean() < 10


def test_previews_are_gone_with_the_server(service: Service, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with TestClient(create_app(service)) as client:
        video = next(v for v in client.get("/videos").json()["videos"] if v["name"] == "morning.mp4")
        assert client.get(f"/preview/{video['video_id']}").status_code == 200
        assert list(tmp_path.rglob("*.mp4"))
    assert not list(tmp_path.iterdir())


def test_previews_make_room_for_new_ones(made: Path, tmp_path: Path) -> None:
    uri = str(made / "footage" / "morning.mp4")
    first = Previews(tmp_path).of(uri, 0.0, 2.0)
    again = first.stat().st_mtime_ns
    assert Previews(tmp_path).of(uri, 0.0, 2.0).stat().st_ino == first.stat().st_ino
    small = Previews(tmp_path, most_bytes=first.stat().st_size + 10)
    second = small.of(uri, 4.0, 2.0)
    assert second.exists()
    assert not first.exists()
    assert again
    with pytest.raises(InputError, match="up to 60 s"):
        small.of(uri, 0.0, 61.0)


def test_unknown_ids_are_not_found(client: TestClient) -> None:
    for path in ("/videos/unknown", "/media/unknown", "/preview/unknown", f"/thumbnails/{'0' * 16}", "/nothing"):
        problem(client.get(path), 404)
    problem(client.get("/thumbnails/..%2f..%2fetc"), 404)
    problem(client.get("/videos/a.b"), 422)


def test_labels_and_counts(client: TestClient) -> None:
    labels = client.get("/labels").json()["labels"]
    assert sum(label["clips"] for label in labels) == 7
    stats = client.get("/stats").json()
    assert (stats["videos"], stats["clips"], stats["model"]) == (3, 7, "footage-tiny")
    assert stats["footage_s"] == pytest.approx(70)
    assert "duration_s" in stats["columns"]


@pytest.mark.parametrize(
    ("uri", "codec", "expected"),
    [("/a/b.MP4", "h264", True), ("s3://a/b.webm", "vp9", True), ("/b.mkv", "h264", False), ("/b.mp4", "hevc", False)],
)
def test_what_browsers_play_is_known(uri: str, codec: str, expected) -> None:
    assert plays(uri, codec) == expected


def test_names_are_the_last_part_of_a_place() -> None:
    assert name_of("s3://bucket/a/b c.mp4") == "b c.mp4"
    assert name_of("/x/<img src=x>.mp4") == "<img src=x>.mp4"


# --- what every answer has, and who gets one


def test_every_answer_tells_browsers_what_they_must_not_do(client: TestClient) -> None:
    for path in ("/", "/stats", "/nothing", "/static/index.html", "/health"):
        headers = client.get(path, headers={"origin": "http://evil.example"}).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_health_ready_metrics_and_schema(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json()["status"] == "ok"
    client.get("/search", params={"q": TEXT})
    client.get("/videos/unknown")
    said = client.get("/metrics").text
    assert 'footage_requests_total{route="/search",status="200"} 1.0' in said
    assert 'route="/videos/{video_id}",status="404"' in said
    assert "footage_clips 7.0" in said
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/search", "/classify", "/videos", "/videos/{video_id}", "/media/{video_id}", "/labels"} <= paths.keys()


def test_a_token_is_asked_of_everybody(service: Service) -> None:
    app = create_app(service, limits=Limits(token="a" * 16))
    with TestClient(app) as client:
        assert "token" in problem(client.get("/stats"), 401)
        assert client.get("/health").status_code == client.get("/").status_code == 200
        problem(client.get("/stats", headers={"authorization": "Bearer wrong"}), 401)
        assert client.get("/stats", headers={"authorization": f"Bearer {'a' * 16}"}).status_code == 200
        problem(client.post("/session", json={"token": "wrong"}), 401)
        kept = client.post("/session", json={"token": "a" * 16})
        assert kept.status_code == 204
        assert {"HttpOnly", "SameSite=strict"} <= set(kept.headers["set-cookie"].split("; "))
        assert client.get("/stats").status_code == 200, "by the cookie"


def test_another_sites_name_does_not_lead_here(service: Service) -> None:
    app = create_app(service, limits=Limits(hosts=LOOPBACK_HOSTS))
    for host, status in (
        ("localhost", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("LOCALHOST:1", 200),
        ("evil.example", 421),
        ("evil.example:8080", 421),
        ("127.0.0.1.evil.example", 421),
    ):
        with TestClient(app) as client:
            assert client.get("/stats", headers={"host": host}).status_code == status, host


def test_too_large_a_request_is_refused_and_one_of_no_length_is_not_read_on(client: TestClient) -> None:
    large = b"x" * ((1 << 20) + 1)
    problem(client.post("/search", files={"image": ("a.png", large, "image/png")}), 413)
    pieces = (b"x" * 1000 for _ in range(2_000))
    assert client.post("/classify", content=pieces).status_code >= 400


def _slow(service: Service, began: threading.Semaphore, go_on: threading.Event) -> SimpleNamespace:
    """A service whose searches wait."""

    def ask(*given):
        began.release()
        assert go_on.wait(60)
        return service.current.ask(*given)

    current = SimpleNamespace(ask=ask, version=service.current.version)
    return SimpleNamespace(current=current, refresh=lambda: False)


def test_who_comes_when_all_places_are_taken_is_asked_to_come_again(service: Service) -> None:
    began, go_on = threading.Semaphore(0), threading.Event()
    app = create_app(_slow(service, began, go_on), limits=Limits(at_a_time=2))
    with TestClient(app) as client, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.get, "/search", params={"q": TEXT}) for _ in range(8)]
        refused = list(islice(as_completed(asked, timeout=60), 4))  # two compute, two wait, and the rest has no place
        go_on.set()
        for each in refused:
            problem(each.result(), 429)
            assert each.result().headers["retry-after"] == "1"
        assert sorted(each.result().status_code for each in asked) == [200] * 4 + [429] * 4


def test_an_answer_that_takes_too_long_is_given_up(service: Service) -> None:
    go_on = threading.Event()
    app = create_app(_slow(service, threading.Semaphore(0), go_on), limits=Limits(seconds=0.1))
    with TestClient(app) as client:
        late = client.get("/search", params={"q": TEXT})
        assert "too long" in problem(late, 503)
        assert "retry-after" in late.headers
        go_on.set()


def test_a_bug_is_told_to_the_log_alone(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    def ask(*_):
        raise ZeroDivisionError("secret")

    current = SimpleNamespace(ask=ask, version=service.current.version)
    app = create_app(SimpleNamespace(current=current, refresh=lambda: False))
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/search", params={"q": TEXT})
    assert "secret" not in answer.text
    assert "bug" in problem(answer, 500)
    assert "secret" in caplog.text


# --- versions


def test_a_newer_version_takes_over_and_nobody_waits_for_it(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "footage", tmp_path / "footage")
    later = tmp_path / "footage" / "kite.mp4"
    later.rename(tmp_path / "kite.mp4")
    flows.index(str(tmp_path / "footage"), tmp_path / "archive", SETTINGS)
    service = Service(tmp_path / "archive", device="cpu")
    statuses, stop = [], threading.Event()
    with TestClient(create_app(service, refresh_s=0.05)) as client:
        before = client.get("/stats").json()
        old = service.current

        def ask_on() -> None:
            while not stop.is_set():
                statuses.append(client.get("/search", params={"q": TEXT}).status_code)

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask_on)
            (tmp_path / "kite.mp4").rename(later)
            flows.index(str(tmp_path / "footage"), tmp_path / "archive", SETTINGS)
            for _ in range(400):
                if client.get("/stats").json()["videos"] == 3:
                    break
                threading.Event().wait(0.05)
            stop.set()
            asking.result()
        assert (before["videos"], client.get("/stats").json()["videos"]) == (2, 3)
        assert set(statuses) == {200}
        assert service.refresh() is False, "nothing new"
        settings = SearchSettings(top=50)
        found = old.ask(queries.of_text("a purple triangle"), settings)
        assert {name_of(hit.uri) for hit in found.hits} == {"harbour.mp4", "morning.mp4"}, "what was begun goes on"


@pytest.mark.parametrize("broken_off", [0, 1])
def test_a_new_segment_is_read_from_its_disk_before_anybody_asks(
    broken_off: int, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[frozenset[str]] = []
    read: queue.Queue[int] = queue.Queue()

    def watched(folder: Path, names: frozenset[str], room_bytes: int) -> int:
        asked.append(names)
        is_swept = len(asked) <= broken_off
        read.put(0 if is_swept else read_ahead(folder, names, room_bytes))
        if is_swept:
            raise FileNotFoundError(folder)
        return size_bytes

    read_ahead = index_files.read_ahead
    monkeypatch.setattr(index_files, "read_ahead", watched)
    shutil.copytree(made / "archive", tmp_path / "archive")
    segments = (tmp_path / "archive" / "indexes").glob("*/*/*.*")
    size_bytes = sum(file.stat().st_size for file in segments if file.name.endswith((".faiss", ".clips.npy")))
    service = Service(tmp_path / "archive", device="cpu")
    assert read.get(timeout=60) == (0 if broken_off else size_bytes)
    _join("read-ahead")
    tagging.tag(serving.open_space(tmp_path / "archive"), checked_labels(["a triangle"]))
    assert service.refresh(), "of the tags"
    assert read.get(timeout=60) == (size_bytes if broken_off else 0), "an index that was read is not read again"


def _join(name: str) -> None:
    """Waits for threads of a name."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(60)


# --- the command


def test_a_server_for_others_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(serve.TOKEN_VARIABLE, raising=False)
    assert serve.token_for("127.0.0.1") is None
    with pytest.raises(InputError, match="could read every video"):
        serve.token_for("0.0.0.0")
    monkeypatch.setenv(serve.TOKEN_VARIABLE, "short")
    with pytest.raises(InputError, match="at least 16"):
        serve.token_for("0.0.0.0")
    monkeypatch.setenv(serve.TOKEN_VARIABLE, "x" * 16)
    assert serve.token_for("0.0.0.0") == serve.token_for("localhost") == "x" * 16


def test_hosts_of_this_machine_are_known() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org")))


def test_a_port_that_is_taken_is_told(made: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot listen at"):
            serve.listen("127.0.0.1", taken.getsockname()[1])
