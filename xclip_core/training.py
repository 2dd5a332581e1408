"""Training: the paper's optimiser, parameter groups and schedule (spec §7), and one plain loop.

The loop knows no data and no labels: it takes batches and a function from batch to loss. `train_text=False` is the
paper's recipe, which freezes the text tower and the temperature; motion words cannot be learnt from single frames, so
a model that starts from nothing needs `train_text=True`. Float32 on one device; no gradient accumulation.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn

from xclip_core.model import XClip
from xclip_core.objective import Batch

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

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.warmup_steps < self.steps:
            raise ValueError(f"{self.steps=} and {self.warmup_steps=}: expected steps >= 1 and a shorter warm-up")
        if self.lr <= 0 or self.new_parts_factor <= 0:
            raise ValueError(f"{self.lr=} and {self.new_parts_factor=}: expected more than 0")


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


def train(
    model: XClip,
    batches: Iterator[Batch],
    loss_of: Callable[[Batch], Tensor],
    settings: TrainSettings,
    *,
    guide: nn.Module | None = None,
) -> list[float]:
    """Trains in place for `settings.steps` batches and returns the loss of each; leaves the model in eval mode.

    `guide`, a module that `loss_of` uses and that is no part of the model, is trained with it, as a new part.
    """
    groups = parameter_groups(model, settings) + _guide_groups(guide, settings)
    optimiser = torch.optim.AdamW(groups, betas=BETAS)  # type: ignore[arg-type]  # mypy wants plain dicts
    model.train()
    losses: list[float] = []
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, settings, group["factor"])
        losses.append(_update(model, optimiser, loss_of(next(batches)), settings))
        if (step + 1) % LOG_EVERY == 0:
            recent = sum(losses[-LOG_EVERY:]) / LOG_EVERY
            log.info("step %d of %d: loss %.3f", step + 1, settings.steps, recent)
    model.eval()
    return losses


def _guide_groups(guide: nn.Module | None, settings: TrainSettings) -> list[Group]:
    """The group of a guide's parameters, if there is one."""
    if guide is None:
        return []
    factor = settings.new_parts_factor
    return [Group(params=list(guide.parameters()), weight_decay=0.0, factor=factor, lr=settings.lr * factor)]


def _update(model: XClip, optimiser: torch.optim.Optimizer, loss: Tensor, settings: TrainSettings) -> float:
    """One optimiser step down the gradient of a scalar loss; returns the loss."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if settings.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimiser.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
    return loss.item()
