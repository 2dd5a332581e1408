"""Where the videos of each codec are decoded, and why: on CPUs, or on a GPU's own decoder.

Nobody needs to choose. A GPU is taken where a probe of the codec's first video gives the same pictures on it, in less
time than all the CPUs take that go with the GPU. What it then does not decode, a CPU does; the run's report says of how
many units that was true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline import engine, plan
from pipeline.engine import Stage
from pipeline.pools import PROBE_GPUS, Machines
from pipeline.settings import Decoder
from pipeline.survey import Job
from schemas.errors import InputError
from schemas.records import DecoderProbe, Unit

MAX_DIFFERENCE = 2.0  # grey levels, of pictures of the same frames
NO_DEVICE = "there is no CUDA device"
CPU_NODES = "the nodes that decode have no GPU"
SHOTS = "shots are looked for in every frame, on a CPU"


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a codec is decoded, and why."""

    codec: str
    where: Literal["cpu", "cuda"]
    why: str

    def __str__(self) -> str:
        return f"{self.codec} on {self.where}: {self.why}"


def check(asked: Decoder, device: str) -> None:
    """Raises InputError where decoding on a GPU is asked for and `device`, a real one, is none."""
    if asked == "cuda" and not device.startswith("cuda"):
        raise InputError(f"--decoder cuda needs a CUDA device, and {NO_DEVICE} here; expected auto or cpu")


def choices(job: Job, units: list[Unit], machines: Machines, scratch: Path) -> tuple[Choice, ...]:
    """A choice for each codec of some units; probes one unit of each where that is what decides."""
    first = {unit.codec: unit for unit in reversed(units)}
    codecs = sorted(first)
    if settled := settled_without(
        job.settings.decoder, job.settings.device, has_shots=job.space.sampling.shots is not None
    ):
        return tuple(Choice(codec, *settled) for codec in codecs)
    cpus = 1.0 if job.settings.engine == "local" else cpus_per_gpu(machines)  # a loop has one thread
    found = _probed(job, [first[codec] for codec in codecs], scratch)
    return tuple(choice(codec, found.get(codec), cpus) for codec in codecs)


def on_cpus(job: Job, units: Iterable[Unit]) -> tuple[Choice, ...]:
    """CPUs for each codec, where the nodes that are to decode have no GPU.

    Raises InputError where a GPU was asked for.
    """
    if job.settings.decoder == "cuda":
        raise InputError(
            f"--decoder cuda needs nodes with GPUs, and those that offer {job.settings.decode_resource!r} have none; "
            "expected --decoder auto or cpu, or another --decode-resource"
        )
    return tuple(Choice(codec, "cpu", CPU_NODES) for codec in sorted({unit.codec for unit in units}))


def settled_without(asked: Decoder, device: str, *, has_shots: bool) -> tuple[Literal["cpu", "cuda"], str] | None:
    """Where everything is decoded, and why, if no probe is needed to know."""
    if asked == "cpu":
        return "cpu", "as asked for"
    if not device.startswith("cuda"):
        return "cpu", NO_DEVICE
    if has_shots:
        return "cpu", SHOTS
    return ("cuda", "as asked for") if asked == "cuda" else None


def choice(codec: str, probe: DecoderProbe | None, cpus: float) -> Choice:
    """Where a codec is decoded, by what a probe found and how many CPUs go with a GPU."""
    if probe is None:
        return Choice(codec, "cpu", "its first video could not be probed")
    if probe.refused:
        return Choice(codec, "cpu", f"NVDEC refused it: {probe.refused}")
    if probe.difference > MAX_DIFFERENCE:
        why = f"NVDEC's pictures are {probe.difference:.1f} grey levels off, over {MAX_DIFFERENCE:g}"
        return Choice(codec, "cpu", why)
    shared_s = probe.cpu_s / cpus
    took = f"{1e3 * probe.device_s:.2f} ms a frame on NVDEC, {1e3 * shared_s:.2f} ms on {cpus:g} CPUs"
    return Choice(codec, "cuda" if probe.device_s < shared_s else "cpu", took)


def cpus_per_gpu(machines: Machines) -> float:
    """How many logical CPUs go with each GPU; one GPU where none is known of."""
    return machines.cpus / max(1, machines.gpus)


def fallbacks(found: Mapping[str, tuple[int, str]]) -> tuple[str, ...]:
    """A line for each codec of which units were decoded on a CPU after all, by their number and the first reason."""
    return tuple(
        f"{codec}: {count} units on a CPU after all, the first since {why}"
        for codec, (count, why) in sorted(found.items())
    )


def on_gpu(chosen: Iterable[Choice]) -> frozenset[str]:
    """The codecs that are decoded on a GPU."""
    return frozenset(choice.codec for choice in chosen if choice.where == "cuda")


def _probed(job: Job, units: list[Unit], scratch: Path) -> dict[str, DecoderProbe]:
    """What could be found out of units of different codecs, by codec."""
    from pipeline import nvdec  # with torch, which decides nothing where there is no device

    stage = Stage(
        name="compare",
        work=partial(nvdec.compare_units, job.space.model.image_size, job.settings.device),
        wake=partial(nvdec.woken, job.settings.device),
        deadline_s=lambda unit: unit.deadline_s,
        memory_bytes=plan.MEMORY_BYTES,
        num_gpus=PROBE_GPUS,
        hostile=True,
        resource=job.settings.decode_resource,
    )
    results = engine.run([stage], units, engine=job.settings.engine, scratch=scratch)
    return {probe.codec: probe for probe in results if isinstance(probe, DecoderProbe)}
