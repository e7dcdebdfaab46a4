"""Segmentation: a class for every pixel; pixels with an ignored value count in no loss and no metric."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Len
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from satdifuser.data.base import Batch, Labels
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import checked
from satdifuser.tasks.base import Task
from satdifuser.tasks.counts import by_class, class_counts, mean_iou, share
from satdifuser.tasks.metrics import FromCounts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Absent = Literal["leave", "zero"]
ClassNames = str | Annotated[list[str], Len(1)]


class Segmentation(Task):
    """`absent` says what a class that is in neither truth nor prediction is in the mIoU: left out, or a zero.

    The pixels of the classes that `ignore` names count nowhere, as those with the data's own ignore value; nor do these
    classes in the mIoU. Another class's pixel that is taken for one of them is wrong.
    """

    name, label, dense, monitor = "segmentation", "mask", True, "miou"
    least_classes = 2

    @checked("task")
    def __init__(self, labels: Labels, absent: Absent = "leave", ignore: ClassNames | None = None) -> None:
        super().__init__(labels)
        self.absent = absent
        self.ignored = (*self.ignored, *_numbers(labels, ignore))
        self.learned = ~np.isin(np.arange(self.outputs), self.ignored)  # the data's own value may be a class, too
        if ignore is not None and self.learned.sum() < 2:
            left = " and ".join(name for name, learned in zip(labels.classes, self.learned, strict=True) if learned)
            raise UserError(f"task.ignore leaves {left or 'no class'} to learn: leave two classes or more")

    def size(self, batch: Batch) -> tuple[int, int] | None:
        mask = self.truth(batch)
        return mask.shape[-2], mask.shape[-1]

    def check(self, batch: Batch) -> None:
        mask = self.truth(batch)
        bad = ((mask < 0) | (mask >= self.outputs)) & (mask != self.labels.ignore_index)
        self._out_of_range(batch, bad, f"0 to {self.outputs - 1} and {self.labels.ignore_index} (ignored)")

    def _counted(self, batch: Batch) -> Tensor:
        """The truth, with the data's ignore value for all that is ignored."""
        mask = self.truth(batch)
        for value in self.ignored[1:]:
            mask = mask.masked_fill(mask == value, self.labels.ignore_index)
        return mask

    def targets(self, batch: Batch) -> Tensor:
        counted = self._counted(batch)
        return counted.masked_fill(counted == self.labels.ignore_index, -1)

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        counted, ignore = self._counted(batch), self.labels.ignore_index
        return F.cross_entropy(logits.float(), counted, ignore_index=ignore, reduction="sum")

    def count(self, batch: Batch) -> Tensor:
        return (self._counted(batch) != self.labels.ignore_index).sum()

    def predict(self, logits: Tensor) -> Tensor:
        return logits.argmax(1)

    def metrics(self) -> MetricCollection:
        ignore = self.labels.ignore_index
        return MetricCollection(
            {
                "miou": FromCounts(self.outputs, self._miou(), ignore_index=ignore),
                "accuracy": MulticlassAccuracy(self.outputs, ignore_index=ignore, average="micro"),
            }
        )

    def update(self, metrics: MetricCollection, logits: Tensor, batch: Batch) -> None:
        metrics.update(self.predict(logits), self._counted(batch))

    def statistics(self, prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[Any]:
        true = truth.astype(np.int64)
        return class_counts(prediction, np.where(np.isin(true, self.ignored), -1, true), self.outputs)

    def scores(self, sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
        right, said, true = by_class(sums)
        return {"miou": self._miou()(right, said, true), "accuracy": share(right.sum(-1), true.sum(-1))}

    def _miou(self) -> Any:
        return partial(mean_iou, counts=self.learned, zero=self.absent == "zero")

    def explain(self) -> dict[str, str]:
        names = [name for name, learned in zip(self.labels.classes, self.learned, strict=True) if not learned]
        absent = "counts as 0, as in the released SatDiFuser code" if self.absent == "zero" else "is left out"
        without = f" other than {' and '.join(names)}" if names else ""
        ignored = f"; pixels whose truth is {' or '.join(names)} are ignored" if names else ""
        return {
            "miou": f"is the mean over the classes{without} of intersection / union, counted over the pixels of all"
            f" images; a class that is in neither truth nor prediction {absent}{ignored}",
            "accuracy": f"is the share of the pixels of all images that are right{ignored}",
        }

    def draw(self, axes: Axes, value: Tensor, ids: Sequence[str] = ()) -> None:
        from matplotlib.colors import to_rgb

        palette = torch.tensor([to_rgb(colour) for colour in self.labels.colours] + [(0.0, 0.0, 0.0)])
        index = torch.where((value >= 0) & (value < self.outputs), value, self.outputs)
        axes.imshow(palette[index].numpy(), interpolation="nearest")

    def describe(self, value: Tensor) -> str:
        return f"map of {tuple(value.shape)}"


def _numbers(labels: Labels, ignore: ClassNames | None) -> list[int]:
    """The classes of these names."""
    names = [] if ignore is None else [ignore] if isinstance(ignore, str) else ignore
    for name in names:
        if name not in labels.classes:
            close = nearest(name, labels.classes) or f": the data's are {', '.join(labels.classes)}"
            raise UserError(f"task.ignore names {name!r}, which is no class of the data{close}")
    return [labels.classes.index(name) for name in names]
