"""The losses of logistic regression over many rows, with their slopes: two products of matrices, and little else.

Rows are kept as float32, and are float64 while they are used: the minimum of a weak penalty is too flat for sums in
float32. All is told from the margin of the true answer, so that a loss near 0 and its slope keep their digits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from satdifuser.analysis.linear import Floats

LARGEST = 4096  # weights of a block of the second derivative
ENOUGH = 4  # rows for each weight, to know the second derivative by
TINY = 1e-9  # of how much a row matters
ROWS = {"cpu": 2**10, "cuda": 2**18}  # at once: on a CPU they stay in its cache for both products


class RowLoss(ABC):
    """A mean over rows [N, R], of which each has an answer: a column of `answers` [*, N]."""

    def __init__(self, rows: Tensor, answers: Tensor, outputs: int) -> None:
        self.rows, self.answers, self.outputs = rows, answers, outputs

    def value(self, w: Floats) -> tuple[float, Floats]:
        weight = torch.from_numpy(w).to(self.rows.device)
        total, slope = weight.new_zeros(()), torch.zeros_like(weight)
        for rows, answers in self._parts():
            each, wrong = self._told(weight @ rows.T, answers)
            total += each.sum()
            slope += wrong @ rows
        return float(total) / len(self.rows), (slope / len(self.rows)).cpu().numpy()

    def curvature(self, w: Floats) -> Floats:
        """The diagonal of the second derivative."""
        weight = torch.from_numpy(w).to(self.rows)
        found = torch.zeros_like(weight).double()
        for rows in self.rows.split(self._size()):
            shares = self._shares(weight @ rows.T)
            found += (shares * (1 - shares)) @ rows.square()
        return (found / len(self.rows)).cpu().numpy()

    def bent(self, w: Floats) -> Floats | None:
        """Blocks of the second derivative, in float32, of some rows: the more often, the more a row matters to it."""
        if self._side(w) > LARGEST:
            return None
        weight = torch.from_numpy(w).to(self.rows)
        shares = torch.cat([self._shares(weight @ rows.T) for rows in self.rows.split(self._size())], 1)
        count = max(ENOUGH * self._side(w), 2**10)
        if count >= len(self.rows):
            return (self._blocks(self.rows, shares) / len(self.rows)).double().cpu().numpy()
        matter = (shares * (1 - shares)).sum(0, dtype=torch.float64).clamp(min=TINY)
        upto = matter.cumsum(0)
        ends = (torch.arange(count, dtype=torch.float64, device=upto.device) + 0.5) * (upto[-1] / count)
        chosen = torch.searchsorted(upto, ends).clamp(max=len(self.rows) - 1)
        often = (upto[-1] / count / len(self.rows) / matter[chosen]).sqrt().to(shares)
        return self._blocks(self.rows[chosen] * often[:, None], shares[:, chosen]).double().cpu().numpy()

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = self._size()
        for rows, answers in zip(self.rows.split(size), self.answers.split(size, 1), strict=True):
            yield rows.double(), answers

    def _size(self) -> int:
        return ROWS.get(self.rows.device.type, ROWS["cuda"])

    def _side(self, w: Floats) -> int:
        """Weights of a block."""
        return w.shape[1]

    def _blocks(self, rows: Tensor, shares: Tensor) -> Tensor:
        """The sum over rows of the second derivative by the weights [B, D, D]: of each output alone."""
        return torch.stack([(rows * (each * (1 - each))[:, None]).T @ rows for each in shares])

    @abstractmethod
    def bias(self) -> Floats:
        """The best bias [K] of a function that is constant."""

    @abstractmethod
    def _told(self, logits: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each row, and its slope by the logits [K, n]."""

    @abstractmethod
    def _shares(self, logits: Tensor) -> Tensor:
        """Probabilities [K, n]."""


class Softmax(RowLoss):
    """The cross-entropy of classes [N], all of which occur."""

    def __init__(self, rows: Tensor, classes: NDArray[np.int64], outputs: int) -> None:
        super().__init__(rows, torch.from_numpy(classes).to(rows.device)[None], outputs)

    def bias(self) -> Floats:
        counts = torch.bincount(self.answers[0], minlength=self.outputs).double()
        return (counts / len(self.rows)).log().cpu().numpy()

    def _told(self, logits: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        logits -= logits.gather(0, answers)
        most = logits.amax(0, keepdim=True)
        shares = logits.sub_(most).exp_().scatter_(0, answers, 0)
        others = shares.sum(0, keepdim=True)
        beyond = others + torch.expm1(-most)
        shares /= 1 + beyond
        return most + torch.log1p(beyond), shares.scatter_(0, answers, -others / (1 + beyond))

    def _shares(self, logits: Tensor) -> Tensor:
        return logits.softmax(0)

    def _side(self, w: Floats) -> int:
        return w.size

    def _blocks(self, rows: Tensor, shares: Tensor) -> Tensor:
        """One block: without what classes have to do with each other it would do more harm than good."""
        outputs, width = len(shares), rows.shape[1]
        found = rows.new_empty(outputs, width, outputs, width)
        for one in range(outputs):
            for other in range(one + 1):
                weights = shares[one] * (float(one == other) - shares[other])
                block = (rows * weights[:, None]).T @ rows
                found[one, :, other], found[other, :, one] = block, block
        return found.reshape(1, outputs * width, outputs * width)


class Sigmoid(RowLoss):
    """The sum of the binary cross-entropies of labels [N, K] of 0 and 1; each label has samples of both."""

    def __init__(self, rows: Tensor, labels: NDArray[Any]) -> None:
        signs = torch.from_numpy(1 - 2.0 * labels.T).to(rows.device).contiguous()  # -1 of those that have the label
        super().__init__(rows, signs, labels.shape[1])

    def bias(self) -> Floats:
        return torch.logit((1 - self.answers.mean(1)) / 2).cpu().numpy()

    def _told(self, logits: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        wrong = logits.mul_(answers)
        return F.softplus(wrong), wrong.sigmoid().mul_(answers)

    def _shares(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()
