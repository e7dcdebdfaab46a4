"""Segmentation: a class for every pixel; pixels with the ignore value count in no loss and no metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from satdifuser.data.base import Batch
from satdifuser.tasks.base import Task
from satdifuser.tasks.counts import by_class, class_counts, mean_of_seen, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Segmentation(Task):
    name, label, dense, monitor = "segmentation", "mask", True, "miou"
    least_classes = 2

    def size(self, batch: Batch) -> tuple[int, int] | None:
        mask = self.truth(batch)
        return mask.shape[-2], mask.shape[-1]

    def check(self, batch: Batch) -> None:
        mask = self.truth(batch)
        bad = ((mask < 0) | (mask >= self.outputs)) & (mask != self.labels.ignore_index)
        self._out_of_range(batch, bad, f"0 to {self.outputs - 1} and {self.labels.ignore_index} (ignored)")

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(
            logits.float(), self.truth(batch), ignore_index=self.labels.ignore_index, reduction="sum"
        )

    def count(self, batch: Batch) -> Tensor:
        return (self.truth(batch) != self.labels.ignore_index).sum()

    def predict(self, logits: Tensor) -> Tensor:
        return logits.argmax(1)

    def metrics(self) -> MetricCollection:
        ignore = self.labels.ignore_index
        return MetricCollection(
            {
                "miou": MulticlassJaccardIndex(self.outputs, ignore_index=ignore, average="macro"),
                "accuracy": MulticlassAccuracy(self.outputs, ignore_index=ignore, average="micro"),
            }
        )

    def statistics(self, prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[Any]:
        counted = np.where(truth == self.labels.ignore_index, -1, truth.astype(np.int64))
        return class_counts(prediction, counted, self.outputs)

    def scores(self, sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
        right, said, true = by_class(sums)
        union = said + true - right
        learned = np.arange(self.outputs) != self.labels.ignore_index  # a class may be the ignored one
        return {
            "miou": mean_of_seen(share(right, union), (union > 0) & learned),
            "accuracy": share(right.sum(-1), true.sum(-1)),
        }

    def draw(self, axes: Axes, value: Tensor, ids: Sequence[str] = ()) -> None:
        from matplotlib.colors import to_rgb

        palette = torch.tensor([to_rgb(colour) for colour in self.labels.colours] + [(0.0, 0.0, 0.0)])
        index = torch.where((value >= 0) & (value < self.outputs), value, self.outputs)
        axes.imshow(palette[index].numpy(), interpolation="nearest")

    def describe(self, value: Tensor) -> str:
        return f"map of {tuple(value.shape)}"
