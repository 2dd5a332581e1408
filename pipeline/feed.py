"""Labelled videos to batches of frames, decoded in background processes while the model works.

What a batch holds depends on the seed, the epoch and the example alone: not on the number of processes, on what was
drawn before, or on where a run was killed. A video that does not decode is left out of its batch and named. Decoding is
the indexer's, one pass per clip; a hung decoder ends the run after a while, and the run can be resumed.
"""

# B clips, T frames, H x W pixels, S model size, C = 3 channels

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline import decode, demux, sampling, sources
from pipeline.labelled import Example
from pipeline.protocols import Schedule
from schemas.errors import EngineError, VideoError
from xclip_core.augment import training_view
from xclip_core.geometry import crop_offset, resized_side

NO_LABEL = -1  # of the blank clip that stands in where no video of a micro-batch could be decoded
MAX_PROCESSES = 8
HUNG_S = 600.0  # no micro-batch takes this long to decode
# Random streams: what is drawn for one purpose must not depend on another.
ORDER, VIEW, MIX, HOLD_OUT, FEW_SHOTS = range(5)


class Pick(NamedTuple):
    """One example in one epoch; no epoch means the test view, which is always the same."""

    place: int
    epoch: int | None


@dataclass(frozen=True, slots=True)
class Unread:
    """A video that could not be decoded, and why."""

    uri: str
    error: str


class Decoded(NamedTuple):
    """A clip T x S x S x 3 uint8 RGB and the number of its label."""

    frames_THWC: Tensor
    label: int


class MicroBatch(NamedTuple):
    """Clips of one forward pass: frames B x T x S x S x 3 uint8 RGB, label numbers B, and what is missing."""

    frames_BTHWC: Tensor
    labels_B: Tensor
    unread: tuple[Unread, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """How clips are made: frames, model size, and what the random view depends on."""

    frames: int
    size: int
    seed: int
    flip: bool


def generator(*key: int) -> np.random.Generator:
    """The random numbers that belong to a purpose, a seed, an epoch and a place."""
    return np.random.default_rng(key)


class Clips(Dataset[Decoded | Unread]):
    """Labelled videos as a dataset: a `Pick` gives a clip."""

    def __init__(self, examples: Sequence[Example], labels: Sequence[str], view: View) -> None:
        number_of = {label: number for number, label in enumerate(labels)}
        self.videos = [(sources.to_uri(example.path), number_of[example.label]) for example in examples]
        self.view = view

    def __getitem__(self, pick: Pick) -> Decoded | Unread:
        """The clip of a pick; T x S x S x 3."""
        uri, label = self.videos[pick.place]
        try:
            return Decoded(self._test(uri) if pick.epoch is None else self._train(uri, pick), label)
        except VideoError as error:
            return Unread(uri, str(error))

    def _train(self, uri: str, pick: Pick) -> Tensor:
        """A random view of random frames, T x S x S x 3."""
        assert pick.epoch is not None
        view = self.view
        rng = generator(VIEW, view.seed, pick.epoch, pick.place)
        times_s = demux.frame_times(uri)
        wanted_s = times_s[sampling.train_indices(len(times_s), view.frames, rng)]
        return training_view(self._whole(uri, wanted_s), view.size, rng, flip=view.flip)

    def _test(self, uri: str) -> Tensor:
        """The centre of the frames in the middle of equal parts, T x S x S x 3."""
        times_s, S = demux.frame_times(uri), self.view.size
        frames_THWC = self._whole(uri, times_s[sampling.test_indices(len(times_s), self.view.frames)])
        top, left = crop_offset(frames_THWC.shape[1], S), crop_offset(frames_THWC.shape[2], S)
        return frames_THWC[:, top : top + S, left : left + S].contiguous()

    def _whole(self, uri: str, wanted_s: sampling.Times) -> Tensor:
        """Frames at some times, T x H x W x 3, the short side as before a crop."""
        return torch.from_numpy(decode.short_side_frames(uri, wanted_s.tolist(), resized_side(self.view.size)))

    def gather(self, clips: list[Decoded | Unread]) -> MicroBatch:
        """Clips as one micro-batch of what could be decoded; never an empty one."""
        sound = [clip for clip in clips if isinstance(clip, Decoded)]
        unread = tuple(clip for clip in clips if isinstance(clip, Unread))
        if not sound:
            # All workers take every step together, so there has to be something; its target is nothing.
            sound = [Decoded(torch.zeros(self.view.frames, self.view.size, self.view.size, 3).byte(), NO_LABEL)]
        frames_BTHWC = torch.stack([clip.frames_THWC for clip in sound])
        return MicroBatch(frames_BTHWC, torch.tensor([clip.label for clip in sound]), unread)


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, examples: int) -> NDArray[np.int64]:
    """The order in which an epoch goes through the examples."""
    return generator(ORDER, seed, epoch).permutation(examples)


@dataclass(frozen=True, kw_only=True)
class TrainingPicks:
    """The picks of every micro-batch that one of `workers` takes from `first_step` to the end of the run.

    Micro-batches of a step are dealt out in turn, so that one worker that accumulates and several that do not go
    through the same ones.
    """

    examples: int
    schedule: Schedule
    seed: int
    first_step: int
    rank: int = 0
    workers: int = 1

    def __iter__(self) -> Iterator[list[Pick]]:
        schedule, size = self.schedule, self.schedule.micro_batch
        for step in range(self.first_step, schedule.steps):
            epoch, number = divmod(step, schedule.steps_per_epoch)
            order = epoch_order(self.seed, epoch, self.examples)
            places = order[number * schedule.batch : (number + 1) * schedule.batch]
            for part in range(self.rank, schedule.batch // size, self.workers):
                yield [Pick(int(place), epoch) for place in places[part * size : (part + 1) * size]]


def test_picks(examples: int, size: int, rank: int, workers: int) -> list[list[Pick]]:
    """Every example's test view, in micro-batches of `size`, each worker its share."""
    places = range(rank, examples, workers)
    return [[Pick(place, None) for place in places[start : start + size]] for start in range(0, len(places), size)]


def loader(clips: Clips, picks: Iterable[list[Pick]], *, processes: int) -> DataLoader[MicroBatch]:
    """What decodes the micro-batches of some picks, in order, in background processes or (0) in this one."""
    return DataLoader(
        clips,  # type: ignore[arg-type]  # torch types a loader by its items; ours are gathered
        batch_sampler=picks,
        collate_fn=clips.gather,
        num_workers=processes,
        persistent_workers=processes > 0,
        timeout=HUNG_S if processes else 0,
        generator=torch.Generator(),  # else it would draw from the global one, which belongs to the training
    )


def read(source: DataLoader[MicroBatch]) -> Iterator[MicroBatch]:
    """The micro-batches of a loader. Raises EngineError when a decoding process dies or hangs."""
    try:
        yield from source
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise EngineError(
            f"a decoding process died or hung ({error}); run the same command again to go on from the last "
            "checkpoint, and remove the video if it happens again"
        ) from error


def decoding_processes(workers: int) -> int:
    """Background processes for each of `workers` on this machine: what the workers themselves leave free."""
    return max(1, min(MAX_PROCESSES, (os.cpu_count() or 1) // workers - 1))
