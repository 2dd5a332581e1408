"""A hub on this machine: HuggingFace's HTTP interface, as far as a download goes, over folders.

Files are had as from the real one: a HEAD request tells commit, ETag and size, and for large files the address of a
store that holds them by content; a GET request to there brings the bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tests.models import random_state, save_hf_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?:main|[0-9a-f]{40})/(?P<file>.+)")
ABOUT = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)(?P<rest>/.+)?")
STORE = re.compile(r"/store/(?P<name>[^/]+/[^/]+)/(?P<file>.+)")
MISSING = {"X-Repo-Commit": COMMIT, "X-Error-Code": "EntryNotFound"}
LARGE = (".safetensors", ".bin")  # what the hub keeps in its store


@dataclass
class Hub:
    """What is served, repository by repository, at `url`; and what was asked for, in order."""

    folders: dict[str, Path]
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve(folders: dict[str, Path]) -> Iterator[Hub]:
    """A hub at a free port, until the block ends."""
    hub = Hub(folders)
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()


def put_into_cache(cache: Path, name: str, save=save_hf_file) -> Path:
    """The hub's own layout: blobs, snapshots that point at them, and a ref to the newest."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    save(random_state(), snapshot)
    (repository / "blobs").mkdir()
    for number, file in enumerate(list(snapshot.iterdir())):
        blob = file.rename(repository / "blobs" / f"{number:064x}")
        file.symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def in_a_process(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with a cache of its own: the hub's library reads its settings when it is imported."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    variables |= {"HF_HOME": str(home), **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables)


class _Handler(BaseHTTPRequestHandler):
    """Answers for one connection."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Nothing to the console."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if match := FILE.fullmatch(path):
            self._resolve(**match.groupdict())
        elif match := ABOUT.fullmatch(path):
            self._about(**match.groupdict())
        elif match := STORE.fullmatch(path):
            self._send(200, (self.hub.folders[match["name"]] / match["file"]).read_bytes())
        else:
            self._send(404)

    def _about(self, name: str, rest: str | None) -> None:
        """The newest commit; folders inside a repository there are none."""
        if name not in self.hub.folders:
            return self._send(404, headers={"X-Error-Code": "RepoNotFound"})
        if rest is not None and not rest.startswith("/revision/"):
            return self._send(404, headers=MISSING)
        return self._send(200, json.dumps({"id": name, "sha": COMMIT}).encode())

    def _resolve(self, name: str, file: str) -> None:
        path = self.hub.folders.get(name, Path("/nowhere")) / file
        if not path.is_file():
            return self._send(404, headers=MISSING)
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        if not file.endswith(LARGE):
            return self._send(200, content, {"X-Repo-Commit": COMMIT, "ETag": etag})
        linked = {"X-Repo-Commit": COMMIT, "X-Linked-ETag": etag, "X-Linked-Size": str(len(content))}
        # The store has another name than the hub, as the real one has: to the hub's own, a client would follow at once.
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
        return self._send(302, b"", linked | {"Location": f"{elsewhere}/store/{name}/{file}"})

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
