"""Optimiser and learning rate: linear warm-up, then cosine, as a function of the step: a resume needs no state."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from satdifuser.settings.trainer import TrainerConfig

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def learning_rate(step: int, total: int, warmup: int, peak: float, floor: float, begin: float = 0.0) -> float:
    """Rate of step 0, 1, ...: from `begin` up to `peak` over `warmup` steps, then along a cosine to `floor` at `total`.

    >>> [round(learning_rate(s, 10, 2, 1.0, 0.0), 3) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return begin + (peak - begin) * (step + 1) / warmup
    return _cosine(step - warmup, total - warmup, peak, floor)


def rate_of_epoch(epoch: int, total: float, warmup: float, peak: float, floor: float, begin: float) -> float:
    """Rate of a whole epoch 0, 1, ..., as the released SatDiFuser has it: its first one is trained at `begin`.

    >>> [round(rate_of_epoch(e, 10, 2, 1.0, 0.0, 0.1), 3) for e in (0, 1, 2, 6, 10)]
    [0.1, 0.55, 1.0, 0.5, 0.0]
    """
    if epoch < warmup:
        return begin + (peak - begin) * epoch / warmup
    return _cosine(epoch - warmup, total - warmup, peak, floor)


def _cosine(gone: float, whole: float, peak: float, floor: float) -> float:
    done = min(gone / max(whole, 1), 1.0)
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Rates:
    """The learning rate of every step of a run: step by step, or the same for all steps of an epoch."""

    config: TrainerConfig
    per_epoch: int

    @property
    def total(self) -> int:
        return self.config.total_steps(self.per_epoch)

    @property
    def warmup(self) -> int:
        """A quarter of all steps at most."""
        return min(round(self.config.warmup_epochs * self.per_epoch), self.total // 4)

    def at(self, step: int) -> float:
        peak, floor, begin = self.config.lr, self.config.min_lr, self.config.warmup_from
        if self.config.schedule == "step":
            return learning_rate(step, self.total, self.warmup, peak, floor, begin)
        total, warmup = self.total / self.per_epoch, self.warmup / self.per_epoch
        return rate_of_epoch(step // self.per_epoch, total, warmup, peak, floor, begin)


def build_optimizer(
    encoder: Iterable[nn.Parameter], heads: Iterable[nn.Parameter], config: TrainerConfig
) -> torch.optim.Optimizer:
    """Over what trains of the encoder (at a rate of its own) and of all that follows it, in this order."""
    groups = [
        {"params": list(encoder), "scale": config.encoder_lr_scale},
        {"params": list(heads), "scale": 1.0},
    ]
    kind = OPTIMIZERS[config.optimizer]
    return kind(
        [group for group in groups if group["params"]],
        lr=config.lr,
        weight_decay=config.weight_decay,  # type: ignore[call-arg]
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
