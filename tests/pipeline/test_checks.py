"""What facts about a machine are taken to mean, and that the facts are true."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from pipeline import checks, codecs, doctor, probes
from pipeline.checks import Check
from pipeline.codecs import CodecState
from pipeline.probes import Cores, Disk, Gpu, Speed
from tests.media import make_video
from xclip_core import fast, quantised

GB = 10**9


class Usage(NamedTuple):
    """As `shutil.disk_usage` has it."""

    total: int
    used: int
    free: int


def states(found: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in found}


def test_missing_and_old_libraries_are_wrong_and_named() -> None:
    required = {"av": "18.1", "torch": "2.10", "ray": "2.60"}
    assert checks.libraries(required, {"av": "18.1.0", "torch": "2.14.1+cu130", "ray": "2.60.0"}).state == "ok"
    check = checks.libraries(required, {"av": "17.9", "torch": "2.14.1", "ray": None})
    assert check.state == "wrong"
    assert "'ray>=2.60' 'av>=18.1'" in check.meaning
    assert "torch>=" not in check.meaning


def test_requirements_are_those_of_this_system(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "av>=18.1",
        "ray[data,default]>=2.60",
        'faiss-cpu>=1.14; sys_platform != "linux"',
        'faiss-gpu>=1.15; sys_platform == "linux"',
        'fastapi>=0.130; extra == "serve"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    monkeypatch.setattr(sys, "platform", "linux")
    assert probes.requirements() == {"av": "18.1", "ray": "2.60", "faiss-gpu": "1.15"}
    monkeypatch.setattr(sys, "platform", "darwin")
    assert probes.requirements() == {"av": "18.1", "ray": "2.60", "faiss-cpu": "1.14"}


@pytest.mark.parametrize(("missing", "state"), [("h264", "wrong"), ("ffv1", "slow")])
def test_a_missing_codec_counts_by_how_common_it_is(missing: str, state: str) -> None:
    found = [CodecState(codec, "missing" if codec == missing else "decodes") for codec in ("h264", "hevc", "ffv1")]
    check = checks.codecs(found)
    assert check.state == state
    assert missing in check.meaning


linux = pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="a system without schedulers to choose")


@linux
def test_an_encoder_that_makes_itself_urgent_leaves_us_as_we_were(tmp_path: Path) -> None:
    ordinary = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    assert codecs._tried("av1", "libsvtav1", "yuv420p", "matroska").state == "decodes"
    make_video(tmp_path / "av1.mp4", frames=4, codec="libsvtav1", options={"preset": "12"})
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == ordinary


@linux
def test_a_thread_has_its_own_priority_again() -> None:
    ordinary = os.sched_getscheduler(0)
    with suppress(ZeroDivisionError), codecs.own_priority():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # who is not root may do that, too
        raise ZeroDivisionError
    assert os.sched_getscheduler(0) == ordinary


def test_codecs_are_known_by_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {each.codec: each.state for each in codecs.codec_states()}
    assert {found[codec] for codec in ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "prores")} == {"decodes"}
    assert codecs._tried("h264", "no such encoder", "yuv420p", "matroska").state == "listed"
    assert codecs._tried("no such codec", "no such encoder", "yuv420p", "matroska").state == "missing"
    # What comes out wrong does not count as decoded.
    monkeypatch.setattr(codecs, "_levels", lambda _: [40.0, 40.0, 40.0])
    assert codecs._tried("mpeg4", "mpeg4", "yuv420p", "matroska").state == "missing"


def test_without_a_gpu_nvdec_is_no_matter_and_encoding_is_slow() -> None:
    assert checks.devices([], None, "13.0").state == "slow"
    assert checks.devices([], "driver 580", "13.0").state == "wrong", "a driver that torch cannot use"
    assert checks.devices([], "driver 580", None).state == "wrong", "a torch without CUDA"
    assert checks.devices([Gpu("H100", 70 * GB, 80 * GB)], "driver 580", "13.0").state == "ok"
    assert checks.devices([Gpu("H100", GB // 2, 80 * GB)], "driver 580", "13.0").state == "slow"
    assert checks.nvdec(["cuda"], has_gpu=False, refusal=None).state == "ok"
    assert checks.nvdec(["cuda"], has_gpu=True, refusal="no video capability").state == "slow"


def test_the_bound_on_encoding_is_arithmetic() -> None:
    quick = checks.encoding(Speed("cpu", 50.0, 107.4, packs=True, takes_short=True), 2)
    assert (quick.state, "at most 6 clips/s" in quick.found) == ("ok", True)  # 2 * 107.4 / 35.8
    slow = checks.encoding(Speed("cpu", 53.7, 20.0, packs=True, takes_short=False), 2)
    assert (slow.state, "at most 3 clips/s" in slow.found) == ("slow", True)
    assert checks.encoding(Speed("cpu", 50.0, 107.4, packs=False, takes_short=True), 2).state == "slow"
    bytewise = checks.encoding(Speed("cpu", 53.7, 20.0, packs=True, takes_short=False, int8=89.5), 2)
    assert (bytewise.state, "90 in bytes; so at most 5 clips/s" in bytewise.found) == ("ok", True)  # 2 * 89.5 / 35.8
    assert checks.encoding(Speed("cuda", 50.0, 900.0, packs=False, takes_short=True), 1).state == "ok"
    assert checks.encoding(Speed("cuda", 50.0, 40.0, packs=False, takes_short=False), 1).state == "slow"


def test_figures_and_verdict_are_of_the_same_times(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def busier_each_time(device: str, _: torch.dtype) -> float:
        asked.append(device)
        return float(len(asked))

    monkeypatch.setattr(fast, "product_s", busier_each_time)
    found = probes.speed("cpu")
    assert (asked, found.float32 / found.bfloat16, found.takes_short) == (["cpu", "cpu"], pytest.approx(2), False)


@pytest.mark.parametrize(("gain", "int8"), [(1.2, 1.2), (1.1, None), (0.0, None)])
def test_bytes_are_told_by_what_they_gain(gain, int8, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "gain", lambda dtype: gain)
    found = probes.speed("cpu")
    taken = found.bfloat16 if found.takes_short else found.float32
    assert found.int8 == (None if int8 is None else int8 * taken)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (Cores(8, 8, None), "ok"),
        (Cores(8, 8, 8.0), "ok"),
        (Cores(64, 64, 2.0), "slow"),
        (Cores(64, 4, None), "slow"),
        (Cores(1, 1, None), "slow"),
    ],
)
def test_cores_that_are_counted_must_be_there(found: Cores, state: str) -> None:
    check = checks.cores(found)
    assert check.state == state
    if found.quota == 2.0:
        assert "--num-cpus=2" in check.meaning


def test_limits_of_cgroups_are_read_in_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "CGROUPS", tmp_path)
    assert probes.cores().quota is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert probes.cores().quota == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert probes.cores().quota is None
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert probes.cores().quota == 2.0
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("1000000000\n")
    assert probes.memory_bytes() == 2_000_000_000
    (tmp_path / "memory.stat").write_text("anon 1\nactive_file 7\ninactive_file 500000000\n")
    assert probes.memory_bytes() == 2_500_000_000, "what was read of files makes way"
    (tmp_path / "memory.stat").unlink()
    assert checks.memory(probes.memory_bytes()).state == "slow"


def test_full_disks_are_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * GB, 100 * GB - 500, 500))
    found = states(list(doctor.examine(str(tmp_path / "archive"))))
    assert found["archive's disk"] == found["temporary disk"] == "wrong"
    assert found["archive"] == "wrong", "there is none"


def test_a_temporary_folder_must_suit_ray() -> None:
    assert checks.temporary_disk(Disk(Path("/tmp"), 40 * GB, 100 * GB), writable=True).state == "ok"
    assert checks.temporary_disk(Disk(Path("/tmp"), 4 * GB, 100 * GB), writable=True).state == "slow"
    assert checks.temporary_disk(Disk(Path("/tmp"), 40 * GB, 100 * GB), writable=False).state == "wrong"
    long = checks.temporary_disk(Disk(Path("/" + 60 * "x"), 40 * GB, 100 * GB), writable=True)
    assert (long.state, "too long" in long.meaning) == ("wrong", True)


def test_small_limits_are_slow() -> None:
    assert checks.shared_memory(Disk(Path("/dev/shm"), 64 << 20, 64 << 20)).state == "slow"
    assert checks.shared_memory(Disk(Path("/dev/shm"), 8 * GB, 8 * GB)).state == "ok"
    assert checks.open_files(1024).state == "slow"
    assert checks.open_files(None).state == "ok"
    there = {"writable": True, "offline": True}
    assert checks.model_cache(Path("/cache"), [], 0, **there).state == "slow"
    assert checks.model_cache(Path("/cache"), ["microsoft/xclip-base-patch32"], GB, **there).state == "ok"


class Ours(BaseHTTPRequestHandler):
    """Answers as `footage serve` would, or not at all like it."""

    content = b"footage_clips 17.0\n"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("content", "state"), [(b"footage_clips 17.0\n", "ok"), (b"<html>something else</html>", "slow")]
)
def test_who_has_the_port_is_found_out(content: bytes, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ours, "content", content)
    with HTTPServer(("127.0.0.1", 0), Ours) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.server_address[1]
        found = probes.listener(port)
        server.shutdown()
        thread.join()
    assert checks.port(port, found).state == state
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        unused = free.getsockname()[1]
    assert probes.listener(unused) is None


def test_what_cannot_be_looked_at_is_wrong_and_the_rest_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(probes, "gpus", broken)
    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())
    found = list(doctor.examine())
    assert states(found)["GPU"] == states(found)["encoding"] == "wrong"
    assert "libcudart" in next(check.found for check in found if check.name == "GPU")
    assert states(found)["codecs"] == "ok"
