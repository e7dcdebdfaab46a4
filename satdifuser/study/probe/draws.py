"""Draws: the samples that a budget and a seed teach a probe with. The same as `compare` takes, for seed 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from satdifuser.data.base import Batch, LabelledDataset, Labels
from satdifuser.data.splits.budgets import Shares, budget, budget_size, label_shares, order
from satdifuser.tasks.base import Task

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """Samples of train, and of val those that are learned from with the chosen strength, both ascending."""

    budget: float
    seed: int
    train: Indices
    val: Indices


class Answers:
    """The labels of a split that are in memory already, as what budgets ask of a data set."""

    name = "answers"

    def __init__(self, ids: Sequence[str], truth: NDArray[Any], task: Task) -> None:
        self.ids, self.truth, self.task = list(ids), torch.from_numpy(truth), task
        self.labels: Labels = task.labels
        self.identity: dict[str, Any] = {}

    def read_labels(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Batch:
        where = list(indices)
        return {"id": [self.ids[index] for index in where], self.task.label: self.truth[where]}

    def subset(self, indices: Sequence[int]) -> Answers:
        return Answers([self.ids[index] for index in indices], self.truth[list(indices)].numpy(), self.task)

    def sample_id(self, index: int) -> str:
        return self.ids[index]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Any:
        return self.read_labels([index])


@dataclass
class Draws:
    """Draws of a task's training and validation split; labels are asked for once, and only where a budget needs them.

    `drawn_by` is the data's own seed. Without `refit` no draw has samples of val.
    """

    task: Task
    train: LabelledDataset
    val: LabelledDataset
    drawn_by: int
    refit: bool
    workers: int = 0
    _ranked: dict[int, list[int]] = field(default_factory=dict)
    _known: dict[str, Shares] = field(default_factory=dict)

    def of(self, percent: float, seed: int) -> Draw:
        """An error says where a budget of train shows not every class. Of val, which only adds to it, any will do."""
        train, val = np.arange(len(self.train)), np.arange(len(self.val))
        if percent < 100:
            train = np.array(budget(_ids(self.train), self._shares("train"), percent, self.drawn_by + seed))
            if self.refit:
                val = np.array(sorted(self._order(seed)[: budget_size(len(self.val), percent)]))
        return Draw(percent, seed, train.astype(np.int64), val.astype(np.int64) if self.refit else val[:0])

    def _order(self, seed: int) -> list[int]:
        if seed not in self._ranked:
            self._ranked[seed] = order(_ids(self.val), self._shares("val").values, self.drawn_by + seed)
        return self._ranked[seed]

    def _shares(self, role: str) -> Shares:
        if role not in self._known:
            data = self.train if role == "train" else self.val
            self._known[role] = label_shares(data, self.task, workers=self.workers)
        return self._known[role]


def _ids(data: LabelledDataset) -> list[str]:
    return [data.sample_id(index) for index in range(len(data))]
