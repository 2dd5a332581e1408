"""Clips through an encoder on a GPU, in passes of one size, so that the GPU never waits for the host.

While a pass is computed the next one is uploaded from pinned memory on a second stream, and the vectors of the one
before come back. A pass of our own encoder is recorded once as a CUDA graph: a few hundred small kernels would
otherwise be launched one by one. The size is found by trying, and halved when memory runs out.
"""

# N clips, B clips of a pass, T frames, S pixels, E joint dimension, P patches

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

# The first size of a pass and the last, doubled between: a call has some 256 clips (`embed.CLIPS_PER_CUDA_CALL`), which
# whole passes should fill. On an H200 models of 32-pixel patches reach 48 % of the peak with 64 clips, 53 % with 128.
SIZES = (16, 128)
NEAR_ENOUGH = 0.99  # of the best speed: the smallest pass that has it is taken
TIMED_PASSES = 3

Vectors = tuple[Tensor, Tensor]  # B x E and contexts B x P x E
Encode = Callable[[Tensor], Vectors]


class OnCuda:
    """Vectors of clips, on the CPU, by passes of one size on a CUDA device; the last pass is filled up."""

    def __init__(self, encoder: Encode, device: str) -> None:
        self.encoder, self.device = encoder, torch.device(device)
        self.size: int | None = None
        self._copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._encode: Encode | None = None  # passes of `size`

    def __str__(self) -> str:
        return f"{self.size} clips a pass"

    def __call__(self, frames_NTHWC: Tensor) -> Iterator[Vectors]:
        """Vectors of passes; a pass that does not fit into memory is done again in halves, as are all after it."""
        while len(frames_NTHWC):
            try:
                size, encode = self._ready(frames_NTHWC[:1])
                for done in self._passes(encode, frames_NTHWC, size):
                    yield done
                    frames_NTHWC = frames_NTHWC[size:]
            except torch.OutOfMemoryError:
                if not self.size or self.size == 1:
                    raise
                self.size, self._encode = self.size // 2, None
                torch.cuda.empty_cache()

    def _ready(self, frames_1THWC: Tensor) -> tuple[int, Encode]:
        """The size of passes, and what encodes one; frames are 1 x T x S x S x C, to try it with."""
        if self.size is None:
            self.size = best_size(lambda size: self._speed(frames_1THWC, size), SIZES)
        if self._encode is None:
            self._encode = self._prepared(frames_1THWC, self.size)
        return self.size, self._encode

    def _prepared(self, frames_1THWC: Tensor, size: int) -> Encode:
        """What encodes passes of a size: recorded where that is known to do, which it is of our own encoder."""
        if not isinstance(self.encoder, nn.Module):
            return self.encoder
        with torch.cuda.device(self.device):
            return Recorded(self.encoder, filled(frames_1THWC, size).to(self.device))

    def _speed(self, frames_1THWC: Tensor, size: int) -> float:
        """Clips per second by passes of a size, 0 where one does not fit into memory."""
        try:
            encode = self._prepared(frames_1THWC, size)
            frames_BTHWC = filled(frames_1THWC, size).to(self.device)
            encode(frames_BTHWC)
            torch.cuda.synchronize(self.device)
            began = time.perf_counter()
            for _ in range(TIMED_PASSES):
                encode(frames_BTHWC)
            torch.cuda.synchronize(self.device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return 0.0
        return TIMED_PASSES * size / (time.perf_counter() - began)

    def _passes(self, encode: Encode, frames_NTHWC: Tensor, size: int) -> Iterator[Vectors]:
        """Vectors of passes, each handed out when the next pass is under way."""
        waiting: tuple[Vectors, torch.cuda.Event] | None = None
        for count, frames_BTHWC in self._uploaded(torch.split(frames_NTHWC, size), size):
            video_BE, context_BPE = encode(frames_BTHWC)
            coming = (_to_host(video_BE[:count]), _to_host(context_BPE[:count])), self._event()
            if waiting is not None:
                yield _arrived(*waiting)
            waiting = coming
        if waiting is not None:
            yield _arrived(*waiting)

    def _event(self) -> torch.cuda.Event:
        """Passes when all that was asked of the device so far is done."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _uploaded(self, passes: Iterable[Tensor], size: int) -> Iterator[tuple[int, Tensor]]:
        """Passes on the device and how many clips each has without its filling; the next one is under way already."""
        waiting: tuple[int, Tensor, Tensor] | None = None
        for frames_BTHWC in passes:
            # Pinned frames must live until they are copied: they are kept until their pass is handed out.
            pinned = filled(frames_BTHWC, size).pin_memory()
            with torch.cuda.stream(self._copies):
                coming = len(frames_BTHWC), pinned.to(self.device, non_blocking=True), pinned
            if waiting is not None:
                yield self._uploaded_one(*waiting[:2])
            waiting = coming
        if waiting is not None:
            yield self._uploaded_one(*waiting[:2])

    def _uploaded_one(self, count: int, frames_BTHWC: Tensor) -> tuple[int, Tensor]:
        """The pass, for the stream that computes."""
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._copies)
        frames_BTHWC.record_stream(computing)
        return count, frames_BTHWC


class Recorded:
    """An encoder's pass of one size, recorded as a CUDA graph. Vectors are the device's until the next call.

    Raises OutOfMemoryError where the pass does not fit into memory.
    """

    def __init__(self, encoder: Encode, frames_BTHWC: Tensor) -> None:
        self._frames_BTHWC = frames_BTHWC
        # Once without recording, on a stream of its own, as torch's notes on graphs ask: kernels are compiled then.
        side, computing = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        side.wait_stream(computing)
        with torch.cuda.stream(side):
            encoder(frames_BTHWC)
        computing.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._made = encoder(frames_BTHWC)

    def __call__(self, frames_BTHWC: Tensor) -> Vectors:
        """Frames B x T x S x S x 3, uint8, of the size recorded, on the same device, to vectors and contexts."""
        self._frames_BTHWC.copy_(frames_BTHWC)
        self._graph.replay()
        return self._made


def _to_host(vectors: Tensor) -> Tensor:
    """Vectors B x E, or contexts B x P x E, on their way to pinned memory."""
    return torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True).copy_(vectors, non_blocking=True)


def _arrived(vectors: Vectors, event: torch.cuda.Event) -> Vectors:
    event.synchronize()
    return vectors


def filled(frames_BTHWC: Tensor, size: int) -> Tensor:
    """Clips, and black ones up to a number of them."""
    if len(frames_BTHWC) == size:
        return frames_BTHWC
    return torch.cat([frames_BTHWC, frames_BTHWC.new_zeros(size - len(frames_BTHWC), *frames_BTHWC.shape[1:])])


def best_size(speed: Callable[[int], float], sizes: tuple[int, int]) -> int:
    """The smallest size, of the first and its doublings up to the last, that comes near the best speed.

    All are tried up to one that does not fit: a GPU that was idle is quicker for a moment, so that a doubling that does
    not pay says little of the next.
    """
    size, last = sizes
    speeds = {size: speed(size)}
    while 2 * size <= last and speeds[size]:
        size *= 2
        speeds[size] = speed(size)
    return next(size for size, each in speeds.items() if each >= NEAR_ENOUGH * max(speeds.values()))
