"""How fast models encode clips on a GPU, against the arithmetic they need, its peak, and HuggingFace's code.

    python -m benchmarks.encode_cuda [MODEL ...] [--rounds 5] [--no-hf] [--sizes 64 128]     models: B/32 B/16 L/14

Architectures of the released models with random weights, in bfloat16, frames on the device beforehand. Ways take turns;
times are by CUDA events over several passes, medians of rounds. The last way starts from frames in main memory.

    products alone    nothing but the matrix products of the model's linear layers, in its shapes, with their biases
    plain             `xclip_core.fast` by torch's own functions, as on a CPU
    fused             `xclip_core.fused`, recorded and replayed as `footage index` does, in passes of its or these sizes
    from the host     the same with uploads and downloads, `pipeline.cuda_passes`
    HF                XCLIPModel.get_video_features of transformers, as it is and by torch.compile

Of the peak: two FLOP for each MAC of the model (`xclip_core.cost`), to the datasheet's dense bfloat16 rate.
"""

# B clips of a pass, T frames, S pixels

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import harness
from benchmarks.encode import hf_encode, hf_model, layer_shapes, random_model
from pipeline.cuda_passes import OnCuda, Recorded
from xclip_core import XClipConfig, cost
from xclip_core.fast import FastVideo, fast_video
from xclip_core.released import ARCHITECTURES

DTYPE = torch.bfloat16
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}  # dense bfloat16, of the vendor's datasheets (SXM)
HF_BATCHES = {"B/32": 64, "B/16": 32, "L/14": 8}
PASSES = 5  # timed together
HOST_PASSES = 8


@dataclass(frozen=True, slots=True)
class Way:
    """One way to encode clips, and how many it takes at a time."""

    name: str
    clips: int
    run: Callable[[], object]


def frames(config: XClipConfig, count: int, device: str = "cuda") -> Tensor:
    """Clips of noise, B x T x S x S x 3; numbers change no speed, but zeros would."""
    generator = torch.Generator(device).manual_seed(1)
    shape = (count, config.frames, config.image_size, config.image_size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=generator)


def products(config: XClipConfig, clips: int) -> Callable[[], object]:
    """The products of the linear layers, weights of each its own, as a recorded pass."""
    shapes = list(layer_shapes(config))
    weights = [torch.randn(n, k, device="cuda", dtype=DTYPE) for _, n, k in shapes]
    biases = [torch.randn(n, device="cuda", dtype=DTYPE) for _, n, _ in shapes]
    most = {k: max(m for m, _, width in shapes if width == k) for _, _, k in shapes}
    inputs = {k: torch.randn(clips * m, k, device="cuda", dtype=DTYPE) for k, m in most.items()}

    def run(_: Tensor) -> tuple[Tensor, Tensor]:
        for (m, _, k), weight, bias in zip(shapes, weights, biases, strict=True):
            out = F.linear(inputs[k][: clips * m], weight, bias)
        return out, out

    no_frames = frames(config, 1)
    recorded = Recorded(run, no_frames.clone())
    return lambda: recorded(no_frames)


def ways(name: str, sizes: Sequence[int], *, has_hf: bool) -> Iterator[Way]:
    """Everything that is compared for a model."""
    config = ARCHITECTURES[name]
    passes = OnCuda(fast_video(random_model(config).cuda(), DTYPE), "cuda")
    host_BTHWC = frames(config, 1, "cpu")
    list(passes(host_BTHWC))  # chooses the size
    assert passes.size is not None
    sizes = sizes or [passes.size]
    plain = FastVideo(random_model(config).cuda(), DTYPE)
    yield Way("plain", sizes[0], partial(plain, frames(config, sizes[0])))
    for size in sizes:
        some_BTHWC = frames(config, size)
        yield Way("fused", size, partial(Recorded(passes.encoder, some_BTHWC.clone()), some_BTHWC))
    many_BTHWC = frames(config, HOST_PASSES * passes.size, "cpu")
    yield Way("from the host", len(many_BTHWC), lambda: list(passes(many_BTHWC)))
    if has_hf:
        yield from hf_ways(name)


def hf_ways(name: str) -> Iterator[Way]:
    """HuggingFace's model, as it is and compiled."""
    config, clips = ARCHITECTURES[name], HF_BATCHES[name]
    hf = hf_model(name)
    if isinstance(hf, str):
        print(hf)
        return
    hf = hf.to("cuda", DTYPE)
    some_BTHWC = frames(config, clips)
    encode = hf_encode(hf, config, DTYPE)
    yield Way("HF", clips, lambda: encode(some_BTHWC))
    hf.vision_model.compile()  # in place
    hf.mit.compile()
    yield Way("HF, compiled", clips, lambda: encode(some_BTHWC))


def seconds(way: Way) -> float:
    """Of one pass, by the device's clock; from the host by the wall's, with all transfers."""
    if way.name == "from the host":
        torch.cuda.synchronize()
        began = time.perf_counter()
        way.run()
        return time.perf_counter() - began
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(PASSES):
        way.run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / PASSES


def measure(name: str, rounds: int, sizes: Sequence[int], *, has_hf: bool) -> list[dict[str, object]]:
    """What each way takes for a model."""
    config = ARCHITECTURES[name]
    macs = cost.clip_macs(config)
    rows = []
    for way in ways(name, sizes, has_hf=has_hf):
        way.run()
        way.run()
        taken_s = [seconds(way) for _ in range(rounds)]
        rows.append((way.name, way.clips, macs, taken_s))
    size = next(clips for label, clips, *_ in rows if label == "fused")
    of_products = sum(m * n * k for m, n, k in layer_shapes(config))
    alone = Way("products alone", size, products(config, size))
    alone.run()
    rows.insert(0, (alone.name, size, of_products, [seconds(alone) for _ in range(rounds)]))
    return [
        {
            "model": name,
            "way": label,
            "clips": clips,
            "pass_s": statistics.median(taken_s),
            "clips_per_s": clips / statistics.median(taken_s),
            "tflops": 2e-12 * count * clips / statistics.median(taken_s),
        }
        for label, clips, count, taken_s in rows
    ]


def shown(rows: Sequence[dict[str, object]], peak_tflops: float | None) -> list[list[str]]:
    """The table's rows."""
    alone = float(rows[0]["tflops"])  # type: ignore[arg-type]
    return [
        [
            f"{row['model']}, {row['way']}",
            str(row["clips"]),
            f"{1e3 * row['pass_s']:.2f}",
            f"{row['clips_per_s']:.0f}",
            f"{row['tflops']:.0f}",
            f"{100 * row['tflops'] / peak_tflops:.1f} %" if peak_tflops else "",
            f"{100 * row['tflops'] / alone:.0f} %",
        ]
        for row in rows
    ]


def main(names: Sequence[str], rounds: int, sizes: Sequence[int], *, has_hf: bool) -> None:
    """Prints the table and appends it to build/bench/encode_cuda.jsonl."""
    device = torch.cuda.get_device_name()
    peak = next((peak for part, peak in PEAK_TFLOPS.items() if part in device), None)
    print(f"torch {torch.__version__}, {device}, peak {peak} TFLOP/s")
    head = ["model and way", "clips a pass", "ms a pass", "clips/s", "TFLOP/s", "of the peak", "of the products"]
    found, cells = [], []
    for name in names:
        rows = measure(name, rounds, sizes, has_hf=has_hf)
        found += rows
        cells += shown(rows, peak)
    print(harness.table(head, cells))
    harness.record("encode_cuda", {"device": device, "rounds": rounds, "ways": found})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["B/32", "B/16", "L/14"], metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-hf", action="store_true")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[], help="clips of passes; else that of `footage index`"
    )
    given = parser.parse_args()
    if unknown := set(given.models) - set(HF_BATCHES):
        parser.error(f"no model is called {', '.join(sorted(unknown))}; expected any of {', '.join(HF_BATCHES)}")
    main(given.models, given.rounds, given.sizes, has_hf=not given.no_hf)
