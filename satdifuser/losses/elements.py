"""Losses that are sums over elements: pixels or images, or of a multi-label task each class of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from satdifuser.kinds import NotNegative, Rate, checked
from satdifuser.losses.base import Loss, Weights

if TYPE_CHECKING:
    from satdifuser.tasks.base import Task

LEAST = 1e-12  # below what float32 tells from 1; a power of 0 has no slope


class ByElement(Loss):
    """Counted in elements; with weights, in the sum of the elements' weights, as torch's cross-entropy is."""

    def counted(self, targets: Tensor) -> Tensor:
        if self.several:
            return targets.new_tensor(len(targets)) * (self.outputs if self.weights is None else self.weights.sum())
        valid = targets[targets >= 0]
        return valid.new_tensor(valid.numel()) if self.weights is None else self.weights[valid].sum()


class CrossEntropy(ByElement):
    """torch's, or of a multi-label task its binary one.

    `smoothing` is the share of the truth that is spread evenly over the classes.
    """

    name = "cross_entropy"

    @checked("loss")
    def __init__(self, task: Task, smoothing: Rate = 0.0, weights: Weights | None = None) -> None:
        super().__init__(task, weights)
        self.smoothing = smoothing

    def summed(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits)
        if self.several:
            wanted = targets.to(logits) * (1 - self.smoothing) + self.smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, wanted, weights, reduction="sum")
        return F.cross_entropy(
            logits, targets, weights, ignore_index=-1, reduction="sum", label_smoothing=self.smoothing
        )


class Focal(ByElement):
    """Cross-entropy in which an element that is right with probability p counts (1 - p)^gamma (Lin et al. 2017).

    The probabilities are of one softmax over the classes; of a multi-label task they are each class's own.
    """

    name = "focal"

    @checked("loss")
    def __init__(self, task: Task, gamma: NotNegative = 2.0, weights: Weights | None = None) -> None:
        super().__init__(task, weights)
        self.gamma = gamma

    def summed(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits)
        if self.several:
            surprise = F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none")
        else:
            valid = targets >= 0
            surprise = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")[valid]
            weights = None if weights is None else weights[targets[valid]]
        each = (-surprise.neg().expm1()).clamp_min(LEAST) ** self.gamma * surprise
        return (each if weights is None else each * weights).sum()
