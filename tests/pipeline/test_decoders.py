"""Where each codec is decoded: on a CPU unless a probe says that a GPU gives the same pictures in less time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from pipeline import decoders, engine
from pipeline.decoders import Choice
from pipeline.indexing import Effort
from pipeline.pools import Machines
from pipeline.settings import IndexSettings, Space
from schemas.errors import InputError
from schemas.records import DecoderProbe, Part, Unit, UnitOutcome
from tests.models import TINY
from tests.pipeline.factories import unit_of, video_row

FAST = DecoderProbe("h264", cpu_s=0.004, device_s=0.0004, difference=0.3)


@pytest.mark.parametrize(
    ("probe", "cpus", "where", "why"),
    [
        (FAST, 8, "cuda", "0.40 ms a frame on NVDEC, 0.50 ms on 8 CPUs"),
        (FAST, 10, "cpu", "0.40 ms a frame on NVDEC, 0.40 ms on 10 CPUs"),
        (FAST, 64, "cpu", "0.06 ms on 64 CPUs"),
        (replace(FAST, difference=2.0), 8, "cuda", "ms"),
        (replace(FAST, difference=2.1), 8, "cpu", "2.1 grey levels off, over 2"),
        (replace(FAST, refused="no room"), 8, "cpu", "refused it: no room"),
        (None, 8, "cpu", "could not be probed"),
    ],
)
def test_a_gpu_is_taken_if_it_is_faster_and_gives_the_same(probe, cpus, where, why) -> None:
    found = decoders.choice("h264", probe, cpus)
    assert (found.codec, found.where) == ("h264", where)
    assert why in str(found)
    assert str(found).startswith(f"h264 on {where}: ")


@pytest.mark.parametrize(
    ("asked", "device", "has_shots", "expected"),
    [
        ("auto", "cpu", False, ("cpu", decoders.NO_DEVICE)),
        ("cpu", "cuda", False, ("cpu", "as asked for")),
        ("cuda", "cuda", False, ("cuda", "as asked for")),
        ("cuda", "cuda:1", True, ("cpu", decoders.SHOTS)),
        ("auto", "cuda", True, ("cpu", decoders.SHOTS)),
        ("auto", "cuda", False, None),
    ],
)
def test_a_probe_is_made_only_where_it_decides(asked, device, has_shots, expected) -> None:
    assert decoders.settled_without(asked, device, has_shots=has_shots) == expected


@pytest.mark.parametrize(("machines", "cpus"), [(Machines(16, 2), 8), (Machines(16, 0), 16), (Machines(6, 4), 1.5)])
def test_cpus_are_shared_out_to_gpus(machines, cpus) -> None:
    assert decoders.cpus_per_gpu(machines) == cpus


def test_asking_for_a_gpu_where_there_is_none_is_an_error() -> None:
    with pytest.raises(InputError, match="--decoder cuda needs a CUDA device"):
        decoders.check("cuda", "cpu")
    decoders.check("cuda", "cuda:0")
    decoders.check("auto", "cpu")


def units(codecs: Iterable[str]) -> list[Unit]:
    return [replace(unit_of(video_row(f"/{n}.mp4"), 1), codec=codec) for n, codec in enumerate(codecs)]


class Asked:
    """As much of a job as a choice needs."""

    def __init__(self, **changes) -> None:
        self.settings = IndexSettings(**changes)
        self.space = Space(weights_hash="w", model=TINY, sampling=self.settings.sampling(8))


def test_one_unit_of_each_codec_is_probed(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    seen: list[Unit] = []

    def run(stages, records, **_):
        seen.extend(records)
        assert [(stage.name, stage.num_gpus, stage.hostile) for stage in stages] == [("compare", 1.0, True)]
        return iter([FAST])

    monkeypatch.setattr(engine, "run", run)
    job = Asked(device="cuda")
    found = decoders.choices(job, units(["vp9", "h264", "h264", "vp9"]), Machines(8, 1), tmp_path)
    assert [unit.uri for unit in seen] == ["/1.mp4", "/0.mp4"]
    assert [(choice.codec, choice.where) for choice in found] == [("h264", "cuda"), ("vp9", "cpu")]
    assert decoders.on_gpu(found) == {"h264"}
    alone = decoders.choices(Asked(device="cuda", engine="local"), units(["h264"]), Machines(8, 1), tmp_path)
    assert "on 1 CPUs" in str(alone[0]), "the plain loop decodes in one thread"


def test_without_a_device_each_codec_is_said_to_be_the_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(engine, "run", lambda *_, **__: pytest.fail("nothing to probe"))
    found = decoders.choices(Asked(), units(["vp9", "h264"]), Machines(8), tmp_path)
    assert found == tuple(Choice(codec, "cpu", decoders.NO_DEVICE) for codec in ("h264", "vp9"))


def test_fallbacks_are_counted_by_codec_with_the_first_reason() -> None:
    found = units(["h264", "h264", "hevc", "vp9"])
    whys = ("no room", "later", "too large", "")
    outcomes = tuple(
        UnitOutcome(f"u{n}", unit.video_id, 1, 8, fallback=why)
        for n, (unit, why) in enumerate(zip(found, whys, strict=True))
    )
    effort = Effort()
    effort.add([Part("path", 1, 4, "space", outcomes)], {f"u{n}": unit for n, unit in enumerate(found)})
    assert decoders.fallbacks(effort.fell_back) == (
        "h264: 2 units on a CPU after all, the first since no room",
        "hevc: 1 units on a CPU after all, the first since too large",
    )
