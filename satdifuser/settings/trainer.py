"""The trainer's settings, with the published recipe as their defaults."""

from __future__ import annotations

from typing import ClassVar, Literal

from satdifuser.errors import UserError
from satdifuser.kinds import Count, NotNegative, Positive, Precision, Whole
from satdifuser.settings.base import Settings


class TrainerConfig(Settings):
    """`batch_size` is what one optimiser step sees, whatever `accumulate` and the number of processes are."""

    group: ClassVar[str] = "trainer"

    epochs: Count = 40
    min_steps: Whole = 0
    max_steps: Count | None = None
    batch_size: Count = 32
    accumulate: Count = 1
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: Positive = 1e-2
    min_lr: NotNegative = 1e-5
    encoder_lr_scale: Positive = 1.0
    weight_decay: NotNegative = 0.0
    warmup_epochs: NotNegative = 5.0
    warmup_from: NotNegative = 0.0
    schedule: Literal["step", "epoch"] = "step"
    last_batch: Literal["drop", "keep"] = "drop"
    clip_norm: Positive | None = None
    eval_every: Count | None = 100
    patience: Count | None = 10
    mixed_precision: Precision = "no"
    workers: Whole = 0
    tensorboard: bool = True

    def model_post_init(self, context: object) -> None:
        accumulates_within(self.group, self.accumulate, self.batch_size)
        falls(self.group, self.lr, self.min_lr)
        if self.warmup_from > self.lr:
            raise UserError(
                f"trainer.warmup_from ({self.warmup_from:g}) cannot exceed trainer.lr ({self.lr:g}): a warm-up climbs"
            )
        if self.schedule == "epoch" and self.warmup_epochs and not self.warmup_from:
            raise UserError(
                "trainer.schedule=epoch holds the rate for an epoch, and the first would learn nothing at a rate of 0:"
                " set trainer.warmup_from=0.00002, or trainer.warmup_epochs=0"
            )

    def total_steps(self, per_epoch: int) -> int:
        """So many epochs, but at least `min_steps`, since small label budgets have short ones; or `max_steps`."""
        return self.max_steps if self.max_steps is not None else max(self.epochs * per_epoch, self.min_steps)


def falls(group: str, lr: float, min_lr: float) -> None:
    if min_lr > lr:
        raise UserError(f"{group}.min_lr ({min_lr:g}) cannot exceed {group}.lr ({lr:g}): the rate would climb")


def accumulates_within(group: str, accumulate: int, batch_size: int) -> None:
    if accumulate > batch_size:
        raise UserError(f"{group}.accumulate ({accumulate}) cannot exceed {group}.batch_size ({batch_size})")
