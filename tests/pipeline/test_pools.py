"""How many workers each stage gets: as many GPUs as the CPUs can feed, and a reason that a person can follow."""

from __future__ import annotations

import pytest

from pipeline import pools
from pipeline.pools import Machines
from schemas.records import UnitOutcome


def outcomes(decode_s: float, embed_s: float, count: int = 20) -> list[UnitOutcome]:
    return [UnitOutcome(f"u{n}", "v", 4, 32, decode_s=decode_s, embed_s=embed_s) for n in range(count)]


@pytest.mark.parametrize(
    ("machines", "decode_s", "embed_s", "embedders"),
    [
        (Machines(16, 1), 4.0, 0.1, 1),  # the one GPU starves, and there is no fewer
        (Machines(16, 8), 4.0, 0.1, 1),
        (Machines(128, 8), 4.0, 0.1, 4),  # 3.2 GPUs are fed
        (Machines(128, 8), 1.0, 0.1, 8),  # 12.8 would be
        (Machines(1, 1), 0.01, 5.0, 1),
    ],
)
def test_as_many_gpus_as_decoding_feeds(machines, decode_s, embed_s, embedders) -> None:
    found = pools.on_gpus(machines, outcomes(decode_s, embed_s))
    assert found.embedders == embedders
    assert f"{embedders} of {machines.gpus} GPUs" in found.why
    assert f"{machines.cpus} CPUs keep {machines.cpus * embed_s / decode_s:.2f} GPUs busy" in found.why


@pytest.mark.parametrize("found", [[], outcomes(0.0, 0.0), outcomes(1.0, 0.0)])
def test_a_probe_that_tells_nothing_leaves_one_gpu(found) -> None:
    sizes = pools.on_gpus(Machines(16, 4), found)
    assert sizes.embedders == 1
    assert "did not tell" in sizes.why


@pytest.mark.parametrize(
    ("machines", "embedders", "threads"), [(Machines(2), 1, 2), (Machines(64, nodes=4), 4, 16), (Machines(1), 1, 1)]
)
def test_on_cpus_each_machine_has_a_thread_per_core(machines, embedders, threads) -> None:
    sizes = pools.on_cpus(machines)
    assert (sizes.embedders, sizes.threads) == (embedders, threads)
    assert f"{threads} threads embed" in sizes.why


def test_where_gpus_decode_too_two_that_embed_never_share_one_and_all_fits() -> None:
    sizes = pools.shared(pools.before_probe())
    assert (pools.before_probe().embed_gpus, pools.before_probe().decode_gpus) == (1.0, 0.0)
    assert sizes.embed_gpus > 0.5
    assert sizes.embed_gpus + pools.DECODERS_PER_GPU * sizes.decode_gpus == pytest.approx(1.0)
    assert f"up to {pools.DECODERS_PER_GPU} workers" in sizes.why
    assert pools.on_cpus(Machines(4)).embed_gpus == 0.0


@pytest.mark.parametrize(("machines", "cpus"), [(Machines(64, 2), 16), (Machines(12, 2), 12), (Machines(64, 0), 8)])
def test_where_gpus_decode_too_only_as_many_decode_as_have_a_share(machines: Machines, cpus: int) -> None:
    assert pools.decoding(machines).cpus == cpus
