"""Decoded clips to vectors and prompt contexts: the stage that holds the model.

The stage travels as its settings and loads the model where it runs. Clips of several units share calls, and a clip's
vector does not depend on its neighbours. On a CPU each pass is one thread's, several at a time, which share the
weights: products of a few clips gain nothing from being split further. In float32 clips go through one by one, since
sums of more would round by their number; that costs 5 %, and bfloat16 needs no such care. Products are of bytes where
that is faster and some of the first clips show that they keep near to the model (`xclip_core.quantised`).
On CUDA: `pipeline.cuda_passes`.
"""

# N clips, B clips of a pass, T frames, S pixels, C = 3 channels, E joint dimension, P patches

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.contexts import PACKERS
from pipeline.cuda_passes import OnCuda, Vectors
from pipeline.settings import ContextCode, FramePrecision
from schemas.errors import InputError
from schemas.records import DecodedUnit, EmbeddedUnit
from xclip_core import load_encoder
from xclip_core.config import ModelConfig, XClipConfig
from xclip_core.cost import widest_layer
from xclip_core.fast import fast_video, faster_dtype
from xclip_core.quantised import ByteVideo, byte_levels, byte_video, pays

CLIPS_PER_PASS = 16  # at most, in bfloat16 on a CPU
# By so many, or one for each thread, it is told whether bytes keep near to a model. They are encoded twice more, which
# a run of fewer than CLIPS_WORTH_TRYING does not make up for.
CLIPS_COMPARED, CLIPS_WORTH_TRYING = 4, 24
# What a layer of a pass gives out at most: beyond 32 MB glibc fetches pages anew for each (`mallopt(3)`), which the
# system clears first. That took 6 % of the time.
LAYER_BYTES = 20_000_000

# Clips that wait for one another until a call of the stage begins: many for each thread, since one of them has a clip
# more to do than the others while those wait; or a few passes of a GPU.
CLIPS_PER_THREAD = 16
MOST_CLIPS_PER_CALL = 128  # 154 MB of frames of 224 pixels
CLIPS_PER_CUDA_CALL = 256


def device_named(name: str) -> str:
    """`auto` as the best device there is."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def check_precision(precision: FramePrecision, device: str, *, is_here: bool = True) -> None:
    """Raises InputError where int8 is asked of a GPU, and ModelError where it is of a CPU that cannot do it.

    `is_here`: whether this machine is the one that embeds.
    """
    if precision != "int8":
        return
    if device.startswith("cuda"):
        raise InputError("--precision int8 is for CPUs, and a GPU embeds here; expected auto, bfloat16 or float32")
    if is_here:
        byte_levels()


def clips_per_call(device: str, threads: int) -> int:
    """About how many clips a call of the stage should get."""
    if device.startswith("cuda"):
        return CLIPS_PER_CUDA_CALL
    return max(4 * threads, min(CLIPS_PER_THREAD * threads, MOST_CLIPS_PER_CALL))


def clips_per_pass(config: ModelConfig, dtype: torch.dtype) -> int:
    """How many clips a thread of a CPU encodes at a time, at most."""
    if dtype != torch.bfloat16:
        return 1
    if not isinstance(config, XClipConfig):
        return CLIPS_PER_PASS
    return max(1, min(CLIPS_PER_PASS, LAYER_BYTES // (widest_layer(config) * dtype.itemsize)))


@dataclass(frozen=True)
class Embed:
    """Units of decoded clips to units of embedded ones."""

    model_source: str
    context: ContextCode
    device: str = "cpu"
    frames: int | None = None
    image_size: int | None = None
    precision: FramePrecision = "auto"
    threads: int = 1  # of a CPU
    clips: int | None = None  # of the whole run, if that is known

    @cached_property
    def dtype(self) -> torch.dtype:
        """What the frames are encoded in; in bytes, what lies between the products."""
        return faster_dtype(self.device) if self.precision in {"auto", "int8"} else getattr(torch, self.precision)

    @cached_property
    def encode(self) -> Callable[[Tensor], Iterator[Vectors]]:
        """Frames N x T x S x S x 3 to the vectors of passes, in order; the model is loaded on first use.

        Raises as `check_precision`, and ModelError for a model that cannot be had or not in bytes.
        """
        check_precision(self.precision, self.device)
        model = load_encoder(self.model_source, frames=self.frames, image_size=self.image_size, device=self.device)
        if self.device.startswith("cuda"):
            return OnCuda(fast_video(model, self.dtype), self.device)
        is_asked = self.precision == "int8"
        if is_asked or self._tries_bytes(model.config):
            encoder: Callable[[Tensor], Vectors] = byte_video(model, self.dtype, is_asked=is_asked)
        else:
            encoder = fast_video(model, self.dtype)
        return OnCpu(encoder, self.threads, clips_per_pass(model.config, self.dtype))

    def _tries_bytes(self, config: ModelConfig) -> bool:
        """Whether clips are encoded in bytes, unasked, as far as is known before the first."""
        is_worth_it = self.clips is None or self.clips >= CLIPS_WORTH_TRYING
        return self.precision == "auto" and is_worth_it and pays(config, self.dtype)

    def __call__(self, units: list[DecodedUnit]) -> list[EmbeddedUnit]:
        """One embedded unit for each decoded one, in order."""
        began = time.perf_counter()
        # One array for all units: passes are filled across their borders.
        frames_NTHWC = np.concatenate([unit.frames_NTHWC for unit in units])
        embedding_NE, contexts = self._forward(frames_NTHWC)
        per_clip_s = (time.perf_counter() - began) / len(frames_NTHWC)
        edges = pairwise(accumulate((len(unit.windows) for unit in units), initial=0))
        in_bytes = isinstance(self.encode, OnCpu) and self.encode.in_bytes
        encoder = f"{'int8' if in_bytes else str(self.dtype).removeprefix('torch.')} on {self.device}, {self.encode}"
        return [
            EmbeddedUnit(
                unit=unit.unit,
                windows=unit.windows,
                thumbnails=unit.thumbnails,
                embedding_NE=embedding_NE[first:last],
                contexts=tuple(contexts[first:last]),
                intact_samples=unit.intact_samples,
                decode_s=unit.decode_s,
                embed_s=per_clip_s * (last - first),
                fallback=unit.fallback,
                encoder=encoder,
            )
            for unit, (first, last) in zip(units, edges, strict=True)
        ]

    def _forward(self, frames_NTHWC: NDArray[np.uint8]) -> tuple[NDArray[np.float32], list[bytes]]:
        """Frames N x T x S x S x 3 to vectors N x E at float16 precision, and N stored contexts."""
        pack = PACKERS[self.context]
        vectors, contexts = [], []
        for video_BE, context_BPE in self.encode(torch.from_numpy(frames_NTHWC)):
            vectors.append(video_BE.numpy())
            contexts += [pack(context_PE) for context_PE in context_BPE.numpy()]
        return np.concatenate(vectors).astype(np.float16).astype(np.float32), contexts


class OnCpu:
    """Passes of at most so many clips, as many passes at a time as there are threads."""

    def __init__(self, encoder: Callable[[Tensor], Vectors], threads: int, most: int) -> None:
        self.encoder, self.threads, self.most = encoder, threads, most
        # Each thread's own products use one thread: set in the threads, for it is theirs and not the process's.
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    @property
    def in_bytes(self) -> bool:
        """Whether clips are encoded in bytes, as far as is known by now."""
        return isinstance(self.encoder, ByteVideo) and self.encoder.in_bytes

    def __str__(self) -> str:
        said = f"{self.threads} threads"
        if not isinstance(self.encoder, ByteVideo) or self.encoder.closeness is None:
            return said
        near = f"median cosine of the first clips {self.encoder.closeness:.4f}"
        return f"{said}, {near if self.in_bytes else f'int8 too coarse, {near}, least {min(self.encoder.cosines):.4f}'}"

    def __call__(self, frames_NTHWC: Tensor) -> Iterator[Vectors]:
        """Vectors of passes that are as equal in size as can be."""
        if isinstance(self.encoder, ByteVideo) and self.encoder.closeness is None:
            self._settle(self.encoder, frames_NTHWC)
        count = len(frames_NTHWC)
        passes = min(count, -(-count // (self.most * self.threads)) * self.threads)
        yield from self._pool.map(self.encoder, torch.tensor_split(frames_NTHWC, passes))

    def _settle(self, encoder: ByteVideo, frames_NTHWC: Tensor) -> None:
        """Has it decided by some clips whether bytes will do: not by the very first, which may all be of one scene."""
        count = min(len(frames_NTHWC), max(CLIPS_COMPARED, self.threads))
        encoder.settle(frames_NTHWC[torch.arange(count) * len(frames_NTHWC) // count], self._pool.map)
