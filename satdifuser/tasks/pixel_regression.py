"""Regression of pixels: a number for each; where the truth is NaN, nothing counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MetricCollection

from satdifuser.data.base import Batch, Labels
from satdifuser.errors import UserError
from satdifuser.kinds import Positive, checked
from satdifuser.tasks.base import Task
from satdifuser.tasks.metrics import FromErrors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Loss = Literal["mse", "l1", "huber"]
COLOURS, BLANK = "cividis", "#b0b0b0"


class PixelRegression(Task, nn.Module):
    """What the decoder gives is the number itself, or with `standardise` its distance from the training mean.

    That distance, and the loss, are then in deviations of the training pixels. Mean and deviation are buffers of the
    model, so that every checkpoint has them. `delta` is where the Huber loss becomes a straight line, in what the loss
    is in.
    """

    name, label, dense, monitor = "pixel_regression", "target", True, "r2"
    mean: Tensor
    deviation: Tensor

    @checked("task")
    def __init__(self, labels: Labels, loss: Loss = "mse", delta: Positive = 1.0, standardise: bool = True) -> None:
        nn.Module.__init__(self)
        Task.__init__(self, labels)
        self.loss, self.delta, self.standardise = loss, delta, standardise
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("deviation", torch.ones((), dtype=torch.float64))

    @property
    def outputs(self) -> int:
        return 1

    def learn(self, batches: Iterable[Batch]) -> None:
        """Mean and deviation of all training pixels that count."""
        if not self.standardise:
            return
        count, mean, squares = 0, 0.0, 0.0  # of the distances from the mean; added up by Chan's formula
        for batch in batches:
            self.check(batch)
            values = self.truth(batch).double()
            values = values[values.isfinite()]
            if values.numel():
                total, away = count + values.numel(), float(values.mean()) - mean
                squares += float((values - values.mean()).square().sum()) + away**2 * count * values.numel() / total
                mean += away * values.numel() / total
                count = total
        if not count:
            raise UserError("no pixel of the training samples has a target: all are NaN")
        self.mean.fill_(mean)
        self.deviation.fill_((squares / count) ** 0.5 or 1.0)

    def size(self, batch: Batch) -> tuple[int, int] | None:
        target = self.truth(batch)
        return target.shape[-2], target.shape[-1]

    def truth(self, batch: Batch) -> Tensor:
        target = super().truth(batch)
        if target.ndim != 3:
            raise UserError(
                f"sample {batch['id'][0]} has one target for the whole image, and task={self.name} learns one for each"
                " pixel: use task=regression"
            )
        return target

    def check(self, batch: Batch) -> None:
        self._out_of_range(batch, self.truth(batch).isinf(), "finite numbers, and NaN where there is none")

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        target, said = self.truth(batch), logits.squeeze(1).float()
        there = ~target.isnan()
        wanted = ((target.double() - self.mean) / self.deviation).float()
        said, wanted = said[there], wanted[there]
        if self.loss == "huber":
            return F.huber_loss(said, wanted, reduction="sum", delta=self.delta)
        return (F.mse_loss if self.loss == "mse" else F.l1_loss)(said, wanted, reduction="sum")

    def count(self, batch: Batch) -> Tensor:
        return (~self.truth(batch).isnan()).sum()

    def predict(self, logits: Tensor) -> Tensor:
        return (logits.squeeze(1).double() * self.deviation + self.mean).float()

    def metrics(self) -> MetricCollection:
        names = ("r2", "rmse", "mae")
        return MetricCollection({name: FromErrors(partial(self._score, name)) for name in names})

    def _score(self, name: str, sums: NDArray[Any]) -> NDArray[Any]:
        return self.scores(sums)[name]

    def update(self, metrics: MetricCollection, logits: Tensor, batch: Batch) -> None:
        target = self.truth(batch)
        there = ~target.isnan()
        metrics.update(self.predict(logits)[there], target[there])

    def statistics(self, prediction: NDArray[Any], truth: NDArray[Any], middle: float | None = None) -> NDArray[Any]:
        """Squares are taken around `middle`: of samples that come in parts it must be one for all."""
        counted = np.isfinite(truth)
        if middle is None:
            middle = truth[counted].mean(dtype=np.float64) if counted.any() else 0.0
        rows = []
        for said, true, there in zip(prediction, truth, counted, strict=True):  # one by one: maps of a split are large
            away = true[there].astype(np.float64) - middle  # sums of squares far from zero lose everything
            error = said[there].astype(np.float64) - true[there].astype(np.float64)
            rows.append([there.sum(), away.sum(), (away**2).sum(), (error**2).sum(), np.abs(error).sum()])
        return np.array(rows, dtype=np.float64)

    def scores(self, sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
        count, away, squares, errors, distances = (sums[..., column] for column in range(5))
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample may hold one value only, or no pixel
            spread = squares - away**2 / count
            spread = np.where(spread > 1e-12 * squares, spread, np.nan)
            return {"r2": 1.0 - errors / spread, "rmse": np.sqrt(errors / count), "mae": distances / count}

    def explain(self) -> dict[str, str]:
        return {
            "r2": "is 1 less the squared errors' share in the squared distances of the true values from their mean,"
            " over the pixels of all images that have a true value",
            "rmse": "is the root of the mean squared error of these pixels, in the units of the target; less is better",
            "mae": "is the mean distance of what is said from what is true, in the same units; less is better",
        }

    def draw(self, axes: Axes, value: Tensor, ids: Sequence[str] = ()) -> None:
        import matplotlib

        colours = matplotlib.colormaps[COLOURS].with_extremes(bad=BLANK)
        axes.imshow(np.ma.masked_invalid(value.float().numpy()), cmap=colours, interpolation="nearest")

    def describe(self, value: Tensor) -> str:
        there = value[value.isfinite()]
        return f"{float(there.min()):.3g} to {float(there.max()):.3g}" if there.numel() else "no pixel"
