"""The settings of a pretraining run."""

from __future__ import annotations

from dataclasses import dataclass

from satdifuser.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """`batch_size` is what one optimiser step sees, over all processes; `ema` null: the last weights are the result.

    `minutes` ends this time's training early, with a checkpoint: for machines that are lent by the hour.
    """

    steps: int = 5000
    batch_size: int = 64
    accumulate: int = 1
    lr: float = 6e-4
    min_lr: float = 0.0
    warmup: int = 250
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = 1.0
    ema: float | None = 0.999
    mixed_precision: str = "no"
    augment: bool = True
    minutes: float | None = None
    save_every: int | None = None
    eval_every: int = 500
    eval_images: int = 256
    levels: tuple[int, ...] = (21, 61, 161, 301, 501, 801)
    samples: int = 16
    workers: int = 0
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "lr", "eval_every", "eval_images"):
            if getattr(self, name) <= 0:
                raise UserError(f"recipe.{name} is {getattr(self, name)}: it must be above 0")
        for name in ("warmup", "workers", "samples"):
            if getattr(self, name) < 0:
                raise UserError(f"recipe.{name} is {getattr(self, name)}: it must be 0 or more")
        if self.save_every is not None and self.save_every <= 0:
            raise UserError(f"recipe.save_every is {self.save_every}: give null, or a number of steps above 0")
        if self.minutes is not None and not self.minutes > 0:
            raise UserError(f"recipe.minutes is {self.minutes}: give null, or a number above 0")
        if self.accumulate > self.batch_size:
            raise UserError(
                f"recipe.accumulate ({self.accumulate}) cannot exceed recipe.batch_size ({self.batch_size})"
            )
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UserError(f"recipe.clip_norm is {self.clip_norm}: give null, or a norm above 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"recipe.betas is {list(self.betas)}: give two numbers from 0 to below 1")
        if not self.levels or any(level < 0 for level in self.levels):
            raise UserError(f"recipe.levels is {list(self.levels)}: give one level of noise or more, from 0 on")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise UserError(f"recipe.ema is {self.ema}: give null, or a decay from 0 to below 1")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise UserError(f"recipe.mixed_precision is {self.mixed_precision!r}: it can be no, bf16 or fp16")
