"""How fast models encode clips on this machine's CPU, against the arithmetic they need and against HuggingFace's code.

    python -m benchmarks.encode [MODEL ...] [--rounds 3] [--dtypes float32] [--compile]

    models: footage-tiny B/32 B/16 L/14

The embedded model, and architectures of the released ones with random weights, whose speed is the same: nothing is
downloaded. Frames are made beforehand, so that decoding is no part of it. The ways to encode take turns in one process,
each on all cores; figures are medians over rounds after one that does not count.

    products alone    nothing but the matrix products of the model's linear layers, in its shapes, on as many threads as
                      footage uses: how fast this machine multiplies at best
    reference         `encode_video_with_context`, clip by clip: the model as it is to be read
    footage           `xclip_core.fast` and, with int8 products, `xclip_core.quantised`, as `footage index` uses them
    HF                XCLIPModel.get_video_features of transformers, clip by clip or eight at a time

MFU is a way's GMAC per second, by the model's own arithmetic (`xclip_core.cost`), to those of the products alone in the
same dtype, for int8 products to those in the dtype between them. One GMAC is two GFLOP.
"""

# B clips, T frames, S pixels, P pixels of a patch, N patches, L = N + 1 tokens, D width, E joint dimension, C = 3

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from benchmarks import harness, videos
from benchmarks.decoders import all_threads
from pipeline.embed import OnCpu, clips_per_pass
from schemas.errors import ModelError
from xclip_core import XClip, XClipConfig, cost, encode_video_with_context, load
from xclip_core.fast import fast_video, faster_dtype
from xclip_core.model import without_values
from xclip_core.preprocess import normalise
from xclip_core.quantised import byte_video
from xclip_core.released import ARCHITECTURES

EMBEDDED = "footage-tiny"
CLIPS = {EMBEDDED: 128, "B/32": 16, "B/16": 8, "L/14": 4}  # encoded by one way in one round
HF_BATCH = 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Encode = Callable[[Tensor], object]  # B x T x S x S x C, uint8


@dataclass(frozen=True, slots=True)
class Way:
    """One way to encode clips."""

    name: str
    dtype: torch.dtype
    encode: Encode


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one clip."""

    cpu_s: float
    wall_s: float


class Products:
    """The products of a model's linear layers and no more, as one pass of clips makes them."""

    def __init__(self, config: XClipConfig, dtype: torch.dtype) -> None:
        self.shapes = list(layer_shapes(config))
        generator = torch.Generator().manual_seed(2)
        # Weights of their own for each layer: those of one would stay in the cache.
        self._weights = [torch.randn(n, k, generator=generator).to(dtype) for _, n, k in self.shapes]
        B = clips_per_pass(config, dtype)
        self._inputs = {k: torch.randn(B * m, k, generator=generator).to(dtype) for m, k in _largest(self.shapes)}

    @property
    def macs(self) -> int:
        """Of one clip."""
        return sum(m * n * k for m, n, k in self.shapes)

    @torch.inference_mode()
    def __call__(self, frames_BTHWC: Tensor) -> None:
        """As many products as clips B x T x S x S x C need; the clips themselves are not looked at."""
        B = len(frames_BTHWC)
        for (m, _, k), weight in zip(self.shapes, self._weights, strict=True):
            F.linear(self._inputs[k][: B * m], weight)


def _largest(shapes: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """For each width of inputs, the most rows that any layer has."""
    for k in {k for _, _, k in shapes}:
        yield max(m for m, _, width in shapes if width == k), k


def layer_shapes(config: XClipConfig) -> Iterator[tuple[int, int, int]]:
    """Rows, outputs and inputs of each linear layer that works on tokens, for one clip."""
    T, N, P, D = config.frames, config.patches, config.patch_size, config.vision_width
    L = N + 1
    yield T * N, D, 3 * P * P
    for _ in range(config.vision_layers):
        yield from ((T * (L + 1), 3 * D, D), (T * (L + 1), D, D), (T * L, 4 * D, D), (T * L, D, 4 * D))
    yield T, config.embed_dim, D


# --- models and ways


def random_model(config: XClipConfig) -> XClip:
    """A model of random weights: zeros, or memory as it comes, would not be as fast or as slow as numbers."""
    model = without_values(config).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.02, generator=generator)
    return model.requires_grad_(requires_grad=False).eval()


def model_named(name: str) -> XClip:
    """A model of its own each time: `fast_video` takes over what it is given."""
    return load(EMBEDDED) if name == EMBEDDED else random_model(ARCHITECTURES[name])


def hf_model(name: str) -> nn.Module | str:
    """The same model as transformers has it, or why there is none."""
    try:
        from tests.models import official_name
        from tests.xclip_core.reference import hf_model as made
    except ImportError as error:
        return f"{harness.MISSING}: {error}"
    model = model_named(name)
    return made(model.config, {official_name(key): tensor for key, tensor in model.state_dict().items()})


def ways(name: str, threads: int, dtypes: Sequence[torch.dtype], *, compiled: bool) -> Iterator[Way]:
    """Everything that is compared for a model."""
    config = model_named(name).config
    for dtype in dtypes:
        yield Way("products alone", dtype, on_threads(Products(config, dtype), threads, config, dtype))
    yield Way("reference", torch.float32, clip_by_clip(partial(encode_video_with_context, model_named(name)), threads))
    for dtype in dtypes:
        yield Way("footage", dtype, on_threads(fast_video(model_named(name), dtype), threads, config, dtype))
    with suppress(ModelError):  # a CPU that multiplies no bytes
        if (between := faster_dtype("cpu")) not in dtypes:
            print(f"int8 left out: {between} would lie between its products, and that was not asked for")
        else:
            bytewise = on_threads(byte_video(model_named(name), between), threads, config, between)
            yield Way("footage, int8 products", between, bytewise)
    for dtype in dtypes:
        batch, hf = HF_BATCH if dtype == torch.bfloat16 else 1, hf_model(name)
        if isinstance(hf, str):
            return
        encode = hf_encode(hf.to(dtype), config, dtype)
        yield Way(f"HF, batches of {batch}", dtype, clip_by_clip(encode, threads, batch))
        if compiled:
            compiled_hf = hf_encode(torch.compile(hf), config, dtype)
            yield Way(f"HF, batches of {batch}, compiled", dtype, clip_by_clip(compiled_hf, threads, batch))
    if compiled:
        for dtype in dtypes:
            with patch("xclip_core.fast.packs", return_value=False):  # the compiler wants weights as they are
                fast = fast_video(model_named(name), dtype)
            fast.visual.compile()
            yield Way("footage, compiled", dtype, on_threads(fast, threads, config, dtype))


def on_threads(encode: Encode, threads: int, config: XClipConfig, dtype: torch.dtype) -> Encode:
    """As `pipeline.embed` does it: passes of one thread each, side by side."""
    passes = OnCpu(encode, threads, clips_per_pass(config, dtype))
    return lambda frames_BTHWC: list(passes(frames_BTHWC))


def clip_by_clip(encode: Encode, threads: int, batch: int = 1) -> Encode:
    """Batch after batch, each on all threads, as a loop over clips would."""

    def run(frames_BTHWC: Tensor) -> object:
        torch.set_num_threads(threads)
        return [encode(some_BTHWC) for some_BTHWC in torch.split(frames_BTHWC, batch)]

    return run


def hf_encode(hf: nn.Module, config: XClipConfig, dtype: torch.dtype) -> Encode:
    """HuggingFace's model from uint8 frames."""

    @torch.inference_mode()
    def encode(frames_BTHWC: Tensor) -> Tensor:
        pixels_BTCHW = normalise(frames_BTHWC, dtype, mean=config.mean, std=config.std)
        return hf.get_video_features(pixels_BTCHW).pooler_output

    return encode


# --- measuring


def clips(config: XClipConfig, count: int) -> Tensor:
    """Views of textures, B x T x S x S x C, each clip's of its own."""
    side, T = config.image_size, config.frames
    found = [torch.from_numpy(p) for seed in range(count) for p in videos.pictures(T, (side, side), seed)]
    return torch.stack(found).unflatten(0, (count, T))


def cost_of(way: Way, frames_BTHWC: Tensor) -> Cost:
    """What a clip costs."""
    began, worked = time.perf_counter(), time.process_time()
    way.encode(frames_BTHWC)
    B = len(frames_BTHWC)
    return Cost((time.process_time() - worked) / B, (time.perf_counter() - began) / B)


def measure(
    name: str, rounds: int, count: int, dtypes: Sequence[torch.dtype], *, compiled: bool
) -> list[dict[str, object]]:
    """What each way takes for a model."""
    config = model_named(name).config
    frames_BTHWC = clips(config, count)
    found = list(ways(name, all_threads(), dtypes, compiled=compiled))
    first_s = [cost_of(way, frames_BTHWC[: min(count, 2 * HF_BATCH)]).wall_s for way in found]
    todo = {str(number): partial(cost_of, way, frames_BTHWC) for number, way in enumerate(found)}
    taken = list(harness.alternate(todo, rounds).values())
    rows = []
    for way, costs, warm_s in zip(found, taken, first_s, strict=True):
        macs = Products(config, way.dtype).macs if way.name == "products alone" else cost.clip_macs(config)
        wall_s = statistics.median(cost.wall_s for cost in costs)
        rows.append(
            {
                "model": name,
                "way": way.name,
                "dtype": str(way.dtype).removeprefix("torch."),
                "gmac": macs / 1e9,
                "cpu_s": statistics.median(cost.cpu_s for cost in costs),
                "wall_s": wall_s,
                "rates": [macs / 1e9 / cost.wall_s for cost in costs],
                "first_call_s": warm_s * min(count, 2 * HF_BATCH),
            }
        )
    return rows


def shown(rows: Sequence[dict[str, object]]) -> list[list[str]]:
    """The table's rows: MFU is of rates in the same round, and none where their dtype was not asked for."""
    peaks = {row["dtype"]: row["rates"] for row in rows if row["way"] == "products alone"}
    return [
        [
            f"{row['model']}, {row['way']}",
            str(row["dtype"]),
            f"{row['gmac']:.2f}",
            f"{row['cpu_s']:.4f}",
            f"{row['wall_s']:.4f}",
            f"{1 / row['wall_s']:.1f}",
            f"{statistics.median(row['rates']):.0f}",
            f"{100 * harness.ratio(row['rates'], peaks[row['dtype']]):.0f} %"
            if row["dtype"] in peaks
            else harness.MISSING,
            f"{row['first_call_s']:.1f}",
        ]
        for row in rows
    ]


def agreement(threads: int) -> dict[str, float]:
    """How near the embedded model's vectors in bfloat16 are to those in float32, and clips to one another."""
    config = model_named(EMBEDDED).config
    frames_BTHWC = clips(config, 32)
    ways = [on_threads(fast_video(model_named(EMBEDDED), dtype), threads, config, dtype) for dtype in DTYPES.values()]
    plain_BE, short_BE = (torch.cat([video_BE for video_BE, _ in encode(frames_BTHWC)]) for encode in ways)
    between = (plain_BE @ plain_BE.T)[~torch.eye(len(plain_BE), dtype=torch.bool)]
    return {
        "cosine of bfloat16 to float32, least": float((plain_BE * short_BE).sum(-1).min()),
        "cosine of two clips, greatest": float(between.max()),
    }


def main(given: argparse.Namespace) -> None:
    """Prints the table and appends it to build/bench/encode.jsonl."""
    print(f"torch {torch.__version__}, {all_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    dtypes = [DTYPES[name] for name in given.dtypes]
    todo = [(name, given.rounds, given.clips or CLIPS[name], dtypes) for name in given.models]
    found = [measure(*each, compiled=given.compile) for each in todo]
    head = ["model and way", "dtype", "GMAC", "CPU s/clip", "wall s/clip", "clips/s", "GMAC/s", "MFU", "first call (s)"]
    print(harness.table(head, list(chain.from_iterable(map(shown, found)))))
    agreed = agreement(all_threads()) if set(given.dtypes) == set(DTYPES) else {}
    print(*(f"{EMBEDDED}: {what}: {value:.6f}" for what, value in agreed.items()), sep="\n")
    harness.record("encode", {"rounds": given.rounds, "ways": list(chain.from_iterable(found)), "agreement": agreed})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[EMBEDDED, "B/32", "B/16"], metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--clips", type=int, help="of one way in one round, if not as many as the model's size suggests"
    )
    parser.add_argument(
        "--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="of frames; int8 comes with the faster one"
    )
    parser.add_argument("--compile", action="store_true", help="also by torch.compile; the first call compiles")
    given = parser.parse_args()
    if unknown := set(given.models) - set(CLIPS):
        parser.error(f"no model is called {', '.join(sorted(unknown))}; expected any of {', '.join(CLIPS)}")
    main(given)
