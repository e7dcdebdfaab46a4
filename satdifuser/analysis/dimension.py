"""How many directions features use: the intrinsic dimension of their points, and the effective rank of their spread.

Both see the rows as they lie (TwoNN looks at nearest neighbours, the rank at the whole cloud), without channels that
are constant. Both take memory in blocks: beside a copy of the features, nothing grows with the square of the samples.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from satdifuser.analysis.rows import checked, gram, moments, scatter

LEAST = 10  # distinct points: a tenth of them is left out
LEFT_OUT = 0.1  # of the ratios, the largest
BLOCK_ROWS, BLOCK_CHANNELS = 1024, 2048  # of a block of distances
CANDIDATES = 4  # neighbours by the fast distance, of which the exact distance takes two
GATHERED = 2**21  # numbers of candidates at a time


def two_nn(x: object) -> float:
    """The intrinsic dimension by the ratio of the distances to the second and the first neighbour (Facco et al. 2017).

    If -log(1 - F) is drawn over the logarithm of the ratio, it is a line through the origin whose slope is the
    dimension; F is the share of the ratios that are no larger. The largest tenth is left out, as the authors do. Points
    that are equal in every channel count once, since they would be each other's neighbours at distance 0. NaN of fewer
    than 10 distinct points, of values that are not finite, and where all ratios are 1.
    """
    points = _distinct(checked(x))
    if len(points) < LEAST:
        return math.nan
    first, second = _nearest_two(points)
    ratios = np.sort(np.log((second / first).cpu().numpy()))
    kept = ratios[: int(len(ratios) * (1 - LEFT_OUT))]
    heights = -np.log1p(-np.arange(1, len(kept) + 1) / len(ratios))
    below = float(kept @ kept)
    return float(kept @ heights) / below if math.isfinite(below) and below > 0 else math.nan


def effective_rank(x: object) -> float:
    """The effective rank (Roy and Vetterli 2007): exp of the entropy of the singular values, as shares of their sum.

    The singular values are those of the centred rows: the roots of the eigenvalues of their covariance, not these. NaN
    where nothing varies or a value is not finite.
    """
    rows = checked(x)
    squares = gram(rows) if len(rows) <= rows.shape[1] else scatter(rows)
    if not bool(torch.isfinite(squares).all()):
        return math.nan
    found = torch.linalg.eigvalsh(squares)
    rounding = float(found[-1]) * len(squares) * torch.finfo(torch.float64).eps
    values = found[found > rounding].sqrt()
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum())) if len(shares) else math.nan


def _distinct(rows: Tensor) -> Tensor:
    """The rows without constant channels, equal ones once; none where a value is not finite."""
    mean, varies = moments(rows)
    if not bool(torch.isfinite(mean).all()) or not bool(varies.any()):
        return rows[:0]
    kept = (rows[:, varies] + 0.0).contiguous()  # -0 is 0, bit by bit too
    words = kept.cpu().view(torch.uint8).numpy()
    _, places = np.unique(words.view(f"V{words.shape[1]}")[:, 0], return_index=True)
    return kept[torch.from_numpy(np.sort(places)).to(kept.device)] if len(places) < len(kept) else kept


def _nearest_two(points: Tensor) -> tuple[Tensor, Tensor]:
    """Distances to the nearest and the second nearest other point.

    A product of matrices finds some candidates; their distances are then taken from differences, where nothing cancels.
    """
    mean = moments(points)[0]
    norms = torch.cat([_sums_of_squares(part, mean) for part in points.split(BLOCK_ROWS)])
    found = []
    for start in range(0, len(points), BLOCK_ROWS):
        some = points[start : start + BLOCK_ROWS]
        best = torch.full((len(some), 0), math.inf, dtype=torch.float64, device=points.device)
        whose = torch.zeros((len(some), 0), dtype=torch.int64, device=points.device)
        for first in range(0, len(points), BLOCK_ROWS):
            others = points[first : first + BLOCK_ROWS]
            away = norms[first : first + len(others)] - 2 * _inner(some, others, mean)
            if first == start:
                away.fill_diagonal_(math.inf)
            index = torch.arange(first, first + len(others), device=points.device).expand_as(away)
            best, whose = torch.cat([best, away], 1), torch.cat([whose, index], 1)
            best, order = best.topk(min(CANDIDATES, best.shape[1]), largest=False)
            whose = whose.gather(1, order)
        found.append(_exact(points, some, whose))
    first, second = torch.cat(found).T
    return first, second


def _inner(a: Tensor, b: Tensor, mean: Tensor) -> Tensor:
    found = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for first in range(0, a.shape[1], BLOCK_CHANNELS):
        part = slice(first, first + BLOCK_CHANNELS)
        found.addmm_(a[:, part].double() - mean[part], (b[:, part].double() - mean[part]).T)
    return found


def _sums_of_squares(rows: Tensor, mean: Tensor) -> Tensor:
    return sum(
        (
            (rows[:, first : first + BLOCK_CHANNELS].double() - mean[first : first + BLOCK_CHANNELS]).square().sum(1)
            for first in range(0, rows.shape[1], BLOCK_CHANNELS)
        ),
        start=torch.zeros(len(rows), dtype=torch.float64, device=rows.device),
    )


def _exact(points: Tensor, some: Tensor, whose: Tensor) -> Tensor:
    """The two smallest distances, in order, of each of some points to its candidates."""
    step = max(1, GATHERED // (whose.shape[1] * points.shape[1]))
    found = [
        torch.linalg.vector_norm(points[index].double() - rows.double()[:, None], dim=2)
        for rows, index in zip(some.split(step), whose.split(step), strict=True)
    ]
    return torch.cat(found).sort(1).values[:, :2]
