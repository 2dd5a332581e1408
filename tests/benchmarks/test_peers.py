"""Comparisons with others: frames are the right ones and known when not; arithmetic and memory are what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import decode, decoders, encode, scaling, videos, where
from pipeline import demux, sources
from tests.media import halves, halves_number, make_video
from xclip_core import cost
from xclip_core.released import ARCHITECTURES

ROOT = Path(__file__).parents[2]
SIZE = (64, 48)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """12 s of numbered frames with B-frames and few key frames."""
    return make_video(tmp_path / "film.mp4", frames=300, gop=100, b_frames=3, size=SIZE, paint=halves)


# --- decoders


@pytest.mark.parametrize("name", decoders.DECODERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_decoder_gives_the_frames_asked_for(name: str, threads: int, film: Path):
    if why := decoders.missing(name):
        pytest.skip(why)
    what = decoders.asked(film)
    pictures = decoders.DECODERS[name][1](what, threads)
    assert pictures.shape == (8, decoders.SIZE, decoders.SIZE, 3)
    assert [halves_number(picture) for picture in pictures] == list(what.places)


def test_a_decoder_that_cannot_be_imported_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(decoders.DECODERS, "none", ("no_such_library_of_ours", decoders.pyav))
    assert decoders.missing("none").startswith("not importable: No module named 'no_such_library_of_ours'")


def test_what_a_decoder_raises_is_its_result(film: Path):
    broken = decoders.Asked(str(film), (0.0,), (10**6,), 0.0, (256, 341))
    assert decoders.take("PyAV, full pass", broken, 1) == "KeyError: 1000000"


def test_a_neighbour_of_the_right_frame_is_another_frame_and_a_blurred_one_is_not():
    random = np.random.default_rng(0)
    before, right, after = random.uniform(0, 255, (3, 4, decoders.SMALL, decoders.SMALL)).astype(np.float32)
    given = right.copy()
    given[1], given[2] = before[1], right[2] + 5
    assert decoders.strangers(given, right, (before, after)) == 1
    assert decoders.strangers(right[:3], right, (before, after)) == 4, "a frame is missing"


def test_pictures_are_compared_by_means_of_squares():
    picture = np.zeros((1, decoders.SIZE, decoders.SIZE, 3), np.uint8)
    picture[0, :8, :8] = 60, 90, 120
    grey = decoders.small_grey(picture)
    assert grey.shape == (1, decoders.SMALL, decoders.SMALL)
    assert grey[0, 0, 0] == 90
    assert grey.sum() == 90


def test_a_file_that_one_decoder_cannot_read_is_left_out_for_all(film: Path):
    what = decoders.asked(film)

    class Bench:
        names = (decode.OURS, "other")

        def take(self, name: str, what: decoders.Asked, threads: int) -> decoders.Taken | str:
            is_bad = name == "other" and what.file.endswith("bad")
            return "cannot" if is_bad else decoders.take(decode.OURS, what, threads)

    bad = film.rename(film.with_suffix(".bad"))
    film.symlink_to(bad)
    checked = decode.check(Bench(), [what, decoders.asked(bad)])
    assert [taken.file for taken in checked.files] == [str(film)]
    assert checked.notes == ["film.bad: other: cannot"]
    assert checked.others == {decode.OURS: 0, "other": 0}


# --- made videos


def test_a_repeated_video_is_as_long_as_its_copies(tmp_path: Path):
    once = videos.filmed(tmp_path / "once.mp4", seconds=1, size=SIZE, options={"preset": "ultrafast", "bf": "2"})
    long = videos.repeated(once, tmp_path / "long.mp4", 5)
    times_s = demux.frame_times(str(long))
    assert len(demux.frame_times(str(once))) == videos.RATE_HZ
    np.testing.assert_allclose(np.diff(times_s), 1 / videos.RATE_HZ, atol=1e-6)
    assert len(times_s) == 5 * videos.RATE_HZ


def test_no_two_videos_of_a_pile_have_the_same_content(film: Path, tmp_path: Path):
    folder = scaling.pile(tmp_path / "pile", film, 0, 2)
    scaling.pile(folder, film, 2, 4)
    found = [sources.fingerprint(file).fingerprint for file in sources.take_inventory(folder)]
    assert len(set(found)) == 4


# --- arithmetic


@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_products_of_layers_are_nearly_all_of_a_models_arithmetic(config):
    macs = sum(m * n * k for m, n, k in encode.layer_shapes(config))
    assert 0.85 < macs / cost.vision_macs(config) < 1


def test_mfu_is_of_rates_in_the_same_round():
    common = {"model": "m", "dtype": "float32", "gmac": 1.0, "cpu_s": 0.5, "wall_s": 0.25, "first_call_s": 1.0}
    rows = [
        {**common, "way": "products alone", "rates": [10.0, 100.0]},
        {**common, "way": "ours", "rates": [5.0, 50.0]},
    ]
    assert [row[7] for row in encode.shown(rows)] == ["100 %", "50 %"]


# --- processes


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        (scaling.DRIVER, scaling.DRIVER),
        ("ray::MapBatches(decode)", "decoder"),
        ("ray::MapWorker(MapBatches(embed)).submit", "embedder"),
        ("ray::IDLE", "other worker"),
        ("/usr/lib/ray/raylet --embed", "Ray's own"),
    ],
)
def test_workers_are_known_by_their_titles(title: str, kind: str):
    assert scaling.kind_of(title) == kind


def test_a_watched_command_is_seen_with_its_children():
    grown = "b = bytearray(b'x') * (80 << 20); import time; time.sleep(1.5)"
    started = f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {grown!r}]).returncode)"
    said, watch = scaling.watched([sys.executable, "-c", started])
    assert said == "0\n"
    assert watch.by_kind["Ray's own"] > 80, "the child, which has no title of a worker"
    assert watch.total_mb > watch.by_kind["Ray's own"]
    assert watch.by_kind[scaling.DRIVER] < 80


def test_a_command_that_fails_is_an_error_with_what_it_said():
    with pytest.raises(RuntimeError, match=r"ended with 1: .*broken"):
        scaling.watched([sys.executable, "-c", "raise SystemExit('broken')"])


def test_steady_is_between_the_first_and_the_last_commit():
    assert scaling.steady([(10.0, 60.0), (12.0, 180.0), (14.0, 240.0)]) == 45
    assert scaling.steady([(10.0, 60.0)]) == scaling.steady([]) == 0


def test_a_videos_share_of_cpu_leaves_starts_out():
    runs = [
        {"name": "8 videos, one core", "videos": 8, "cores": 1, "cpu_s": 1.0},
        {"name": "8 videos", "videos": 8, "cores": 2, "cpu_s": 30.0},
        {"name": "64 videos", "videos": 64, "cores": 2, "cpu_s": 142.0},
        {"name": "1 video of 10 min", "videos": 1, "cores": 2, "cpu_s": 500.0},
    ]
    assert where.cpu_per_video_s(runs) == 2
    with pytest.raises(ValueError, match="run scaling"):
        where.cpu_per_video_s(runs[1:2])


# --- whole scripts


def run_script(folder: Path, name: str, *arguments: str) -> tuple[str, dict]:
    """What a script prints and the result it appends, run in a folder of its own."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, json.loads((folder / f"build/bench/{name}.jsonl").read_text().splitlines()[-1])


@pytest.mark.slow
def test_decoders_are_compared(film: Path, tmp_path: Path):
    said, result = run_script(tmp_path, "decode", str(film), "--rounds", "1")
    assert "| h264 | 1 |" in said
    assert [row[0] for row in result["decoders"]][:2] == ["footage", "PyAV, full pass"]
    assert {row[-1] for row in result["decoders"] if row[1]} == {"0"}, "nobody gives other frames"


@pytest.mark.slow
def test_encoders_are_compared(tmp_path: Path):
    said, result = run_script(tmp_path, "encode", encode.EMBEDDED, "--rounds", "1", "--clips", "4")
    ways = said.count("| footage-tiny, ")
    assert ways == (8 if "footage, int8 products" in said else 7)
    assert result["agreement"]["cosine of bfloat16 to float32, least"] > 0.999


@pytest.mark.slow
def test_encoders_are_compared_in_one_dtype(tmp_path: Path):
    few = ("--rounds", "1", "--clips", "2")
    said, result = run_script(tmp_path, "encode", encode.EMBEDDED, *few, "--dtypes", "bfloat16")
    assert {way["dtype"] for way in result["ways"] if way["way"] != "reference"} == {"bfloat16"}
    assert result["agreement"] == {}
    assert "footage-tiny, reference" in said


@pytest.mark.slow
@pytest.mark.ray
def test_scaling_is_measured_and_the_chart_drawn_of_it(tmp_path: Path):
    said, result = run_script(
        tmp_path, "scaling", "--videos", "1", "--seconds", "5", "--times", "1", "2", "--minutes", "1"
    )
    assert "| 1 video of 1 min | " in said
    assert [run["videos"] for run in result["runs"]] == [1, 2, 1]
    assert all(run["by_kind"]["embedder"] > 100 for run in result["runs"])
    said, result = run_script(tmp_path, "where", "--rounds", "1", "--models", encode.EMBEDDED)
    assert set(result["rows"][encode.EMBEDDED]) == set(where.KINDS)


@pytest.mark.gpu
@pytest.mark.slow
def test_ways_to_encode_on_a_gpu_are_compared(tmp_path: Path):
    said, result = run_script(tmp_path, "encode_cuda", "B/32", "--rounds", "1", "--no-hf", "--sizes", "8", "16")
    assert said.count("| B/32, ") == 5
    assert {row["way"] for row in result["ways"]} == {"products alone", "plain", "fused", "from the host"}


@pytest.mark.parametrize("name", ["encode_cuda", "ingest_cuda"])
def test_what_needs_a_gpu_at_least_explains_itself_without_one(name: str, tmp_path: Path):
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "GPU" in done.stdout
