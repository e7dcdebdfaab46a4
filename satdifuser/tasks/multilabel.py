"""Multi-label classification: every class that an image shows."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAccuracy, MultilabelF1Score

from satdifuser.data.base import Batch
from satdifuser.tasks.base import Task


class MultiLabel(Task):
    name, label, monitor = "multilabel", "multilabel", "micro_f1"

    def check(self, batch: Batch) -> None:
        labels = self.truth(batch)
        self._out_of_range(batch, (labels != 0) & (labels != 1), "0 and 1")

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits.float(), self.truth(batch).float(), reduction="sum")

    def count(self, batch: Batch) -> Tensor:
        labels = self.truth(batch)
        return labels.new_tensor(labels.numel())

    def predict(self, logits: Tensor) -> Tensor:
        return (logits > 0).long()

    def update(self, metrics: MetricCollection, logits: Tensor, batch: Batch) -> None:
        metrics.update(self.predict(logits), self.truth(batch).long())

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "micro_f1": MultilabelF1Score(self.outputs, average="micro"),
                "macro_f1": MultilabelF1Score(self.outputs, average="macro"),
                "accuracy": MultilabelAccuracy(self.outputs, average="micro"),
            }
        )

    def describe(self, value: Tensor) -> str:
        return "\n".join(name for name, there in zip(self.labels.classes, value.tolist(), strict=True) if there)
