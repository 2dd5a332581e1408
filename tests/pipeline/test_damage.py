"""Damage and what it spoils: no smeared frame is taken for a sound one, no sound clip is lost to caution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline import decode, demux
from pipeline.damage import Damage
from tests.media import make_video, packet_places
from tests.pipeline.test_decode import SHARP, texture

FOOTAGE = Path(__file__).parents[3] / "shared" / "footage"


@dataclass(frozen=True)
class Frame:
    """A decoded frame, as far as damage is concerned."""

    time: float
    key_frame: bool = False
    is_corrupt: bool = False


def followed(script: str) -> str:
    """Frames one second apart through `Damage`: K key, P predicted, C flagged, D flagged key, x a packet that failed.

    A letter for each frame: `+` taken, `-` spoilt.
    """
    damage, out = Damage(), ""
    for moment, letter in enumerate(script):
        if letter == "x":
            damage.strike(moment, 1.0)
            continue
        out += "-" if damage.spoils(Frame(float(moment), letter in "KD", letter in "CD")) else "+"
    return out


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("KPPPKPP", "+++++++"),
        ("KPxPPKPP", "++--+++"),
        ("KPCPPKPP", "++---+++"),
        ("KPPDPPKP", "+++---++"),
        ("DPPKP", "---++"),
        ("xPPKP", "--++"),
        ("CCCPPKP", "---++++"),  # a stream that starts between key frames: the decoder says when it has recovered
        ("KPxPPxKxPP", "++--+--"),
    ],
)
def test_damage_lasts_until_the_next_sound_key_frame(script: str, expected: str) -> None:
    assert followed(script) == expected


def test_a_key_frame_on_its_way_when_a_later_packet_broke_ends_nothing() -> None:
    damage = Damage()
    damage.strike(10, 1.0)  # B-frames hold back what was decoded before
    assert damage.spoils(Frame(8.0, key_frame=True))
    assert damage.spoils(Frame(9.0))
    assert not damage.spoils(Frame(12.0, key_frame=True))


def test_a_failed_packet_without_a_time_ends_at_any_key_frame() -> None:
    damage = Damage()
    damage.strike(None, 1.0)
    assert [damage.spoils(frame) for frame in (Frame(0.0), Frame(1.0, key_frame=True))] == [True, False]


# --- real decoders

GOP = 20
TELLING = {
    "a.mp4": {},
    "b-frames.mkv": {"b_frames": 2},
    "a.ts": {},
    "mpeg4.avi": {"codec": "mpeg4", "options": SHARP},
    "mpeg4, b-frames.avi": {"codec": "mpeg4", "options": SHARP, "b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": SHARP},
}
SMEARED = 4.0  # mean difference in grey levels from the frame of the sound file


def pass_over(path: Path) -> dict[float, np.ndarray]:
    """The grey pictures of all frames that count as intact, by time."""
    with demux.opened(str(path)) as (container, stream):
        shots = decode.intact_frames(container, stream)
        return {shot.time_s: shot.frame.to_ndarray(format="gray").astype(int) for shot in shots}


def strike(path: Path, number: int, seed: int) -> None:
    """Noise over a tenth to a half of one packet."""
    content, noise = bytearray(path.read_bytes()), np.random.default_rng(seed)
    offset, size, _ = packet_places(path)[number]
    start, count = int(noise.integers(size // 4, size // 2)), int(noise.integers(size // 10, size // 2))
    content[offset + start : offset + start + count] = noise.integers(0, 256, count, np.uint8).tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize("name", TELLING)
def test_no_smeared_frame_is_taken_and_other_groups_of_pictures_are_whole(name: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, frames=3 * GOP, size=(160, 120), gop=GOP, paint=texture, **TELLING[name])
    sound, content = pass_over(path), path.read_bytes()
    times_s = sorted(sound)
    assert len(times_s) == 3 * GOP
    for seed, number in enumerate((GOP + 1, GOP + 6, GOP + 12, GOP + 7)):
        path.write_bytes(content)
        strike(path, number, seed)
        hurt = pass_over(path)
        smeared = [time_s for time_s, picture in hurt.items() if np.abs(picture - sound[time_s]).mean() > SMEARED]
        assert smeared == [], f"packet {number}"
        assert hurt.keys() >= {*times_s[: GOP - 2], *times_s[2 * GOP :]}, f"packet {number}"


@pytest.mark.slow
@pytest.mark.skipif(not FOOTAGE.is_dir(), reason="needs the shared test footage")
def test_not_one_frame_of_an_ordinary_file_counts_as_damaged() -> None:
    for path in sorted((FOOTAGE / "A").iterdir()):
        with demux.opened(str(path)) as (container, stream):
            everything = sum(len(packet.decode()) for packet in container.demux(stream))
        with demux.opened(str(path)) as (container, stream):
            assert sum(1 for _ in decode.intact_frames(container, stream)) == everything, path.name


def test_the_flag_of_a_damaged_frame_does_not_reach_the_frames_after_it(tmp_path: Path) -> None:
    """Why `Damage` is needed at all: should this fail one day, FFmpeg tells more than it did."""
    path = make_video(tmp_path / "a.mp4", frames=2 * GOP, size=(160, 120), gop=GOP, paint=texture)
    sound = pass_over(path)
    strike(path, 5, 1)
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        frames = [frame for packet in container.demux(video=0) for frame in _decoded(packet)]
    unmarked = [frame for frame in frames if not frame.is_corrupt and frame.time in sound]
    wrong = [f for f in unmarked if np.abs(f.to_ndarray(format="gray").astype(int) - sound[f.time]).mean() > SMEARED]
    assert len(wrong) > 5


def _decoded(packet: av.Packet) -> list[av.VideoFrame]:
    try:
        return packet.decode()
    except av.error.InvalidDataError:
        return []
