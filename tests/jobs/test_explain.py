"""`footage index --explain`: how every unit is decoded, by a probe whose costs the archive keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import costs, decode
from pipeline.archive import Archive
from tests.footage import SCENE_S, film
from tests.media import make_video


@pytest.fixture
def index(footage, tiny_weights: Path, tmp_path: Path):
    """Indexes two videos, one of which tells no times of its packets; returns the exit code, stdout and stderr."""
    film(tmp_path / "videos" / "a.mp4", "left")
    make_video(tmp_path / "videos" / "b.avi", codec="mpeg4", b_frames=2)

    def run(*options: object):
        always = ("--model", tiny_weights, "--engine", "local", "--window", SCENE_S)
        return footage("index", tmp_path / "videos", tmp_path / "archive", *always, *options)

    return run


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were probed."""
    found: list[str] = []
    real = decode.calibrate

    def calibrate(uri: str, image_size: int):
        found.append(Path(uri).name)
        return real(uri, image_size)

    monkeypatch.setattr(decode, "calibrate", calibrate)
    return found


def last_run(tmp_path: Path) -> dict:
    return Archive.open(tmp_path / "archive").runs()[-1]


def test_a_dry_run_predicts_and_a_run_tells_what_it_took(index, tmp_path: Path) -> None:
    dry = json.loads(index("--explain", "--dry-run", "--json")[1])["explained"]
    assert [unit["decode_s"] for unit in dry] == [None, None]
    done = json.loads(index("--explain", "--json")[1])["explained"]
    assert [Path(unit["uri"]).name for unit in done] == ["a.mp4", "b.avi"]
    assert all(unit["decode_s"] > 0 for unit in done)
    planned, whole = done
    assert 0 < planned["fed"] <= planned["span"]
    assert planned["predicted_s"] > 0
    assert (whole["fed"], whole["predicted_s"]) == (None, None)
    assert not last_run(tmp_path)["report"]["explained"]


def test_people_read_it_as_a_table(index) -> None:
    code, out, _ = index("--explain")
    assert code == 0
    assert "how units are decoded" in out
    assert "all of it" in out
    assert "packets" in out


def test_costs_are_kept_and_the_next_run_of_the_space_goes_by_them(index, probes: list[str], tmp_path: Path) -> None:
    index("--explain")
    assert probes == ["a.mp4", "b.avi"]
    kept = costs.read(last_run(tmp_path)["settings"])
    assert "h264" in kept
    film(tmp_path / "videos" / "c.mp4", "right")
    index("--explain")
    assert probes == ["a.mp4", "b.avi"]
    assert costs.read(last_run(tmp_path)["settings"]) == kept


def test_a_small_pile_is_not_probed_and_a_large_one_is(index, probes, tmp_path: Path, monkeypatch) -> None:
    index()
    assert probes == []
    assert costs.read(last_run(tmp_path)["settings"]) == {}
    monkeypatch.setattr(costs, "PROBE_BYTES", 1)
    film(tmp_path / "videos" / "c.mp4", "right")
    index()
    assert probes == ["c.mp4"]
    assert "h264" in costs.read(last_run(tmp_path)["settings"])


def test_a_file_that_cannot_be_probed_fails_as_ever(index, tmp_path: Path) -> None:
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    code, out, _ = index("--explain", "--json")
    report = json.loads(out)
    assert (code, report["indexed"], report["failed"]) == (3, 2, 1)
