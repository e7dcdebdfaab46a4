"""The losses of logistic regression over many rows, with their slopes: two products of matrices, and little else.

Weights [K, R] come in float64 and slopes go out so; the rows are float32, on a device. All is told from the margin of
the true answer, so that a loss near 0 and its slope keep their digits.
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

ROWS = {"cpu": 2**12, "cuda": 2**18}  # at once: on a CPU they stay in its cache for both products


class RowLoss(ABC):
    """A mean over rows [N, R], of which each has an answer: a column of `answers` [*, N]."""

    def __init__(self, rows: Tensor, answers: Tensor, outputs: int) -> None:
        self.rows, self.answers, self.outputs = rows, answers, outputs

    def value(self, w: Floats) -> tuple[float, Floats]:
        weight = torch.from_numpy(w).to(self.rows)
        total, slope = torch.zeros((), dtype=torch.float64, device=weight.device), torch.zeros_like(weight).double()
        for rows, answers in self._parts():
            each, wrong = self._told(weight @ rows.T, answers)
            total += each.sum(dtype=torch.float64)
            slope += wrong @ rows
        return float(total) / len(self.rows), (slope / len(self.rows)).cpu().numpy()

    def curvature(self, w: Floats) -> Floats:
        """The diagonal of the second derivative."""
        weight = torch.from_numpy(w).to(self.rows)
        found = torch.zeros_like(weight).double()
        for rows, _ in self._parts():
            shares = self._shares(weight @ rows.T)
            found += (shares * (1 - shares)) @ rows.square()
        return (found / len(self.rows)).cpu().numpy()

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = ROWS.get(self.rows.device.type, ROWS["cuda"])
        return zip(self.rows.split(size), self.answers.split(size, 1), strict=True)

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


class Sigmoid(RowLoss):
    """The sum of the binary cross-entropies of labels [N, K] of 0 and 1; each label has samples of both."""

    def __init__(self, rows: Tensor, labels: NDArray[Any]) -> None:
        signs = torch.from_numpy(1 - 2.0 * labels.T).to(rows).contiguous()  # -1 of those that have the label
        super().__init__(rows, signs, labels.shape[1])

    def bias(self) -> Floats:
        return torch.logit((1 - self.answers.mean(1, dtype=torch.float64)) / 2).cpu().numpy()

    def _told(self, logits: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        wrong = logits.mul_(answers)
        return F.softplus(wrong), wrong.sigmoid().mul_(answers)

    def _shares(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()
