"""Logistic regression on standardised features for all strengths of the penalty, in one walk from strong to weak.

The objective is scikit-learn's: 0.5 |w|^2 + C * the sum of the losses, the bias without penalty. Of the classes that
occur it is multinomial (of two, one function tells them apart); of labels each is a question of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from satdifuser.analysis.descent import along
from satdifuser.analysis.directions import directions
from satdifuser.analysis.linear import NEVER, Linear, classes_of, features_of

Solver = Literal["torch", "sklearn"]

TOLERANCE = 1e-10  # of the mean loss: what another step could still gain
ROWS = 4096  # of features at once: they stay in a processor's cache for both products


def logistic(
    x: ArrayLike,
    y: ArrayLike,
    strengths: Sequence[float],
    *,
    outputs: int,
    device: str = "cpu",
    solver: Solver = "torch",
) -> list[Linear]:
    """A `Linear` with `outputs` logits for each strength, from features [N, C] and classes [N] or labels [N, outputs].

    A class that does not occur has the logit `NEVER`, and so has a label that no sample has (minus it one that all
    have).
    """
    rows = features_of(x, least=2)
    answers = classes_of(y, len(rows), outputs)
    known = _known(answers)
    fit = _sklearn if solver == "sklearn" else _torch
    return [_filled(found, answers, known, outputs) for found in fit(rows, answers, known, strengths, device)]


def _known(answers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The classes that occur, or the labels that some samples have and others have not."""
    if answers.ndim == 1:
        known = np.unique(answers)
        if len(known) < 2:
            raise ValueError(f"all {len(answers)} samples are of class {known[0]}: a probe needs two classes or more")
        return known
    known = np.flatnonzero(answers.min(0) != answers.max(0))
    if not len(known):
        raise ValueError(f"all {len(answers)} samples have the same labels: a probe needs some that differ")
    return known


def _filled(found: Linear, answers: NDArray[np.int64], known: NDArray[np.int64], outputs: int) -> Linear:
    """All outputs: the known ones as found (of two classes from the one function), the others constant."""
    weight, bias = np.zeros((outputs, found.weight.shape[1])), np.full(outputs, NEVER)
    if answers.ndim == 2:
        bias[answers.min(0) == 1] = -NEVER
    if answers.ndim == 1 and len(known) == 2:
        sides = np.array([[-0.5], [0.5]])
        found = Linear(sides * found.weight, sides[:, 0] * found.bias)
    weight[known], bias[known] = found.weight, found.bias
    return Linear(weight, bias)


def _torch(
    x: NDArray[Any], answers: NDArray[np.int64], known: NDArray[np.int64], strengths: Sequence[float], device: str
) -> list[Linear]:
    turned = directions(x, device)
    rows = turned.turned(x, torch.float32)
    loss: Softmax | Sigmoid
    if answers.ndim == 1 and len(known) > 2:
        loss = Softmax(rows, torch.from_numpy(np.searchsorted(known, answers)).to(device), len(known))
    else:
        yes = answers[:, known] if answers.ndim == 2 else (answers == known[1])[:, None]
        loss = Sigmoid(rows, torch.from_numpy(yes).to(device, torch.float32))
    start = torch.zeros(rows.shape[1], loss.outputs, dtype=torch.float64, device=device)
    penalised = torch.ones_like(start)
    penalised[-1] = 0
    start[-1] = loss.bias()
    found = along(loss, start, penalised, [1 / (strength * len(x)) for strength in strengths], TOLERANCE)
    return [turned.linear(each) for each in found]


class Softmax:
    """The mean cross-entropy of classes [N] given rows [N, R]."""

    def __init__(self, rows: Tensor, classes: Tensor, outputs: int) -> None:
        self.rows, self.classes, self.outputs = rows, classes, outputs

    def bias(self) -> Tensor:
        return (torch.bincount(self.classes, minlength=self.outputs).double() / len(self.classes)).log()

    def value(self, w: Tensor) -> tuple[float, Tensor]:
        total, slope, narrow = torch.zeros((), dtype=w.dtype, device=w.device), torch.zeros_like(w), w.to(self.rows)
        for rows, classes in zip(self.rows.split(ROWS), self.classes.split(ROWS), strict=True):
            log = F.log_softmax(rows @ narrow, 1)
            total -= log.gather(1, classes[:, None]).sum(dtype=w.dtype)
            wrong = log.exp_()
            wrong[torch.arange(len(classes), device=w.device), classes] -= 1
            slope += rows.T @ wrong
        return float(total) / len(self.rows), slope / len(self.rows)

    def curvature(self, w: Tensor) -> Tensor:
        found, narrow = torch.zeros_like(w), w.to(self.rows)
        for rows in self.rows.split(ROWS):
            shares = F.softmax(rows @ narrow, 1)
            found += rows.square().T @ (shares * (1 - shares))
        return found / len(self.rows)


class Sigmoid:
    """The mean over samples of the binary cross-entropies, summed over labels [N, K] of 0 and 1."""

    def __init__(self, rows: Tensor, labels: Tensor) -> None:
        self.rows, self.labels, self.outputs = rows, labels, labels.shape[1]

    def bias(self) -> Tensor:
        return torch.logit(self.labels.mean(0, dtype=torch.float64))

    def value(self, w: Tensor) -> tuple[float, Tensor]:
        total, slope, narrow = torch.zeros((), dtype=w.dtype, device=w.device), torch.zeros_like(w), w.to(self.rows)
        for rows, labels in zip(self.rows.split(ROWS), self.labels.split(ROWS), strict=True):
            logits = rows @ narrow
            total += F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(dtype=w.dtype)
            slope += rows.T @ (logits.sigmoid_() - labels)
        return float(total) / len(self.rows), slope / len(self.rows)

    def curvature(self, w: Tensor) -> Tensor:
        found, narrow = torch.zeros_like(w), w.to(self.rows)
        for rows in self.rows.split(ROWS):
            shares = (rows @ narrow).sigmoid_()
            found += rows.square().T @ (shares * (1 - shares))
        return found / len(self.rows)


def _sklearn(
    x: NDArray[Any], answers: NDArray[np.int64], known: NDArray[np.int64], strengths: Sequence[float], device: str
) -> list[Linear]:
    """Scikit-learn's own estimators in float64, from strong to weak penalty, each from where the last one ended."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x.astype(np.float64))
    rows = scaler.transform(x.astype(np.float64))
    targets = [answers] if answers.ndim == 1 else [answers[:, label] for label in known]
    fits = [LogisticRegression(tol=1e-7, max_iter=100_000, warm_start=True) for _ in targets]
    found = dict[float, Linear]()
    for strength in sorted(set(strengths)):
        for fit, target in zip(fits, targets, strict=True):
            fit.set_params(C=strength).fit(rows, target)
        weight = np.concatenate([fit.coef_ for fit in fits]) / scaler.scale_
        bias = np.concatenate([fit.intercept_ for fit in fits])
        found[strength] = Linear(weight, bias - weight @ scaler.mean_)
    return [found[strength] for strength in strengths]
