"""Multi-label classification: every class that an image shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAccuracy, MultilabelF1Score

from satdifuser.data.base import Batch
from satdifuser.tasks.base import Task
from satdifuser.tasks.counts import by_class, share


class MultiLabel(Task):
    name, label, monitor = "multilabel", "multilabel", "micro_f1"
    least_classes = 2

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

    def statistics(self, prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[Any]:
        said, true = prediction.astype(np.float64), truth.astype(np.float64)
        return np.concatenate([said * true, said, true, np.ones((len(said), 1))], axis=1)

    def scores(self, sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
        right, said, true = by_class(sums[..., :-1])
        answers = sums[..., -1] * self.outputs
        wrong = (said + true - 2 * right).sum(-1)
        return {
            "micro_f1": share(2 * right.sum(-1), (said + true).sum(-1)),
            "macro_f1": share(2 * right, said + true).mean(-1),
            "accuracy": share(answers - wrong, answers),
        }

    def explain(self) -> dict[str, str]:
        return {
            "micro_f1": "is the F1 of all answers together, each a class of an image, as scikit-learn's and that of the"
            " released SatDiFuser code",
            "macro_f1": "is the mean of the classes' F1 over all classes, with 0 for one that is in neither truth nor"
            " prediction",
            "accuracy": "is the share of all answers, each a class of an image, that are right",
        }

    def describe(self, value: Tensor) -> str:
        return "\n".join(name for name, there in zip(self.labels.classes, value.tolist(), strict=True) if there)
