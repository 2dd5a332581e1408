"""Packets as a row of a table and back: the very same, or refused."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import demux, packing
from pipeline.decode_plan import PacketIndex
from pipeline.packing import DamagedPackets, Packets
from pipeline.settings import Sampling
from tests.media import halves, make_video
from tests.pipeline.steps import source

CONTENT = "0123456789abcdef0123456789abcdef"
VIDEOS = {
    "plain.mp4": {},
    "b-frames.mp4": {"b_frames": 3, "frames": 300, "gop": 50, "paint": halves},
    "one frame.mp4": {"frames": 1},
    "eight frames.mp4": {"frames": 8},
    "nine frames.mp4": {"frames": 9},
    "turned.mp4": {"rotation": 90},
    "late.ts": {"start_s": 40.0, "sound": True, "b_frames": 2},
    "uneven.mkv": {"times_s": [0.0, 0.04, 0.5, 0.501, 7.0, 7.25]},
    "untimed.avi": {"codec": "mpeg4"},
}


def columns(index: PacketIndex) -> dict[str, tuple[str, bytes]]:
    """The columns to the bit."""
    found = ((field.name, getattr(index, field.name)) for field in fields(index))
    return {name: (column.dtype.str, column.tobytes()) for name, column in found}


def rest(packets: Packets) -> str:
    """All but the columns, to the last digit."""
    return repr([getattr(packets, field.name) for field in fields(packets) if field.name != "index"])


def assert_same(made: Packets, expected: Packets) -> None:
    assert columns(made.index) == columns(expected.index)
    assert rest(made) == rest(expected)


@pytest.mark.parametrize("name", VIDEOS)
def test_packets_of_a_video_come_back_to_the_bit_and_make_the_same_windows_and_steps(name: str, tmp_path: Path) -> None:
    file = source(make_video(tmp_path / name, **VIDEOS[name]))
    packets = demux.read_packets(file.file.uri)
    again = packing.unpack(packing.pack(packets, CONTENT), CONTENT)
    assert_same(again, packets)
    for sampling in (Sampling(window_s=1, stride_s=0.5, frames=4), Sampling(tolerance_s=None)):
        found = demux.inspect(file, sampling)
        assert demux.inspected(file, again, sampling, {}) == found
        assert any(found.steps) == (name != "untimed.avi")


INTEGERS = st.integers(-(2**63), 2**63 - 1)


@given(
    rows=st.lists(st.tuples(INTEGERS, INTEGERS, st.booleans(), st.booleans()), min_size=1, max_size=40),
    tick_s=st.floats(1e-9, 1.0),
    zero_s=st.floats(-1e6, 1e6),
)
def test_any_packets_come_back(rows: list[tuple[int, int, bool, bool]], tick_s: float, zero_s: float) -> None:
    stamp_n, size_n, key_n, reference_n = (np.array(column) for column in zip(*rows, strict=True))
    index = packing.index(stamp_n, size_n, key_n, reference_n, tick_s=tick_s, zero_s=zero_s)
    packets = Packets(index, zero_s, 180, True, "h264", 64, 48, tick_s, zero_s)
    assert_same(packing.unpack(packing.pack(packets, CONTENT), CONTENT), packets)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> packing.PackedPackets:
    path = make_video(tmp_path_factory.mktemp("packing") / "a.mp4", frames=200, b_frames=2, paint=halves)
    return packing.pack(demux.read_packets(str(path)), CONTENT)


def test_no_byte_of_a_row_can_change_unseen(packed: packing.PackedPackets) -> None:
    for place in range(len(packed.packets)):
        content = bytearray(packed.packets)
        content[place] ^= 1
        with pytest.raises(DamagedPackets):
            packing.unpack(replace(packed, packets=bytes(content)), CONTENT)


@pytest.mark.parametrize(
    "change",
    [
        {"codec": "hevc"}, {"width": 65}, {"height": 47}, {"rotation": 90}, {"tick_s": 0.5}, {"zero_s": 1e-9},
        {"end_s": 7.0}, {"is_plannable": False}, {"packet_count": 199}, {"packet_count": 0}, {"packet_count": -1},
        {"packets": b""}, {"packets": bytes(8) + b"\xff" * 8},
    ],
)  # fmt: skip
def test_no_field_of_a_row_can_change_unseen(change: dict, packed: packing.PackedPackets) -> None:
    with pytest.raises(DamagedPackets):
        packing.unpack(replace(packed, **change), CONTENT)


def test_packets_of_another_content_are_refused(packed: packing.PackedPackets) -> None:
    with pytest.raises(DamagedPackets, match="do not have their checksum"):
        packing.unpack(packed, CONTENT[::-1])
