"""What a fine-tuning run is made of: the paper's three protocols as a table, and frozen settings (spec §7).

Learning rates are the paper's and belong to its batches of 64 and 256 clips on models of 200 million parameters: a
small model or a small batch wants a `lr` of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.errors import InputError
from xclip_core.config import DEFAULT_MODEL

ProtocolName = Literal["full", "few", "zero"]
Precision = Literal["auto", "float32", "bf16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """One row of the paper's table. The least rate is a hundredth of `lr`; `frames` is what the paper trained with."""

    lr: float
    epochs: int
    warmup_epochs: int
    batch: int  # clips per optimiser step, over all workers
    frames: tuple[int, ...]


PROTOCOLS: dict[ProtocolName, Protocol] = {
    "full": Protocol(lr=8e-6, epochs=30, warmup_epochs=5, batch=256, frames=(8, 16)),
    "few": Protocol(lr=2e-6, epochs=50, warmup_epochs=5, batch=64, frames=(32,)),
    "zero": Protocol(lr=8e-6, epochs=10, warmup_epochs=5, batch=256, frames=(32,)),
}


def other_frames(protocol: ProtocolName, frames: int) -> tuple[str, ...]:
    """What there is to say of so many frames a clip under a protocol: nothing where the paper has as many."""
    paper = PROTOCOLS[protocol].frames
    if frames in paper:
        return ()
    wanted = " or ".join(map(str, paper))
    return (f"the protocol {protocol!r} has {wanted} frames per clip, and here there are {frames} (--frames)",)


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneSettings:
    """Everything that `footage finetune` was asked for. None means: as the protocol has it."""

    init: str = DEFAULT_MODEL
    protocol: ProtocolName = "full"
    frames: int | None = None  # of a clip, and below pixels of a side; other than the model's by resampling its tables
    image_size: int | None = None
    shots: int | None = None  # videos of each label to train on, drawn by seed; None: all
    epochs: int | None = None
    batch: int | None = None  # clips per optimiser step, over all workers
    accumulate: int = 1  # micro-batches per step and worker
    workers: int = 1
    lr: float | None = None
    flip: bool | None = None  # None: yes, unless label names speak of left and right; then it must be said
    seed: int = 0
    precision: Precision = "auto"
    clip_norm: float | None = None
    recompute: bool = False
    decoders: int | None = None  # background processes per worker; 0: none; None: what the machine has left
    device: str = "auto"

    def __post_init__(self) -> None:
        counts = {
            "shots": self.shots,
            "epochs": self.epochs,
            "batch": self.batch,
            "accumulate": self.accumulate,
            "workers": self.workers,
        }
        for name, value in counts.items():
            if value is not None and value < 1:
                raise InputError(f"--{name} {value}: expected 1 or more")
        if self.lr is not None and self.lr <= 0:
            raise InputError(f"--lr {self.lr}: expected more than 0")
        if self.batch is not None and self.batch % (self.accumulate * self.workers):
            raise InputError(
                f"a batch of {self.batch} clips does not divide into {self.accumulate} micro-batches for each of "
                f"{self.workers} workers; choose a --batch that is a multiple of {self.accumulate * self.workers}"
            )

    @property
    def row(self) -> Protocol:
        """The protocol's row of the table."""
        return PROTOCOLS[self.protocol]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long a run is: examples into steps and epochs. What does not fill a last batch is left out of an epoch."""

    batch: int
    micro_batch: int  # clips in one forward pass of one worker
    steps_per_epoch: int
    epochs: int
    warmup_steps: int
    lr: float

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.epochs


def schedule_of(settings: FinetuneSettings, examples: int) -> Schedule:
    """The schedule for so many training examples.

    A batch that was not asked for shrinks to what there is; one that was asked for and cannot be filled raises
    InputError. Warm-up keeps its share of the epochs.
    """
    row, parts = settings.row, settings.accumulate * settings.workers
    batch = settings.batch or min(row.batch, examples) // parts * parts
    if not batch or batch > examples:
        raise InputError(
            f"{examples} examples do not fill a batch of {batch or parts}; label more videos, or choose a smaller "
            "--batch, --accumulate or --workers"
        )
    epochs = settings.epochs or row.epochs
    steps_per_epoch = examples // batch
    return Schedule(
        batch=batch,
        micro_batch=batch // parts,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        warmup_steps=steps_per_epoch * epochs * row.warmup_epochs // row.epochs,
        lr=settings.lr or row.lr,
    )
