"""Which pixels teach a probe: of each class as often as it occurs, spread over samples by a seed, whatever the model.

Their features are what bilinear interpolation of the map to the label's size gives there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.data.base import LabelledDataset
from satdifuser.data.splits.budgets import label_batches
from satdifuser.errors import UserError
from satdifuser.tasks.base import Task

Ints = NDArray[np.int64]


def kinds(task: Task, truth: NDArray[Any]) -> Ints:
    """The class of each pixel (0 where it has a number), -1 where it counts nowhere."""
    if task.label == "target":
        return np.where(np.isfinite(truth), 0, -1)
    return np.where(np.isin(truth, task.ignored), -1, truth).astype(np.int64)


def counts(task: Task, data: LabelledDataset, workers: int = 0) -> Ints:
    """[samples, classes]: how many pixels of each, from one pass over the labels."""
    rows: list[Ints] = []
    for batch in label_batches(data, task, workers):
        truth = task.truth(batch)
        task.check(batch)
        rows += [np.bincount(kinds(task, one.numpy()).ravel() + 1, minlength=task.outputs + 1)[1:] for one in truth]
    return np.stack(rows)


def quotas(there: Ints, most: int, seed: int) -> Ints:
    """How many pixels of each sample and class, `[samples, classes]`, are taken: all of them, or `most` altogether.

    Each class has its share, rounded by largest remainders; within it each sample has, up to one pixel more or less.

    >>> quotas(np.array([[6, 0], [2, 4]]), 6, seed=0).sum(0).tolist()
    [4, 2]
    """
    totals = there.sum(0)
    whole = int(totals.sum())
    if whole <= most:
        return there.copy()
    share, left = np.divmod(totals * most, whole)
    share[np.argsort(-left, kind="stable")[: most - int(share.sum())]] += 1
    generator = np.random.Generator(np.random.PCG64([seed, 2]))
    found = np.zeros_like(there)
    for number in np.flatnonzero(share):
        order = generator.permutation(len(there))
        ends = np.concatenate([[0], there[order, number].cumsum()])
        found[order, number] = np.diff((ends * share[number] + generator.integers(totals[number])) // totals[number])
    return found


@dataclass(frozen=True)
class PixelSet:
    """Pixels that are learned from, or chosen on, together: how many of each sample and class, by split."""

    name: str
    quotas: Mapping[str, Ints]
    seed: int

    def count(self, role: str) -> int:
        return int(self.quotas[role].sum()) if role in self.quotas else 0

    @property
    def total(self) -> int:
        return sum(map(self.count, self.quotas))

    def positions(self, role: str, sample: int, classes: Ints) -> Ints:
        """Which pixels of a sample, ascending, where `classes` [H, W] are what `kinds` says."""
        wanted, flat = self.quotas[role][sample], classes.ravel()
        generator = np.random.Generator(np.random.PCG64([self.seed, 3, sample, int(role == "val")]))
        parts = [np.zeros(0, np.int64)]
        for number in np.flatnonzero(wanted):
            where = np.flatnonzero(flat == number)
            few = wanted[number] < len(where)
            parts.append(generator.choice(where, wanted[number], replace=False, shuffle=False) if few else where)
        return np.sort(np.concatenate(parts))


def require_pixels(there: Ints, role: str, task: Task) -> None:
    if not there.sum():
        raise UserError(f"no pixel of the split {role} has an answer that counts for task={task.name}")


def sampled(maps: Tensor, size: tuple[int, int], samples: Tensor, positions: Tensor) -> Tensor:
    """[n, channels]: maps [B, C, h, w], brought to `size` as `decoders.base.resize` does, at some pixels of samples."""
    height, width = maps.shape[-2:]
    rows = maps.float().flatten(2).transpose(1, 2).flatten(0, 1)  # a row for each pixel of the batch
    top, bottom, down = _between(positions // size[1], height, size[0])
    left, right, across = _between(positions % size[1], width, size[1])

    def at(y: Tensor, x: Tensor) -> Tensor:
        return rows[(samples * height + y) * width + x]

    above = at(top, left) * (1 - across) + at(top, right) * across
    below = at(bottom, left) * (1 - across) + at(bottom, right) * across
    return above * (1 - down) + below * down


def _between(wanted: Tensor, side: int, target: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two cells that a pixel lies between, and how far it is from the first."""
    place = ((wanted.double() + 0.5) * side / target - 0.5).clamp(0, side - 1)
    first = place.floor().long()
    return first, (first + 1).clamp(max=side - 1), (place - first).float()[:, None]


def batch_positions(chosen: PixelSet, role: str, first: int, classes: list[Ints]) -> tuple[Tensor, Tensor]:
    """Of a batch that begins with sample `first`: the place in the batch, and the pixel, of each that is taken."""
    parts = [chosen.positions(role, first + place, each) for place, each in enumerate(classes)]
    samples = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return torch.from_numpy(samples), torch.from_numpy(np.concatenate(parts))
