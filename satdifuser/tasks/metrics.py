"""The metrics that torchmetrics does not have, of counts that it gathers over batches and processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
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
