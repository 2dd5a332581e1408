"""The least that a video costs on this machine as it mostly is: frames to decode, the model's products, on all cores.

`python -m benchmarks.floor FILES`: a line of JSON, seconds of all files together. Decoding is CPU time of one thread,
of the packets that the plan of decoding names and no others; scaling of the frames taken, in one pass, straight to the
model's size; products are `cost.clip_macs` at the rate that products of the model's own shapes reach here in the
faster dtype, with every core busy: the median of some bursts, since the fastest is a moment at which the machine's
other guests slept, and what is compared with it takes minutes. All spread over the cores without loss, and nothing else
counted: no start, no norms, no attention weights, no thumbnails, no archive.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from threading import Barrier
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline import decode, demux, plan, sources
from pipeline.settings import IndexSettings
from schemas.records import Unit
from xclip_core import cost
from xclip_core.fast import faster_dtype
from xclip_core.released import ARCHITECTURES

CONFIG = ARCHITECTURES["B/32"]
RATE_ROUNDS = 9
BLOCKS = 2  # of the model's twelve, which are alike: the rate is wanted, not a forward pass
CLIPS_PER_PASS = 8


@dataclass(frozen=True)
class Floor:
    """Seconds; `decode_cpu_s` and `scale_cpu_s` of one core, `products_s` and `floor_s` of the whole machine."""

    clips: int
    decode_cpu_s: float
    scale_cpu_s: float
    products_s: float
    floor_s: float
    gflops: float
    dtype: str
    cores: int


def units_of(file: Path, *, tolerance_s: float | None = None) -> tuple[Unit, ...]:
    """A video's units as the index plans them by default."""
    settings = IndexSettings(tolerance_s=tolerance_s).sampling(CONFIG.frames)
    source = sources.fingerprint(next(iter(sources.take_inventory(file))))
    return plan.plan_video(demux.inspect(source, settings), None, {}, 0, "space").units


def floor_of(files: list[Path]) -> Floor:
    """The floor of some videos, measured now."""
    cores = os.cpu_count() or 1
    units = [unit for file in files for unit in units_of(file)]
    decode_s, scale_s = (sum(times) for times in zip(*map(_decoded, units), strict=True))
    clips = sum(len(unit.windows) for unit in units)
    dtype = faster_dtype("cpu")
    flops = statistics.median(_rate(dtype, cores) for _ in range(RATE_ROUNDS))
    products_s = clips * 2 * cost.clip_macs(CONFIG) / flops
    floor_s = (decode_s + scale_s) / cores + products_s
    return Floor(clips, decode_s, scale_s, products_s, floor_s, flops / 1e9, str(dtype).removeprefix("torch."), cores)


def _decoded(unit: Unit) -> tuple[float, float]:
    """CPU seconds of decoding a unit's planned packets, and of scaling the frames taken."""
    resizer = decode.Resizer()
    scaling: list[float] = []

    def scale(frame: Any) -> Any:
        began = time.process_time()
        picture = resizer.model_input(frame, CONFIG.image_size)
        scaling.append(time.process_time() - began)
        return picture

    wanted_s = sorted({moment for window in unit.windows for moment in window.frame_times_s})
    way = decode._Way(scale, resizer)  # noqa: SLF001  # one way to decode
    began = time.process_time()
    # By plan, else as the index would go on: a container without presentation times is decoded from the front.
    taken = decode._take_planned(unit, wanted_s, way, ()) or decode._take(unit.uri, wanted_s, way)  # noqa: SLF001
    assert taken, f"nothing of {unit.uri} can be decoded"
    return time.process_time() - began - sum(scaling), sum(scaling)


def _layer(dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Inputs and weights of a block's four products, for one pass."""
    D, rows = CONFIG.vision_width, CLIPS_PER_PASS * CONFIG.frames * (CONFIG.patches + 1)
    generator = torch.Generator().manual_seed(0)
    shapes = ((D, 3 * D), (D, D), (D, 4 * D), (4 * D, D))
    return [
        (
            torch.randn(rows, inner, generator=generator).to(dtype),
            torch.randn(outer, inner, generator=generator).to(dtype),
        )
        for inner, outer in shapes
    ]


@torch.inference_mode()
def _work(products: list[tuple[Tensor, Tensor]], together: Barrier) -> tuple[int, float]:
    """The block's products a few times: floating-point operations done, and CPU seconds that this thread took."""
    together.wait()  # else one thread may do the work of all, with the machine to itself
    began = time.thread_time()
    for _ in range(BLOCKS):
        for x, weight in products:
            F.linear(x, weight)
    return BLOCKS * sum(2 * x.numel() * len(weight) for x, weight in products), time.thread_time() - began


def _rate(dtype: torch.dtype, cores: int) -> float:
    """Operations per second of the whole machine: a thread of products on every core."""
    passes, together = [_layer(dtype) for _ in range(cores)], Barrier(cores)
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(_work, passes, repeat(together)))  # the first time, libraries lay their plans
        return rate_of(list(pool.map(_work, passes, repeat(together))))


def rate_of(figures: Sequence[tuple[int, float]]) -> float:
    """Operations per second of all threads, each on a core, from the operations and CPU seconds of each.

    By CPU time, as decoding is: on the wall, other work would make the floor higher than what stands on it.
    """
    return sum(operations / cpu_s for operations, cpu_s in figures)


def moments(files: list[Path]) -> Iterator[tuple[Path, list[list[float]]]]:
    """Each file with the moments of its clips, in seconds from its start."""
    for file in files:
        yield file, [list(window.frame_times_s) for unit in units_of(file, tolerance_s=0.0) for window in unit.windows]


if __name__ == "__main__":
    print(json.dumps(asdict(floor_of([Path(file) for file in sys.argv[1:]]))))
