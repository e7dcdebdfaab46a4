"""What every fitted decoder is: one `fit` to the rows of all training samples, and then a decoder like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satdifuser.decoders.base import Decoder
from satdifuser.errors import UserError
from satdifuser.fusion.base import PyramidSpec

if TYPE_CHECKING:
    from satdifuser.tasks.base import Task


@dataclass(frozen=True)
class Rows:
    """Features `[samples, numbers]` in float32, and the task's truth of each sample."""

    features: NDArray[np.float32]
    truth: NDArray[Any]

    def __add__(self, other: Rows) -> Rows:
        both = np.concatenate([self.features, other.features]), np.concatenate([self.truth, other.truth])
        return Rows(*both)


@dataclass(frozen=True)
class Fit:
    """What a fit has to tell: numbers for the log, and how much each feature is to it (None: nobody can say)."""

    log: Mapping[str, float]
    importance: Tensor | None = None


class Fitted(Decoder):
    """A decoder of whole images. What it learns is in its state, so that checkpoints have it, and has no gradient.

    `refit`: validation samples are learned from, too, once they have chosen.
    """

    name: str
    tasks: tuple[str, ...]
    refit = False

    def __init__(self, pyramid: PyramidSpec, outputs: int, dense: bool) -> None:
        if dense:
            raise UserError(
                f"decoder={self.name} gives one answer for each image, but the task wants a map: use decoder=linear, or"
                " satdifuser probe, which probes pixels"
            )
        super().__init__(pyramid, outputs, dense)
        cells = [(pyramid.image_size[0] // s) * (pyramid.image_size[1] // s) for s in pyramid.strides]
        self.features = pyramid.channels * sum(cells)

    def check_path(self, task: Task, **before: nn.Module | None) -> None:
        """Raise unless the task is one for it, and nothing before it would have to be trained by steps."""
        if task.name not in self.tasks:
            raise UserError(
                f"decoder={self.name} is for task={' or '.join(self.tasks)}, not for task={task.name}: see"
                " docs/classifiers.md"
            )
        for part, module in before.items():
            if module is not None and any(p.requires_grad for p in module.parameters()):
                remedy = {"fusion": "set fusion=plain", "temporal": "set temporal=mean, max or difference"}
                raise UserError(
                    f"decoder={self.name} is fitted, not trained by steps, so nothing would train {part}"
                    f" ({type(module).__name__}): {remedy.get(part, 'leave adapter out, or take a pretrained encoder')}"
                )

    def check_samples(self, training: int) -> None:
        """Raise if so many training samples are too few."""

    def rows(self, maps: Mapping[int, Tensor]) -> Tensor:
        """`[batch, features]` in float32."""
        return torch.cat([maps[stride].flatten(1) for stride in self.pyramid.strides], dim=1).float()

    def decode(self, maps: Mapping[int, Tensor]) -> Tensor:
        return self.answer(self.rows(maps))

    def answer(self, rows: Tensor) -> Tensor:
        """Logits `[batch, outputs]`, as the task takes them."""
        raise NotImplementedError

    def fit(self, train: Rows, val: Rows, task: Task) -> Fit:
        """Learn from the training rows, and choose by the validation rows what is to be chosen."""
        try:
            return self.fitted(train, val, task)
        except ValueError as error:
            raise UserError(f"decoder={self.name} cannot be fitted: {error}") from error

    def fitted(self, train: Rows, val: Rows, task: Task) -> Fit:
        raise NotImplementedError


def is_fitted(target: Any) -> bool:
    """Whether what a configuration names is such a decoder."""
    return isinstance(target, type) and issubclass(target, Fitted)


def score(task: Task, logits: Tensor, truth: NDArray[Any]) -> float:
    """The metric that the task chooses by; -inf where it is not to be had."""
    sums = task.statistics(task.predict(logits).numpy(), truth).sum(0)
    found = float(task.scores(sums)[task.monitor])
    return found if np.isfinite(found) else -np.inf
