"""Label budgets: nested, stratified parts of a training split, which depend on ids, labels and a seed alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.data.base import Batch, LabelledDataset
from satdifuser.data.batches import OrderedBatches, loader
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from satdifuser.tasks.base import Task

Floats = NDArray[np.float64]

CANDIDATES = 32  # samples that are compared before one is taken
BINS = 10  # of the target of a regression
BLOCK = 32  # samples whose labels are read at once


@runtime_checkable
class ReadsLabels(Protocol):
    """A data set that reads labels without the rest and gives a part of itself: a store."""

    def read_labels(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Batch: ...

    def subset(self, indices: Sequence[int]) -> LabelledDataset: ...


class Shares(NamedTuple):
    """How much of each class the samples show, `[samples, classes]`, and what the classes are called."""

    values: Floats
    names: tuple[str, ...]


class Within:
    """Some samples of a data set, in the order given."""

    def __init__(self, data: LabelledDataset, indices: Sequence[int]) -> None:
        self.data, self.indices = data, list(indices)
        self.name, self.labels = data.name, data.labels

    @property
    def identity(self) -> dict[str, Any]:
        return within(self.data.identity, [self.sample_id(index) for index in range(len(self))])

    def sample_id(self, index: int) -> str:
        return self.data.sample_id(self.indices[index])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.data[self.indices[index]]


def within(identity: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    """A data set's identity with what tells these of its samples from others."""
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
    return {**identity, "budget": {"samples": len(ids), "ids": digest}}


def within_budget(data: LabelledDataset, task: Task, percent: float, seed: int, *, workers: int = 0) -> LabelledDataset:
    """`percent` of a training split, stratified by the task's labels; a smaller budget is a part of a larger one.

    `seed` is that of the data, not of the run: all models and runs learn from the same samples.
    """
    check_percent(percent)
    if percent == 100:
        return data
    ids = [data.sample_id(index) for index in range(len(data))]
    if not ids:
        raise UserError(f"budget: the training split is empty, so there is no {percent} % of it")
    indices = budget(ids, label_shares(data, task, workers=workers), percent, seed)
    return data.subset(indices) if isinstance(data, ReadsLabels) else Within(data, indices)


def budget(ids: Sequence[str], shares: Shares, percent: float, seed: int) -> list[int]:
    """The samples of a budget, ascending; an error where they would not show every class that the split shows."""
    check_percent(percent)
    count = budget_size(len(ids), percent)
    if count == len(ids):
        return list(range(count))
    chosen = order(ids, shares.values, seed)
    shown = shares.values[chosen] > 0
    first = np.where(shown.any(0), shown.argmax(0), -1)  # where in the order each class is shown first
    missing = [name for name, place in zip(shares.names, first, strict=True) if place >= count]
    if missing:
        raise UserError(
            f"budget: {percent} % of {len(ids)} training samples are {count}, too few to show {_listed(missing)}: ask"
            f" for {_smallest(len(ids), int(first.max()) + 1)} % or more"
        )
    return sorted(chosen[:count])


def order(ids: Sequence[str], shares: Floats, seed: int) -> list[int]:
    """All samples, ordered so that the first k, for any k, show the classes about as the whole does.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, On the Stratification of Multi-Label Data, ECML PKDD
    2011) for nested parts: first one sample for each class that none has shown, the rarest first; then always the class
    that falls short the most, and of the next samples that show it (in an order shuffled by `seed`) the one that leaves
    the least distance to the composition of the whole. Samples of no class are spread as if they had one of their own.
    The sums are taken in an order of their own, so that other machines come to the same samples.
    """
    if not ids:
        return []
    by_id = sorted(range(len(ids)), key=ids.__getitem__)
    shuffled = np.array(by_id)[np.random.Generator(np.random.PCG64(seed)).permutation(len(ids))]
    values = np.asarray(shares, np.float64)[shuffled]
    table = np.ascontiguousarray(np.column_stack([values, ~(values > 0).any(1)]).T)  # [classes and none, samples]
    whole = np.array([math.fsum(row) / len(ids) for row in table])
    free = np.ones(len(ids), bool)
    queues = [_Queue(np.flatnonzero(row > 0).tolist(), free) for row in table]
    taken, found = np.zeros(len(table)), list[int]()

    def take(number: int) -> bool:
        """Take a sample of this class, unless there are no more."""
        candidates = queues[number].next()
        if not candidates:
            return False
        lacking = whole * (len(found) + 1) - taken
        distance = np.square(np.take(table, candidates, axis=1) - lacking[:, None]).sum(0)
        best = candidates[int(distance.argmin())]
        free[best] = False
        found.append(best)
        taken[:] += table[:, best]
        return True

    samples = (table[:-1] > 0).sum(1)
    for number in np.argsort(samples, kind="stable").tolist():
        if samples[number] and not taken[number] > 0:
            take(number)
    left = np.ones(len(table), bool)
    while len(found) < len(ids):
        lacking = np.where(left, whole * (len(found) + 1) - taken, -np.inf)
        number = int(lacking.argmax())
        left[number] = take(number)
    return shuffled[found].tolist()


class _Queue:
    """The samples that show a class, in order; each is passed once, however often one asks for the next."""

    def __init__(self, samples: list[int], free: NDArray[np.bool_]) -> None:
        self._samples, self._free = iter(samples), free
        self._waiting: list[int] = []

    def next(self) -> list[int]:
        """The next candidates that are still free."""
        self._waiting = [sample for sample in self._waiting if self._free[sample]]
        while len(self._waiting) < CANDIDATES:
            sample = next(self._samples, None)
            if sample is None:
                break
            if self._free[sample]:
                self._waiting.append(sample)
        return self._waiting


def label_shares(data: LabelledDataset, task: Task, *, workers: int = 0) -> Shares:
    """What each sample's label says of each class: 1 or 0, or its share of the pixels that are not ignored.

    The target of a regression (of pixels: its mean over the image) counts as one of ten classes, between the deciles of
    all targets.
    """
    batches = label_batches(data, task, workers)
    if task.label == "target":
        means = [
            _truth(task, batch).double().flatten(1).nanmean(1) if task.dense else _truth(task, batch).double()
            for batch in batches
        ]
        return _deciles(torch.cat(means).numpy())
    shares = {"label": _of_classes, "multilabel": _of_labels, "mask": _of_pixels}.get(task.label)
    if shares is None:
        raise UserError(f"budget: task={task.name} learns {task.label!r}, whose classes are not known: use all samples")
    rows = [shares(_truth(task, batch), task).double().numpy() for batch in batches]
    return Shares(np.concatenate(rows), tuple(task.labels.classes))


def label_batches(data: LabelledDataset, task: Task, workers: int) -> Iterator[Batch]:
    if not isinstance(data, ReadsLabels):
        yield from loader(data, OrderedBatches(len(data), 1), workers)  # one by one: images may differ in size
        return
    task.truth(data.read_labels([0]))  # with all labels, so that an error can say which there are
    for first in range(0, len(data), BLOCK):
        yield data.read_labels(range(first, min(first + BLOCK, len(data))), [task.label])


def _truth(task: Task, batch: Batch) -> Tensor:
    truth = task.truth(batch)
    task.check(batch)
    return truth


def _of_classes(truth: Tensor, task: Task) -> Tensor:
    return torch.nn.functional.one_hot(truth.long(), len(task.labels.classes))


def _of_labels(truth: Tensor, task: Task) -> Tensor:
    return truth


def _of_pixels(truth: Tensor, task: Task) -> Tensor:
    classes = len(task.labels.classes)
    flat = truth.flatten(1)
    for ignored in task.ignored:
        flat = torch.where(flat == ignored, classes, flat)
    flat = flat + (classes + 1) * torch.arange(len(flat))[:, None]
    counts = flat.flatten().bincount(minlength=(classes + 1) * len(flat)).view(len(flat), -1)[:, :classes]
    return counts.double() / counts.sum(1, keepdim=True).clamp_min(1)


def _deciles(targets: Floats) -> Shares:
    """One-hot rows of the bins between the deciles; equal targets are in one bin, and bins may be empty."""
    targets = np.where(np.isnan(targets), np.nanmedian(targets), targets)  # an image without any is like most
    edges = np.quantile(targets, np.arange(1, BINS) / BINS)
    bins = np.searchsorted(edges, targets, side="right")
    ends = [targets.min(), *edges, targets.max()]
    names = tuple(f"targets of {low:.4g} to {high:.4g}" for low, high in pairwise(ends))
    return Shares(np.eye(BINS)[bins], names)


def check_percent(percent: Any) -> None:
    if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 < percent <= 100:
        raise UserError(f"budget is {percent}: give the percentage of the training samples, above 0 and at most 100")


def budget_size(samples: int, percent: float) -> int:
    """So many samples are `percent` of all: a half is rounded up, and there is at least one.

    >>> budget_size(250, 1), budget_size(250, 0.99), budget_size(9, 0.1), budget_size(3, 100)
    (3, 2, 1, 3)
    """
    exact = Decimal(str(percent)) * samples / 100
    return max(1, int(exact.to_integral_value(ROUND_HALF_UP)))


def _smallest(samples: int, count: int) -> str:
    """The smallest percentage, to two decimals or as many as are needed, that gives so many samples.

    >>> _smallest(200, 7), _smallest(7, 7), _smallest(50, 1), _smallest(100_000, 3)
    ('3.25', '92.86', '1', '0.003')
    """
    exact = (Decimal(count) - Decimal("0.5")) * 100 / samples
    for places in range(2, 12):
        rounded = exact.quantize(Decimal(1).scaleb(-places), ROUND_CEILING)
        if budget_size(samples, float(rounded)) == count:
            break
    return f"{rounded:f}".rstrip("0").rstrip(".")


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
