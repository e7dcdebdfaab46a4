"""Accuracy and areas of a map from a sample of its ground: numbers of units in, estimates with intervals out.

Units (pixels, or groups of them) stand in strata whose area is known. All estimates are ratios of two weighted sums, so
one variance serves all: that of Stehman (2014), which is that of Olofsson et al. (2014) where the strata are the map's
own classes. Units of one cluster (pixels of one polygon) are summed before they are squared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[Any]
MEASURES = ("users", "producers", "f1", "iou")
ROUNDING = 1e-12


@dataclass(frozen=True)
class Sample:
    """Rows of units that are alike: how many, their cluster, and the numbers of stratum, map class and true class."""

    cluster: Numbers
    stratum: Numbers
    mapped: Numbers
    truth: Numbers
    count: Numbers

    def __len__(self) -> int:
        return len(self.count)


@dataclass(frozen=True)
class Estimate:
    """A share, its standard error, and its interval; an error of NaN where too few units say it."""

    value: float
    error: float
    low: float
    high: float

    def times(self, whole: float) -> Estimate:
        """The same as a part of a whole."""
        return Estimate(self.value * whole, self.error * whole, self.low * whole, self.high * whole)


@dataclass(frozen=True)
class Accuracy:
    """What a sample says of a map of K classes.

    `matrix [map, truth]` is in shares of the area, `counts` in units. `shares` are of the area that each class truly
    has. `units` and `clusters` count the sample in each stratum, and `unseen` are strata that have none: nothing here
    is about them.
    """

    matrix: Floats
    counts: NDArray[np.int64]
    overall: Estimate
    shares: tuple[Estimate, ...]
    users: tuple[Estimate, ...]
    producers: tuple[Estimate, ...]
    f1: tuple[Estimate, ...]
    iou: tuple[Estimate, ...]
    units: NDArray[np.int64]
    clusters: NDArray[np.int64]
    unseen: tuple[int, ...]


def accuracy(sample: Sample, areas: Floats, level: float = 0.95, pixels: Floats | None = None) -> Accuracy:
    """Estimates from `areas [strata, K]`: how much of each stratum the map says to be of each class.

    `pixels`: how many units each stratum has in all, for a sample that is a large part of it.
    """
    weighed = _Weighed(sample, areas, level, pixels)
    kinds = range(areas.shape[1])
    of_map = [(sample.mapped == kind).astype(float) for kind in kinds]
    of_truth = [(sample.truth == kind).astype(float) for kind in kinds]
    both = [first * second for first, second in zip(of_map, of_truth, strict=True)]
    there = [areas[:, kind] > 0 for kind in kinds]  # a stratum without a class of the map says nothing of that class
    every, ones = np.ones(len(areas), bool), np.ones(len(sample))
    return Accuracy(
        matrix=weighed.matrix(),
        counts=_counted(sample.mapped, sample.truth, sample.count, (areas.shape[1],) * 2).astype(np.int64),
        overall=weighed.ratio(np.sum(both, axis=0), ones, every),
        shares=tuple(weighed.ratio(of_truth[kind], ones, every) for kind in kinds),
        users=tuple(weighed.ratio(both[kind], of_map[kind], there[kind]) for kind in kinds),
        producers=tuple(weighed.ratio(both[kind], of_truth[kind], every) for kind in kinds),
        f1=tuple(weighed.ratio(2 * both[kind], of_map[kind] + of_truth[kind], every) for kind in kinds),
        iou=tuple(weighed.ratio(both[kind], np.maximum(of_map[kind], of_truth[kind]), every) for kind in kinds),
        units=weighed.units.astype(np.int64),
        clusters=weighed.clusters,
        unseen=tuple(int(stratum) for stratum in np.flatnonzero((weighed.units == 0) & (areas.sum(1) > 0))),
    )


class _Weighed:
    """A sample in which each unit stands for its part of its stratum's area."""

    def __init__(self, sample: Sample, areas: Floats, level: float, pixels: Floats | None) -> None:
        strata = len(areas)
        self.sample, self.kinds, self.z = sample, areas.shape[1], NormalDist().inv_cdf((1 + level) / 2)
        self.units = np.bincount(sample.stratum, sample.count, strata)
        names, self.cluster = np.unique(sample.cluster, return_inverse=True)
        pairs = np.unique(np.stack([sample.stratum, self.cluster]), axis=1)
        self.clusters = np.bincount(pairs[0], minlength=strata)
        self.groups = len(names)
        area = areas.sum(1)
        seen = self.units > 0
        whole = area[seen].sum()
        self.weight = np.divide(area / whole, self.units, out=np.zeros(strata), where=seen)
        rest = np.ones(strata)
        if pixels is not None:
            rest = np.clip(1 - np.divide(self.units, pixels, out=np.zeros(strata), where=pixels > 0), 0, 1)
        more = np.divide(self.clusters, self.clusters - 1, out=np.zeros(strata), where=self.clusters > 1)
        self.factor = np.sqrt(more * rest)
        self.lonely = (self.clusters == 1) & (rest > 0)

    def matrix(self) -> Floats:
        sample = self.sample
        return _counted(
            sample.mapped, sample.truth, sample.count * self.weight[sample.stratum], (self.kinds, self.kinds)
        )

    def ratio(self, top: Floats, bottom: Floats, matters: NDArray[np.bool_]) -> Estimate:
        """Of two sums over all ground; `matters`: the strata that can change it."""
        sample, strata = self.sample, self.sample.stratum
        weights = sample.count * self.weight[strata]
        under = float((weights * bottom).sum())
        if under <= 0:
            return Estimate(math.nan, math.nan, math.nan, math.nan)
        value = float((weights * top).sum()) / under
        rest = (top - value * bottom) / under
        mean = np.divide(
            np.bincount(strata, sample.count * rest, len(self.units)),
            self.units,
            out=np.zeros(len(self.units)),
            where=self.units > 0,
        )
        apart = weights * self.factor[strata] * (rest - mean[strata])
        variance = float((np.bincount(self.cluster, apart, self.groups) ** 2).sum())
        if (self.lonely & matters).any():
            return Estimate(value, math.nan, math.nan, math.nan)
        parts = np.bincount(self.cluster, weights * bottom, self.groups)
        error = math.sqrt(variance) if variance > ROUNDING**2 else 0.0
        whole = not (self.factor[matters] > 0).any()
        low, high = (value, value) if whole else _interval(value, error, float(under**2 / (parts**2).sum()), self.z)
        return Estimate(value, error, low, high)


def _interval(value: float, error: float, alike: float, z: float) -> tuple[float, float]:
    """Wilson's for a share, with as many independent units as would have this error.

    Where all units agree (an error of 0) it is `alike`, how many units of equal weight are as good as those there.
    """
    inside = min(max(value, 0.0), 1.0)
    units = inside * (1 - inside) / error**2 if error > 0 and 0 < inside < 1 else alike
    turn = z * z / units
    middle = (inside + turn / 2) / (1 + turn)
    half = z / (1 + turn) * math.sqrt(inside * (1 - inside) / units + turn / (4 * units))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _counted(rows: Numbers, columns: Numbers, weights: Numbers, shape: tuple[int, int]) -> Floats:
    found = np.bincount(rows * shape[1] + columns, weights, shape[0] * shape[1])
    return np.asarray(found, np.float64).reshape(shape)
