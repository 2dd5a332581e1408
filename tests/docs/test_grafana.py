"""docs/grafana.json: every name in its expressions is one that is really exported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from prometheus_client import generate_latest

from jobs.web.guard import Metrics
from pipeline import meters, run_report
from pipeline.flows import IndexReport
from schemas.records import DecodeSteps, Part, Unit, UnitOutcome, Window
from tests.docs.blocks import ROOT
from tests.footage import make_pile

DASHBOARD = json.loads(ROOT.joinpath("docs/grafana.json").read_text(encoding="utf-8"))
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
NAME = re.compile(r"\b(?:ray_)?footage_[a-z_]+\b")
NAMES = {name for expression in EXPRESSIONS for name in NAME.findall(expression)}
EXPORTED = re.compile(r"^# TYPE ((?:ray_)?footage_[a-z_]+) (\w+)", re.MULTILINE)


def exported(text: str) -> set[str]:
    """The names of samples in a text that Prometheus reads."""
    names = set()
    for name, kind in EXPORTED.findall(text):
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names


def of_runs() -> set[str]:
    report = IndexReport(run_id="r", space="s", dry_run=False, planned=0)
    return exported(run_report.prometheus(report))


def of_the_server() -> set[str]:
    metrics = Metrics()
    metrics.requests.labels("/search", "200").inc()
    metrics.seconds.labels("/search").observe(0.1)
    return exported(generate_latest(metrics.registry).decode())


def of_ray() -> set[str]:
    """By the table of names; that Ray makes these of them, the test below sees."""
    counters = {f"ray_{name}_total" for name in (*meters.COUNTERS, meters.FAILED[0])}
    return {*counters, f"ray_{meters.BUSY[0]}"}


def test_every_name_of_the_dashboard_is_exported() -> None:
    assert NAMES - of_runs() - of_the_server() - of_ray() == set()


def test_the_dashboard_shows_all_there_is_of_ray_and_of_runs() -> None:
    assert (of_runs() | of_ray()) - NAMES == set()


def test_the_page_names_what_is_exported() -> None:
    page = ROOT.joinpath("docs/operating.md").read_text(encoding="utf-8")
    assert {name for name in of_ray() if f"`{name}`" not in page} == set()


def test_numbers_are_those_of_the_results() -> None:
    steps = DecodeSteps(feed=bytes(8 * 5), restarts=b"", shows=b"", cost=5.0)
    unit = Unit("u", "v", 1, "s", "file:///a.mp4", (Window(0.0, 10.0, ()), Window(10.0, 14.0, ())), 60.0, steps, "h264")
    other = replace(unit, unit_id="w", steps=None)
    outcomes = tuple(UnitOutcome(each, "v", 2, 16, decode_s=1.5, embed_s=0.5) for each in ("u", "w"))
    part = Part("p", 1, 4, "s", outcomes)
    assert meters.counted([part], {"u": unit, "w": other}) == {
        "footage_indexed_seconds": 28.0,
        "footage_decoded_packets": 5,
        "footage_decode_seconds": 3.0,
        "footage_embed_seconds": 1.0,
    }


SCRAPED = """if True:
    import sys, time, urllib.request
    from pipeline import engine
    from pipeline.flows import index
    from pipeline.settings import IndexSettings
    pile, archive, model = sys.argv[1:]
    index(pile, archive, IndexSettings(model=model, window_s=2.0))
    port = engine.start_ray().nodes()[0]["MetricsExportPort"]
    for _ in range(60):
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        if "ray_footage_encoder_busy_ratio" in text:
            break
        time.sleep(1)
    print(text)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_on_ray_exports_them(tmp_path: Path, tiny_weights: Path) -> None:
    pile = make_pile(tmp_path / "pile")
    content = bytearray((pile / "left_then_right.mp4").read_bytes())
    (pile / "cut.mp4").write_bytes(content[: len(content) // 2])
    command = [sys.executable, "-c", SCRAPED, str(pile), str(tmp_path / "archive"), str(tiny_weights)]
    began = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ, timeout=500)
    assert ended.returncode == 0, f"{time.monotonic() - began:.0f} s: {ended.stderr[-2000:]}"
    found = exported(ended.stdout)
    assert of_ray() - found <= {"ray_footage_units_failed_total"}, "no unit need fail in this run"
    (seconds,) = re.findall(r"^ray_footage_indexed_seconds_total\{[^}]*\} ([0-9.]+)", ended.stdout, re.MULTILINE)
    assert float(seconds) >= 12.0
