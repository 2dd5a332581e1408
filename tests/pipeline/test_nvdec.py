"""Decoding on a GPU: pictures as a CPU's, by frames in plain memory, and what happens where there is no GPU."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.codec.hwaccel import HWAccel
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from pipeline import decode, demux, nvdec, plan
from pipeline.decode import Device, Resizer
from pipeline.embed import Embed
from pipeline.nvdec import DeviceResizer
from pipeline.settings import IndexSettings, Sampling
from schemas.errors import UndecodableVideo
from schemas.records import DecodedUnit, Unit
from tests.media import damage_packets, halves, halves_number, make_video, quadrants
from tests.pipeline.steps import SIZE, numbers, source, units

MOST_LEVELS = 1.0  # that pictures may be off by in the mean: half of what the probe allows
FOOTAGE = Path("/work/shared/footage/A")
# Between them: chroma sited left and centred, widths that come out odd and even, larger and smaller, full range, 709.
REAL = (
    "ucf101_SoccerJuggling_g23_c01.avi",
    "orangutan.mp4",
    "guitar_lesson_hat.mp4",
    "dancing_woman_portrait.mp4",
    "woman_jogging.mp4",
    "charades_sitting_down.mp4",
)


class Interleaved(DeviceResizer):
    """The device's resizer, given what a GPU would have decoded: the same samples as NV12 or P010."""

    def upright(self, frame, shape):
        kind = "p010le" if "10" in frame.format.name else "nv12"
        return super().upright(VideoReformatter().reformat(frame, format=kind, threads=1), shape)


def software(codec: str) -> Device:
    """A device that decodes on the CPU and scales as a GPU would."""
    return Device(None, Interleaved(is_sited_left=codec in nvdec.SITED_LEFT))


def textured(_: int, size: tuple[int, int]) -> np.ndarray:
    """Colours of all kinds in patches of 16 pixels, in which a scaler's rounding shows, and its edges."""
    width, height = size
    seeds = np.random.default_rng(5).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(seeds.repeat(16, 0).repeat(16, 1)[:height, :width])


def painted(size: tuple[int, int], kind: str, space: Colorspace, span: ColorRange) -> av.VideoFrame:
    """A frame of patches in a format, a colour matrix and a range, which it says that it has."""
    frame = av.VideoFrame.from_ndarray(textured(0, size), format="rgb24")
    return VideoReformatter().reformat(frame, format=kind, dst_colorspace=space, dst_color_range=span)


def planar(frame: av.VideoFrame) -> av.VideoFrame:
    """The same samples as a CPU's decoder gives them."""
    kind = "yuv420p10le" if frame.format.name == "p010le" else "yuv420p"
    return VideoReformatter().reformat(frame, format=kind)


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, int]:
    """Grey levels between two pictures: mean and most."""
    levels = np.abs(one.astype(int) - other.astype(int))
    return float(levels.mean()), int(levels.max())


# --- pictures


@pytest.mark.parametrize("span", [ColorRange.MPEG, ColorRange.JPEG], ids=["limited", "full"])
@pytest.mark.parametrize("space", [Colorspace.ITU601, Colorspace.ITU709, Colorspace.BT2020])
@pytest.mark.parametrize("kind", ["nv12", "p010le"])
def test_colours_are_swscales_in_every_matrix_range_and_depth(kind: str, space, span) -> None:
    frame = painted((320, 192), kind, space, span)
    assert frame.color_range == span
    for width in (151, 150):
        found = nvdec.scaled_rgb(frame, (90, width), is_sited_left=False)
        expected = Resizer().upright(planar(frame), (90, width))
        mean, _ = apart(found.numpy(), expected)
        assert mean < (0.3 if width % 2 else 0.8)


@pytest.mark.parametrize("shape", [(31, 47), (96, 151), (192, 319), (211, 333), (400, 601), (60, 80), (192, 318)])
def test_scaling_is_by_area_down_and_by_lines_up(shape: tuple[int, int]) -> None:
    frame = painted((318, 192), "nv12", Colorspace.ITU601, ColorRange.MPEG)
    found = nvdec.scaled_rgb(frame, shape, is_sited_left=False)
    assert found.shape == (*shape, 3)
    assert found.dtype == torch.uint8
    mean, _ = apart(found.numpy(), Resizer().upright(planar(frame), shape))
    assert mean < (0.3 if shape[1] % 2 else 1.0)


@pytest.mark.parametrize(("size", "target"), [(10, 4), (10, 10), (4, 10), (1, 7), (7, 1), (1920, 455)])
@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_weights_sum_to_one_and_a_flat_plane_stays_flat(size: int, target: int, shift: float) -> None:
    weights_OI = nvdec._weights(size, target, shift, torch.device("cpu"))
    assert weights_OI.shape == (target, size)
    torch.testing.assert_close(weights_OI.sum(1), torch.ones(target))


def test_areas_are_by_how_much_of_a_sample_they_cover() -> None:
    weights_OI = nvdec._weights(5, 2, 0.0, torch.device("cpu"))
    torch.testing.assert_close(weights_OI, torch.tensor([[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]]))


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_pictures_are_turned_cropped_and_shown_small_as_on_the_cpu(rotation: int, tmp_path: Path) -> None:
    path = make_video(tmp_path / "turned.mp4", frames=25, size=(80, 48), rotation=rotation, paint=quadrants)
    (unit,) = units(path)
    found, expected = decode.decode(unit, SIZE, software("h264")), decode.decode(unit, SIZE)
    assert found.windows == expected.windows
    assert apart(found.frames_NTHWC, expected.frames_NTHWC)[0] < 1.0
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    small = Interleaved(is_sited_left=True).small(frame)
    assert small.shape == Resizer().small(frame).shape
    assert apart(small, Resizer().small(frame))[0] < 1.5


def test_what_is_no_nv12_is_refused_and_so_is_an_unknown_matrix() -> None:
    resizer = DeviceResizer(is_sited_left=True)
    with pytest.raises(NotImplementedError, match="3 planes"):
        resizer.model_input(painted((64, 48), "yuv420p", Colorspace.ITU601, ColorRange.MPEG), SIZE)
    frame = painted((64, 48), "nv12", Colorspace.ITU601, ColorRange.MPEG)
    frame.colorspace = 8  # YCgCo
    with pytest.raises(NotImplementedError, match="matrix number 8"):
        resizer.model_input(frame, SIZE)


def decoded_both(path: Path, settings: Sampling, size: int) -> tuple[DecodedUnit, DecodedUnit, Unit]:
    """A file's first clips: scaled as a device would, as the CPU does, and their unit."""
    video = demux.inspect(source(path), settings)
    unit = plan.plan_video(video, None, {}, 0, "space").units[0]
    unit = replace(unit, windows=unit.windows[:2], steps=None)
    return decode.decode(unit, size, software(unit.codec)), decode.decode(unit, size), unit


@pytest.mark.skipif(not FOOTAGE.is_dir(), reason="needs the shared footage")
def test_real_videos_give_the_same_pictures_and_vectors() -> None:
    settings = IndexSettings().sampling(8)
    embed = Embed("footage-tiny", "none", precision="float32")
    cosines, means = [], {}
    for name in REAL:
        found, expected, _ = decoded_both(FOOTAGE / name, settings, 64)
        means[name] = apart(found.frames_NTHWC, expected.frames_NTHWC)
        one, other = embed([found, expected])
        cosines += (one.embedding_NE * other.embedding_NE).sum(1).tolist()
    assert max(mean for mean, _ in means.values()) < MOST_LEVELS
    assert np.median(cosines) >= 0.999
    assert min(cosines) >= 0.995


# --- where there is no device


def test_without_a_device_a_unit_falls_back_and_says_why(tmp_path: Path) -> None:
    (unit,) = units(make_video(tmp_path / "a.mp4"))
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    found, expected = nvdec.decode_unit(unit, SIZE, "cuda"), decode.decode(unit, SIZE)
    assert found.fallback
    assert expected.fallback == ""
    np.testing.assert_array_equal(found.frames_NTHWC, expected.frames_NTHWC)


def test_ffmpeg_refuses_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    (unit,) = units(make_video(tmp_path / "a.mp4"))
    hwaccel = HWAccel("cuda", "0", allow_software_fallback=False, is_hw_owned=True)
    with pytest.raises(UndecodableVideo, match="the device cannot be used"):
        decode.decode(unit, SIZE, Device(hwaccel, DeviceResizer(is_sited_left=True)))
    monkeypatch.setattr(nvdec, "on_device", lambda *_: Device(hwaccel, DeviceResizer(is_sited_left=True)))
    assert nvdec.decode_unit(unit, SIZE, "cuda").fallback.startswith("the device cannot be used")


def test_a_codec_that_no_device_decodes_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (unit,) = units(make_video(tmp_path / "a.mkv", codec="ffv1"))
    hwaccel = HWAccel("cuda", "0", allow_software_fallback=False, is_hw_owned=True)
    monkeypatch.setattr(nvdec, "on_device", lambda *_: Device(hwaccel, DeviceResizer(is_sited_left=True)))
    assert "no stream is compatible" in nvdec.decode_unit(unit, SIZE, "cuda").fallback


def test_other_codecs_are_decoded_on_the_cpu_without_a_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (unit,) = units(make_video(tmp_path / "a.mp4"))
    monkeypatch.setattr(nvdec, "on_device", lambda *_: pytest.fail("not asked for"))
    assert unit.codec == "h264"
    (found,) = nvdec.decode_units(SIZE, "cuda", frozenset({"hevc"}), [unit])
    assert found.fallback == ""


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room there"), MemoryError("no room there")])
def test_what_a_device_runs_out_of_is_no_failure(error, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_):
        raise error

    device = software("h264")
    monkeypatch.setattr(device.resizer, "upright", full)
    monkeypatch.setattr(nvdec, "on_device", lambda *_: device)
    (unit,) = units(make_video(tmp_path / "a.mp4"))
    assert nvdec.decode_unit(unit, SIZE, "cuda").fallback == "no room there"


def test_a_unit_that_does_not_come_out_whole_is_the_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "damaged.mp4", frames=51)
    (unit,) = units(path)
    damage_packets(path, [30])
    monkeypatch.setattr(nvdec, "on_device", lambda *_: software("h264"))
    found = nvdec.decode_unit(unit, SIZE, "cuda")
    assert "samples came out of the device intact" in found.fallback
    assert found.intact_samples == decode.decode(unit, SIZE).intact_samples


def test_on_a_device_the_first_packet_that_does_not_decode_ends_the_pass(tmp_path: Path) -> None:
    path = damage_packets(make_video(tmp_path / "damaged.avi", codec="mpeg4"), [20])
    with demux.opened(str(path)) as (container, stream):
        assert len(list(decode.intact_frames(container, stream))) > 40
    with pytest.raises(UndecodableVideo, match="decoding failed"), demux.opened(str(path)) as (container, stream):
        list(decode.intact_frames(container, stream, goes_on=False))


def test_a_decoder_takes_the_option_for_more_surfaces(tmp_path: Path) -> None:
    path = str(make_video(tmp_path / "a.mp4"))
    options = {"extra_hw_frames": str(demux.HELD_FRAMES), "skip_loop_filter": "noref", "no_such_option": "1"}
    with demux.opened(path, None, options) as (_, stream):
        assert stream.codec_context.options == {"no_such_option": "1"}, "what a decoder does not know is left over"


# --- the probe


def test_a_probe_compares_the_same_frames_and_times_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvdec, "on_device", lambda _, codec: software(codec))
    (unit,) = units(make_video(tmp_path / "a.mp4", size=(320, 240), paint=textured))
    (probe,) = nvdec.compare_units(SIZE, "cuda", [unit])
    assert probe.codec == "h264"
    assert probe.refused == ""
    assert probe.cpu_s > 0
    assert probe.device_s > 0
    assert probe.difference < 2.0


def test_a_probe_without_a_device_says_why(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    (unit,) = units(make_video(tmp_path / "a.mp4"))
    nvdec.woken("cuda")  # nobody's failure
    assert nvdec.compare(unit, SIZE, "cuda").refused


def test_other_frames_are_no_match() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    assert nvdec.difference({0: picture, 5: picture}, {0: picture, 5: picture + 3}) == 1.5
    for found in ({}, {0: picture}, {0: picture, 6: picture}):
        with pytest.raises(UndecodableVideo, match="other frames"):
            nvdec.difference({0: picture, 5: picture}, found)


def test_the_stage_travels() -> None:
    work = pickle.loads(pickle.dumps(partial(nvdec.decode_units, SIZE, "cuda", frozenset({"h264"}))))
    assert work([]) == []


# --- on a device

ON_DEVICE = {
    "h264.mp4": {},
    "h264, B-frames.mp4": {"b_frames": 2},
    "h264, B-frames.ts": {"b_frames": 2},
    "hevc.mp4": {"codec": "libx265", "options": {"crf": "12", "x265-params": "log-level=none"}},
    "hevc, 10 bits.mp4": {
        "codec": "libx265",
        "pixels": "yuv420p10le",
        "options": {"crf": "12", "x265-params": "log-level=none"},
    },
}


@pytest.mark.gpu
@pytest.mark.parametrize("is_planned", [True, False], ids=["planned", "one pass"])
@pytest.mark.parametrize("name", ON_DEVICE)
def test_a_device_gives_the_frames_and_pictures_of_the_cpu(name: str, is_planned, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, size=(320, 240), frames=100, paint=halves, **ON_DEVICE[name])
    (unit,) = units(path)
    unit = unit if is_planned else replace(unit, steps=None)
    found, expected = nvdec.decode_unit(unit, SIZE, "cuda"), decode.decode(unit, SIZE)
    assert found.fallback == ""
    assert found.windows == expected.windows
    assert found.intact_samples == expected.intact_samples
    assert apart(found.frames_NTHWC, expected.frames_NTHWC)[0] < MOST_LEVELS


@pytest.mark.gpu
def test_a_device_gives_frames_at_their_times_after_a_seek(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", size=(320, 240), frames=250, b_frames=2, paint=halves)
    (unit,) = units(path)
    late = replace(unit, windows=unit.windows[5:], steps=None)
    found, expected = nvdec.decode_unit(late, SIZE, "cuda"), decode.decode(late, SIZE)
    assert found.fallback == ""
    assert numbers(found, halves_number) == numbers(expected, halves_number)


@pytest.mark.gpu
@pytest.mark.skipif(not FOOTAGE.is_dir(), reason="needs the shared footage")
def test_a_device_gives_the_vectors_of_the_cpu() -> None:
    settings = IndexSettings().sampling(8)
    embed = Embed("footage-tiny", "none", precision="float32")
    cosines = []
    for name in REAL:
        _, expected, unit = decoded_both(FOOTAGE / name, settings, 64)
        found = nvdec.decode_unit(unit, 64, "cuda")
        one, other = embed([found, expected])
        if not found.fallback:
            cosines += (one.embedding_NE * other.embedding_NE).sum(1).tolist()
    assert len(cosines) >= len(REAL) - 1, "all but one are H.264, which every NVDEC decodes"
    assert np.median(cosines) >= 0.999
    assert min(cosines) >= 0.995


@pytest.mark.gpu
def test_a_device_that_torch_has_used_already_still_decodes(tmp_path: Path) -> None:
    torch.ones(4, device="cuda").sum().item()
    (unit,) = units(make_video(tmp_path / "a.mp4", size=(320, 240)))
    for _ in range(3):
        assert nvdec.decode_unit(unit, SIZE, "cuda").fallback == ""


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(32, 32), (5000, 64)])
def test_sizes_that_a_device_may_refuse_end_well(size: tuple[int, int], tmp_path: Path) -> None:
    (unit,) = units(make_video(tmp_path / "a.mp4", size=size, frames=25))
    found, expected = nvdec.decode_unit(unit, SIZE, "cuda"), decode.decode(unit, SIZE)
    assert found.windows == expected.windows
    assert apart(found.frames_NTHWC, expected.frames_NTHWC)[0] < MOST_LEVELS


@pytest.mark.gpu
def test_a_probe_on_a_device_finds_the_pictures_alike(tmp_path: Path) -> None:
    (unit,) = units(make_video(tmp_path / "a.mp4", size=(640, 480), frames=100, paint=textured))
    probe = nvdec.compare(unit, SIZE, "cuda")
    assert probe.refused == ""
    assert probe.difference < MOST_LEVELS
    assert probe.device_s > 0
