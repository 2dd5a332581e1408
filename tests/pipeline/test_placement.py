"""What a cluster is taken to have: nodes by the resources they offer, and the device that those have which embed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline import decoders, engine, indexing
from pipeline.pools import Machines
from pipeline.settings import IndexSettings
from schemas.errors import EngineError, InputError

HEAD = {"memory": 1.0, "node:10.0.0.1": 1.0}
DECODES = {"CPU": 16.0, "decodes": 1.0, "node:10.0.0.2": 1.0}
EMBEDS = {"CPU": 4.0, "GPU": 2.0, "embeds": 1.0, "accelerator_type:H100": 1.0}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch):
    """Makes Ray tell of a cluster; the real one is in tests/flow/test_cluster.py."""

    def make(*resources: dict, dead: dict | None = None) -> None:
        told = [{"Alive": True, "Resources": each} for each in resources]
        told += [{"Alive": False, "Resources": dead}] if dead else []
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        monkeypatch.setattr(engine, "start_ray", lambda: SimpleNamespace(nodes=lambda: told))

    return make


def test_nodes_without_cpus_and_dead_ones_do_no_work(nodes) -> None:
    nodes(HEAD, DECODES, DECODES, EMBEDS, dead=DECODES)
    assert engine.machines("ray") == Machines(36, 2, 3)
    assert engine.machines("ray", "decodes") == Machines(32, 0, 2)
    assert engine.machines("ray", "embeds") == Machines(4, 2, 1)


def test_a_resource_that_none_offers_is_told_with_those_that_are(nodes) -> None:
    nodes(HEAD, DECODES, EMBEDS)
    with pytest.raises(EngineError, match=r"custom resource 'tpus'; its 3 nodes offer decodes, embeds; start"):
        engine.machines("ray", "tpus")


def test_on_a_cluster_the_nodes_that_embed_say_what_the_device_is(nodes) -> None:
    asked = IndexSettings(device="auto")
    nodes(HEAD, DECODES, EMBEDS)
    assert indexing.device_of(asked) == "cuda"
    assert indexing.device_of(IndexSettings(device="auto", embed_resource="decodes")) == "cpu"
    assert indexing.device_of(IndexSettings(device="cpu")) == "cpu", "as asked for"
    nodes(HEAD, DECODES)
    assert indexing.device_of(asked) == "cpu"


def test_nodes_that_decode_and_have_no_gpu_use_their_cpus() -> None:
    units = [SimpleNamespace(codec=codec) for codec in ("h264", "vp9", "h264")]
    job = SimpleNamespace(settings=IndexSettings(decode_resource="decodes"))
    chosen = decoders.on_cpus(job, units)
    assert list(map(str, chosen)) == [f"{codec} on cpu: {decoders.CPU_NODES}" for codec in ("h264", "vp9")]
    job = SimpleNamespace(settings=IndexSettings(decode_resource="decodes", decoder="cuda"))
    with pytest.raises(InputError, match="those that offer 'decodes' have none; expected --decoder auto or cpu"):
        decoders.on_cpus(job, units)
