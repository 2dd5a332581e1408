"""An S3 server on this machine, in a process of its own, and files put into it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

START_S = 60
REGION = "us-east-1"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serve() -> Iterator[str]:
    """A server while this lasts; its URL. In another process: Delta waits for answers with Python's lock held."""
    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while not _listens(port):
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def environment(url: str) -> dict[str, str]:
    """What points every library at a server."""
    names = {"AWS_ENDPOINT_URL": url, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
    return names | {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests"}


def s3() -> fsspec.AbstractFileSystem:
    """The store as fsspec sees it, nothing remembered."""
    return fsspec.filesystem("s3", use_listings_cache=False)


def put(folder: Path, url: str) -> str:
    """Puts all files below a folder into the store; returns the URL."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            s3().put_file(str(file), f"{url}/{file.relative_to(folder)}")
    return url


def keys(url: str) -> list[str]:
    """What lies below a URL."""
    return [f"s3://{key}" for key in s3().find(url)]
