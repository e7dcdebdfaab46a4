"""How sure a score is: bootstrap intervals, paired permutation tests, and Holm's correction for many tests.

A score is a function of sums over the test samples (true positives of each class, squared errors, ...), so that a
resample of the test set is a row of counts, and all resamples are one product of matrices.

A score may be undefined on a resample (NaN: an R2 without variance, say). The score of several seeds is undefined where
that of one of them is. Intervals leave such resamples out; a permutation test counts them as differences at least as
large as the one observed, which can only make p larger.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Score = Callable[[NDArray[Any]], NDArray[Any]]  # sums [..., K] -> scores [...]
Scores = Callable[[NDArray[Any]], dict[str, NDArray[Any]]]  # the same of several scores by name

CHUNK_BYTES = 2**28
KEPT_BYTES = 2**27  # of draws that the next test set of as many samples gets, too
ROUNDING = 1e-10  # differences of scores that differ by less, relative to the scores, are equal


@dataclass(frozen=True)
class Interval:
    """The mean score of the seeds and its percentile interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """First minus second: the difference of mean scores, its percentile interval, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


def bootstrap(
    statistics: ArrayLike, score: Score, *, resamples: int = 5000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The mean over the seeds of the score of `statistics [seeds, samples, K]`, and its interval over test samples.

    Every resample draws the same samples for all seeds: the interval is about the test set, not about the seeds.
    """
    found = bootstraps(statistics, lambda sums: {"": score(sums)}, resamples=resamples, seed=seed, level=level)
    return found[""]


def bootstraps(
    statistics: ArrayLike, scores: Scores, *, resamples: int = 5000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """As `bootstrap`, of several scores of the same statistics at once."""
    values = _checked(statistics, "statistics", resamples, level)
    drawn = [_all_scores(scores, _weighted(counts, values)) for counts in _resampled(values.shape, resamples, seed)]
    found = {}
    for name, whole in _all_scores(scores, values.sum(1)).items():
        ends = _percentiles(np.concatenate([each[name].mean(-1) for each in drawn]), level)
        found[name] = Interval(float(whole.mean()), *ends)
    return found


def paired_test(
    first: ArrayLike,
    second: ArrayLike,
    score: Score,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedTest:
    """Compare two models, `[seeds, samples, K]` each, on the same samples.

    The interval is a bootstrap that draws the same samples for both. The test swaps, sample by sample, all that the
    first model's seeds did with all that the second's did (seed by seed, in their order, so both need as many): all
    2^samples swaps where `resamples` allows so many, else that number of random ones.
    """
    a, b = _checked(first, "first", resamples, level), _checked(second, "second", resamples, level)
    if a.shape[0] != b.shape[0]:
        raise ValueError(
            f"first has {a.shape[0]} seeds and second has {b.shape[0]}: samples can only be swapped between equal"
            " numbers of seeds"
        )
    if a.shape != b.shape:
        raise ValueError(f"first is {a.shape} and second is {b.shape}: both must be of the same samples and statistics")
    means = [_scores(score, values.sum(1)).mean() for values in (a, b)]
    difference = float(means[0] - means[1])
    both = (2 * a.shape[0], *a.shape[1:])
    found = [
        _difference(score, _weighted(counts, a), _weighted(counts, b)) for counts in _resampled(both, resamples, seed)
    ]
    low, high = _percentiles(np.concatenate(found), level)
    if math.isnan(difference):
        return PairedTest(difference, low, high, math.nan)
    limit = abs(difference) - ROUNDING * float(np.abs(means).max())
    return PairedTest(difference, low, high, _p_value(a, b, score, limit, resamples, seed))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given; NaN (no test) stays NaN and does not count.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    if any(p < 0 or p > 1 for p in p_values):
        raise ValueError(f"p-values lie between 0 and 1, not {list(p_values)}")
    adjusted = [float(p) for p in p_values]
    tests = sorted((number for number, p in enumerate(adjusted) if not math.isnan(p)), key=adjusted.__getitem__)
    largest = 0.0
    for done, number in enumerate(tests):
        largest = max(largest, min(1.0, (len(tests) - done) * adjusted[number]))
        adjusted[number] = largest
    return adjusted


def _p_value(a: Floats, b: Floats, score: Score, limit: float, resamples: int, seed: int) -> float:
    """Fraction of swaps with a difference of at least `limit` on either side; NaN counts as such."""
    samples = a.shape[1]
    exact = samples < 63 and 2**samples <= resamples
    swaps = _all_swaps(a.shape) if exact else _random_swaps(a.shape, resamples, seed)
    sum_a, sum_b, gap = a.sum(1), b.sum(1), b - a
    hits = 0
    for swapped in swaps:
        moved = _weighted(swapped, gap)
        hits += int((~(np.abs(_difference(score, sum_a + moved, sum_b - moved)) < limit)).sum())
    return hits / 2**samples if exact else (1 + hits) / (1 + resamples)


def _difference(score: Score, a: Floats, b: Floats) -> Floats:
    """First minus second of the seeds' mean scores, for sums [resamples, seeds, K]."""
    return _scores(score, a).mean(-1) - _scores(score, b).mean(-1)


def _scores(score: Score, sums: Floats) -> Floats:
    return _all_scores(lambda sums: {"": score(sums)}, sums)[""]


def _all_scores(scores: Scores, sums: Floats) -> dict[str, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {name: np.asarray(each, np.float64) for name, each in scores(sums).items()}
    for each in found.values():
        if each.shape != sums.shape[:-1]:
            raise ValueError(f"the score of sums {sums.shape} must be {sums.shape[:-1]}, not {each.shape}")
    return found


def _weighted(weights: Floats, statistics: Floats) -> Floats:
    """Sums [resamples, seeds, K] over the samples, each as often as its weight [resamples, samples] says."""
    seeds, samples, width = statistics.shape
    flat = statistics.transpose(1, 0, 2).reshape(samples, seeds * width)
    return (weights @ flat).reshape(len(weights), seeds, width)


def _resampled(shape: tuple[int, ...], resamples: int, seed: int) -> Iterator[Floats]:
    """Multinomial counts [resamples, samples], in chunks; those of one test set after the other are drawn once."""
    samples = shape[1]
    if 4 * resamples * samples <= KEPT_BYTES:
        kept = _kept_counts(samples, resamples, seed)
        yield from (kept[rows.start : rows.stop].astype(np.float64) for rows in _chunks(shape, resamples))
        return
    generator = np.random.Generator(np.random.PCG64(seed))
    for rows in _chunks(shape, resamples):
        yield _counts(generator, len(rows), samples).astype(np.float64)


@functools.lru_cache(maxsize=1)
def _kept_counts(samples: int, resamples: int, seed: int) -> NDArray[np.int32]:
    generator = np.random.Generator(np.random.PCG64(seed))
    parts = (_counts(generator, len(rows), samples) for rows in _chunks((1, samples, 1), resamples))
    return np.concatenate([part.astype(np.int32) for part in parts])


def _counts(generator: np.random.Generator, rows: int, samples: int) -> NDArray[np.int64]:
    """How often each sample is drawn, in each of some resamples."""
    drawn = generator.integers(samples, size=(rows, samples))
    drawn += np.arange(rows)[:, None] * samples
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)


def _all_swaps(shape: tuple[int, ...]) -> Iterator[Floats]:
    """Which samples are swapped, 1 or 0, in each of all 2^samples ways."""
    for rows in _chunks(shape, 2 ** shape[1]):
        yield (np.arange(rows.start, rows.stop)[:, None] >> np.arange(shape[1]) & 1).astype(np.float64)


def _random_swaps(shape: tuple[int, ...], resamples: int, seed: int) -> Iterator[Floats]:
    samples = shape[1]
    if resamples * samples <= KEPT_BYTES:
        kept = _kept_swaps(samples, resamples, seed)
        yield from (kept[rows.start : rows.stop].astype(np.float64) for rows in _chunks(shape, resamples))
        return
    generator = _swapping(seed)
    for rows in _chunks(shape, resamples):
        yield (generator.random((len(rows), samples)) < 0.5).astype(np.float64)


@functools.lru_cache(maxsize=1)
def _kept_swaps(samples: int, resamples: int, seed: int) -> NDArray[np.bool_]:
    generator = _swapping(seed)
    parts = [generator.random((len(rows), samples)) < 0.5 for rows in _chunks((1, samples, 1), resamples)]
    return np.concatenate(parts)


def _swapping(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, 1]))  # not the draws of the bootstrap


def _chunks(shape: tuple[int, ...], rows: int) -> Iterator[range]:
    """Ranges of rows whose counts (three times, in the making) and sums (some copies in a score) fit in memory."""
    seeds, samples, width = shape
    size = max(1, CHUNK_BYTES // (8 * (3 * samples + 6 * seeds * width)))
    return (range(first, min(first + size, rows)) for first in range(0, rows, size))


def _percentiles(found: Floats, level: float) -> tuple[float, float]:
    """The ends that leave half of the rest on either side; NaN where nothing is defined."""
    found = found[~np.isnan(found)]
    if not len(found):
        return math.nan, math.nan
    low, high = np.percentile(found, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _checked(statistics: ArrayLike, name: str, resamples: int, level: float) -> Floats:
    values = np.asarray(statistics, np.float64)
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"{name} must be [seeds, samples, K], none of them 0, not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} hold values that are not finite")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples must be 1 or more and level between 0 and 1, not {resamples} and {level}")
    return values
