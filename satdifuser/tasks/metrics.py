"""The metrics that torchmetrics does not have, of counts that it gathers over batches and processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix


class FromCounts(MulticlassConfusionMatrix):
    """`score(right, said, true)`, each how often it was so of each class."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, classes: int, score: Callable[..., NDArray[Any]], ignore_index: int | None = None) -> None:
        super().__init__(classes, ignore_index=ignore_index)
        self.score = score

    def compute(self) -> Tensor:
        counts = self.confmat.cpu().double().numpy()
        return torch.as_tensor(self.score(counts.diagonal(), counts.sum(0), counts.sum(1)))


class FromErrors(Metric):
    """`score(sums)` of numbers and the truth: how many, then sums of true, true^2, error^2 and |error|, in float64."""

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    sums: Tensor

    def __init__(self, score: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        super().__init__()
        self.score = score
        self.add_state("sums", torch.zeros(5, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, said: Tensor, true: Tensor) -> None:
        said, true = said.double(), true.double()
        error = said - true
        parts = (true.sum(), true.square().sum(), error.square().sum(), error.abs().sum())
        self.sums += torch.stack([true.new_tensor(float(true.numel())), *parts])

    def compute(self) -> Tensor:
        return torch.as_tensor(self.score(self.sums.cpu().numpy()))
