"""Decoding by plan on real encoded video: without a tolerance the very frames of one pass, and fewer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline import decode, demux, plan, references
from pipeline.settings import Sampling
from schemas.errors import VideoError
from schemas.records import DecodedUnit, Unit
from tests.media import halves, halves_number, make_video
from tests.pipeline.steps import SIZE, planned, source

# Else dark levels are lost.
SHARP = {"flags": "+qscale", "global_quality": "236"}
X265 = {"x265-params": "log-level=none:bframes=3:crf=12", "preset": "ultrafast"}
SVT_AV1 = {"preset": "12", "crf": "20", "svtav1-params": "keyint=40"}
VP9 = {"crf": "10", "cpu-used": "8", "deadline": "realtime"}
STREAMS = [
    pytest.param(("one group.mp4", {"gop": 500, "b_frames": 2}), id="H.264, one group"),
    pytest.param(("short groups.mp4", {"gop": 12}), id="H.264, short groups"),
    pytest.param(
        ("open.mp4", {"gop": 40, "options": {"crf": "12", "x264-params": "open-gop=1", "bf": "3"}}), id="open"
    ),
    pytest.param(("b.mkv", {"gop": 60, "b_frames": 3, "options": {"crf": "12", "b-pyramid": "normal"}}), id="pyramid"),
    pytest.param(("no index.mkv", {"gop": 60, "b_frames": 2, "piped": True}), id="no index"),
    pytest.param(("a.ts", {"gop": 60, "b_frames": 2}), id="TS"),
    pytest.param(("a.flv", {"gop": 60}), id="FLV"),
    pytest.param(("h265.mp4", {"gop": 60, "codec": "libx265", "options": X265}), id="HEVC"),
    pytest.param(("vp9.webm", {"gop": 60, "codec": "libvpx-vp9", "options": VP9}), id="VP9"),
    pytest.param(("av1.mp4", {"codec": "libsvtav1", "options": SVT_AV1}), id="AV1"),
    pytest.param(
        ("mpeg2.mkv", {"gop": 15, "b_frames": 2, "codec": "mpeg2video", "options": {"qscale": "2"}}), id="MPEG-2"
    ),
    pytest.param(("mpeg4.mp4", {"gop": 60, "b_frames": 2, "codec": "mpeg4", "options": SHARP}), id="MPEG-4"),
    pytest.param(("intra.mov", {"codec": "mjpeg", "pixels": "yuvj420p", "options": {"qscale": "2"}}), id="M-JPEG"),
]
FOOTAGE = Path(__file__).parents[3] / "shared" / "footage"
EXACT = Sampling(window_s=1.0, stride_s=1.0, frames=4)


@pytest.fixture(params=STREAMS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, options = request.param
    try:
        return make_video(tmp_path / name, frames=240, paint=halves, size=(96, 64), **options)
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg cannot write {options['codec']}")


def same(one: DecodedUnit, other: DecodedUnit) -> bool:
    """Whether two units hold the same clips, to the bit."""
    return (
        one.windows == other.windows
        and np.array_equal(one.frames_NTHWC, other.frames_NTHWC)
        and one.thumbnails == other.thumbnails
        and one.intact_samples == other.intact_samples
    )


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each pass over everything."""
    seen: list[str] = []
    take = decode._take

    def noted(uri: str, *rest):
        seen.append(uri)
        return take(uri, *rest)

    monkeypatch.setattr(decode, "_take", noted)
    return seen


def fed(unit: Unit) -> int:
    """How many packets a unit's steps decode."""
    assert unit.steps is not None
    return len(unit.steps.feed) // 8


@pytest.mark.parametrize("first", [0, 3, 8])
def test_without_a_tolerance_the_frames_are_those_of_one_pass(path: Path, first: int, passes: list[str]) -> None:
    unit = planned(path, EXACT, first)
    found = decode.decode(unit, SIZE)
    assert passes == [], "the plan was kept"
    assert same(found, decode.decode(replace(unit, steps=None), SIZE))


def test_with_a_tolerance_no_frame_is_further_from_its_moment_and_its_time_is_the_true_one(
    path: Path, passes: list[str]
) -> None:
    sampling = replace(EXACT, tolerance_s=0.09)
    unit = planned(path, sampling)
    found = decode.decode(unit, SIZE)
    assert passes == []
    assert fed(unit) <= fed(planned(path, EXACT))
    for wanted, taken, frames in zip(unit.windows, found.windows, found.frames_NTHWC, strict=True):
        assert np.abs(np.subtract(wanted.frame_times_s, taken.frame_times_s)).max() <= 0.09 + 1e-3
        numbers = [halves_number(frame) for frame in frames]
        assert numbers == [round(time_s * 25) for time_s in taken.frame_times_s]
    assert found.intact_samples == (4,) * len(unit.windows)


def test_what_nobody_predicts_from_is_what_the_decoder_itself_would_leave_out(path: Path) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.skip_frame = "NONREF"
        kept = {frame.pts for packet in container.demux(stream) for frame in packet.decode()}
    index = demux.read_packets(str(path)).index
    if index.reference_n.all():
        return  # not told, or there are none: more is decoded than needed, and nothing is wrong
    assert set(index.stamp_n[index.reference_n].tolist()) == kept


def test_codecs_with_frames_that_nobody_needs_are_told_so(tmp_path: Path) -> None:
    """Else the tests above could pass because nothing is ever left out."""
    told = set()
    for parameters in STREAMS:
        ((name, options),) = parameters.values
        if name in ("one group.mp4", "b.mkv", "h265.mp4", "mpeg2.mkv", "mpeg4.mp4"):
            index = demux.read_packets(
                str(make_video(tmp_path / name, frames=60, size=(96, 64), paint=halves, **options))
            ).index
            told |= {name} - ({name} if index.reference_n.all() else set())
    assert told == {"one group.mp4", "b.mkv", "h265.mp4", "mpeg2.mkv", "mpeg4.mp4"}


@pytest.mark.slow
@pytest.mark.skipif(not FOOTAGE.is_dir(), reason="needs the shared test footage")
def test_without_a_tolerance_every_real_file_gives_the_frames_of_one_pass() -> None:
    unlike, decoded = [], 0
    for path in sorted(path for path in FOOTAGE.rglob("*") if path.is_file() and path.name != "MANIFEST.json"):
        try:
            video = demux.inspect(source(path), Sampling(window_s=2.0, stride_s=2.0, frames=8))
            for unit in plan.plan_video(video, None, {}, 0, "space").units:
                found = decode.decode(unit, SIZE)
                decoded += 1
                unlike += [] if same(found, decode.decode(replace(unit, steps=None), SIZE)) else [path.name]
        except VideoError:
            continue
    assert unlike == []
    assert decoded > 100


# --- what is saved


def test_intra_only_material_costs_its_samples_alone(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mov", codec="mjpeg", pixels="yuvj420p", frames=250, paint=halves)
    assert fed(planned(path, EXACT)) == 10 * EXACT.frames


def test_short_groups_cost_key_frames_alone_within_the_tolerance(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", gop=10, frames=500, paint=halves)
    sampling = Sampling(window_s=10.0, stride_s=10.0, frames=8, tolerance_s=None)
    unit = planned(path, sampling)
    assert fed(unit) == 2 * sampling.frames
    assert unit.steps is not None
    assert unit.steps.cost == 2 * sampling.frames


# --- where a file does not keep what its packets promise


def test_a_damaged_file_is_read_as_if_nothing_had_been_planned(tmp_path: Path, passes: list[str]) -> None:
    path = make_video(tmp_path / "a.mp4", gop=25, frames=100, b_frames=2, paint=halves)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][40]
        place, size = packet.pos, packet.size
    content = bytearray(path.read_bytes())
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    unit = planned(path, EXACT)
    found = decode.decode(unit, SIZE)
    assert passes == [str(path)]
    assert same(found, decode.decode(replace(unit, steps=None), SIZE))


def test_avi_has_no_presentation_times_and_is_not_planned(tmp_path: Path) -> None:
    assert planned(make_video(tmp_path / "a.avi", codec="mpeg4", b_frames=2), EXACT).steps is None


# --- references, bit by bit


def nal(*payload: int) -> bytes:
    """A NAL unit after its length of four bytes."""
    return len(payload).to_bytes(4, "big") + bytes(payload)


AVCC = bytes([1, 100, 0, 31, 0xFF])
HVCC = bytes([1, *[0] * 20, 3])


@pytest.mark.parametrize(
    ("codec", "extradata", "packet", "is_reference"),
    [
        ("h264", AVCC, nal(0x06, 5) + nal(0x41, 0), True),  # SEI, then a slice with nal_ref_idc 2
        ("h264", AVCC, nal(0x09, 0x10) + nal(0x01, 0), False),  # AUD, then nal_ref_idc 0
        ("h264", None, b"\0\0\0\1\x09\x10\0\0\1\x01\0\0", False),
        ("h264", AVCC, nal(0x06, 5), True),  # no slice: nobody knows
        ("hevc", HVCC, nal(0x00, 1), False),  # TRAIL_N
        ("hevc", HVCC, nal(0x02, 1), True),  # TRAIL_R
        ("hevc", HVCC, nal(0x26, 1), True),  # IDR_W_RADL
        ("vp9", None, bytes([0b10_0_0_0_1_1_0, 0b00_000000, 0b00_000000]), False),  # inter, shown, refreshes nothing
        ("vp9", None, bytes([0b10_0_0_0_1_1_0, 0b00_000000, 0b01_000000]), True),
        ("vp9", None, bytes([0b10_0_0_0_0_1_0, 0, 0]), True),  # key frame
        ("vp9", None, bytes([0b10_0_0_0_1_1_0, 0, 0xC1]), True),  # superframe
        ("mpeg2video", None, b"\0\0\1\0\0\x18\0\0", False),  # B
        ("mpeg2video", None, b"\0\0\1\0\0\x10\0\0", True),  # P
        ("mpeg4", None, b"\0\0\1\xb6\x80\0\0\0", False),
        ("mpeg4", None, b"\0\0\1\xb6\x40\0\0\0", True),
        ("prores", None, b"anything", True),
        *((codec, None, b"", True) for codec in ("h264", "hevc", "vp9", "mpeg2video", "mpeg4")),
    ],
)
def test_headers_tell_whether_others_need_a_frame(
    codec: str,
    extradata: bytes | None,
    packet: bytes,
    is_reference: bool,  # noqa: FBT001  # a column of a table
) -> None:
    assert references.reader(codec, extradata)(memoryview(packet)).is_reference == is_reference


def noise() -> Iterator[bytes]:
    """Packets of any length and content."""
    rng = np.random.default_rng(0)
    for size in range(200):
        yield rng.bytes(size)


@pytest.mark.parametrize("extradata", [None, AVCC, HVCC])
@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "mpeg2video", "mpeg4"])
def test_noise_is_read_without_complaint(codec: str, extradata: bytes | None) -> None:
    read = references.reader(codec, extradata)
    for packet in noise():
        assert read(memoryview(packet)).is_reference in (True, False)


def test_the_loop_filter_is_left_out_with_a_tolerance_only_and_hardly_shows(path: Path, passes: list[str]) -> None:
    unit = planned(path, EXACT)
    assert unit.steps is not None
    assert unit.steps.is_exact
    filtered = decode.decode(unit, SIZE)
    loose = replace(unit, steps=replace(unit.steps, is_exact=False))
    unfiltered = decode.decode(loose, SIZE)
    assert passes == []
    assert np.abs(filtered.frames_NTHWC.astype(int) - unfiltered.frames_NTHWC).mean() < 1
    assert not planned(path, replace(EXACT, tolerance_s=0.09)).steps.is_exact
