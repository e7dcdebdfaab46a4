"""The k nearest training samples of each sample, and what they say; in blocks, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from satdifuser.analysis.linear import Floats, answers_of, classes_of, features_of

BLOCK_BYTES = 2**27  # of distances
ROUNDING = 1e-13  # squared distances that differ by a smaller share of the squared lengths are equal


class Neighbours:
    """The nearest training samples by the cosine of, or the distance between, features as they are.

    Of those that are equally far the first in order counts. `y` are classes [N], labels [N, outputs], or for `mean`
    numbers [N] or [N, K].
    """

    def __init__(
        self,
        x: ArrayLike,
        y: ArrayLike,
        outputs: int = 1,
        k: int = 5,
        distance: Literal["cosine", "euclidean"] = "cosine",
        device: str = "cpu",
    ) -> None:
        rows = features_of(x)
        if not 1 <= k <= len(rows):
            raise ValueError(f"there are {len(rows)} samples to choose {k} neighbours from: ask for 1 to {len(rows)}")
        self.answers, self.outputs, self.k = answers_of(y, len(rows)), outputs, k
        self.cosine, self.device = distance == "cosine", device
        self.rows = self._prepared(rows)
        self.lengths = self.rows.square().sum(1)

    def shares(self, x: ArrayLike) -> Floats:
        """[N, outputs]: the share of the k nearest that have each class or label."""
        answers = classes_of(self.answers, len(self.answers), self.outputs)
        if answers.ndim == 1:
            answers = np.eye(self.outputs, dtype=np.int64)[answers]
        return self._averaged(x, answers)

    def mean(self, x: ArrayLike) -> Floats:
        """[N, K]: the mean of the k nearest samples' numbers (K is 1 of numbers [N])."""
        return self._averaged(x, self.answers.reshape(len(self.answers), -1))

    def nearest(self, x: ArrayLike) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of samples with the numbers [n, k] of their nearest."""
        rows = features_of(x)
        if rows.shape[1] != self.rows.shape[1]:
            raise ValueError(f"features are {rows.shape}, and those to compare with [N, {self.rows.shape[1]}]")
        size = max(1, BLOCK_BYTES // (8 * len(self.rows)))
        for first in range(0, len(rows), size):
            part = slice(first, first + size)
            some = self._prepared(rows[part])
            far = torch.addmm(self.lengths, some, self.rows.T, alpha=-2)
            yield part, _smallest(far, self.k, ROUNDING * (some.square().sum(1) + self.lengths.max()))

    def _prepared(self, x: np.ndarray) -> Tensor:
        rows = torch.from_numpy(np.ascontiguousarray(x)).to(self.device).double()
        return torch.nn.functional.normalize(rows, dim=1, eps=1e-300) if self.cosine else rows

    def _averaged(self, x: ArrayLike, answers: np.ndarray) -> Floats:
        known = torch.from_numpy(answers.astype(np.float64)).to(self.device)
        found = [known[nearest].mean(1).cpu().numpy() for _, nearest in self.nearest(x)]
        return np.concatenate(found)


def _smallest(far: Tensor, k: int, same: Tensor) -> Tensor:
    """Columns of the k smallest of each row, the first of those that differ by no more than `same` [rows]."""
    if k == far.shape[1]:
        return torch.arange(k, device=far.device).expand(len(far), k)
    values, columns = far.topk(k + 1, dim=1, largest=False)
    found = columns[:, :k]
    close = values[:, k] - values[:, k - 1] <= same
    if close.any():
        limit = values[close, k - 1, None]
        steps = ((far[close] - limit) / same[close, None]).round_()
        steps[steps.abs() <= 1] = 0
        found[close] = steps.argsort(dim=1, stable=True)[:, :k]
    return found
