"""What decoding costs: measured on real video, gathered by codec, written down and used again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline import costs, decode
from pipeline.decode_plan import PER_FRAME, CostModel
from schemas.errors import NotAVideo
from schemas.records import DecodeCost, SourceFile
from tests.footage import film

COST = DecodeCost("h264", 0.002, 1e-7, 1e-5, 0.001)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return film(tmp_path_factory.mktemp("costs") / "a.mp4", "left")


def test_a_probe_measures_the_codec_it_meets(video) -> None:
    cost = decode.calibrate(str(video), 32)
    assert cost.codec == "h264"
    assert cost.megapixel_s >= 0
    assert cost.megapixel_s + cost.byte_s > 0
    assert cost.scale_s > 0


def test_a_file_without_frames_cannot_be_probed(tmp_path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(NotAVideo, match="empty file"):
        decode.calibrate(str(tmp_path / "a.mp4"), 32)


@pytest.mark.parametrize(
    ("sizes", "times", "expected"),
    [
        ([100, 200, 300], [0.3, 0.4, 0.5], (0.2, 0.001)),
        ([100, 200, 300], [0.5, 0.4, 0.3], (0.4, 0.0)),  # larger packets were cheaper: size tells nothing
        ([100, 200], [0.0, 0.2], (0.0, 0.0008)),  # a line that would begin below nothing
        ([100, 100], [0.2, 0.4], (0.3, 0.0)),
    ],
)
def test_a_line_is_laid_through_the_times_and_never_below_nothing(sizes, times, expected) -> None:
    assert decode.fitted(np.array(sizes), np.array(times)) == pytest.approx(expected)


def test_of_each_codec_the_middle_counts() -> None:
    probed = [DecodeCost("vp9", 0.1, 0, 0, 0), *(DecodeCost("h264", x, 1 - x, 0, 0) for x in (0.1, 0.9, 0.2))]
    found = costs.by_codec(probed)
    assert list(found) == ["h264", "vp9"]
    assert found["h264"] == DecodeCost("h264", 0.2, 0.8, 0, 0)


def test_costs_come_back_as_they_were_written() -> None:
    assert costs.read(json.loads(json.dumps({"costs": costs.stored({"h264": COST})}))) == {"h264": COST}
    assert costs.read({}) == {}


def test_a_sample_is_from_all_over_the_pile() -> None:
    files = [SourceFile(str(n), 1, 0.0) for n in range(80)]
    assert [file.uri for file in costs.sample(files)] == [str(n) for n in range(0, 80, 10)]
    assert costs.sample(files[:3]) == files[:3]


def test_what_was_measured_is_scaled_to_the_size_of_the_picture() -> None:
    model = CostModel.measured(COST, 1000, 2000)
    assert (model.frame_s, model.byte_s, model.restart_s, model.scale_s) == (0.004, 1e-7, 1e-5, 0.001)
    assert CostModel.measured(None, 1000, 2000) is PER_FRAME
