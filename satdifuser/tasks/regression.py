"""Regression: one number for each image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MeanSquaredError, MetricCollection, R2Score

from satdifuser.data.base import Batch
from satdifuser.tasks.base import Task


class Regression(Task):
    name, label, monitor = "regression", "target", "r2"

    @property
    def outputs(self) -> int:
        return 1

    def check(self, batch: Batch) -> None:
        self._out_of_range(batch, ~self.truth(batch).isfinite(), "finite numbers")

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.mse_loss(logits.squeeze(1).float(), self.truth(batch).float(), reduction="sum")

    def count(self, batch: Batch) -> Tensor:
        target = self.truth(batch)
        return target.new_tensor(target.numel())

    def predict(self, logits: Tensor) -> Tensor:
        return logits.squeeze(1).float()

    def metrics(self) -> MetricCollection:
        scores = MetricCollection({"r2": R2Score(), "rmse": MeanSquaredError(squared=False)})
        return scores.set_dtype(torch.float64)  # sums of squares far from zero lose everything in float32

    def update(self, metrics: MetricCollection, logits: Tensor, batch: Batch) -> None:
        metrics.update(self.predict(logits).double(), self.truth(batch).double())

    def statistics(self, prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[Any]:
        true = truth.astype(np.float64)
        away = true - true.mean()  # sums of squares far from zero lose everything
        error = prediction.astype(np.float64) - true
        return np.stack([np.ones_like(true), away, away**2, error**2], axis=1)

    def scores(self, sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
        count, away, squares, errors = (sums[..., column] for column in range(4))
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample may hold one value only
            spread = squares - away**2 / count
            spread = np.where(spread > 1e-12 * squares, spread, np.nan)
            return {"r2": 1.0 - errors / spread, "rmse": np.sqrt(errors / count)}

    def explain(self) -> dict[str, str]:
        return {
            "r2": "is 1 less the squared errors' share in the squared distances of the true values from their mean",
            "rmse": "is the root of the mean squared error, in the units of the target; less is better",
        }

    def describe(self, value: Tensor) -> str:
        return f"{float(value):.2f}"
