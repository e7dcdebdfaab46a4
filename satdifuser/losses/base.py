"""What every loss is: a sum and a count, so that the mean is the same however a batch is cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from annotated_types import Len
from torch import Tensor, nn

from satdifuser.data.base import Batch
from satdifuser.errors import UserError
from satdifuser.kinds import NotNegative

if TYPE_CHECKING:
    from satdifuser.tasks.base import Task

Weights = Literal["inverse", "inverse_sqrt"] | Annotated[list[NotNegative], Len(1)]
POWER = {"inverse": 1.0, "inverse_sqrt": 0.5}
LEARNS = {"mask": "segmentation", "label": "classification", "multilabel": "multilabel"}


class Loss(nn.Module):
    """A loss of classes for a task: `loss_sum` over what `count` counts, of logits and the task's `targets`.

    `weights` are of the classes: "inverse" or "inverse_sqrt" of how often the training labels have them (pixels or
    images that count; of a multi-label task the images that show them), such that their mean over these is 1, or a
    list. They are a buffer, so that checkpoints have them and an evaluation weighs as the training did. A class that no
    training label has weighs nothing.
    """

    name: str
    learns: tuple[str, ...] = tuple(LEARNS)  # the labels that it is for
    parts = 1  # sums, each with a count of its own
    weights: Tensor | None

    def __init__(self, task: Task, weights: Weights | None = None) -> None:
        super().__init__()
        if task.label not in self.learns:
            fits = " or ".join(f"task={LEARNS[label]}" for label in self.learns)
            raise UserError(f"loss={self.name} is for {fits}: for task={task.name} set loss=own, which is the task's")
        self.outputs, self.several = task.outputs, task.label == "multilabel"
        self._targets, self._check, self._rule = task.targets, task.check, weights
        self.register_buffer("weights", None if weights is None else self._first(weights, task))

    def _first(self, weights: Weights, task: Task) -> Tensor:
        """Those given; or ones, until `learn` has seen the labels."""
        if isinstance(weights, str):
            return torch.ones(self.outputs)
        if len(weights) != self.outputs or not any(weights):
            raise UserError(
                f"loss.weights has {len(weights)} numbers: give one above 0 for each of the {self.outputs} classes, in"
                f" this order: {', '.join(task.labels.classes)}"
            )
        return torch.tensor(weights)

    def learn(self, batches: Iterable[Batch]) -> None:
        """What the loss has to know of the training labels, from batches of them."""
        if self.weights is None or not isinstance(self._rule, str):
            return
        counts = torch.zeros(self.outputs, dtype=torch.float64)
        for batch in batches:
            self._check(batch)
            targets = self._targets(batch)
            if self.several:
                counts += targets.double().sum(0).cpu()
            else:
                counts += torch.bincount(targets[targets >= 0].flatten(), minlength=self.outputs).cpu()
        self.weights.copy_(balanced(counts, POWER[self._rule]))

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        """In float32 at least; one number, or as many as `parts`."""
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self.summed(exact, self._targets(batch))

    def count(self, batch: Batch) -> Tensor:
        """What `loss_sum` is to be divided by, over the whole batch."""
        return self.counted(self._targets(batch))

    def summed(self, logits: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def counted(self, targets: Tensor) -> Tensor:
        raise NotImplementedError


def balanced(counts: Tensor, power: float) -> Tensor:
    """Weights that fall with the counts to this power; their mean over what was counted is 1.

    >>> balanced(torch.tensor([6.0, 2.0, 0.0]), 1.0), balanced(torch.tensor([4.0, 1.0]), 0.5)
    (tensor([0.6667, 2.0000, 0.0000]), tensor([0.8333, 1.6667]))
    """
    seen = counts > 0
    if not bool(seen.any()):
        raise UserError("loss.weights cannot be learned: no training label is of a class that counts")
    weights = torch.where(seen, counts.clamp_min(1) ** -power, 0.0)
    return weights * (counts.sum() / (counts * weights).sum())
