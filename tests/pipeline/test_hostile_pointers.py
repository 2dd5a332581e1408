"""Files that point elsewhere: nothing is fetched from a server, nothing else is opened, whatever the container."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import pytest

from schemas.errors import NotAVideo, VideoError
from tests.media import make_video
from tests.pipeline.steps import decoded, inspected


class Server:
    """Accepts connections on loopback, notes what is asked, and hangs up."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.asked: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.socket.accept()
                with client:
                    self.asked.append(client.recv(200))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.socket.close()


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n"
POINTERS = {
    "HLS segment": HLS + "#EXTINF:2.0,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "HLS variant": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=64x48\nhttp://127.0.0.1:{port}/a.m3u8\n",
    "HLS key": HLS
    + '#EXT-X-KEY:METHOD=AES-128,URI="http://127.0.0.1:{port}/key"\n#EXTINF:2.0,\n{pipe}\n#EXT-X-ENDLIST\n',
    "HLS initialisation": HLS
    + '#EXT-X-MAP:URI="http://127.0.0.1:{port}/i.mp4"\n#EXTINF:2.0,\n{pipe}\n#EXT-X-ENDLIST\n',
    "HLS data": HLS + "#EXTINF:2.0,\ndata:video/mp2t;base64,R0AREABC8CUAAcEAAP8B/wAB\n#EXT-X-ENDLIST\n",
    "HLS pipe": HLS + "#EXTINF:2.0,\nfile:{pipe}\n#EXT-X-ENDLIST\n",
    "HLS subfile": HLS + "#EXTINF:2.0,\nsubfile,,start,0,end,100,,:{pipe}\n#EXT-X-ENDLIST\n",
    "HLS concat": HLS + "#EXTINF:2.0,\nconcat:{pipe}|{pipe}\n#EXT-X-ENDLIST\n",
    "HLS crypto": HLS + "#EXTINF:2.0,\ncrypto+http://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "HLS tcp": HLS + "#EXTINF:2.0,\ntcp://127.0.0.1:{port}\n#EXT-X-ENDLIST\n",
    "concat of http": "ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/a.mp4'\n",
    "concat of tcp": "ffconcat version 1.0\nfile 'tcp://127.0.0.1:{port}'\n",
    "concat of a pipe": "ffconcat version 1.0\nfile '{pipe}'\n",
    "SDP": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n"
    ),
    "RTSP redirect": "RTSPtextrtsp://127.0.0.1:{port}/a\n",
    "DASH": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="0" '
        'bandwidth="1000"><BaseURL>http://127.0.0.1:{port}/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>'
    ),
    "ASX": '<asx version="3.0"><entry><ref href="http://127.0.0.1:{port}/a"/></entry></asx>',
    "ASF reference": "[Reference]\nRef1=http://127.0.0.1:{port}/a?MSWMExt=.asf\n",
    "image pattern": "P6 1 1 255\nabc",
    "IMF list": (
        '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
        "<Id>urn:uuid:0</Id><Annotation>http://127.0.0.1:{port}/</Annotation></CompositionPlaylist>"
    ),
    "VobSub index": "# VobSub index file, v7 (do not modify this line!)\nsize: 64x48\nid: en, index: 0\n",
}


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", "%d.mp4", ".ts"])
@pytest.mark.parametrize("kind", POINTERS)
def test_a_pointer_is_no_video_and_asks_nobody(kind: str, suffix: str, server: Server, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.ts"
    os.mkfifo(pipe)  # who opens it to read waits for ever, and the test with him
    path = tmp_path / f"innocent{suffix}"
    path.write_text(POINTERS[kind].format(port=server.port, pipe=pipe))
    for number in range(3):  # what a pattern would find
        make_video(tmp_path / f"innocent{number}.mp4", frames=2, codec="mpeg4")
    with pytest.raises(NotAVideo, match="no video container we read"):
        inspected(path)
    assert server.asked == []


def test_the_server_would_see_it(server: Server, tmp_path: Path) -> None:
    """The test of the test: with another list of protocols, FFmpeg asks."""
    path = tmp_path / "list.m3u8"
    path.write_text(POINTERS["HLS segment"].format(port=server.port, pipe=""))
    options = {"protocol_whitelist": "file,http,tcp"}
    with suppress(av.FFmpegError, OSError), av.open(str(path), options=options, timeout=5.0):
        pass
    assert server.asked
    assert server.asked[0].startswith(b"GET /a.ts")


PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")


def with_reference(path: Path, target: str) -> Path:
    """A film whose data reference names another place, by URL: its samples would lie there."""
    content = path.read_bytes()
    own = struct.pack(">I4sI", 12, b"url ", 1)  # flag 1: in this file
    at = content.index(own)
    text = target.encode() + b"\0"
    grown = bytearray(content[:at] + struct.pack(">I4sI", 12 + len(text), b"url ", 0) + text + content[at + 12 :])
    for name in PARENTS:
        place = grown.rindex(name, 0, at) - 4
        (size,) = struct.unpack_from(">I", grown, place)
        struct.pack_into(">I", grown, place, size + len(text))
    path.write_bytes(bytes(grown))
    return path


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/a.mov", "tcp://127.0.0.1:{port}", "{pipe}", "file://{pipe}"]
)
def test_a_movie_whose_samples_lie_elsewhere_asks_nobody(target: str, server: Server, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mov"
    os.mkfifo(pipe)
    film = make_video(tmp_path / "film.mov", codec="mjpeg", pixels="yuvj420p", frames=5)
    path = with_reference(film, target.format(port=server.port, pipe=pipe))
    with suppress(VideoError):
        decoded(path)
    assert server.asked == []
