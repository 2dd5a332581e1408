"""Frames at their times: the right ones, from every kind of stream, whole or damaged, in one pass or after a seek."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline import decode, demux, picking, sampling
from schemas.errors import NotAVideo, TooLarge, UndecodableVideo
from schemas.records import Unit
from tests.media import (
    damage_packets,
    grey,
    grey_number,
    halves,
    halves_number,
    make_video,
    packet_places,
    quadrants,
    silence,
    truncate,
)
from tests.pipeline.steps import SIZE, decoded, inspected, numbers, pictures, units
from xclip_core.geometry import crop_offset, resized_side
from xclip_core.preprocess import resize_and_crop

QUICK_VP8 = {"crf": "4", "b": "1M", "deadline": "realtime", "cpu-used": "8"}
SHARP = {"flags": "+qscale", "global_quality": "236"}  # for the MPEG-4 family: quantiser 2
# One second of 25 frames in 5 parts: the frames at their centres.
PICKED = [[2, 7, 12, 17, 22], [27, 32, 37, 42, 47]]


def sequential(path: Path) -> dict[float, int]:
    """The number of every frame by its time: all frames decoded by PyAV, none sought, times put in order."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        origin_s = (container.start_time or 0) / av.time_base
        frames = [(frame.time - origin_s, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
    times_s = sorted(time_s for time_s, _ in frames)
    return {time_s: halves_number(picture) for time_s, (_, picture) in zip(times_s, frames, strict=True)}


def check_against_sequential(path: Path, **cut) -> None:
    """Every sample of every unit is the frame that a plain pass finds at that time."""
    by_time = sequential(path)
    times_s = np.array(sorted(by_time))
    for unit in units(path, **cut):
        result = decode.decode(unit, SIZE)
        assert len(result.windows) == len(unit.windows), "intact files lose nothing"
        for window, found in zip(result.windows, numbers(result, halves_number), strict=True):
            wanted_s = sampling.centres(window.start_s, window.end_s, len(window.frame_times_s))
            expected_s = sampling.shown_at(times_s, wanted_s)
            assert window.frame_times_s == pytest.approx(expected_s)
            assert found == [by_time[float(time_s)] for time_s in expected_s]
        assert result.intact_samples == tuple(len(window.frame_times_s) for window in unit.windows)


# --- streams of every kind

STREAMS = {
    "h264.mp4": {},
    "h264, B-frames.mp4": {"b_frames": 2},
    "h264, B-frames.mkv": {"b_frames": 2},
    "h264, B-frames.flv": {"b_frames": 2},
    "h264, B-frames.ts": {"b_frames": 2},
    "h264, B-frames out of order.avi": {"b_frames": 2},
    "h264, open GOP.mp4": {"b_frames": 2, "options": {"crf": "12", "x264-params": "open-gop=1", "bf": "2"}},
    "mpeg4, B-frames.avi": {"codec": "mpeg4", "b_frames": 2, "options": SHARP},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": SHARP},
    "vp8.webm": {"codec": "libvpx", "options": QUICK_VP8},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"crf": "10", "b": "1M", "deadline": "realtime"}},
    "ffv1.mkv": {"codec": "ffv1"},
    "mjpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "raw.nut": {"codec": "rawvideo", "pixels": "rgb24"},
    "gif.gif": {"codec": "gif", "pixels": "gray"},
    "no duration, no index.webm": {"codec": "libvpx", "options": QUICK_VP8, "piped": True},
    "no duration, no index.mkv": {"piped": True},
    "fragmented.mp4": {"muxing": {"movflags": "frag_keyframe+empty_moov"}, "b_frames": 2},
}


@pytest.mark.parametrize("name", STREAMS)
def test_samples_are_the_frames_that_a_plain_pass_finds(name: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, frames=90, paint=halves, **STREAMS[name])
    check_against_sequential(path)
    check_against_sequential(path, window_s=0.5, stride_s=0.3, frames=3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_frames_of_constant_rate_are_the_centres_of_their_parts(name: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, codec="libvpx" if name.endswith("webm") else "libx264")
    result = decoded(path)
    assert numbers(result, grey_number) == PICKED
    assert [window.frame_times_s for window in result.windows] == [
        pytest.approx([number / 25 for number in clip]) for clip in PICKED
    ]
    assert result.intact_samples == (5, 5)


UNEVEN_S = [0, 0.04, 0.08, 0.5, 0.52, 0.54, 0.9, 1.7, 1.71, 1.72, 2.4, 2.6, 2.95]


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
def test_uneven_durations_are_sampled_by_time_and_not_by_number(name: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, times_s=UNEVEN_S)
    assert inspected(path).profile.packet_count == len(UNEVEN_S)
    result = decoded(path)
    assert [(window.start_s, window.end_s) for window in result.windows][:2] == [(0, 1), (1, 2)]
    assert numbers(result, grey_number)[:2] == [[2, 2, 3, 5, 6], [6, 6, 6, 7, 9]]
    assert result.windows[1].frame_times_s == pytest.approx((0.9, 0.9, 0.9, 1.7, 1.72))


def test_a_jump_in_the_time_stamps_is_no_footage(tmp_path: Path) -> None:
    times_s = [n / 25 for n in range(25)] + [1000 + n / 25 for n in range(25)]
    result = decoded(make_video(tmp_path / "jump.mkv", times_s=times_s))
    assert [round(window.start_s) for window in result.windows] == [0, 1000]
    assert numbers(result, grey_number)[0] == PICKED[0]
    assert numbers(result, grey_number)[1] == [27, 32, 37, 42, 47]


def test_a_late_start_of_the_whole_file_is_time_zero(tmp_path: Path) -> None:
    result = decoded(make_video(tmp_path / "late.mkv", start_s=2.0))
    assert [window.start_s for window in result.windows] == [0, 1]
    assert numbers(result, grey_number) == PICKED


@pytest.mark.parametrize("name", ["late.mkv", "late.mp4"])
def test_pictures_that_start_after_the_sound_keep_the_players_time(name: str, tmp_path: Path) -> None:
    result = decoded(make_video(tmp_path / name, start_s=2.0, sound=True))
    assert [window.start_s for window in result.windows] == pytest.approx([2, 3], abs=0.15)  # AAC starts early
    assert numbers(result, grey_number) == PICKED


@pytest.mark.parametrize("name", ["piped.webm", "piped.mkv"])
def test_a_header_without_a_duration_is_no_matter(name: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, codec="libvpx" if name.endswith("webm") else "libx264", piped=True)
    with av.open(str(path)) as container:
        assert container.duration is None
    assert inspected(path).profile.duration_s == pytest.approx(2.0)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "gif", "flv", "ts"])
def test_a_video_of_one_frame_is_one_clip_of_it(kind: str, tmp_path: Path) -> None:
    codec = {"gif": "gif", "flv": "flv", "avi": "mpeg4"}.get(kind, "libx264")
    pixels = "gray" if kind == "gif" else None
    path = make_video(
        tmp_path / f"one.{kind}", frames=1, codec=codec, pixels=pixels, paint=lambda _, size: grey(30, size)
    )
    result = decoded(path)
    assert numbers(result, grey_number) == [[30] * 5]
    assert result.intact_samples == (5,)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (65, 33), (1, 64), (64, 1)])
def test_odd_sizes_decode(size: tuple[int, int], tmp_path: Path) -> None:
    path = make_video(tmp_path / "odd.nut", size=size, codec="rawvideo", pixels="rgb24")
    assert (inspected(path).profile.width, inspected(path).profile.height) == size
    result = decoded(path)
    assert result.frames_NTHWC.shape == (2, 5, SIZE, SIZE, 3)
    assert numbers(result, grey_number) == PICKED


@pytest.mark.parametrize("size", [(4096, 2), (2, 4096)])
def test_pictures_far_from_square_stay_small_on_the_way(size: tuple[int, int], tmp_path: Path) -> None:
    result = decoded(make_video(tmp_path / "long.nut", size=size, codec="rawvideo", pixels="rgb24", frames=25))
    assert numbers(result, grey_number) == PICKED[:1]
    thumbnail = Image.open(BytesIO(result.thumbnails[0]))
    assert max(thumbnail.size) == 160
    assert min(thumbnail.size) == 1


def test_a_sample_keeps_no_more_than_its_own_pixels(tmp_path: Path) -> None:
    path = make_video(tmp_path / "wide.mkv", size=(640, 40), codec="ffv1", frames=1)
    with av.open(str(path)) as container:
        (frame,) = container.decode(video=0)
    picture = decode.Resizer().model_input(frame, SIZE)
    owner = picture
    while owner.base is not None:
        owner = owner.base
    assert owner.nbytes == SIZE * SIZE * 3, "a view would keep the whole scaled picture alive"


# --- what is in a picture


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [(0, "RGBW"), (90, "GWRB"), (180, "WBGR"), (270, "BRWG")],
)
def test_rotation_in_the_metadata_turns_the_picture(rotation: int, expected: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / "turned.mp4", frames=25, size=(80, 48), rotation=rotation, paint=quadrants)
    profile = inspected(path).profile
    assert profile.rotation % 360 == rotation
    assert (profile.width, profile.height) == (80, 48)
    clip = decoded(path).frames_NTHWC[0, 0]
    quarter = SIZE // 4
    corners = [clip[y, x] for y in (quarter, -quarter) for x in (quarter, -quarter)]
    names = {(True, False, False): "R", (False, True, False): "G", (False, False, True): "B", (True, True, True): "W"}
    assert "".join(names[tuple((corner > 128).tolist())] for corner in corners) == expected


def test_thumbnails_show_the_whole_upright_picture_of_the_middle_sample(tmp_path: Path) -> None:
    path = make_video(tmp_path / "turned.mp4", size=(320, 160), rotation=90)
    result = decoded(path)
    for thumbnail, clip in zip(result.thumbnails, PICKED, strict=True):
        picture = Image.open(BytesIO(thumbnail))
        assert (picture.format, picture.size) == ("WEBP", (80, 160))
        assert grey_number(np.asarray(picture)) == clip[2]


def test_the_model_sees_the_centre_that_its_own_preprocessing_would_show(tmp_path: Path) -> None:
    def slope(_: int, size: tuple[int, int]) -> np.ndarray:
        y, x = np.mgrid[: size[1], : size[0]]
        return np.stack([255 * x / size[0], 255 * y / size[1], 255 - 255 * x / size[0]], axis=-1).astype(np.uint8)

    path = make_video(tmp_path / "slope.nut", size=(200, 120), frames=1, codec="rawvideo", pixels="rgb24", paint=slope)
    found = decoded(path, frames=1).frames_NTHWC[0]
    expected = resize_and_crop(torch.from_numpy(slope(0, (200, 120)))[None], SIZE).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 3, "the same place, channel order and scale; another filter"


def with_cover(path: Path, *, film: bool) -> Path:
    """A file with a cover picture of level 50, and a second of film or of sound."""
    with av.open(str(path), "w") as output:
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = output.add_stream("libx264", rate=25) if film else output.add_stream("aac", rate=8000, layout="mono")
        if film:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(grey(50, (16, 16)), format="rgb24")
        output.mux([*cover.encode(frame), *cover.encode()])
        for number in range(25 if film else 0):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(grey(number, (64, 48)), format="rgb24")))
        output.mux(stream.encode() if film else silence(stream, 1.0))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1 + film, "the cover counts as a video stream"
    return path


def test_a_cover_picture_beside_a_film_is_not_the_film(tmp_path: Path) -> None:
    path = with_cover(tmp_path / "cover.mp4", film=True)
    assert numbers(decoded(path), grey_number) == PICKED[:1]


def test_a_cover_picture_alone_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(NotAVideo, match="there is no video stream, only audio, video"):
        inspected(with_cover(tmp_path / "song.mp4", film=False))


# --- units that begin late


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gop.mp4", {"gop": 500}),
        ("gop, B-frames.mp4", {"gop": 60, "b_frames": 2}),
        ("open gop.mp4", {"gop": 40, "options": {"crf": "12", "x264-params": "open-gop=1", "bf": "3"}}),
        ("gop.mkv", {"gop": 60, "b_frames": 2}),
        ("no index.mkv", {"gop": 60, "piped": True}),
        ("gop.ts", {"gop": 60, "b_frames": 2}),
        ("gop, out of order.avi", {"gop": 60, "b_frames": 2}),
        ("gop.avi", {"gop": 60, "b_frames": 2, "codec": "mpeg4", "options": SHARP}),
        ("gop.flv", {"gop": 60}),
        ("gop.webm", {"gop": 60, "codec": "libvpx", "options": QUICK_VP8}),
        ("gop.gif", {"codec": "gif", "pixels": "gray"}),
        ("late.mkv", {"gop": 60, "start_s": 3.0, "sound": True}),
        ("late.ts", {"gop": 60, "start_s": 3.0}),
    ],
)
def test_a_unit_that_begins_with_a_seek_has_the_frames_of_one_pass(name: str, options: dict, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, frames=300, paint=halves, **options)
    (unit,) = units(path)
    whole = decode.decode(unit, SIZE)
    for first in (3, 7, len(unit.windows) - 1):
        part = decode.decode(replace(unit, windows=unit.windows[first:], steps=None), SIZE)
        assert part.windows == whole.windows[first:]
        np.testing.assert_array_equal(part.frames_NTHWC, whole.frames_NTHWC[first:])
        assert part.thumbnails == whole.thumbnails[first:]
        assert part.intact_samples == whole.intact_samples[first:]


@pytest.mark.parametrize("name", ["gop.mp4", "gop.mkv", "gop.flv"])  # a seek in gop.ts lands behind, see _take
def test_a_late_unit_does_not_decode_the_file_from_the_front(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (unit,) = units(make_video(tmp_path / name, frames=300, gop=50, paint=halves))
    intact_frames, seen = decode.intact_frames, []

    def counted(*given, **named) -> Iterator:
        for shot in intact_frames(*given, **named):
            seen.append(shot.time_s)
            yield shot

    monkeypatch.setattr(decode, "intact_frames", counted)
    decode.decode(replace(unit, windows=unit.windows[10:], steps=None), SIZE)
    assert len(seen) < 110, "two seconds are wanted, at most two more lie before them since a key frame"


def test_a_video_of_many_clips_is_several_units_and_none_is_lost(tmp_path: Path) -> None:
    path = make_video(tmp_path / "many.mp4", frames=700, paint=halves, gop=250)
    found = units(path, window_s=0.4, frames=1)
    assert [len(unit.windows) for unit in found] == [64, 6]
    seen = [number for unit in found for (number,) in numbers(decode.decode(unit, SIZE), halves_number)]
    assert seen == list(range(5, 700, 10))


# --- damage


def test_a_file_cut_off_keeps_the_clips_before_the_cut(tmp_path: Path) -> None:
    path = make_video(tmp_path / "cut.mp4", frames=100, paint=halves, muxing={"movflags": "+faststart"}, gop=10)
    complete = inspected(path).profile.packet_count
    truncate(path, 0.6)
    assert 20 < inspected(path).profile.packet_count < complete
    result = decoded(path)
    assert numbers(result, halves_number)[0] == PICKED[0]
    assert result.intact_samples[0] == 5


@pytest.mark.parametrize("name", ["cut.mkv", "cut.ts"])
def test_a_stream_without_an_index_keeps_the_clips_before_the_cut(name: str, tmp_path: Path) -> None:
    result = decoded(truncate(make_video(tmp_path / name, frames=100, paint=halves, gop=10), 0.6))
    assert numbers(result, halves_number)[0] == PICKED[0]
    assert len(result.windows) < 4


def test_damaged_packets_cost_their_clips_and_no_others(tmp_path: Path) -> None:
    path = make_video(tmp_path / "hurt.mov", frames=100, codec="mjpeg", pixels="yuvj420p", paint=halves, size=(96, 64))
    whole = decoded(path)
    damage_packets(path, range(30, 62))  # all of window 1 but its first sample, and half of window 2
    hurt = decoded(path)
    starts = [window.start_s for window in whole.windows]
    assert [window.start_s for window in hurt.windows] == starts
    assert [hurt.intact_samples[place] for place in (0, 3)] == [5, 5]
    assert 0 < hurt.intact_samples[1] < 5
    assert 0 < hurt.intact_samples[2] < 5
    np.testing.assert_array_equal(hurt.frames_NTHWC[[0, 3]], whole.frames_NTHWC[[0, 3]])


def test_a_window_with_no_intact_frame_is_left_out(tmp_path: Path) -> None:
    path = make_video(tmp_path / "hole.mov", frames=100, codec="mjpeg", pixels="yuvj420p", paint=halves, size=(96, 64))
    content = bytearray(path.read_bytes())
    for offset, size, _ in packet_places(path)[20:55]:
        content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    assert len(inspected(path).windows) == 4, "the packet index does not know"
    result = decoded(path)
    assert [window.start_s for window in result.windows] == [0, 2, 3]
    assert result.intact_samples == (4, 4, 5)


def texture(number: int, size: tuple[int, int]) -> np.ndarray:
    """Coloured blocks that move to the left, with grain: a codec predicts them from frame to frame."""
    blocks = np.random.default_rng(1).integers(0, 256, (size[1] // 8, size[0] // 8 + 16, 3))
    moving = np.kron(blocks, np.ones((8, 8, 1)))[:, number : number + size[0]]
    grain = np.random.default_rng(number).integers(-30, 31, moving.shape)
    return np.clip(moving + grain, 0, 255).astype(np.uint8)


def test_damage_that_spreads_to_later_frames_is_counted_up_to_the_next_key_frame(tmp_path: Path) -> None:
    path = make_video(tmp_path / "smear.mp4", frames=75, size=(320, 240), gop=25, paint=texture)
    damage_packets(path, [26])
    hurt = decoded(path)
    assert (hurt.intact_samples[0], hurt.intact_samples[2]) == (5, 5)
    assert hurt.intact_samples[1] <= 1, "of 27, 32, 37, 42 and 47 only the first has a sound frame near: 25, the key"


def test_samples_within_tolerance_of_their_time_count_as_intact(tmp_path: Path) -> None:
    path = make_video(tmp_path / "hurt.mov", frames=100, codec="mjpeg", pixels="yuvj420p", paint=halves, size=(96, 64))
    damage_packets(path, [12])  # the frame before it is 0.04 s away: close enough
    hurt = decoded(path)
    assert numbers(hurt, halves_number)[0] == [2, 7, 11, 17, 22]
    assert hurt.intact_samples == (5, 5, 5, 5)
    assert hurt.windows[0].frame_times_s[2] == pytest.approx(11 / 25), "the true time of the frame that was taken"


def sound_frames(container) -> Iterator[av.VideoFrame]:
    for packet in container.demux(video=0):
        try:
            yield from (frame for frame in packet.decode() if not frame.is_corrupt)
        except av.error.InvalidDataError:
            continue


def test_a_frame_that_the_decoder_flags_or_refuses_is_not_taken(tmp_path: Path) -> None:
    path = make_video(tmp_path / "flagged.mp4", size=(320, 240), gop=25, paint=texture)
    assert decoded(path).windows[1].frame_times_s[0] == pytest.approx(27 / 25)
    damage_packets(path, [27], size_bytes=40)
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"  # the flag gets lost between threads
        sound = [round(frame.time * 25) for frame in sound_frames(container)]
    assert (26 in sound, 27 in sound) == (True, False), "which of the two it does depends on the encoder's bits"
    assert decoded(path).windows[1].frame_times_s[0] == pytest.approx(26 / 25)


def test_a_stream_in_which_nothing_decodes_is_undecodable(tmp_path: Path) -> None:
    path = make_video(tmp_path / "ruin.mov", frames=30, codec="mjpeg", pixels="yuvj420p", size=(96, 64))
    (unit,) = units(path)
    content = bytearray(path.read_bytes())
    for offset, size, _ in packet_places(path):
        content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(UndecodableVideo, match="no intact frame could be decoded"):
        decode.decode(unit, SIZE)


def test_a_file_replaced_between_planning_and_decoding_is_no_crash(tmp_path: Path) -> None:
    path = make_video(tmp_path / "gone.mp4")
    (unit,) = units(path)
    path.write_text("something else")
    with pytest.raises(NotAVideo, match="no video container we read"):
        decode.decode(unit, SIZE)


def test_frames_over_the_cap_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demux, "MAX_FRAME_PIXELS", 64 * 48 - 1)
    with pytest.raises(TooLarge, match="frames of 64 x 48 are over 3071 pixels"):
        inspected(make_video(tmp_path / "large.mp4", frames=1))


def make_changing(path: Path, *sizes: tuple[int, int]) -> Path:
    """A second of H.264 of each size, one after the other in one stream of a transport stream."""
    with av.open(str(path), "w", format="mpegts") as output:
        stream = output.add_stream("libx264", rate=25)
        (stream.width, stream.height), stream.pix_fmt = sizes[0], "yuv420p"
        for second, size in enumerate(sizes):
            encoder = av.CodecContext.create("libx264", "w")
            (encoder.width, encoder.height), encoder.pix_fmt = size, "yuv420p"
            encoder.time_base, encoder.options = Fraction(1, 25), {"crf": "12", "preset": "ultrafast"}
            for number in range(25 * second, 25 * second + 25):
                frame = av.VideoFrame.from_ndarray(halves(number, size), format="rgb24")
                frame.pts, frame.time_base = number, encoder.time_base
                mux(output, stream, encoder.encode(frame))
            mux(output, stream, encoder.encode())
    return path


def mux(output: av.container.OutputContainer, stream: av.VideoStream, packets: list[av.Packet]) -> None:
    """Packets of whatever encoder as those of a stream."""
    for packet in packets:
        packet.stream = stream
        output.mux(packet)


def test_frames_that_grow_over_the_cap_in_mid_stream_cost_themselves(tmp_path: Path, monkeypatch) -> None:
    path = make_changing(tmp_path / "grows.ts", (64, 48), (320, 240), (64, 48))
    whole = [*PICKED, [52, 57, 62, 67, 72]]
    assert numbers(decoded(path), halves_number) == whole
    monkeypatch.setattr(demux, "MAX_FRAME_PIXELS", 64 * 48)
    unit = decoded(path)
    assert numbers(unit, halves_number) == [whole[0], whole[2]]
    assert [(window.start_s, count) for window, count in zip(unit.windows, unit.intact_samples, strict=True)] == [
        (0.0, 5),
        (2.0, 5),
    ]


def test_absurd_time_stamps_are_refused_before_windows_are_made_of_them(tmp_path: Path) -> None:
    path = make_video(tmp_path / "absurd.mkv", times_s=[0, 0.04, 4e7])
    with pytest.raises(UndecodableVideo, match=r"time stamps span \d+ s; they are broken"):
        inspected(path)


def test_more_windows_than_fit_are_refused_before_they_are_made(tmp_path: Path) -> None:
    path = make_video(tmp_path / "sparse.mkv", times_s=[0, 0.04, 3e6])
    assert len(inspected(path, window_s=10.0).windows) == 2, "those between hold no frame"
    with pytest.raises(UndecodableVideo, match=r"time stamps span 4500000 s, over 2000000 windows of 1 s"):
        inspected(path, window_s=1.0)


# --- the rules, without a file


def shots(times_s: list[float]) -> Iterator:
    """Frames in presentation order with these times; a frame is its place."""
    return (picking.Shot(time_s, SimpleNamespace(place=place)) for place, time_s in enumerate(times_s))


@given(st.data())
def test_times_out_of_order_are_sorted_and_frames_stay_in_order(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 30))
    # No time is further than REORDER_FRAMES places from home.
    keys = [place + data.draw(st.floats(0, picking.REORDER_FRAMES - 0.01)) for place in range(count)]
    shuffled = [float(place) for place in sorted(range(count), key=keys.__getitem__)]
    found = list(picking.in_order(shots(shuffled)))
    assert [shot.time_s for shot in found] == sorted(shuffled)
    assert [shot.frame.place for shot in found] == list(range(count))


@given(
    times=st.lists(st.integers(0, 200), min_size=1, max_size=40, unique=True),
    wanted=st.lists(st.integers(-10, 220), max_size=20),
)
def test_each_time_gets_the_frame_on_the_screen_then(times: list[int], wanted: list[int]) -> None:
    times, wanted = sorted(times), sorted(wanted)
    found = list(picking.pick(shots([float(t) for t in times]), [float(w) for w in wanted]))
    assert [moment for moment, _ in found] == wanted
    expected = [max((t for t in times if t <= moment), default=times[0]) for moment in wanted]
    assert [shot.time_s for _, shot in found] == expected


def test_nothing_is_picked_from_nothing() -> None:
    assert list(picking.pick(shots([]), [1.0, 2.0])) == []


def test_frames_behind_the_last_wanted_time_are_not_decoded() -> None:
    def endless() -> Iterator:
        yield from shots([0.0, 1.0, 2.0, 3.0])
        raise AssertionError("read on behind what was wanted")

    assert [shot.time_s for _, shot in picking.pick(endless(), [0.5, 1.5])] == [0.0, 1.0]


def test_stages_keep_the_order_of_their_records(tmp_path: Path) -> None:
    paths = [
        make_video(tmp_path / f"{n}.mp4", frames=25, paint=lambda _, size, n=n: grey(10 * n, size)) for n in (1, 2, 3)
    ]
    batch: list[Unit] = [unit for path in paths for unit in units(path)]
    assert [grey_number(pictures(result)[0]) for result in decode.decode_units(SIZE, batch)] == [10, 20, 30]


def test_a_video_that_we_write_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "own.mp4"
    decode.write_video(path, (halves(n, (64, 48)) for n in range(60)), shape=(48, 64), rate_hz=20)
    assert inspected(path).profile.rate_hz == pytest.approx(20)
    check_against_sequential(path)


# --- whole frames at chosen times


@pytest.mark.parametrize("name", [name for name in STREAMS if "gif" not in name])
def test_frame_times_are_those_of_a_plain_pass(name: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, frames=40, paint=halves, **STREAMS[name])
    assert demux.frame_times(str(path)) == pytest.approx(sorted(sequential(path)), abs=1e-6)


@pytest.mark.parametrize("name", ["h264, B-frames.mp4", "mpeg4, B-frames.avi", "vp8.webm"])
def test_whole_frames_come_in_the_order_asked_for_and_as_often(name: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, frames=90, paint=halves, **STREAMS[name])
    wanted = [30, 7, 7, 89, 0, 31]
    times_s = demux.frame_times(str(path))[wanted]
    frames = decode.short_side_frames(str(path), times_s.tolist(), 24)
    assert [halves_number(frame) for frame in frames] == wanted


@pytest.mark.parametrize(
    ("size", "rotation", "expected"),
    [((80, 48), 0, (24, 40)), ((48, 80), 0, (40, 24)), ((80, 48), 90, (40, 24)), ((80, 48), 180, (24, 40))],
)
def test_whole_frames_are_upright_and_nothing_is_cropped(size, rotation, expected, tmp_path: Path) -> None:
    path = make_video(tmp_path / "turned.mp4", frames=5, size=size, rotation=rotation, paint=quadrants)
    frames = decode.short_side_frames(str(path), [0.0, 0.16], 24)
    assert (frames.shape, frames.dtype) == ((2, *expected, 3), np.uint8)
    corners = frames[1][[3, 3, -4, -4], [3, -4, 3, -4]] > 128
    whole = {0: "RGBW", 90: "GWRB", 180: "WBGR"}[rotation]
    letters = {(True, False, False): "R", (False, True, False): "G", (False, False, True): "B", (True,) * 3: "W"}
    assert "".join(letters[tuple(corner.tolist())] for corner in corners) == whole


def test_the_centre_of_a_whole_frame_is_what_indexing_decodes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", size=(120, 80), paint=texture)
    indexed = decoded(path, frames=4)
    whole = decode.short_side_frames(str(path), indexed.windows[0].frame_times_s, resized_side(SIZE))
    top, left = crop_offset(whole.shape[1], SIZE), crop_offset(whole.shape[2], SIZE)
    np.testing.assert_array_equal(whole[:, top : top + SIZE, left : left + SIZE], indexed.frames_NTHWC[0])


def test_a_video_far_from_square_is_squeezed_as_in_indexing(tmp_path: Path) -> None:
    path = make_video(tmp_path / "long.nut", size=(4096, 2), codec="rawvideo", pixels="rgb24", frames=2)
    assert decode.short_side_frames(str(path), [0.04], 8).shape == (1, 8, 128, 3)


def test_frames_of_a_stream_that_changes_its_size_have_one_shape(tmp_path: Path) -> None:
    first = make_video(tmp_path / "first.ts", frames=10)
    second = make_video(tmp_path / "second.ts", frames=10, size=(80, 80), start_s=1.0)
    (path := tmp_path / "both.ts").write_bytes(first.read_bytes() + second.read_bytes())
    with av.open(str(path)) as container:
        assert {(frame.width, frame.height) for frame in container.decode(video=0)} == {(64, 48), (80, 80)}
    times_s = demux.frame_times(str(path))
    assert decode.short_side_frames(str(path), times_s[[0, -1]].tolist(), 24).shape == (2, 24, 32, 3)


def test_what_indexing_refuses_is_refused_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.mp4").write_text("this is not a video")
    for look in (demux.frame_times, lambda uri: decode.short_side_frames(uri, [0.0], 24)):
        with pytest.raises(NotAVideo, match="no video container we read"):
            look(str(tmp_path / "text.mp4"))
    path = make_video(tmp_path / "ruin.mov", frames=10, codec="mjpeg", pixels="yuvj420p", size=(96, 64))
    content = bytearray(path.read_bytes())
    for offset, size, _ in packet_places(path):
        content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(UndecodableVideo, match="no intact frame could be decoded"):
        decode.short_side_frames(str(path), [0.0], 24)
    monkeypatch.setattr(demux, "MAX_FRAME_PIXELS", 1)
    with pytest.raises(TooLarge, match="are over 1 pixels"):
        demux.frame_times(str(path))
