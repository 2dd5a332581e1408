"""A media file is hostile input: whatever it is called or holds, it decodes properly or is a VideoError."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pipeline import demux, sources
from pipeline.settings import Sampling
from schemas.errors import NotAVideo, UnreadableFile, VideoError
from schemas.records import HashedFile, SourceFile
from tests.media import grey_number, make_sound, make_video
from tests.pipeline.steps import decoded, inspected, numbers, source

SAMPLING = Sampling(window_s=1, stride_s=1, frames=5)
PICKED = [[2, 7, 12, 17, 22], [27, 32, 37, 42, 47]]
FOOTAGE_B = Path(__file__).parents[3] / "shared" / "footage" / "B"


def unread(path: Path) -> HashedFile:
    """A file that was not read before it is opened."""
    return HashedFile(SourceFile(sources.to_uri(path), 0, 0.0), "")


# --- what a file holds


CONTENTS = {
    "nothing": b"",
    "text": b"this is not a video\n" * 100,
    "a web page": b"<!doctype html><title>404</title><video src='other.mp4'></video>",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "the start of an MP4 header": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0),
    "an MP4 box that claims 4 GB": struct.pack(">I4s", 0xFFFF_FFFF, b"moov") + bytes(64),
    "an EBML header alone": bytes.fromhex("1a45dfa3a34286810142f7810142f2810442f381084282847765626d42878104428581"),
    "a RIFF header alone": b"RIFF\xff\xff\xff\xffAVI LIST",
    "a shell script": b"#!/bin/sh\nrm -rf /\n",
}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.gif", "a.ts", "a.y4m", "a.h264", "a.mjpeg"])
@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_no_video_is_said_to_be_none(content: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(CONTENTS[content])
    with pytest.raises(VideoError) as caught:
        decoded(path)
    assert caught.value.kind in {"not_a_video", "undecodable"}
    assert caught.value.permanent


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(NotAVideo, match="this is an empty file"):
        inspected(tmp_path / "empty.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(NotAVideo, match="there is no video stream, only audio"):
        inspected(make_sound(tmp_path / "sound.mp4"))


def test_the_container_counts_and_not_the_name(tmp_path: Path) -> None:
    path = make_video(tmp_path / "film.mkv").rename(tmp_path / "film.mp4")
    assert numbers(decoded(path), grey_number) == PICKED


# --- files that name other files


POINTERS = {
    "HLS playlist": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{path}\n#EXT-X-ENDLIST\n",
    "HLS master playlist": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100000,RESOLUTION=64x48\n{path}\n",
    "HLS playlist by URL": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\nfile://{path}\n#EXT-X-ENDLIST\n",
    "concat script": "ffconcat version 1.0\nfile '{path}'\n",
    "concat script, relative": "ffconcat version 1.0\nfile {name}\nduration 2\n",
    "SDP": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={path}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\na=control:file://{path}\n"
    ),
    "DASH manifest": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="0" '
        'bandwidth="1000"><BaseURL>{path}</BaseURL><SegmentList><SegmentURL media="{path}"/></SegmentList>'
        "</Representation></AdaptationSet></Period></MPD>"
    ),
    "ASX playlist": '<asx version="3.0"><entry><ref href="{path}"/></entry></asx>',
    "QuickTime reference text": "RTSPtextrtsp://127.0.0.1/{path}\n",
}


@contextmanager
def opened_files(folder: Path) -> Iterator[list[str]]:
    """Collects the names of the files in a folder that anyone opens meanwhile, as the kernel saw it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        pytest.skip("needs inotify")
    watch = libc.inotify_init1(os.O_NONBLOCK)
    names: list[str] = []
    try:
        assert libc.inotify_add_watch(watch, os.fsencode(folder), 0x20) >= 0  # IN_OPEN
        yield names
        try:
            events = os.read(watch, 1 << 16)
        except BlockingIOError:
            events = b""
        while events:
            *_, length = struct.unpack_from("iIII", events)
            names.append(events[16 : 16 + length].rstrip(b"\0").decode())
            events = events[16 + length :]
    finally:
        os.close(watch)


def test_the_watch_on_opened_files_sees_decoding(tmp_path: Path) -> None:
    path = make_video(tmp_path / "film.mp4", frames=2)
    with opened_files(tmp_path) as names:
        decoded(path)
    assert "film.mp4" in names


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".m3u8", ".mpd"])
@pytest.mark.parametrize("kind", POINTERS)
def test_a_file_that_names_another_is_refused_and_opens_nothing(kind: str, suffix: str, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    secret = make_video(secrets / "secret.ts", codec="mpeg2video")
    pointer = tmp_path / f"innocent{suffix}"
    pointer.write_text(POINTERS[kind].format(path=secret, name=f"secrets/{secret.name}"))
    file = source(pointer)
    with opened_files(secrets) as names, pytest.raises(NotAVideo, match="no video container we read"):
        demux.inspect(file, SAMPLING)
    assert names == []


def test_a_movie_whose_samples_lie_in_another_file_does_not_read_it(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    secret = make_video(secrets / "secret.mov", codec="mjpeg", pixels="yuvj420p")
    content = secret.read_bytes()
    pointer = tmp_path / "reference.mov"
    # The data reference of its own file ("url ", flag 1: self-contained) made one of the other file.
    own = struct.pack(">I4sI", 12, b"url ", 1)
    assert own in content
    pointer.write_bytes(content.replace(own, struct.pack(">I4sI", 12, b"url ", 0)).replace(b"mdat", b"free"))
    with opened_files(secrets) as names, suppress(VideoError):
        decoded(pointer)
    assert names == []


# --- what a file is called


NAMES = [
    "it's.mp4",
    'say "cheese".mp4',
    "[brackets] (and) {braces}.mp4",
    "100%.mp4",
    "%d %03d %s.mp4",
    "50%25.mp4",
    "new\nline.mp4",
    "tab\tand back\\slash.mp4",
    "party 🎉 時.mp4",
    "e\u0301 and \u00e9.mp4",
    "-i.mp4",
    "http:evil.mp4",
    "concat:a|b.mp4",
    "file:x.mp4",
    "#1?query=yes&more.mp4",
    " leading and trailing .mp4",
    "~.mp4",
    "$(reboot) `id` ;.mp4",
    "*.mp4",
    "UPPER.MP4",
    "x" * 200 + ".mp4",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_decodes(name: str, tmp_path: Path) -> None:
    film = make_video(tmp_path / "film.mp4")
    path = film.rename(tmp_path / name)
    assert numbers(decoded(path), grey_number) == PICKED
    assert sources.to_path(source(path).file.uri) == path


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_walked(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name.removesuffix(".mp4")
    folder.mkdir()
    film = make_video(folder / "film.mp4", frames=1)
    (found,) = sources.take_inventory(folder)
    assert sources.to_path(found.uri) == film
    assert numbers(decoded(film), grey_number) == [[0] * 5]


def test_a_name_that_is_not_utf8_is_found_and_decodes(tmp_path: Path) -> None:
    film = make_video(tmp_path / "film.mp4")
    odd = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    try:
        film.rename(os.fsdecode(odd))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (found,) = sources.take_inventory(tmp_path)
    assert found.uri.startswith("file:///")
    assert found.uri.endswith("caf%E9.mp4")
    assert os.fsencode(sources.to_path(found.uri)) == odd
    assert numbers(decoded(tmp_path), grey_number) == PICKED


# --- what is no file at all


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="cannot be read: No such file"):
        demux.inspect(unread(tmp_path / "missing.mp4"), SAMPLING)
    with pytest.raises(UnreadableFile, match="cannot be read: No such file"):
        sources.fingerprint(unread(tmp_path / "missing.mp4").file)


def test_a_folder_named_like_a_video_is_a_video_error(tmp_path: Path) -> None:
    folder = tmp_path / "folder.mp4"
    folder.mkdir()
    with pytest.raises(VideoError):
        demux.inspect(unread(folder), SAMPLING)
    with pytest.raises(UnreadableFile, match="cannot be read: Is a directory"):
        sources.fingerprint(unread(folder).file)


def test_a_circle_of_links_is_a_problem_of_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").symlink_to(tmp_path / "b.mp4")
    (tmp_path / "b.mp4").symlink_to(tmp_path / "a.mp4")
    found = list(sources.take_inventory(tmp_path))
    assert len(found) == 2
    assert {problem.kind for problem in found} == {"unreadable"}
    with pytest.raises(UnreadableFile, match="cannot be read"):
        demux.inspect(unread(tmp_path / "a.mp4"), SAMPLING)


def test_a_link_to_nothing_is_a_problem_of_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "missing.mp4")
    (problem,) = sources.take_inventory(tmp_path)
    assert (problem.kind, problem.permanent) == ("unreadable", False)


def test_a_pipe_named_like_a_video_is_a_problem_and_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for named in (tmp_path, tmp_path / "pipe.mp4"):
        (problem,) = sources.take_inventory(named)
        assert (problem.kind, problem.error) == ("unreadable", "cannot be read: not a regular file")


def test_a_file_that_must_not_be_read_is_unreadable(tmp_path: Path) -> None:
    path = make_video(tmp_path / "locked.mp4", frames=1)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UnreadableFile, match="cannot be read: Permission denied"):
        source(path)
    with pytest.raises(UnreadableFile, match="cannot be read: Permission denied"):
        demux.inspect(unread(path), SAMPLING)


# --- real odd files, when they are there


DEADLINE_S = 120
# Every file in a process of its own would take minutes to import; one process for all, started again if one kills it.
READER = """
import faulthandler, json, sys
from dataclasses import replace
from pathlib import Path
from tests.pipeline.steps import SIZE, inspected
from pipeline import decode, demux, plan
from schemas.errors import VideoError
def ends(units):
    return {(units[0], units[0].windows[0]), (units[-1], units[-1].windows[-1])} if units else ()
for path in map(Path, json.loads(sys.stdin.readline())):
    faulthandler.dump_traceback_later(int(sys.argv[1]), exit=True)
    try:
        video = inspected(path, 10.0, 8)
        units = plan.plan_video(video, None, {}, 0, "space").units
        # The first clip, and the last, which begins with a seek: minutes in between add nothing. By plan, and without.
        packets = demux.read_packets(video.source.file.uri)
        parts = [
            replace(unit, windows=(window,), steps=steps)
            for unit, window in ends(units)
            for steps in (packets.steps([window], None), None)
        ]
        clips = [clip for part in parts for clip in decode.decode(part, SIZE).intact_samples]
        outcome = f"ok {len(clips)}" if clips else "no clips and no error"
    except VideoError as error:
        outcome = f"video_error {error.kind}: {error}"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    print(json.dumps([path.name, outcome]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What became of every file of footage/B; a file without an entry killed its reader or went over its deadline."""
    waiting = [str(path) for path in sorted(FOOTAGE_B.iterdir())]
    found: dict[str, str] = {}
    while waiting:
        run = subprocess.run(
            [sys.executable, "-c", READER, str(DEADLINE_S)],
            input=json.dumps(waiting) + "\n",
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        done = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
        found |= dict(done)
        if run.returncode == 0:
            break
        found.setdefault(Path(waiting[len(done)]).name, f"died with {run.returncode}: {run.stderr[-500:]}")
        waiting = waiting[len(done) + 1 :]
    return found


@pytest.mark.skipif(not FOOTAGE_B.is_dir(), reason="needs the shared test footage")
@pytest.mark.parametrize("name", sorted(path.name for path in FOOTAGE_B.iterdir()) if FOOTAGE_B.is_dir() else [])
def test_an_odd_file_is_decoded_or_is_a_video_error(name: str, outcomes: dict[str, str]) -> None:
    assert outcomes[name].split()[0] in {"ok", "video_error"}, outcomes[name]
