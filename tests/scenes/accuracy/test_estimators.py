"""Estimates of accuracy and area: a published example, a slow computation, and whether intervals hold the truth."""

import math

import numpy as np
import pytest

from satdifuser.scenes.accuracy.estimators import Sample, accuracy

# Olofsson et al. (2014), "Good practices for estimating area and assessing accuracy of land change", section 5: counts
# of deforestation, forest gain, stable forest and stable non-forest (map by reference), and the map's shares.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
SHARES = np.array([0.020, 0.015, 0.320, 0.645])


def of_counts(counts: np.ndarray) -> Sample:
    rows, columns = np.indices(counts.shape)
    number = counts.ravel()
    mapped, truth = np.repeat(rows.ravel(), number), np.repeat(columns.ravel(), number)
    return Sample(np.arange(len(mapped)), mapped, mapped, truth, np.ones(len(mapped)))


def test_olofsson_2014() -> None:
    found = accuracy(of_counts(COUNTS), np.diag(SHARES))
    half = 1.96
    assert [(round(one.value, 2), round(half * one.error, 2)) for one in found.users] == [
        (0.88, 0.07),
        (0.73, 0.10),
        (0.93, 0.04),
        (0.96, 0.02),
    ]
    assert [(round(one.value, 2), round(half * one.error, 2)) for one in found.producers] == [
        (0.75, 0.21),
        (0.85, 0.25),
        (0.93, 0.03),
        (0.96, 0.02),
    ]
    assert (round(found.overall.value, 2), round(half * found.overall.error, 2)) == (0.95, 0.02)
    hectares = 10_000_000 * 0.09
    assert [(round(hectares * one.value), round(half * hectares * one.error)) for one in found.shares] == [
        (21158, 6158),
        (11686, 3756),
        (285770, 15510),
        (581386, 16282),
    ]


def test_the_formulas_of_the_paper_on_fresh_numbers() -> None:
    """Its equations (5) to (11), term by term, for strata that are the map's classes."""
    random = np.random.default_rng(0)
    counts = random.integers(2, 40, (3, 3))
    weights = random.dirichlet(np.ones(3))
    found = accuracy(of_counts(counts), np.diag(weights * 7))
    n = counts.sum(1)
    p = [[weights[i] * counts[i, j] / n[i] for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(found.matrix, p)
    users = [counts[i, i] / n[i] for i in range(3)]
    variance = [users[i] * (1 - users[i]) / (n[i] - 1) for i in range(3)]
    assert found.overall.value == pytest.approx(sum(p[i][i] for i in range(3)))
    assert found.overall.error == pytest.approx(math.sqrt(sum(weights[i] ** 2 * variance[i] for i in range(3))))
    for j in range(3):
        assert (found.users[j].value, found.users[j].error) == pytest.approx((users[j], math.sqrt(variance[j])))
        area = sum(p[i][j] for i in range(3))
        spread = sum(weights[i] ** 2 * (counts[i, j] / n[i]) * (1 - counts[i, j] / n[i]) / (n[i] - 1) for i in range(3))
        assert (found.shares[j].value, found.shares[j].error) == pytest.approx((area, math.sqrt(spread)))
        producers = p[j][j] / area
        inner = weights[j] ** 2 * (1 - producers) ** 2 * variance[j]
        inner += producers**2 * sum(
            weights[i] ** 2 * (counts[i, j] / n[i]) * (1 - counts[i, j] / n[i]) / (n[i] - 1) for i in range(3) if i != j
        )
        assert (found.producers[j].value, found.producers[j].error) == pytest.approx(
            (producers, math.sqrt(inner) / area)
        )


def test_other_strata_and_clusters_by_a_slow_loop() -> None:
    """Stehman's ratio where strata are not the map's classes, and clusters that a jackknife by hand would drop."""
    random = np.random.default_rng(1)
    size = 60
    stratum, mapped, truth = (random.integers(0, 3, size) for _ in range(3))
    cluster, count = random.integers(0, 25, size), random.integers(1, 5, size)
    areas = random.random((3, 3)) + 0.1
    found = accuracy(Sample(cluster, stratum, mapped, truth, count), areas)
    whole = areas.sum(1) / areas.sum()
    n = [sum(int(c) for s, c in zip(stratum, count, strict=True) if s == h) for h in range(3)]
    for kind in range(3):
        y = [float(m == kind and t == kind) for m, t in zip(mapped, truth, strict=True)]
        x = [float(t == kind) for t in truth]
        tops = [whole[h] / n[h] for h in stratum]
        top = sum(w * c * v for w, c, v in zip(tops, count, y, strict=True))
        under = sum(w * c * v for w, c, v in zip(tops, count, x, strict=True))
        value = top / under
        residual = [(a - value * b) / under for a, b in zip(y, x, strict=True)]
        mean = [sum(r * c for r, c, s in zip(residual, count, stratum, strict=True) if s == h) / n[h] for h in range(3)]
        variance = 0.0
        for one in range(25):
            total = 0.0
            for h in range(3):
                groups = len({c for c, s in zip(cluster, stratum, strict=True) if s == h})
                inside = [i for i in range(size) if cluster[i] == one and stratum[i] == h]
                share = sum(tops[i] * count[i] * (residual[i] - mean[h]) for i in inside)
                total += math.sqrt(groups / (groups - 1)) * share
            variance += total**2
        assert (found.producers[kind].value, found.producers[kind].error) == pytest.approx((value, math.sqrt(variance)))


def test_rows_of_many_units_are_as_units_one_by_one() -> None:
    random = np.random.default_rng(2)
    rows = random.integers(0, 3, (40, 4))
    count = random.integers(1, 6, 40)
    areas = random.random((3, 3)) + 0.1
    short = accuracy(Sample(*rows.T, count), areas)
    long = accuracy(Sample(*np.repeat(rows, count, 0).T, np.ones(count.sum())), areas)
    for some, others in ((short.users, long.users), (short.iou, long.iou), (short.shares, long.shares)):
        for one, other in zip(some, others, strict=True):
            assert (one.value, one.error, one.high) == pytest.approx((other.value, other.error, other.high))


@pytest.mark.parametrize("design", ["map", "other", "simple"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(design: str) -> None:
    random = np.random.default_rng(4)
    size = 40_000
    truth = random.choice(3, size, p=(0.6, 0.27, 0.13))
    mapped = np.where(random.random(size) < 0.15, random.integers(0, 3, size), truth)
    strata = {"map": mapped, "other": (truth + random.integers(0, 2, size)) % 3, "simple": np.zeros(size, int)}[design]
    areas = np.zeros((strata.max() + 1, 3))
    np.add.at(areas, (strata, mapped), 1)
    so = {
        "overall": [(mapped == truth).mean()],
        "shares": [(truth == k).mean() for k in range(3)],
        "users": [(truth[mapped == k] == k).mean() for k in range(3)],
        "producers": [(mapped[truth == k] == k).mean() for k in range(3)],
        "iou": [((mapped == k) & (truth == k)).sum() / ((mapped == k) | (truth == k)).sum() for k in range(3)],
    }
    held = {name: np.zeros(len(values)) for name, values in so.items()}
    places = [np.flatnonzero(strata == h) for h in range(len(areas))]
    times, each = 500, 1200 // len(areas)
    for _ in range(times):
        drawn = np.concatenate([random.choice(some, each, replace=False) for some in places])
        found = accuracy(Sample(drawn, strata[drawn], mapped[drawn], truth[drawn], np.ones(len(drawn))), areas)
        for name, values in so.items():
            some = getattr(found, name)
            for place, (one, value) in enumerate(zip(some if len(values) > 1 else [some], values, strict=True)):
                held[name][place] += one.low <= value <= one.high
    shares = np.concatenate([found / times for found in held.values()])
    assert shares.min() > 0.91
    assert 0.93 < shares.mean() < 0.97


def test_clusters_of_pixels_are_not_taken_for_independent() -> None:
    """Of pixels that are all alike within a cluster, as many are worth one."""
    random = np.random.default_rng(5)
    right = random.random(50) < 0.7
    cluster = np.repeat(np.arange(50), 20)
    zero = np.zeros(1000, int)
    truth = np.where(np.repeat(right, 20), 0, 1)
    areas = np.array([[1.0, 0.0]])
    many = accuracy(Sample(cluster, zero, zero, truth, np.ones(1000)), areas)
    one = accuracy(Sample(np.arange(50), zero[:50], zero[:50], truth[::20], np.ones(50)), areas)
    assert (many.overall.error, many.overall.low, many.overall.high) == pytest.approx(
        (one.overall.error, one.overall.low, one.overall.high)
    )


def test_what_cannot_be_known_is_left_open() -> None:
    """A class with one sample opens what it matters to, and no more; one without any is named."""
    lonely = accuracy(of_counts(np.array([[1, 0, 0], [3, 40, 0], [0, 2, 30]])), np.diag([0.2, 0.5, 0.3]))
    assert math.isnan(lonely.users[0].error)
    assert math.isnan(lonely.shares[1].low)
    assert lonely.users[1].error > 0
    assert lonely.unseen == ()
    absent = accuracy(of_counts(np.array([[0, 0, 0], [3, 40, 0], [0, 2, 30]])), np.diag([0.2, 0.5, 0.3]))
    assert absent.unseen == (0,)
    assert math.isnan(absent.users[0].value)
    assert absent.matrix.sum() == pytest.approx(1)


def test_a_sample_without_errors_is_not_certain_and_a_census_is() -> None:
    counts, areas = np.diag([20, 30]), np.diag([0.4, 0.6])
    perfect = accuracy(of_counts(counts), areas)
    assert perfect.overall.value == perfect.overall.high == 1
    assert 0.8 < perfect.users[0].low < 0.9
    census = accuracy(of_counts(np.array([[18, 2], [5, 25]])), areas, pixels=np.array([20.0, 30.0]))
    assert census.users[0].low == census.users[0].high == pytest.approx(0.9)
