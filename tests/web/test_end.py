"""The end of a server: it waits for answers that are under way, and not for somebody who stopped listening."""

from __future__ import annotations

import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from pipeline import flows
from tests.web.browsing import END_S, Server, served
from tests.web.conftest import SETTINGS

MORE_THAN_SOCKETS_HOLD = 8 << 20
RECEIVED_BYTES = 64 << 10  # what the system keeps for who does not read


@pytest.fixture(scope="module")
def archive(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of one video whose file does not fit into the buffers of a connection."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "footage").mkdir()
    large = shutil.copy(made / "footage" / "morning.mp4", folder / "footage")
    with Path(large).open("ab") as file:  # an empty box, which MP4 allows at the end
        file.write(MORE_THAN_SOCKETS_HOLD.to_bytes(4, "big") + b"free" + bytes(MORE_THAN_SOCKETS_HOLD - 8))
    flows.index(str(folder / "footage"), folder / "archive", SETTINGS)
    return folder / "archive"


@contextmanager
def stalled(server: Server) -> Iterator[socket.socket]:
    """A connection that asked for a large file, read its beginning, and does not read on: a player that is paused."""
    (clip,) = httpx.get(f"{server.url}/search", params={"q": "left", "top": 1}, timeout=END_S).json()["hits"]
    address = urlsplit(server.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
        connection.connect((address.hostname, address.port))
        asked = f"GET /media/{clip['video_id']} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n"
        connection.sendall(asked.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        yield connection


def test_a_player_that_is_paused_does_not_keep_a_server(archive: Path) -> None:
    with served(archive) as server, stalled(server):
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == (128 + signal.SIGTERM, "the server has ended\n")


def test_an_answer_that_is_under_way_is_given_whole(archive: Path) -> None:
    with served(archive) as server, stalled(server) as connection:
        server.process.send_signal(signal.SIGINT)
        rest_bytes = 0
        while piece := connection.recv(1 << 20):
            rest_bytes += len(piece)
        assert rest_bytes > MORE_THAN_SOCKETS_HOLD
        assert server.ended() == (128 + signal.SIGINT, "the server has ended\n")
