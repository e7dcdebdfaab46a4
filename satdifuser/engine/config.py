"""The trainer's settings, with the published recipe as their defaults."""

from __future__ import annotations

from dataclasses import dataclass

from satdifuser.errors import UserError


@dataclass(frozen=True)
class TrainerConfig:
    """`batch_size` is what one optimiser step sees, whatever `accumulate` and the number of processes are."""

    epochs: int = 40
    min_steps: int = 0
    max_steps: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    optimizer: str = "adam"
    lr: float = 1e-2
    min_lr: float = 1e-5
    encoder_lr_scale: float = 1.0
    weight_decay: float = 0.0
    warmup_epochs: float = 5
    clip_norm: float | None = None
    eval_every: int = 100
    patience: int | None = 10
    mixed_precision: str = "no"
    workers: int = 0
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "eval_every", "lr", "encoder_lr_scale"):
            if getattr(self, name) <= 0:
                raise UserError(f"trainer.{name} is {getattr(self, name)}: it must be above 0")
        if self.min_steps < 0:
            raise UserError(f"trainer.min_steps is {self.min_steps}: it must be 0 or more")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise UserError(f"trainer.mixed_precision is {self.mixed_precision!r}: it can be no, bf16 or fp16")
        if self.accumulate > self.batch_size:
            raise UserError(
                f"trainer.accumulate ({self.accumulate}) cannot exceed trainer.batch_size ({self.batch_size})"
            )

    def total_steps(self, per_epoch: int) -> int:
        """So many epochs, but at least `min_steps`, since small label budgets have short ones; or `max_steps`."""
        return self.max_steps if self.max_steps is not None else max(self.epochs * per_epoch, self.min_steps)
