"""Classification: one class for each image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from satdifuser.data.base import Batch
from satdifuser.tasks.base import Task


class Classification(Task):
    name, label, monitor = "classification", "label", "accuracy"

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

    def describe(self, value: Tensor) -> str:
        return self.labels.classes[int(value)]
