"""Optimiser and learning rate: linear warm-up, then cosine, as a function of the step: a resume needs no state."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from satdifuser.settings.trainer import TrainerConfig

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def learning_rate(step: int, total: int, warmup: int, peak: float, floor: float) -> float:
    """Rate of step 0, 1, ...: up to `peak` over `warmup` steps, then along a cosine down to `floor` at `total`.

    >>> [round(learning_rate(s, 10, 2, 1.0, 0.0), 3) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step - warmup) / max(total - warmup, 1), 1.0)
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * done))


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
