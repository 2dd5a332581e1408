"""A cluster of several nodes: work goes where it may, and a node that dies amid a run takes nothing along."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline import delta_log
from pipeline.archive import Archive
from pipeline.decode import write_video
from pipeline.flows import index
from pipeline.verify import verify
from tests.cluster import Cluster, cluster

WINDOW_S = 2.0
SCENES, COPIES = 6, 20
SHAPE, RATE_HZ, LENGTH_S = (720, 1280), 10, 8
CLIPS = SCENES * COPIES * int(LENGTH_S / WINDOW_S)
PATIENCE_S = 400
COLUMNS = ["clip_id", "unit_id", "video_id", "revision", "start_s", "end_s", "frame_times_s", "intact_samples"]
NODES = {"cpu-1": {"decodes": 1}, "cpu-2": {"decodes": 1}, "gpu": {"embeds": 1}}

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def long_pile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos that take a while to decode: each scene several times, as files of different content."""
    folder = tmp_path_factory.mktemp("long")
    for scene in range(SCENES):
        first = folder / f"scene {scene}.mp4"
        rng = np.random.default_rng(scene)
        texture = rng.integers(0, 255, (SHAPE[0] // 8, SHAPE[1] // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        frames = (np.roll(texture, 16 * number, axis=1) for number in range(LENGTH_S * RATE_HZ))
        write_video(first, frames, shape=SHAPE, rate_hz=RATE_HZ)
        for copy in range(1, COPIES):
            unused = struct.pack(">I4s", 8 + copy, b"free") + bytes(copy)  # a box of MP4 that nobody looks into
            Path(folder, f"scene {scene} again {copy}.mp4").write_bytes(first.read_bytes() + unused)
    return folder


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """Two nodes that decode, and one that embeds."""
    with cluster(NODES, cpus=2) as made:
        yield made


def clips(folder: Path, space: str) -> tuple[list[dict], np.ndarray]:
    """What is known of each clip that can be seen, and their vectors N x E, in the order of their ids."""
    rows = Archive.open(folder).visible_clips(space, [*COLUMNS, "embedding"]).to_pylist()
    return rows, np.array([row.pop("embedding") for row in rows])


def committed(folder: Path) -> int:
    """How many clips are in the archive, shown or not."""
    archive = Archive(folder)
    return sum(file.row_count for file in delta_log.files(archive, "clips")) if archive.exists() else 0


def asked(pile: Path, folder: Path, weights: Path, *options: str) -> list[str]:
    """The command that indexes a pile on the cluster."""
    given = ["--model", str(weights), "--window", str(WINDOW_S), "--precision", "float32", "--tolerance", "0"]
    return [sys.executable, "-m", "jobs", "index", str(pile), str(folder), *given, "--json", *options]


def test_a_node_that_dies_in_the_midst_of_a_run_takes_nothing_along(
    long_pile: Path, nodes: Cluster, settings_for, tiny_weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    command = asked(long_pile, folder, tiny_weights, "--decode-resource", "decodes", "--embed-resource", "embeds")
    seen: dict[str, set[str]] = {name: set() for name in nodes.nodes}
    at_death = 0
    with subprocess.Popen(command, env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        deadline = time.monotonic() + PATIENCE_S
        while run.poll() is None and time.monotonic() < deadline:
            for name, node in nodes.nodes.items():
                seen[name] |= node.stages()
            count = committed(folder)
            if not at_death and 0 < count < CLIPS and "decode" in nodes.nodes["cpu-1"].stages():
                nodes.nodes.pop("cpu-1").kill()
                at_death = count
            time.sleep(0.2)
        if run.poll() is None:
            run.kill()
        out, err = run.communicate()
    assert run.returncode == 0, err.decode() + out.decode()
    assert 0 < at_death < CLIPS, "the node died in the midst of it"

    report = json.loads(out)
    assert (report["indexed"], report["partial"], report["failed"]) == (SCENES * COPIES, 0, 0)
    assert report["placement"].startswith("decode on the 2 nodes that offer 'decodes' (4 CPUs")
    assert "embed on the 1 nodes that offer 'embeds' (2 CPUs" in report["placement"]
    assert "decode" in seen["cpu-1"] & seen["cpu-2"]
    assert not {"decode", "inspect", "fingerprint"} & (seen["gpu"] | seen["head"])
    assert "embed" in seen["gpu"]
    assert "embed" not in seen["cpu-1"] | seen["cpu-2"] | seen["head"]

    calm = index(long_pile, tmp_path / "calm", settings_for(window_s=WINDOW_S, precision="float32", tolerance_s=0.0))
    assert calm.space == report["space"]
    here, there = clips(folder, calm.space), clips(tmp_path / "calm", calm.space)
    assert len(here[0]) == len({row["clip_id"] for row in here[0]}) == CLIPS
    assert here[0] == there[0]
    np.testing.assert_array_equal(here[1], there[1])
    assert verify(folder, deep=True).problems == ()


def test_a_resource_that_no_node_offers_is_an_error_and_no_wait(
    long_pile: Path, nodes: Cluster, tiny_weights: Path, tmp_path: Path
) -> None:
    command = asked(long_pile, tmp_path / "archive", tiny_weights, "--embed-resource", "tpus")
    run = subprocess.run(command, env=nodes.environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert run.returncode == 1
    assert "offers CPUs and the custom resource 'tpus'; its 4 nodes offer decodes, embeds" in run.stderr
