"""Logistic regression on standardised features for all strengths of the penalty, in one walk from strong to weak.

The objective is scikit-learn's: 0.5 |w|^2 + C * the sum of the losses, the bias without penalty. Of the classes that
occur it is multinomial (of two, one function tells them apart); of labels each is a question of its own.

The probabilities of training samples are those of the exact minimum to 5e-5,
and to 5e-6 in the mean, with either solver.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from satdifuser.analysis.descent import along
from satdifuser.analysis.directions import directions
from satdifuser.analysis.linear import NEVER, Linear, classes_of, features_of
from satdifuser.analysis.losses import RowLoss, Sigmoid, Softmax

Solver = Literal["torch", "sklearn"]

TOLERANCE = 1e-11  # of the mean loss: what another step could still gain


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
    loss: RowLoss
    if answers.ndim == 1 and len(known) > 2:
        loss = Softmax(rows, np.searchsorted(known, answers), len(known))
    else:
        yes = answers[:, known] if answers.ndim == 2 else (answers == known[1])[:, None]
        loss = Sigmoid(rows, yes)
    start = np.zeros((loss.outputs, rows.shape[1]))
    penalised = np.ones_like(start)
    start[:, -1], penalised[:, -1] = loss.bias(), 0
    found = along(loss, start, penalised, [1 / (strength * len(x)) for strength in strengths], TOLERANCE)
    return [turned.linear(torch.from_numpy(each).to(device)) for each in found]


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
