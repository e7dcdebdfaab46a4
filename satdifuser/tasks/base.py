"""What every task is: it owns the loss, the metrics, what a prediction is, and how one is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection

from satdifuser.data.base import Batch, Labels
from satdifuser.errors import UserError

TASKS = {"mask": "segmentation", "label": "classification", "multilabel": "multilabel", "target": "regression"}

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Task:
    """A loss is given as a sum and a count of what was summed.

    So the mean over a batch is the same however the batch is cut into micro-batches and processes.
    """

    name: str
    label: str  # the key of the sample that is learned
    dense: bool = False  # logits for every pixel rather than for the image
    least_classes: int = 0  # with fewer there is nothing to learn
    monitor: str  # the metric that chooses the best checkpoint; more is better
    ignored: tuple[int, ...]  # values of a map of the truth that count in no loss and no metric

    def __init__(self, labels: Labels) -> None:
        there = labels.classes
        if len(there) < self.least_classes:
            raise UserError(
                f"task={self.name} needs {self.least_classes} classes or more, but the data have {len(there)}"
                f"{f' ({there[0]})' if there else ''}: of images in folders, give data.root a folder for each class,"
                " and name them in data.classes or leave it out"
            )
        self.labels, self.ignored = labels, (labels.ignore_index,)

    @property
    def outputs(self) -> int:
        return len(self.labels.classes)

    def learn(self, batches: Iterable[Batch]) -> None:
        """What a task has to know of the training labels, from batches of them; most need nothing."""

    def truth(self, batch: Batch) -> Tensor:
        """The labels of the batch, or an error that names the task and what the data has."""
        if self.label not in batch:
            has = [key for key in TASKS if key in batch]
            tasks = ["pixel_regression" if key == "target" and batch[key].ndim > 2 else TASKS[key] for key in has]
            raise UserError(
                f"task={self.name} learns {self.label!r}, but the data only has {', '.join(has) or 'no labels'}"
                f"{': set ' + ' or '.join(f'task={name}' for name in tasks) if tasks else ''}"
            )
        return batch[self.label]

    def targets(self, batch: Batch) -> Tensor:
        """What a loss of classes learns: the class of each element, -1 where none counts; or labels of 0 and 1."""
        return self.truth(batch)

    def size(self, batch: Batch) -> tuple[int, int] | None:
        """The size that dense logits are brought to: the label's."""
        return None

    def check(self, batch: Batch) -> None:
        """Raise if a label is out of range, naming the sample."""

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        raise NotImplementedError

    def count(self, batch: Batch) -> Tensor:
        """How many elements `loss_sum` adds up."""
        raise NotImplementedError

    def predict(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def metrics(self) -> MetricCollection:
        raise NotImplementedError

    def update(self, metrics: MetricCollection, logits: Tensor, batch: Batch) -> None:
        metrics.update(self.predict(logits), self.truth(batch))

    def statistics(self, prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[Any]:
        """A row of numbers for each sample, `[samples, K]`: every score of a set of samples is a function of their sum.

        So that intervals and tests over samples need the predictions, and no model.
        """
        raise NotImplementedError

    def scores(self, sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The metrics of `metrics`, from sums of `statistics` (`[..., K]`)."""
        raise NotImplementedError

    def explain(self) -> dict[str, str]:
        """What each metric is, in words that go on from its name, as this task's settings have it."""
        return {}

    def draw(self, axes: Axes, value: Tensor, ids: Sequence[str] = ()) -> None:
        """Draw a truth or a prediction of one sample; answers for a whole image are written as text."""
        axes.text(0.5, 0.5, self.describe(value), ha="center", va="center", wrap=True, transform=axes.transAxes)

    def describe(self, value: Tensor) -> str:
        raise NotImplementedError

    def _out_of_range(self, batch: Batch, bad: Tensor, allowed: str) -> None:
        """Raise for the first sample of the batch that has a bad label."""
        if not bool(bad.any()):
            return
        first = int(bad.flatten(1).any(1).nonzero()[0]) if bad.ndim > 1 else int(bad.nonzero()[0])
        value: Any = self.truth(batch)[first][bad[first]].flatten()[0].item() if bad.ndim > 1 else None
        value = self.truth(batch)[first].item() if value is None else value
        raise UserError(
            f"sample {batch['id'][first]}: {self.label} holds {value}, but task={self.name} allows {allowed}"
        )
