"""Training: the paper's optimiser, parameter groups and schedule (spec §7), and one plain loop.

The loop knows no data and no labels: it takes batches and a function from batch to loss. `train_text=False` is the
paper's recipe, which freezes the text tower and the temperature; motion words cannot be learnt from single frames, so
a model that starts from nothing needs `train_text=True`. A `Training` is all that a training has become: saved and
loaded between two steps, it goes on as if nothing had happened.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xclip_core.model import XClip

B = TypeVar("B")  # a batch, of whatever kind the loss takes

log = logging.getLogger(__name__)

BETAS = (0.9, 0.98)
MIN_LR_RATIO = 0.01
MAX_LOGIT_SCALE = math.log(100)  # CLIP's bound; beyond it training becomes unstable
TEXT_PARTS = ("text_encoder.", "logit_scale")
LOG_EVERY = 50  # steps


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """One stage of training. Learning rates are those of the CLIP tensors."""

    steps: int
    lr: float
    warmup_steps: int = 0
    new_parts_factor: float = 10.0  # what X-CLIP adds to CLIP learns this much faster
    weight_decay: float = 1e-3
    clip_norm: float | None = 1.0
    train_text: bool = False
    accumulate: int = 1  # batches whose gradients one step averages

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.warmup_steps < self.steps:
            raise ValueError(f"{self.steps=} and {self.warmup_steps=}: expected steps >= 1 and a shorter warm-up")
        if min(self.lr, self.new_parts_factor, self.accumulate) <= 0:
            raise ValueError(f"{self.lr=}, {self.new_parts_factor=} and {self.accumulate=}: expected more than 0")


class Group(TypedDict):
    """A parameter group as torch's optimisers take it; `factor` multiplies the schedule's rate."""

    params: list[nn.Parameter]
    weight_decay: float
    factor: float
    lr: float


def is_new_part(name: str) -> bool:
    """Whether a parameter belongs to what X-CLIP adds to CLIP."""
    return "message_" in name or name.startswith(("mit.", "prompts_"))


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices, but not to position codes."""
    return parameter.ndim > 1 and "positional_embedding" not in name


def parameter_groups(model: XClip, settings: TrainSettings) -> list[Group]:
    """Trainable parameters by learning rate and decay; freezes the text tower and temperature if so set."""
    groups: dict[tuple[float, float], Group] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(settings.train_text or not name.startswith(TEXT_PARTS))
        if not parameter.requires_grad:
            continue
        factor = settings.new_parts_factor if is_new_part(name) else 1.0
        decay = settings.weight_decay if is_decayed(name, parameter) else 0.0
        empty = Group(params=[], weight_decay=decay, factor=factor, lr=settings.lr * factor)
        groups.setdefault((factor, decay), empty)["params"].append(parameter)
    return list(groups.values())


def learning_rate(step: int, settings: TrainSettings, factor: float = 1.0) -> float:
    """The rate at a step, counted from 0, of a group whose peak is `factor` times the CLIP tensors'.

    Linear from 0 over the warm-up, then a cosine at the absolute step, as the official schedule has it: the rate drops
    a little when the warm-up ends. All groups share one floor, a hundredth of the CLIP tensors' peak.
    """
    peak, floor = settings.lr * factor, settings.lr * MIN_LR_RATIO
    if step < settings.warmup_steps:
        return peak * step / settings.warmup_steps
    return floor + (peak - floor) * (1 + math.cos(math.pi * step / settings.steps)) / 2


class Training:
    """A training in progress: the model, its optimiser, and how many steps are done.

    `guide`, a module that the loss uses and that is no part of the model, is trained with it, as a new part.
    """

    def __init__(self, model: XClip, settings: TrainSettings, guide: nn.Module | None = None) -> None:
        groups = parameter_groups(model, settings) + _guide_groups(guide, settings)
        self.model, self.settings, self.guide = model, settings, guide
        self.optimiser = torch.optim.AdamW(groups, betas=BETAS)  # type: ignore[arg-type]  # mypy wants plain dicts
        self.step = 0

    def update(self, batches: Iterator[B], loss_of: Callable[[B], Tensor]) -> float:
        """One optimiser step down the mean gradient of the next `accumulate` batches; returns their mean loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.settings, group["factor"])
        self.optimiser.zero_grad(set_to_none=True)
        count = self.settings.accumulate
        total = 0.0
        for number in range(1, count + 1):
            with _gathering(loss_of, is_last=number == count):
                loss = loss_of(next(batches)) / count
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total += loss.item()
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimiser.step()
        if self.settings.train_text:
            with torch.no_grad():
                self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        self.step += 1
        return total

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the steps to come, but for the batches; tensors are the live ones."""
        return {
            "model": self.model.state_dict(),
            "guide": self.guide.state_dict() if self.guide else None,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave, in place, in a training of the same model and settings."""
        self.model.load_state_dict(state["model"])
        if self.guide:
            self.guide.load_state_dict(state["guide"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        torch.set_rng_state(state["rng"])
        if len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])


def _gathering(loss_of: Callable[[B], Tensor], *, is_last: bool) -> Any:
    """A context in which gradients add up; workers exchange them once a step, with the last batch."""
    return loss_of.no_sync() if isinstance(loss_of, DistributedDataParallel) and not is_last else nullcontext()


def train(
    model: XClip,
    batches: Iterator[B],
    loss_of: Callable[[B], Tensor],
    settings: TrainSettings,
    *,
    guide: nn.Module | None = None,
) -> list[float]:
    """Trains in place for `settings.steps` steps and returns the loss of each; leaves the model in eval mode.

    `guide` is trained too, see `Training`.
    """
    training = Training(model, settings, guide)
    model.train()
    losses: list[float] = []
    while training.step < settings.steps:
        losses.append(training.update(batches, loss_of))
        if training.step % LOG_EVERY == 0:
            recent = sum(losses[-LOG_EVERY:]) / LOG_EVERY
            log.info("step %d of %d: loss %.3f", training.step, settings.steps, recent)
    model.eval()
    return losses


def _guide_groups(guide: nn.Module | None, settings: TrainSettings) -> list[Group]:
    """The group of a guide's parameters, if there is one."""
    if guide is None:
        return []
    factor = settings.new_parts_factor
    return [Group(params=list(guide.parameters()), weight_decay=0.0, factor=factor, lr=settings.lr * factor)]
