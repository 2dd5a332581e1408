"""Ingest against peers: rows, copies that count as different videos, the table, and a whole run over a small row."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch

from benchmarks import footage_made, ingest
from benchmarks.floor import floor_of, rate_of, units_of
from benchmarks.footage_made import Kind
from pipeline import sources

ROOT = Path(__file__).parents[2]
KIND = Kind("h264", 360, 12)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return footage_made.made(KIND, seconds=2, folder=tmp_path_factory.mktemp("footage"))


def test_footage_is_what_its_row_says(film: Path):
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert (stream.codec_context.name, stream.height, len(packets)) == ("h264", 360, 2 * footage_made.RATE_HZ)
        keys = sorted(packet.pts * stream.time_base * footage_made.RATE_HZ for packet in packets if packet.is_keyframe)
    assert keys[0] == 0
    assert max(later - key for key, later in itertools.pairwise(keys)) <= KIND.gop


def test_footage_is_made_once(film: Path):
    made_ns = film.stat().st_mtime_ns
    assert footage_made.made(KIND, seconds=2, folder=film.parent) == film
    assert film.stat().st_mtime_ns == made_ns


@pytest.mark.parametrize("text", ["h264:720", "theora:720:250", "h264:99:250"])
def test_a_row_that_cannot_be_made_is_refused(text: str):
    with pytest.raises(ValueError):  # noqa: PT011  # two of them are Python's own
        Kind.named(text)


def test_copies_are_different_videos_of_the_same_frames(film: Path, tmp_path: Path):
    folder = ingest.copies([film], 3, tmp_path / "copies")
    found = [sources.fingerprint(file) for file in sources.take_inventory(folder)]
    assert len({file.fingerprint for file in found}) == 3
    assert {unit.steps for file in found for unit in units_of(Path(file.file.uri))} == {
        unit.steps for unit in units_of(film)
    }


def test_the_rate_of_a_machine_is_that_of_its_threads_by_the_time_each_had():
    assert rate_of([(10, 1.0), (10, 2.0)]) == 15


def test_a_floor_is_work_spread_over_all_cores(film: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.floor.RATE_ROUNDS", 1)
    floor = floor_of([film])
    assert (floor.clips, floor.decode_cpu_s > 0, floor.scale_cpu_s > 0, floor.products_s > 0) == (1, True, True, True)
    assert floor.floor_s == pytest.approx((floor.decode_cpu_s + floor.scale_cpu_s) / floor.cores + floor.products_s)


def test_a_peer_that_is_missing_is_said_to_be():
    taken = {
        "copied": [{"seconds": 6.0, "cpu_s": 9.0, "clips": 2}],
        "ray": [{"seconds": 3.0, "cpu_s": 4.5, "clips": 2, "decode_s": 1.0, "embed_s": 1.0, "start_s": 8.0}],
        "ray float": [{"seconds": 2.0, "cpu_s": 4.0, "clips": 2}],
        "local": [{"seconds": 4.0, "cpu_s": 4.0, "clips": 2}],
        "floor": [{"seconds": 1.5, "cpu_s": 3.0, "clips": 2}],
    }
    said = ingest.summary(ingest.Row("row", ()), taken) | {"footage_s": 20.0}
    line = dict(zip(range(len(ingest.HEADER)), ingest.cells(said), strict=True))
    assert [line[number] for number in (3, 4, 5, 6, 7)] == ["6.00", "missing", "3.00", "missing", "2.00"]
    assert [line[number] for number in (10, 11, 12)] == ["2.00", "missing", "0.50"]
    assert [line[number] for number in (13, 14, 15)] == ["3.00", "missing", "0.75"]


def test_a_way_that_was_left_out_has_no_ratios():
    ray = {"seconds": 3.0, "cpu_s": 4.5, "clips": 2, "decode_s": 1.0, "embed_s": 1.0, "start_s": 8.0}
    said = ingest.summary(ingest.Row("row", ()), {"ray": [ray]}) | {"footage_s": 20.0}
    assert ingest.cells(said)[13:16] == ["missing", "missing", "missing"]


@pytest.mark.parametrize(("takes_bytes", "floats"), [(True, ["bfloat16"]), (False, [])])
def test_floats_are_a_way_of_their_own_where_bytes_are_multiplied(takes_bytes, floats, monkeypatch, capsys):
    monkeypatch.setattr(ingest, "faster_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(ingest, "pays", lambda config, dtype: takes_bytes)
    found = ingest.ours()
    assert [precision for way, (_, _, precision) in found.items() if way == "ray float"] == floats
    assert {precision for way, (_, _, precision) in found.items() if way != "ray float"} == {"auto"}
    assert ("ray float: left out" in capsys.readouterr().err) is not takes_bytes


def test_a_row_whose_bytes_were_not_taken_is_told(capsys):
    row = ingest.Row("row", ())
    ingest._tell_floats(row, [{"encoders": ["int8 on cpu, 2 threads"]}])
    assert not capsys.readouterr().err
    ingest._tell_floats(row, [{"encoders": ["int8 on cpu, 2 threads"]}, {"encoders": ["float32 on cpu, 2 threads"]}])
    assert capsys.readouterr().err == "row: ray: no bytes were multiplied: float32 on cpu, 2 threads\n"


def test_the_steady_state_is_what_lies_between_two_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run(_options: ingest.Options, videos: Path, _archive: Path):
        count = int(videos.name)
        figures = {"seconds": 9 + 2.0 * count, "cpu_s": 12 + 3.0 * count, "decode_s": count, "embed_s": count}
        return figures | {"clips": 6 * count, "start_s": 20 + count, "encoders": []}

    monkeypatch.setattr(ingest, "_index", run)
    said = ingest.steady(("ray", "0", "auto"), (2, Path("2")), (6, Path("6")), tmp_path)
    assert (said["seconds"], said["cpu_s"], said["clips"], said["start_s"]) == (2.0, 3.0, 6, 22)


@pytest.mark.slow
@pytest.mark.ray
def test_a_small_row_is_measured_and_written_down(tmp_path: Path):
    script, paths = ROOT / "benchmarks" / "ingest.py", os.environ.get("PYTHONPATH", "")
    row = ["--rows", str(KIND), "--seconds", "10", "--rounds", "1", "--copies", "2"]
    done = subprocess.run(
        [sys.executable, str(script), *row],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), paths]))},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0
    assert "h264:360:12, 10 s" in done.stdout
    (line,) = (tmp_path / "build/bench/ingest.jsonl").read_text().splitlines()
    said = json.loads(line)
    assert said["clips"] == 1
    assert 0 < said["seconds"]["floor"] < said["seconds"]["ray"] + said["start_s"]
    assert {"copied", "ray", "local", "floor"} <= set(said["cpu_s"])
