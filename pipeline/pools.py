"""How many workers each stage gets, and why: arithmetic on what machines have and what the first units took.

On CPUs nothing is to be chosen. Decoding and embedding compete for the same cores, the operating system shares those
out, and what waits between the two is bounded by the engine: with as many threads as cores on either side, no core is
idle while there is work. On GPUs the question is how many of them the cores can feed. Each worker of the embedding
stage holds one, and one that starves is better left to somebody else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.records import UnitOutcome

PROBE_UNITS = 20  # indexed like all others before the pools are sized
# A probe costs one more start of the workers: seconds, against hours.
WORTH_PROBING = 5 * PROBE_UNITS


@dataclass(frozen=True, slots=True)
class Machines:
    """What the engine has. `cpus` are logical and of all `nodes` together."""

    cpus: int
    gpus: int = 0
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class Pools:
    """Workers that embed, CPU threads of each, and the reason in a sentence. Whatever is left of the CPUs decodes."""

    embedders: int
    threads: int
    why: str


def on_cpus(machines: Machines) -> Pools:
    """A worker on each node, with a thread for each core."""
    threads = max(1, machines.cpus // machines.nodes)
    where = "" if machines.nodes == 1 else f" on each of {machines.nodes} machines"
    return Pools(machines.nodes, threads, f"{threads} threads embed{where}, and as many workers decode beside them")


def before_probe() -> Pools:
    """What the first units are embedded with, where there are GPUs."""
    return Pools(1, 1, "one GPU: nothing is known yet of what decoding costs")


def on_gpus(machines: Machines, outcomes: Iterable[UnitOutcome]) -> Pools:
    """As many GPUs as can be fed by decoding on every CPU, by what units took of one worker each."""
    found = list(outcomes)
    decode_s, embed_s = sum(o.decode_s for o in found), sum(o.embed_s for o in found)
    if not decode_s or not embed_s:
        return Pools(1, 1, "one GPU: the first units did not tell what decoding and embedding cost")
    fed = machines.cpus * embed_s / decode_s
    embedders = min(max(1, machines.gpus), max(1, math.ceil(fed)))
    why = (
        f"{embedders} of {machines.gpus} GPUs: {len(found)} units took {decode_s:.1f} s of CPUs to decode and "
        f"{embed_s:.1f} s of a GPU to embed, so that {machines.cpus} CPUs keep {fed:.2f} GPUs busy"
    )
    return Pools(embedders, 1, why)
