"""How near shortcuts come to the reference: `python benchmarks/closeness.py VIDEOS [--model MODEL]`.

The reference decodes everything, takes the very frames, and prepares them as the model's authors do (`preprocess`:
bilinear on RGB, no antialiasing), in float32. Each shortcut changes one thing, and the last row all that a run does by
default. Printed are cosines between the clips' vectors and the reference's, over all clips of all videos, and how many
of the ten nearest clips of each clip (its own video's left out) are the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import Interpolation
from numpy.typing import NDArray
from torch.nn import functional as F

from pipeline import decode, demux, plan, sources
from pipeline.settings import IndexSettings, Sampling
from schemas.errors import ModelError, VideoError
from schemas.records import HashedFile, Unit
from xclip_core import Encoder, encode_video, load_encoder
from xclip_core.fast import FastVideo, fast_video, faster_dtype
from xclip_core.geometry import crop_offset, resized_shape, squeezed
from xclip_core.preprocess import resize_and_crop
from xclip_core.quantised import byte_levels, encode, rounded

Picture = NDArray[np.uint8]
Scale = Callable[[av.VideoFrame, int], Picture]
NEAREST = 10
EMBEDDED = IndexSettings().sampling(8)  # whose tolerance is less than that of others


def reference(frame: av.VideoFrame, size: int) -> Picture:
    """The authors' preprocessing of one frame, S x S x 3."""
    rgb = frame.to_ndarray(format="rgb24")
    return resize_and_crop(torch.from_numpy(rgb)[None], size)[0].numpy()


def swscale(interpolation: Interpolation) -> Scale:
    """Straight from YUV to the model's size."""

    def scale(frame: av.VideoFrame, size: int) -> Picture:
        height, width = squeezed(resized_shape(frame.height, frame.width, size))
        picture = frame.reformat(width=width, height=height, format="rgb24", interpolation=interpolation).to_ndarray()
        top, left = crop_offset(height, size), crop_offset(width, size)
        return picture[top : top + size, left : left + size]

    return scale


def one_pass(source: HashedFile, unit: Unit, size: int, scale: Scale, loop_filter: str) -> Picture:
    """The unit's very frames N x T x S x S x 3, by a pass over everything."""
    taken: dict[int, Picture] = {}
    wanted = {_tick(moment) for window in unit.windows for moment in window.frame_times_s}
    options = {"skip_loop_filter": loop_filter} if loop_filter else demux.NO_OPTIONS
    with demux.opened(source.file.uri, None, options) as (container, stream):
        zero_s = demux.origin_s(container)
        for packet in demux.each_packet(container, stream):
            for frame in packet.decode():
                if frame.time is not None and _tick(frame.time - zero_s) in wanted:
                    taken[_tick(frame.time - zero_s)] = scale(frame, size)
    return np.stack([np.stack([taken[_tick(moment)] for moment in window.frame_times_s]) for window in unit.windows])


def _tick(time_s: float) -> int:
    """A time in microseconds: floats that mean the same frame differ in their last digits."""
    return round(time_s * 1e6)


def product(source: HashedFile, _unit: Unit, size: int, tolerance_s: float | None) -> Picture:
    """What the product decodes; tolerance None is a quarter of the step between samples."""
    video = demux.inspect(source, Sampling(tolerance_s=tolerance_s))
    units = plan.plan_video(video, None, {}, 0, "space").units
    return np.concatenate([decode.decode(unit, size).frames_NTHWC for unit in units])


Way = Callable[[HashedFile, Unit, int], Picture]


def ways() -> dict[str, Way]:
    """The reference first, then each shortcut alone, then all together."""
    area = swscale(Interpolation.AREA)

    def passes(scale: Scale, loop_filter: str = "") -> Way:
        return lambda source, unit, size: one_pass(source, unit, size, scale, loop_filter)

    return {
        "reference": passes(reference),
        "area, straight from YUV": passes(area),
        "bilinear, straight from YUV": passes(swscale(Interpolation.BILINEAR)),
        "bicubic, straight from YUV": passes(swscale(Interpolation.BICUBIC)),
        "area, no loop filter on frames nobody references": passes(area, "noref"),
        "area, no loop filter": passes(area, "all"),
        "product, tolerance 0": lambda source, unit, size: product(source, unit, size, 0.0),
        "product, default tolerance of the embedded model": lambda *given: product(*given, EMBEDDED.tolerance_s),
        "product, default tolerance of others": lambda *given: product(*given, None),
    }


def clips(folder: Path, size: int) -> Iterator[tuple[str, dict[str, Picture]]]:
    """Each video's clips by every way; damaged videos, of which a way gets other clips, are left out."""
    for file in sources.take_inventory(folder):
        try:
            source = sources.fingerprint(file)
            unit = plan.plan_video(demux.inspect(source, Sampling()), None, {}, 0, "space").units[0]
            found = {name: way(source, unit, size) for name, way in ways().items()}
        except (VideoError, KeyError, ValueError, av.FFmpegError):
            continue
        if len({len(frames) for frames in found.values()}) == 1:
            yield file.uri, found


def vectors(model: Encoder, frames: Picture) -> NDArray[np.float32]:
    """Clips N x T x S x S x 3 to unit vectors N x E."""
    parts = torch.split(torch.from_numpy(frames), 8)
    return np.concatenate([encode_video(model, part).numpy() for part in parts])


def nearest(vectors_NE: NDArray[np.float32], videos_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """The NEAREST clips of other videos for each of N clips."""
    scores_NN = vectors_NE @ vectors_NE.T
    scores_NN[videos_N[:, None] == videos_N] = -np.inf
    return np.argsort(-scores_NN, axis=1, kind="stable")[:, :NEAREST]


def coarser(name: str) -> dict[str, Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]]:
    """Encoders of a model that are quicker than float32, where this machine has what they need."""
    found: dict[str, Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]] = {
        "bfloat16": fast_video(load_encoder(name), torch.bfloat16)
    }
    try:
        in_bytes = rounded(FastVideo(load_encoder(name), faster_dtype("cpu")), byte_levels())
        found["int8"] = partial(encode, in_bytes)
    except ModelError as error:
        print(f"int8 left out: {error}")
    return found


def main(folder: Path, name: str) -> None:
    """Prints the table."""
    model, encoders = load_encoder(name), coarser(name)
    made: dict[str, list[NDArray[np.float32]]] = {}
    owners: list[int] = []
    for number, (_, found) in enumerate(clips(folder, model.config.image_size)):
        owners += [number] * len(found["reference"])
        for way, frames in found.items():
            made.setdefault(way, []).append(vectors(model, frames))
        for way in ("reference", "product, default tolerance of the embedded model"):
            for precision, encoder in encoders.items():
                short = F.normalize(encoder(torch.from_numpy(found[way]))[0], dim=-1).numpy()
                made.setdefault(f"{way}, {precision}", []).append(short)
    whole = {way: np.concatenate(parts) for way, parts in made.items()}
    videos_N = np.array(owners)
    order = nearest(whole["reference"], videos_N)
    rows = []
    for way, vectors_NE in whole.items():
        cosines = np.sum(vectors_NE * whole["reference"], axis=1)
        same = [len(set(a) & set(b)) / NEAREST for a, b in zip(nearest(vectors_NE, videos_N), order, strict=True)]
        low, middle = np.percentile(cosines, [5, 50])
        rows.append([way, f"{middle:.5f}", f"{low:.5f}", f"{cosines.min():.5f}", f"{np.mean(same):.3f}"])
    print(f"{len(videos_N)} clips of {len(set(owners))} videos, {name}")
    for row in (["way", "median cosine", "5th percentile", "least", f"of the {NEAREST} nearest"], *rows):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--model", default="footage-tiny")
    given = parser.parse_args()
    main(given.videos, given.model)
