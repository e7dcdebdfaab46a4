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
from satdifuser.tasks.counts import by_class, class_counts, mean_of_seen, released_f1, share
from satdifuser.tasks.metrics import FromCounts


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
                "released_f1": FromCounts(self.outputs, released_f1),
            }
        )

    def statistics(self, prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[Any]:
        return class_counts(prediction, truth, self.outputs)

    def scores(self, sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
        right, said, true = by_class(sums)
        accuracy = share(right.sum(-1), true.sum(-1))
        f1 = share(2 * right, said + true)
        return {
            "accuracy": accuracy,
            "macro_f1": mean_of_seen(f1, said + true > 0),
            "micro_f1": accuracy,
            "released_f1": released_f1(right, said, true),
        }

    def explain(self) -> dict[str, str]:
        return {
            "accuracy": "is the share of the images that are right",
            "macro_f1": "is the mean of the classes' F1, as scikit-learn's; a class that is in neither truth nor"
            " prediction is left out",
            "micro_f1": "is the F1 of all answers together, which for one class an image is the accuracy",
            "released_f1": "is the harmonic mean of macro precision and macro recall, as in the released SatDiFuser"
            " code: both are means over all classes, with 0 for one that is never predicted or never true",
        }

    def describe(self, value: Tensor) -> str:
        return self.labels.classes[int(value)]
