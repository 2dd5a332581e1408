"""How fast models encode clips here: clips per second, and what that is of the arithmetic they need.

    python benchmarks/encode_models.py [--threads N] [--device cuda]

The embedded model, and B/32, B/16 and L/14 with random weights, whose speed is that of the released ones: nothing is
downloaded. Frames are random and made beforehand, so that decoding is no part of it. Each model and batch size has five
rounds after one that does not count, and their median is printed. Figures are of this machine in this run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from xclip_core import XClip, XClipConfig, cost, encode_video_with_context, load
from xclip_core.model import without_values
from xclip_core.released import ARCHITECTURES

ROUNDS = 5
BATCHES = (1, 2)


def main(threads: int, device: str) -> None:
    """Prints a line per model and batch size."""
    torch.set_num_threads(threads)
    print(f"torch {torch.__version__}, {device}, {threads} threads")
    print("model                 clips  median s   clips/s   GMAC/s")
    for name, model in _models(device):
        for clips in BATCHES:
            seconds = statistics.median(_rounds(model, clips))
            speed = clips / seconds
            rate = speed * cost.clip_macs(model.config) / 1e9
            print(f"{name:<20} {clips:>6} {seconds:>9.3f} {speed:>9.2f} {rate:>8.1f}")
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def _models(device: str) -> Iterator[tuple[str, XClip]]:
    """Models one after the other, smallest first: two of the largest at once need not fit."""
    yield "footage-tiny", load("footage-tiny", device=device)
    for name, config in ARCHITECTURES.items():
        yield f"{name}, 8 frames", _random(config).to(device)


def _random(config: XClipConfig) -> XClip:
    """A model of random weights: zeros, or memory as it comes, would not be as fast or as slow as numbers."""
    model = without_values(config).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.02, generator=generator)
    return model.requires_grad_(requires_grad=False).eval()


def _rounds(model: XClip, clips: int) -> Iterator[float]:
    """Seconds of each round, after one that does not count."""
    config = model.config
    shape = (clips, config.frames, config.image_size, config.image_size, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    _encode(model, frames)
    for _ in range(ROUNDS):
        began = time.perf_counter()
        _encode(model, frames)
        yield time.perf_counter() - began


def _encode(model: XClip, frames_BTHWC: Tensor) -> None:
    """One pass, B x T x S x S x 3 in; ends when the device has finished."""
    encode_video_with_context(model, frames_BTHWC)[0].cpu()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    main(given.threads, given.device)
