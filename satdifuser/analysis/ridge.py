"""Ridge regression on standardised features for all strengths of the penalty, from one turn of the features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from satdifuser.analysis.directions import directions, standard
from satdifuser.analysis.linear import Floats, Linear, answers_of, features_of
from satdifuser.analysis.logistic import Solver


def ridge(
    x: ArrayLike,
    y: ArrayLike,
    strengths: Sequence[float],
    *,
    device: str = "cpu",
    solver: Solver = "torch",
) -> list[Linear]:
    """A `Linear` for each strength, from features [N, C] and numbers [N] or [N, K] (alpha is 1 / strength).

    The bias has no penalty; answers [N] give one output.
    """
    rows = features_of(x, least=2)
    answers = answers_of(y, len(rows)).astype(np.float64).reshape(len(rows), -1)
    if not np.isfinite(answers).all():
        raise ValueError("answers hold numbers that are not finite: leave these samples out")
    if solver == "sklearn":
        return _sklearn(rows, answers, strengths)
    turned = directions(rows, device)
    targets = torch.from_numpy(answers).to(device)
    mean = targets.mean(0)
    told = torch.zeros(targets.shape[1], rows.shape[1], dtype=torch.float64, device=device)
    for part, some in standard(rows, turned.scale):
        told += (targets[part] - mean).T @ some
    told = told @ turned.basis
    sums = turned.variance * len(rows)
    return [turned.linear(torch.cat([told / (sums + 1 / strength), mean[:, None]], 1)) for strength in strengths]


def _sklearn(rows: Floats, answers: Floats, strengths: Sequence[float]) -> list[Linear]:
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    rows = rows.astype(np.float64)
    scaler = StandardScaler().fit(rows)
    turned, found = scaler.transform(rows), []
    for strength in strengths:
        fit = Ridge(alpha=1 / strength).fit(turned, answers)
        weight = np.atleast_2d(fit.coef_) / scaler.scale_
        found.append(Linear(weight, np.atleast_1d(fit.intercept_) - weight @ scaler.mean_))
    return found
