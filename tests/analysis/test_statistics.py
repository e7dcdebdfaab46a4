"""Intervals and tests against SciPy, slow loops and their own promises (coverage, uniform p-values under the null)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from satdifuser.analysis import statistics
from satdifuser.analysis.statistics import bootstrap, holm, paired_test


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(list(request.node.name.encode()))


def ratio(sums: Any) -> Any:
    """Accuracy, or any mean: the first statistic over the second."""
    return sums[..., 0] / sums[..., 1]


def macro_f1(sums: Any) -> Any:
    """Mean F1 of the classes from tp, fp and fn of each, [..., 3 x classes]."""
    tp, fp, fn = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
    return (2 * tp / np.maximum(2 * tp + fp + fn, 1)).mean(-1)


def r2(sums: Any) -> Any:
    """From count, y, y^2 and squared errors; undefined where y does not vary."""
    spread = sums[..., 2] - sums[..., 1] ** 2 / sums[..., 0]
    return 1 - sums[..., 3] / np.where(spread > 1e-9, spread, np.nan)


def hits(rng: np.random.Generator, seeds: int, samples: int, accuracy: float = 0.7) -> Any:
    right = (rng.random((seeds, samples)) < accuracy).astype(float)
    return np.stack([right, np.ones_like(right)], -1)


def answers(rng: np.random.Generator, seeds: int, truth: Any, classes: int = 3, skill: float = 0.5) -> Any:
    """Per-sample tp, fp and fn of a made-up classifier."""
    guess = np.where(rng.random((seeds, len(truth))) < skill, truth, rng.integers(classes, size=(seeds, len(truth))))
    said, true = np.eye(classes)[guess], np.eye(classes)[truth]
    return np.concatenate([said * true, said * (1 - true), (1 - said) * true], -1)


def scipy_interval(values: Any, score: Any) -> tuple[float, float]:
    found = stats.bootstrap(
        (np.arange(values.shape[1]),),
        lambda rows: score(values[:, rows].sum(1)).mean(),
        n_resamples=4000,
        method="percentile",
        vectorized=False,
        rng=np.random.default_rng(5),
    )
    return found.confidence_interval.low, found.confidence_interval.high


# --- bootstrap


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_of_an_accuracy_is_scipys(rng: np.random.Generator, seeds: int) -> None:
    values = hits(rng, seeds, 70)
    found, wanted = bootstrap(values, ratio), scipy_interval(values, ratio)
    assert found.value == pytest.approx(values[..., 0].mean(), abs=1e-12)
    step = 1 / 70 / seeds
    assert (found.low, found.high) == pytest.approx(wanted, abs=step + 0.05 * (wanted[1] - wanted[0]))


def test_the_interval_of_one_seeds_accuracy_is_that_of_the_binomial_distribution(rng: np.random.Generator) -> None:
    values = hits(rng, 1, 200)
    found = bootstrap(values, ratio, resamples=20_000, level=0.9)
    wanted = stats.binom.ppf([0.05, 0.95], 200, found.value) / 200
    assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=1.001 / 200)


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_interval_of_a_score_that_is_no_mean_is_scipys(rng: np.random.Generator, seeds: int) -> None:
    values = answers(rng, seeds, rng.integers(3, size=60))
    found, wanted = bootstrap(values, macro_f1), scipy_interval(values, macro_f1)
    assert found.value == pytest.approx(np.mean([macro_f1(seed.sum(0)) for seed in values]), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(wanted, abs=0.06 * (wanted[1] - wanted[0]))


def test_the_interval_covers_the_true_accuracy_about_as_often_as_it_says(rng: np.random.Generator) -> None:
    covered = 0
    for trial in range(200):
        found = bootstrap(hits(rng, 1, 150), ratio, resamples=400, seed=trial)
        covered += found.low <= 0.7 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_higher_level_gives_a_wider_interval_around_the_same_value(rng: np.random.Generator) -> None:
    values = hits(rng, 2, 80)
    narrow, wide = bootstrap(values, ratio, level=0.8), bootstrap(values, ratio, level=0.99)
    assert wide.low < narrow.low < narrow.value == wide.value < narrow.high < wide.high


def test_resamples_without_a_score_are_left_out_of_the_interval() -> None:
    y, error = np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.4, 0.2])
    values = np.stack([np.ones(3), y, y**2, error], -1)[None]
    drawn = [values[0, list(rows)].sum(0) for rows in itertools.product(range(3), repeat=3)]
    every = np.array([r2(sums) for sums in drawn])
    assert np.isnan(every).sum() == 3  # the same sample three times
    found = bootstrap(values, r2, resamples=20_000, level=0.6)
    assert (found.low, found.high) == pytest.approx(tuple(np.nanpercentile(every, [20, 80])), abs=1e-9)
    nowhere = bootstrap(values[:, :1], r2)
    assert all(math.isnan(value) for value in (nowhere.value, nowhere.low, nowhere.high))


# --- paired tests


def by_scipy(first: Any, second: Any, score: Any, resamples: float) -> float:
    """SciPy permutes row numbers of a table that holds both models."""
    table, samples = np.concatenate([first, second], 1), first.shape[1]

    def difference(rows: Any, others: Any) -> float:
        return score(table[:, rows].sum(1)).mean() - score(table[:, others].sum(1)).mean()

    found = stats.permutation_test(
        (np.arange(samples), np.arange(samples) + samples),
        difference,
        permutation_type="samples",
        vectorized=False,
        n_resamples=resamples,
        rng=np.random.default_rng(1),
    )
    return float(found.pvalue)


@pytest.mark.parametrize("trial", range(4))
@pytest.mark.parametrize("seeds", [1, 3])
def test_with_few_samples_the_p_value_of_a_mean_difference_is_scipys_exact_one(trial: int, seeds: int) -> None:
    rng = np.random.default_rng(trial)
    first, second = rng.normal(0.4, 1, (seeds, 9, 1)), rng.normal(0, 1, (seeds, 9, 1))
    first, second = (np.concatenate([values, np.ones_like(values)], -1) for values in (first, second))
    found = paired_test(first, second, ratio)
    assert found.difference == pytest.approx(first[..., 0].mean() - second[..., 0].mean(), abs=1e-12)
    assert found.p == pytest.approx(by_scipy(first, second, ratio, np.inf), abs=1e-12)


@pytest.mark.parametrize("seeds", [1, 3])
def test_with_few_samples_the_p_value_of_a_score_that_is_no_mean_is_scipys_exact_one(
    rng: np.random.Generator, seeds: int
) -> None:
    truth = rng.integers(3, size=8)
    first, second = answers(rng, seeds, truth, skill=0.8), answers(rng, seeds, truth, skill=0.3)
    found = paired_test(first, second, macro_f1)
    assert found.p == pytest.approx(by_scipy(first, second, macro_f1, np.inf), abs=1e-12)


def test_with_many_samples_the_p_value_is_scipys_within_the_error_of_drawing(rng: np.random.Generator) -> None:
    truth = rng.integers(3, size=80)
    first, second = answers(rng, 2, truth, skill=0.6), answers(rng, 2, truth, skill=0.5)
    found, wanted = paired_test(first, second, macro_f1).p, by_scipy(first, second, macro_f1, 3000)
    assert 0.01 < wanted < 0.99
    assert found == pytest.approx(wanted, abs=4 * 2 * math.sqrt(wanted / 3000))


def test_the_interval_of_a_difference_is_scipys_of_the_samples_differences(rng: np.random.Generator) -> None:
    first, second = hits(rng, 2, 60, 0.8), hits(rng, 2, 60, 0.6)
    found = paired_test(first, second, ratio)
    gap = np.stack([first[..., 0] - second[..., 0], first[..., 1]], -1)
    wanted = scipy_interval(gap, ratio)
    assert (found.low, found.high) == pytest.approx(wanted, abs=1 / 120 + 0.05 * (wanted[1] - wanted[0]))


def test_p_values_are_about_uniform_where_the_models_are_equally_good(rng: np.random.Generator) -> None:
    found = []
    for trial in range(300):
        both = rng.normal(0, 1, (2, 1, 40, 1)) + rng.normal(0, 1, (1, 1, 40, 1))
        values = np.concatenate([both, np.ones_like(both)], -1)
        found.append(paired_test(*values, ratio, resamples=199, seed=trial).p)
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.10
    assert stats.kstest(found, "uniform").pvalue > 0.001


@pytest.mark.parametrize("samples", [5, 60])
def test_identical_models_do_not_differ(rng: np.random.Generator, samples: int) -> None:
    values = answers(rng, 2, rng.integers(3, size=samples))
    found = paired_test(values, values.copy(), macro_f1, resamples=500)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_clear_difference_has_the_smallest_p_value_that_the_swaps_allow() -> None:
    right = np.ones((1, 60, 2))
    wrong = right * [0, 1]
    assert paired_test(right, wrong, ratio, resamples=999).p == 1 / 1000
    assert paired_test(right[:, :6], wrong[:, :6], ratio, resamples=999).p == 2 / 2**6


@pytest.mark.parametrize("samples", [7, 50])
def test_swapping_the_models_turns_the_difference_around_and_keeps_the_p_value(
    rng: np.random.Generator, samples: int
) -> None:
    truth = rng.integers(3, size=samples)
    first, second = answers(rng, 3, truth), answers(rng, 3, truth)
    one, other = (paired_test(*pair, macro_f1, resamples=700) for pair in ((first, second), (second, first)))
    assert (other.difference, other.p) == (-one.difference, one.p)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=1e-12)


def test_a_swap_without_a_score_counts_as_a_difference_as_large_as_the_observed() -> None:
    rng = np.random.default_rng(3)
    undefined = 0
    for _ in range(20):
        first, second = rng.integers(0, 4, (2, 1, 5, 1)).astype(float)

        def score(sums: Any) -> Any:
            return np.where(sums[..., 0] % 5 == 0, np.nan, sums[..., 0])

        slow, observed = 0, float((score(first.sum(1)) - score(second.sum(1)))[0])
        for swap in itertools.product([False, True], repeat=5):
            pick = np.array(swap)[None, :, None]
            a, b = np.where(pick, second, first).sum(1), np.where(pick, first, second).sum(1)
            away = abs(float((score(a) - score(b))[0]))
            undefined += math.isnan(away)
            slow += math.isnan(away) or away >= abs(observed) - 1e-9
        found = paired_test(first, second, score, resamples=100)
        assert found.p == slow / 32 if not math.isnan(observed) else math.isnan(found.p)
    assert undefined


# --- both


@pytest.mark.parametrize("samples", [9, 40])
def test_the_same_seed_gives_the_same_result_and_chunks_do_not_change_it(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    truth = rng.integers(3, size=samples)
    first, second = answers(rng, 2, truth), answers(rng, 2, truth)

    def both(seed: int) -> tuple[Any, Any]:
        return bootstrap(first, macro_f1, resamples=700, seed=seed), paired_test(
            first, second, macro_f1, resamples=700, seed=seed
        )

    whole = both(4)
    assert both(4) == whole
    assert both(5) != whole
    for size in (1, 20_000):
        monkeypatch.setattr(statistics, "CHUNK_BYTES", size)
        assert both(4) == whole


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        ((2, 5, 3), (1, 5, 3), "first has 2 seeds and second has 1: samples can only be swapped"),
        ((2, 5, 3), (2, 6, 3), r"first is \(2, 5, 3\) and second is \(2, 6, 3\)"),
        ((2, 5, 3), (2, 5, 2), "must be of the same samples and statistics"),
        ((5, 3), (5, 3), r"first must be \[seeds, samples, K\]"),
        ((2, 0, 3), (2, 0, 3), "none of them 0"),
    ],
)
def test_shapes_that_do_not_fit_are_errors_that_say_so(first: Any, second: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        paired_test(np.ones(first), np.ones(second), ratio)


def test_other_input_that_has_no_answer_is_an_error(rng: np.random.Generator) -> None:
    values = hits(rng, 1, 5)
    with pytest.raises(ValueError, match=r"the score of sums \(5000, 1, 2\) must be \(5000, 1\), not \(\)"):
        bootstrap(values, lambda sums: sums.sum())
    with pytest.raises(ValueError, match="not finite"):
        bootstrap(values * np.nan, ratio)
    with pytest.raises(ValueError, match="level between 0 and 1"):
        bootstrap(values, ratio, level=95)
    with pytest.raises(ValueError, match="resamples must be 1 or more"):
        paired_test(values, values, ratio, resamples=0)


# --- many tests


def slow_holm(p_values: list[float]) -> list[float]:
    """By the definition: the largest of (m - j + 1) p(j) over all tests that come no later."""
    ranked = sorted(p_values)
    found = []
    for p in p_values:
        products = [(len(ranked) - j) * q for j, q in enumerate(ranked) if q <= p]
        found.append(min(1.0, max(products)))
    return found


@pytest.mark.parametrize("trial", range(20))
def test_holm_adjusts_as_its_definition_says(trial: int) -> None:
    rng = np.random.default_rng(trial)
    raw = rng.choice([*(rng.random(6) ** 4), 0.01, 1.0, 0.0], size=trial + 1).tolist()
    adjusted = holm(raw)
    assert adjusted == pytest.approx(slow_holm(raw), abs=1e-15)
    assert all(p <= q <= 1 for p, q in zip(raw, adjusted, strict=True))
    ranks = np.argsort(raw, kind="stable")
    assert (np.diff(np.array(adjusted)[ranks]) >= 0).all()


def test_holm_leaves_one_test_and_none_as_they_are_and_does_not_count_what_is_no_test() -> None:
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
    found = holm([0.02, math.nan, 0.5])
    assert found[::2] == [0.04, 0.5]
    assert math.isnan(found[1])
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.2, 1.2])
