"""Classification: one class for each image."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from satdifuser.data.base import Batch
from satdifuser.tasks.base import Task
from satdifuser.tasks.counts import by_class, class_counts, mean_of_seen, share


class Classification(Task):
    name, label, monitor = "classification", "label", "accuracy"
    least_classes = 2

    def check(self, batch: Batch) -> None:
        label = self.truth(batch)
        self._out_of_range(batch, (label < 0) | (label >= self.outputs), f"0 to {self.outputs - 1}")

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits.float(), self.truth(batch), reduction="sum")

    def count(self, batch: Batch) -> Tensor:
        label = self.truth(batch)
        return label.new_tensor(label.numel())

    def predict(self, logits: Tensor) -> Tensor:
        return logits.argmax(1)

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(self.outputs, average="micro"),
                "macro_f1": MulticlassF1Score(self.outputs, average="macro"),
                "micro_f1": MulticlassF1Score(self.outputs, average="micro"),
            }
        )

    def statistics(self, prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[Any]:
        return class_counts(prediction, truth, self.outputs)

    def scores(self, sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
        right, said, true = by_class(sums)
        accuracy = share(right.sum(-1), true.sum(-1))
        f1 = share(2 * right, said + true)
        return {"accuracy": accuracy, "macro_f1": mean_of_seen(f1, said + true > 0), "micro_f1": accuracy}

    def describe(self, value: Tensor) -> str:
        return self.labels.classes[int(value)]
