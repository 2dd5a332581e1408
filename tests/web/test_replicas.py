"""`footage serve --replicas`: a real server with real processes, one of which is killed while others ask."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("grpc_reflection", reason="ray[serve] is not installed whole")

from pipeline import flows
from tests.web.browsing import ROOT, URL
from tests.web.conftest import SETTINGS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TOKEN = uuid.uuid4().hex
MARK = "FOOTAGE_TEST_OF_REPLICAS"  # in the environment of all that the server starts
CLIENTS = 4
PATIENCE_S = 240.0  # a busy machine is no bug


@dataclass
class Served:
    """A server with two replicas, and what is known of it."""

    url: str
    process: subprocess.Popen
    mark: str
    footage: Path
    archive: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=PATIENCE_S)

    def processes(self) -> dict[int, str]:
        """What the server started and is still there: the command lines by process id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it ended while we looked
                continue
        return found

    def replicas(self) -> set[int]:
        """Process ids of the replicas."""
        return {pid for pid, line in self.processes().items() if line.startswith("ray::ServeReplica")}


def until(what: Callable[[], Any], why: str) -> Any:
    """Waits until something is so."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError(f"never: {why}")


@pytest.fixture(scope="module")
def served(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two replicas over an archive of their own. At the end all processes must go, and no log may have the token."""
    folder = tmp_path_factory.mktemp("replicas")
    shutil.copytree(made / "footage", folder / "footage")
    (folder / "footage" / "kite.mp4").rename(folder / "kite.mp4")
    flows.index(str(folder / "footage"), folder / "archive", SETTINGS)
    logs = Path(tempfile.mkdtemp(prefix="fr-", dir="/tmp"))  # Ray's sockets must have short names
    mark = uuid.uuid4().hex
    environment = {**os.environ, "FOOTAGE_TOKEN": TOKEN, MARK: mark, "RAY_TMPDIR": str(logs)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "jobs", "serve", str(folder / "archive"), "--port", "0", "--device", "cpu"]
    command += ["--replicas", "2", "--refresh", "0.5"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        said: list[str] = []
        assert process.stderr is not None
        try:
            for line in process.stderr:
                said.append(line)
                if match := URL.search(line):
                    break
            assert said, "the server did not start"
            assert match, "".join(said)
            assert len(said) == 1, f"Ray has said something: {said}"
            there = Served(match.group(1), process, mark, folder, folder / "archive")
            yield there
        finally:
            process.send_signal(signal.SIGTERM)
            said.append(process.communicate(timeout=PATIENCE_S)[1])
        assert process.returncode == 143, "".join(said)
        until(lambda: not there.processes(), "all processes of Ray end with the server")
        assert TOKEN not in "".join(said)
        told = [str(file) for file in logs.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
        assert told == [], "a log has the token"
    shutil.rmtree(logs, ignore_errors=True)


def test_replicas_answer_as_one_server_does(served: Served) -> None:
    with served.client() as client:
        assert client.get("/ready").json()["status"] == "ok"
        assert len(served.replicas()) == 2
        assert httpx.get(f"{served.url}/stats").status_code == 401
        found = client.get("/search", params={"q": "a red circle moves to the left", "top": 3}).json()
        assert found["hits"][0]["name"] == "morning.mp4"
        assert client.get(found["hits"][0]["thumbnail"]).headers["content-type"] == "image/webp"
        video_id = found["hits"][0]["video_id"]
        whole = (served.footage / "footage" / "morning.mp4").read_bytes()
        assert client.get(f"/media/{video_id}").content == whole
        assert client.get(f"/media/{video_id}", headers={"range": "bytes=5-9"}).content == whole[5:10]
        bad = client.get("/search", params={"q": "x", "where": "colour = 1"})
        assert (bad.status_code, bad.headers["content-type"]) == (400, "application/problem+json")
        assert "default-src 'none'" in bad.headers["content-security-policy"]
        said = client.get("/metrics").text
        assert 'footage_requests_total{route="/search",status="200"}' in said
        assert 'footage_requests_total{route="/search",status="400"}' in said


def test_questions_at_the_same_time_have_the_answers_of_questions_alone(served: Served) -> None:
    texts = [f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("circle", "square", "dog")]

    def scores(text: str) -> list[tuple[str, float]]:
        with served.client() as client:
            found = client.get("/search", params={"q": text, "clips": True}).json()
        return [(hit["clip_id"], pytest.approx(hit["score"], abs=1e-3)) for hit in found["hits"]]

    alone = [scores(text) for text in texts]
    with ThreadPoolExecutor(len(texts)) as pool:
        assert list(pool.map(scores, texts)) == alone


def test_a_killed_replica_costs_what_it_was_at_and_no_more(served: Served) -> None:
    stop = threading.Event()
    answers: list[tuple[float, httpx.Response]] = []

    def ask_on(number: int) -> None:
        with served.client() as client:
            for turn in range(1_000_000):
                if stop.is_set():
                    return
                answer = client.get("/search", params={"q": f"a circle, {number}, {turn}"})
                answers.append((time.monotonic(), answer))
                if answer.status_code == 503:
                    time.sleep(float(answer.headers["retry-after"]))

    before = until(lambda: len(served.replicas()) == 2 and served.replicas(), "two replicas")
    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(ask_on, number) for number in range(CLIENTS)]
        try:
            until(lambda: len(answers) > 10 * CLIENTS, "requests are answered")
            killed_s = time.monotonic()
            os.kill(min(before), signal.SIGKILL)
            until(lambda: len(served.replicas() - {min(before)}) == 2, "another replica comes")
            so_far = len(answers)
            until(lambda: len(answers) > so_far + 10 * CLIENTS, "requests are answered")
        finally:
            stop.set()
        for each in asking:
            each.result()  # no request was left without an answer
    counted = Counter(answer.status_code for _, answer in answers)
    assert set(counted) <= {200, 503}, counted
    # What was at it when it died, and what came before its death was known: a client asks one thing at a time.
    assert counted[503] <= 2 * CLIENTS, counted
    for at_s, answer in answers:
        assert answer.status_code == 200 or at_s >= killed_s
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == 503
    with served.client() as client:
        later = Counter(client.get("/search", params={"q": f"later, {turn}"}).status_code for turn in range(40))
    assert later == {200: 40}
    assert len(served.replicas()) == 2


def test_all_replicas_serve_a_newer_version(served: Served) -> None:
    with served.client() as client:
        before = client.get("/stats").json()["videos"]
        new = served.footage / "footage" / "kite.mp4"
        if not new.exists():
            shutil.copy(served.footage / "kite.mp4", new)
        flows.index(str(served.footage / "footage"), served.archive, SETTINGS)
        until(
            lambda: all(client.get("/stats").json()["videos"] == 3 for _ in range(20)),
            f"all replicas serve three videos and not {before}",
        )
        assert client.get("/search", params={"q": "a purple triangle"}).json()["searched"] == 7


def test_what_is_wrong_is_told_as_by_one_server(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs", "serve", str(tmp_path), "--port", "0", "--replicas", "2"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error:")
    assert "Traceback" not in ended.stderr
