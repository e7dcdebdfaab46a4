"""Linear CKA: how alike two sets of features of the same samples are, up to turns, scale and offset.

CKA is HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of the Gram matrices K and L of the two. HSIC_1 (Song et al. 2012) is
its unbiased estimator from n samples. With U-centred Gram matrices (no diagonal, no sums of rows: Szekely and Rizzo
2014) it is one inner product, <K~, L~> / (n (n - 3)); so all pairs of many maps are one product of matrices. Over
batches the three HSICs are averaged, each batch as often as it has samples, before the ratio is taken (Nguyen et al.
2021). Batches must be drawn at random: of samples sorted by class, they only see what differs within a class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.analysis.rows import BLOCK, checked, gram, sample_blocks
from satdifuser.errors import UserError

Floats = NDArray[np.float64]

LEAST = 4  # samples of a batch: HSIC_1 divides by n - 3
GROUPS = 64  # of batches, for the standard error
ROUNDING = torch.finfo(torch.float64).eps
CANCELLED = 64 * ROUNDING  # so small a share of a sum is what its terms' rounding leaves


def grams(rows: Sequence[Tensor]) -> Tensor:
    """The U-centred Gram matrix of each map, `[maps, n, n]` in float64; that of a map without any structure is 0."""
    return torch.stack([_u_centred(each) for each in _same_samples(rows)])


class MinibatchCKA:
    """CKA of every map of one side with every map of the other, from batches of the same samples on both.

    What it holds does not grow with the samples: the sums of up to 64 groups of batches, whose neighbours are joined
    when there are more. A batch takes one Gram matrix for each map, half of it kept. A map that does not vary has no
    CKA: NaN.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.shape = rows, columns
        self.samples = self.batches = 0
        self._groups: list[_Sums] = []
        self._span, self._filled = 1, 0  # batches of a whole group, and of the last one

    def add(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
        """Take a batch: `[n, channels]` of each map of either side, the same n samples in the same order."""
        self._expect((len(first), len(second)))
        if first and second and len(first[0]) != len(second[0]):
            raise ValueError(f"{len(first[0])} samples on one side and {len(second[0])} on the other")
        a, b = _halves(first), _halves(second)
        self._take(len(first[0]), a @ b.T, a.square().sum(1), b.square().sum(1))

    def add_alone(self, first: Sequence[Tensor]) -> None:
        """Take a batch of a side that is compared with itself."""
        self._expect((len(first), len(first)))
        a = _halves(first)
        own = a.square().sum(1)
        self._take(len(first[0]), a @ a.T, own, own)

    @property
    def value(self) -> Floats:
        """CKA of each pair, `[rows, columns]`."""
        return self._total().ratio()

    @property
    def error(self) -> Floats:
        """Standard error of each value, `[rows, columns]`: the jackknife over batches; NaN of a single batch.

        It leaves out one batch at a time (one group of batches, of more than 64) and knows of unequal ones (Busing et
        al. 1999).
        """
        total, groups = self._total(), self._groups
        if len(groups) < 2:
            return np.full(self.shape, np.nan)
        value, parts = total.ratio(), [total.weight / group.weight for group in groups]
        pseudo = [
            part * value - (part - 1) * total.without(group).ratio() for part, group in zip(parts, groups, strict=True)
        ]
        centre = sum(each / part for each, part in zip(pseudo, parts, strict=True))
        spread = sum((each - centre) ** 2 / (part - 1) for each, part in zip(pseudo, parts, strict=True))
        return np.asarray(np.sqrt(spread / len(groups)), np.float64)

    def _expect(self, shape: tuple[int, int]) -> None:
        if shape != self.shape:
            raise ValueError(f"{shape[0]} and {shape[1]} maps of a comparison of {self.shape[0]} with {self.shape[1]}")

    def _take(self, count: int, cross: Tensor, first: Tensor, second: Tensor) -> None:
        scale = 2 / (count - 3)  # twice the half, over n (n - 3), times n
        batch = _Sums(count, *((each * scale).cpu().numpy() for each in (cross, first, second)))
        self.samples, self.batches = self.samples + count, self.batches + 1
        if self._groups and self._filled < self._span:
            self._groups[-1] = self._groups[-1].plus(batch)
            self._filled += 1
            return
        if len(self._groups) == GROUPS:
            self._groups = [a.plus(b) for a, b in zip(self._groups[::2], self._groups[1::2], strict=True)]
            self._span *= 2
        self._groups.append(batch)
        self._filled = 1

    def _total(self) -> _Sums:
        if not self._groups:
            raise ValueError("no batch was added")
        total = self._groups[0]
        for group in self._groups[1:]:
            total = total.plus(group)
        return total


def cka_full(x: object, y: object, unbiased: bool = True) -> float:
    """Linear CKA of all samples at once in float64, HSIC_1 or the biased HSIC; NaN where one of both does not vary.

    No matrix of samples x samples is made where there are more samples than channels.
    """
    first, second = checked(x), checked(y)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} samples on one side and {len(second)} on the other")
    if unbiased:
        _enough(len(first))
    cross, own, other = (_hsic(a, b, unbiased) for a, b in ((first, second), (first, first), (second, second)))
    return cross / math.sqrt(own) / math.sqrt(other) if own > 0 and other > 0 else math.nan


@dataclass(frozen=True)
class _Sums:
    """Sums over batches of n times HSIC_1: of each pair, and of each map of either side with itself."""

    weight: int
    cross: Floats
    first: Floats
    second: Floats

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(
            self.weight + other.weight,
            self.cross + other.cross,
            self.first + other.first,
            self.second + other.second,
        )

    def without(self, other: _Sums) -> _Sums:
        return _Sums(
            self.weight - other.weight,
            self.cross - other.cross,
            self.first - other.first,
            self.second - other.second,
        )

    def ratio(self) -> Floats:
        first, second = (np.where(own > 0, own, np.nan) for own in (self.first, self.second))
        return self.cross / np.sqrt(first)[:, None] / np.sqrt(second)


def _halves(rows: Sequence[Tensor]) -> Tensor:
    """The U-centred Gram matrices above their diagonals, `[maps, n (n - 1) / 2]`: they are symmetric."""
    given = _same_samples(rows)
    count = len(given[0])
    upper = torch.triu_indices(count, count, 1, device=given[0].device)
    index = upper[0] * count + upper[1]
    found = torch.empty(len(given), len(index), dtype=torch.float64, device=index.device)
    for place, each in enumerate(given):
        torch.index_select(_u_centred(each).view(-1), 0, index, out=found[place])
    return found


def _u_centred(rows: Tensor) -> Tensor:
    """The Gram matrix with a diagonal of 0 and rows that sum to 0; exactly 0 where only rounding is left of it."""
    count, found = len(rows), gram(rows)
    whole = torch.linalg.matrix_norm(found)
    sums = found.fill_diagonal_(0).sum(1) / (count - 2)
    found -= sums[:, None]
    found -= sums
    found += sums.sum() / (count - 1)
    found.fill_diagonal_(0)
    rounding = torch.linalg.matrix_norm(found) <= ROUNDING * count * whole
    return found.masked_fill_(rounding, 0)


def _same_samples(rows: Sequence[Tensor]) -> list[Tensor]:
    given = [checked(each) for each in rows]
    counts = sorted({len(each) for each in given})
    if len(counts) != 1:
        raise ValueError(f"maps of {counts} samples: all must have the same, and at least one map is needed")
    _enough(counts[0])
    return given


def _enough(count: int) -> None:
    if count < LEAST:
        raise UserError(
            f"unbiased CKA needs batches of at least {LEAST} samples, not {count}: take another batch size, or leave"
            " the last batch out"
        )


def _hsic(x: Tensor, y: Tensor, unbiased: bool) -> float:
    """HSIC up to its factor, by the cheaper of samples x samples and channels x channels."""
    if len(x) ** 2 <= x.shape[1] * y.shape[1]:
        first, second = (_u_centred(each) if unbiased else gram(each) for each in (x, y))
        return float((first * second).sum())
    whole, diagonals, one, other = _products(x, y)
    if not unbiased:
        return whole
    # of centred samples the sums of a Gram matrix without its diagonal are minus the diagonal
    count = len(x)
    found = whole - diagonals * count / (count - 2) + one * other / ((count - 1) * (count - 2))
    return found if abs(found) > CANCELLED * whole else 0.0


def _products(x: Tensor, y: Tensor) -> tuple[float, float, float, float]:
    """Of the centred Gram matrices: <K, L>, <diagonal of K, diagonal of L>, and the sums of both diagonals."""
    between = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
    sums = torch.zeros(3, dtype=torch.float64, device=x.device)
    step = max(1, BLOCK // max(x.shape[1], y.shape[1]))
    for a, b in zip(sample_blocks(x, step), sample_blocks(y, step), strict=True):
        between.addmm_(a.T, b)
        one, other = a.square().sum(1), b.square().sum(1)
        sums += torch.stack([one @ other, one.sum(), other.sum()])
    diagonals, first, second = sums.tolist()
    return float(between.square().sum()), diagonals, first, second
