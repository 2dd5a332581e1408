"""How many workers each stage gets, and why: arithmetic on what machines have and what the first units took.

On CPUs nothing is to be chosen. Decoding and embedding compete for the same cores, the operating system shares those
out, and what waits between the two is bounded by the engine: with as many threads as cores on either side, no core is
idle while there is work. On GPUs the question is how many of them the cores can feed. Each worker of the embedding
stage holds one, and one that starves is better left to somebody else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from schemas.records import UnitOutcome

PROBE_UNITS = 20  # indexed like all others before the pools are sized
# A probe costs one more start of the workers: seconds, against hours.
WORTH_PROBING = 5 * PROBE_UNITS
# What of a GPU each worker asks for where it decodes too. Over a half, so that two that embed never share one.
EMBED_GPUS = 0.6
DECODERS_PER_GPU = 8  # a process on a GPU takes half a gigabyte of it, whatever it does
DECODE_GPUS = (1 - EMBED_GPUS) / DECODERS_PER_GPU
PROBE_GPUS = 1.0  # alone, since its time is taken


@dataclass(frozen=True, slots=True)
class Machines:
    """What the engine has. `cpus` are logical and of all `nodes` together."""

    cpus: int
    gpus: int = 0
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class Pools:
    """Workers that embed, CPU threads of each, and the reason in a sentence. Whatever is left of the CPUs decodes.

    The shares are of a GPU: what each worker asks for.
    """

    embedders: int
    threads: int
    why: str
    embed_gpus: float = 0.0
    decode_gpus: float = 0.0


def on_cpus(machines: Machines) -> Pools:
    """A worker on each node, with a thread for each core."""
    threads = max(1, machines.cpus // machines.nodes)
    where = "" if machines.nodes == 1 else f" on each of {machines.nodes} machines"
    return Pools(machines.nodes, threads, f"{threads} threads embed{where}, and as many workers decode beside them")


def before_probe() -> Pools:
    """What the first units are embedded with, where there are GPUs."""
    return Pools(1, 1, "one GPU: nothing is known yet of what decoding costs", embed_gpus=1.0)


def on_gpus(machines: Machines, outcomes: Iterable[UnitOutcome]) -> Pools:
    """As many GPUs as can be fed by decoding on every CPU, by what units took of one worker each."""
    found = list(outcomes)
    decode_s, embed_s = sum(o.decode_s for o in found), sum(o.embed_s for o in found)
    if not decode_s or not embed_s:
        return Pools(1, 1, "one GPU: the first units did not tell what decoding and embedding cost", embed_gpus=1.0)
    fed = machines.cpus * embed_s / decode_s
    embedders = min(max(1, machines.gpus), max(1, math.ceil(fed)))
    why = (
        f"{embedders} of {machines.gpus} GPUs: {len(found)} units took {decode_s:.1f} s of CPUs to decode and "
        f"{embed_s:.1f} s of a GPU to embed, so that {machines.cpus} CPUs keep {fed:.2f} GPUs busy"
    )
    return Pools(embedders, 1, why, embed_gpus=1.0)


def shared(sizes: Pools) -> Pools:
    """The same workers where GPUs decode beside embedding: each of those that do takes a little of one."""
    why = f"{sizes.why}; each GPU decodes for up to {DECODERS_PER_GPU} workers"
    return replace(sizes, why=why, embed_gpus=EMBED_GPUS, decode_gpus=DECODE_GPUS)


def decoding(machines: Machines) -> Machines:
    """The machines with as many CPUs as can have a share of a GPU, for that is how many decode then."""
    return replace(machines, cpus=min(machines.cpus, DECODERS_PER_GPU * max(1, machines.gpus)))
