"""The training loop of one process, alone or as one of several: steps, validation, checkpoints, the best model kept.

Everything is decided by the run's settings and the checkpoint in its folder, so a process that dies is replaced by
calling `fit` again. Several processes are DistributedDataParallel over a process group that somebody else has made
(`distributed` does it with Ray); they take every step together and the first of them writes all files.
"""

# B clips, T frames, S pixels, C = 3 channels, K labels

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pipeline import feed
from pipeline.curves import Curves
from pipeline.labelled import Example
from pipeline.protocols import FinetuneSettings, Schedule
from schemas.errors import EngineError
from xclip_core import load
from xclip_core.checkpoint import save_model
from xclip_core.durable import load_state, save_state
from xclip_core.mixing import draw_mix, mix_pixels, mix_targets, smooth_targets
from xclip_core.objective import Classifier, label_texts
from xclip_core.preprocess import normalise
from xclip_core.tokenise import tokenise
from xclip_core.training import Training, TrainSettings, learning_rate

CHECKPOINT = "checkpoint.pt"
MODEL = "model.safetensors"  # the best, or the last where nothing is held out; `load` finds it in the folder
LAST = "last.safetensors"
CHECKPOINT_EVERY_S = 300.0  # and at the end of every epoch

Watch = Callable[[int], None]  # called with the number of steps done


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """All that a worker needs to know; files are found again on the worker's machine."""

    folder: Path
    settings: FinetuneSettings
    schedule: Schedule
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    flip: bool
    bf16: bool
    checkpoint_every_s: float = CHECKPOINT_EVERY_S


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """How a model does on held-out examples. Better is more top-1, or as much with a lower loss."""

    epoch: int  # complete ones, when it was measured
    top1: float
    top5: float
    loss: float

    def is_better(self, other: Score | None) -> bool:
        """Whether this is the one to keep."""
        return other is None or (self.top1, -self.loss) > (other.top1, -other.loss)


@dataclass
class Notes:
    """What a run remembers beside the training itself."""

    best: Score | None = None
    last: Score | None = None
    loss: float = 0.0
    unread: dict[str, str] = field(default_factory=dict)  # videos that did not decode: uri to reason

    def state_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def of(cls, state: dict[str, Any]) -> Notes:
        """From what `state_dict` gave."""
        best, last = (Score(**state[name]) if state[name] else None for name in ("best", "last"))
        return cls(best, last, state["loss"], state["unread"])


@dataclass(frozen=True, slots=True)
class Worker:
    """This process among those that train together."""

    device: torch.device
    rank: int
    count: int

    @classmethod
    def here(cls, device: str) -> Worker:
        """The first and only one, unless a process group says otherwise."""
        together = dist.is_initialized()
        rank, count = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
        return cls(torch.device(device), rank, count)

    @property
    def writes(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def total(self, *numbers: float) -> list[float]:
        """Each number summed over all workers."""
        sums = torch.tensor(numbers, dtype=torch.float64)
        if self.count > 1:
            sums = sums.to(self.device)
            dist.all_reduce(sums)
        totals: list[float] = sums.tolist()
        return totals

    def union(self, own: dict[str, str]) -> dict[str, str]:
        """The entries of all workers."""
        if self.count == 1:
            return own
        found: list[dict[str, str]] = [{}] * self.count
        dist.all_gather_object(found, own)
        return {key: value for each in found for key, value in each.items()}


def fit(run: Run, *, device: str, watch: Watch = lambda _: None) -> None:
    """Trains from the folder's checkpoint, or from the start, to the end; leaves models, metrics and a checkpoint."""
    fitting = _Fitting(run, Worker.here(device))
    fitting.resume()
    curves = Curves(run.folder, fitting.training.step) if fitting.worker.writes else None
    try:
        for _ in fitting.steps(curves):
            watch(fitting.training.step)
    finally:
        if curves:
            curves.close()
    fitting.finish()


def train_settings(run: Run) -> TrainSettings:
    """The core's settings of a run: the paper's, but for the schedule."""
    settings, schedule = run.settings, run.schedule
    return TrainSettings(
        steps=schedule.steps,
        lr=schedule.lr,
        warmup_steps=schedule.warmup_steps,
        clip_norm=settings.clip_norm,
        accumulate=settings.accumulate,
    )


class _Fitting:
    """A run in this process: the parts, and what they have come to."""

    def __init__(self, run: Run, worker: Worker) -> None:
        self.run, self.worker, self.notes = run, worker, Notes()
        wanted = run.settings
        model = load(wanted.init, frames=wanted.frames, image_size=wanted.image_size, device=worker.device)
        model.visual.transformer.recompute = run.settings.recompute
        token_ids_KL = tokenise(run.labels, context_length=model.config.context_length)
        self.classifier = Classifier(model, label_texts(model, token_ids_KL), bf16=run.bf16)
        self.training = Training(model, train_settings(run))
        self.loss_of: Callable[[tuple[Tensor, Tensor]], Tensor] = self.classifier
        if worker.count > 1:
            self.loss_of = DistributedDataParallel(self.classifier, broadcast_buffers=False)
        view = feed.View(
            frames=model.config.frames, size=model.config.image_size, seed=run.settings.seed, flip=run.flip
        )
        self.train_clips = feed.Clips(run.train, run.labels, view)
        asked = run.settings.decoders
        self.processes = feed.decoding_processes(worker.count) if asked is None else asked
        picks = feed.test_picks(len(run.held_out), run.schedule.micro_batch, worker.rank, worker.count)
        self.held_out = feed.loader(feed.Clips(run.held_out, run.labels, view), picks, processes=self.processes)

    def resume(self) -> None:
        """Takes over the checkpoint, if there is one."""
        path = self.run.folder / CHECKPOINT
        if path.exists():
            state = load_state(path)
            self.training.load_state_dict(state["training"])
            self.notes = Notes.of(state["notes"])

    def steps(self, curves: Curves | None) -> Iterator[int]:
        """Makes all steps that are left, with what belongs after each; yields their numbers, from 1."""
        training, schedule = self.training, self.run.schedule
        batches = self._batches()
        saved_s = time.monotonic()
        training.model.train()
        while training.step < schedule.steps:
            lr = learning_rate(training.step, training.settings)
            (loss,) = self.worker.total(training.update(batches, self.loss_of) / self.worker.count)
            if not math.isfinite(loss):
                raise EngineError(
                    f"the loss is {loss} at step {training.step}: training has come apart. Lower --lr, or limit "
                    "gradients with --clip-norm 1; the last checkpoint is sound, but will come to the same"
                )
            self.notes.loss = loss
            epoch, rest = divmod(training.step, schedule.steps_per_epoch)
            if curves:
                curves.write("train", training.step, epoch=training.step / schedule.steps_per_epoch, loss=loss, lr=lr)
            if not rest:
                self._end_epoch(epoch, curves)
            # The clock of the first worker decides for itself alone: nobody else writes.
            if curves and (not rest or time.monotonic() - saved_s >= self.run.checkpoint_every_s):
                self._save(curves)
                saved_s = time.monotonic()
            yield training.step

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Mixed pixels B x T x 3 x S x S and targets B x K of this worker's micro-batches to come, on its device."""
        run, worker, seed = self.run, self.worker, self.run.settings.seed
        picks = feed.TrainingPicks(
            examples=len(run.train),
            schedule=run.schedule,
            seed=seed,
            first_step=self.training.step,
            rank=worker.rank,
            workers=worker.count,
        )
        number = self.training.step * run.settings.accumulate
        for batch in feed.read(feed.loader(self.train_clips, picks, processes=self.processes)):
            self.notes.unread |= {item.uri: item.error for item in batch.unread}
            # Counted over all workers, so that the mix does not depend on how many share the work.
            rng = feed.generator(feed.MIX, seed, number * worker.count + worker.rank)
            pixels_BTCHW, target_BK = self._on_device(batch)
            mix = draw_mix(rng, len(pixels_BTCHW), pixels_BTCHW.shape[-1])
            yield mix_pixels(pixels_BTCHW, mix), mix_targets(target_BK, mix)
            number += 1

    def _on_device(self, batch: feed.MicroBatch) -> tuple[Tensor, Tensor]:
        """Normalised pixels B x T x 3 x S x S and smoothed targets B x K; a clip without a label has no target."""
        labels_B = batch.labels_B.to(self.worker.device)
        target_BK = smooth_targets(labels_B.clamp(min=0), len(self.run.labels)) * (labels_B >= 0).unsqueeze(1)
        return normalise(batch.frames_BTHWC.to(self.worker.device), torch.float32), target_BK

    def _end_epoch(self, epoch: int, curves: Curves | None) -> None:
        """Measures the model, and keeps it if it is the best so far."""
        score = self._validate(epoch) if self.run.held_out else None
        self.notes.unread = self.worker.union(self.notes.unread)
        if score is None:
            return
        self.notes.last = score
        is_best = score.is_better(self.notes.best)
        if is_best:
            self.notes.best = score
        if curves:
            values = {name: value for name, value in asdict(score).items() if name != "epoch"}
            curves.write("validation", self.training.step, epoch=epoch, **values)
            if is_best:  # before the checkpoint that says so: should this be the instant of a crash, it is done again
                save_model(self.training.model, self.run.folder / MODEL)

    @torch.no_grad()
    def _validate(self, epoch: int) -> Score | None:
        """The model on the held-out examples, each worker its share; None when none of them can be decoded."""
        classes = len(self.run.labels)
        hits = hits5 = loss = clips = 0.0
        self.training.model.eval()
        for batch in feed.read(self.held_out):
            self.notes.unread |= {item.uri: item.error for item in batch.unread}
            pixels_BTCHW, _ = self._on_device(batch)
            sound_B = batch.labels_B >= 0
            logits_BK, labels_B = self.classifier.logits(pixels_BTCHW).cpu()[sound_B], batch.labels_B[sound_B]
            best_BK = logits_BK.topk(min(5, classes), dim=1).indices == labels_B.unsqueeze(1)
            hits += best_BK[:, 0].sum().item()
            hits5 += best_BK.sum().item()
            loss += torch.nn.functional.cross_entropy(logits_BK, labels_B, reduction="sum").item()
            clips += len(labels_B)
        self.training.model.train()
        hits, hits5, loss, clips = self.worker.total(hits, hits5, loss, clips)
        return Score(epoch=epoch, top1=hits / clips, top5=hits5 / clips, loss=loss / clips) if clips else None

    def _save(self, curves: Curves) -> None:
        """The checkpoint, after the lines that it counts on."""
        curves.force()
        state = {"training": self.training.state_dict(), "notes": self.notes.state_dict()}
        save_state(self.run.folder / CHECKPOINT, state)

    def finish(self) -> None:
        """Writes the last model, which is the best where nothing was measured; LAST comes last and says: complete."""
        if self.worker.writes:
            if self.notes.best is None:
                save_model(self.training.model.eval(), self.run.folder / MODEL)
            save_model(self.training.model.eval(), self.run.folder / LAST)
