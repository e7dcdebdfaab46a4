"""Logistic regression against scikit-learn's, at the exact minimum: Newton's method in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from satdifuser.analysis.linear import NEVER, Linear
from satdifuser.analysis.logistic import logistic
from satdifuser.analysis.strengths import strengths_of

# What the module promises of probabilities, of every training sample and in the mean over them.
LARGEST, MEAN = 5e-5, 5e-6
STRENGTHS = [1e-5, 1e-3, 0.1, 10.0]

Made = tuple[np.ndarray, np.ndarray]


def made(rng: np.random.Generator, samples: int = 400, channels: int = 24, classes: int = 5) -> Made:
    """Correlated features far from 0, of very different sizes, and classes that overlap."""
    mixed = rng.normal(size=(channels, channels)) * 0.75 ** np.arange(channels)[:, None]
    plain = rng.normal(size=(samples, channels)) @ mixed
    told = plain @ rng.normal(size=(channels, classes)) / 2
    y = np.argmax(told + 2 * rng.gumbel(size=told.shape), 1)
    y[:classes] = np.arange(classes)
    return (plain + 3) * 10 ** rng.uniform(-3, 3, channels), y


def exact(x: np.ndarray, y: np.ndarray, strength: float, **options: Any) -> np.ndarray:
    """Probabilities by scikit-learn."""
    settings = {"solver": "newton-cholesky", "tol": 1e-10, "max_iter": 1000} | options
    rows = StandardScaler().fit_transform(x)
    return LogisticRegression(C=strength, **settings).fit(rows, y).predict_proba(rows)


def near(found: np.ndarray, wanted: np.ndarray) -> None:
    apart = np.abs(found - wanted)
    assert apart.max() <= LARGEST
    assert apart.mean() <= MEAN


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


@pytest.mark.parametrize("solver", ["torch", "sklearn"])
def test_all_strengths_end_at_the_exact_minimum(rng: np.random.Generator, solver: Any) -> None:
    x, y = made(rng)
    for strength, found in zip(STRENGTHS, logistic(x, y, STRENGTHS, outputs=5, solver=solver), strict=True):
        near(softmax(found.logits(x), 1), exact(x, y, strength))


def test_probabilities_are_those_of_lbfgs_run_to_its_end(rng: np.random.Generator) -> None:
    x, y = made(rng)
    (found,) = logistic(x, y, [0.3], outputs=5)
    near(softmax(found.logits(x), 1), exact(x, y, 0.3, solver="lbfgs", tol=1e-8, max_iter=100_000))


def test_coefficients_and_bias_are_those_of_scikit_learn(rng: np.random.Generator) -> None:
    x, y = made(rng)
    scaler = StandardScaler().fit(x)
    (found,) = logistic(x, y, [0.1], outputs=5)
    wanted = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-10).fit(scaler.transform(x), y)
    np.testing.assert_allclose(found.weight * scaler.scale_, wanted.coef_, atol=1e-3 * np.abs(wanted.coef_).max())
    # scikit-learn's biases may have a common part, which changes nothing
    moved = found.bias + found.weight @ scaler.mean_
    np.testing.assert_allclose(moved - moved.mean(), wanted.intercept_ - wanted.intercept_.mean(), atol=1e-3)


def test_the_minimum_is_exact_where_weights_are_too_many_for_a_second_derivative(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satdifuser.analysis.losses.LARGEST", 0)
    x, y = made(rng)
    for strength, found in zip(STRENGTHS, logistic(x, y, STRENGTHS, outputs=5), strict=True):
        near(softmax(found.logits(x), 1), exact(x, y, strength))


def test_a_strength_alone_gives_what_it_gives_among_others_in_any_order(rng: np.random.Generator) -> None:
    x, y = made(rng)
    among = logistic(x, y, [10.0, 1e-4, 10.0, 0.1], outputs=5)
    for place, strength in ((0, 10.0), (1, 1e-4), (2, 10.0), (3, 0.1)):
        (alone,) = logistic(x, y, [strength], outputs=5)
        near(softmax(among[place].logits(x), 1), softmax(alone.logits(x), 1))


@pytest.mark.parametrize("case", ["more channels than samples", "two classes", "constant", "float32", "separable"])
def test_the_minimum_is_exact_where_data_are_awkward(rng: np.random.Generator, case: str) -> None:
    x, y = made(rng)
    if case == "more channels than samples":
        x, y = made(rng, samples=60, channels=150)
    elif case == "two classes":
        x, y = made(rng, classes=2)
    elif case == "constant":
        x[:, [3, 7]] = 0.1, 1e9
        x[:, 11] = x[:, 12]
    elif case == "float32":
        x = x.astype(np.float32)
    elif case == "separable":
        x = x / x.std(0) + 8 * np.eye(x.shape[1])[y]
    for strength, found in zip(STRENGTHS, logistic(x, y, STRENGTHS, outputs=y.max() + 1), strict=True):
        near(softmax(found.logits(x), 1), exact(x.astype(np.float64), y, strength))


@pytest.mark.parametrize("solver", ["torch", "sklearn"])
def test_a_class_that_does_not_occur_is_never_predicted(rng: np.random.Generator, solver: Any) -> None:
    x, y = made(rng, classes=3)
    (found,) = logistic(x, np.array([1, 4, 5])[y], [0.1], outputs=7, solver=solver)
    near(softmax(found.logits(x), 1)[:, [1, 4, 5]], exact(x, y, 0.1))
    assert set(found.logits(x + rng.normal(size=x.shape) * x.std(0)).argmax(1)) <= {1, 4, 5}


@pytest.mark.parametrize("solver", ["torch", "sklearn"])
def test_two_classes_of_many_are_told_apart_by_one_function(rng: np.random.Generator, solver: Any) -> None:
    x, y = made(rng, classes=2)
    (found,) = logistic(x, np.array([2, 0])[y], [0.1], outputs=4, solver=solver)
    near(softmax(found.logits(x), 1)[:, [2, 0]], exact(x, y, 0.1))


@pytest.mark.parametrize("solver", ["torch", "sklearn"])
def test_labels_are_told_one_by_one(rng: np.random.Generator, solver: Any) -> None:
    x, _ = made(rng)
    told = StandardScaler().fit_transform(x) @ rng.normal(size=(x.shape[1], 4)) / 3
    y = (told + rng.logistic(size=told.shape) > [0, 1, -1, 2]).astype(int)
    rows = StandardScaler().fit_transform(x)
    for strength, found in zip(STRENGTHS, logistic(x, y, STRENGTHS, outputs=4, solver=solver), strict=True):
        one = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10, max_iter=1000)
        near(expit(found.logits(x)), OneVsRestClassifier(one).fit(rows, y).predict_proba(rows))


def test_labels_that_no_sample_or_every_sample_has_are_constant(rng: np.random.Generator) -> None:
    x, y = made(rng, classes=2)
    labels = np.stack([np.zeros_like(y), y, np.ones_like(y)], 1)
    (found,) = logistic(x, labels, [0.1], outputs=3)
    near(expit(found.logits(x)), np.stack([0 * y, exact(x, y, 0.1)[:, 1], 0 * y + 1], 1))
    assert found.bias[[0, 2]].tolist() == [NEVER, -NEVER]


def test_logits_are_told_in_chunks(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satdifuser.analysis.linear.CHUNK", 3)
    linear = Linear(rng.normal(size=(2, 4)), rng.normal(size=2))
    x = rng.normal(size=(8, 4))
    np.testing.assert_allclose(linear.logits(x.astype(np.float32)), x @ linear.weight.T + linear.bias, atol=1e-5)
    with pytest.raises(ValueError, match=r"features are \(8, 3\), and the probe learned from \[N, 4\]"):
        linear.logits(x[:, :3])


def test_the_default_strengths_of_a_real_probe_walk_without_a_stop(rng: np.random.Generator) -> None:
    x, y = made(rng, samples=150)
    strengths = strengths_of(40)
    found = logistic(x, y, strengths, outputs=5)
    losses = [-np.log(softmax(each.logits(x), 1)[np.arange(len(y)), y]).mean() for each in found]
    assert len(found) == 40
    assert np.isfinite(losses).all()
    assert (np.diff(losses) < 1e-6).all()  # a weaker penalty never fits worse


BAD: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Any], str]] = {
    "a NaN": (lambda x, y: (np.where(np.eye(*x.shape)[::-1] == 1, np.nan, x), y), "features hold nan in sample"),
    "an infinity": (lambda x, y: (np.where(x == x[3, 2], np.inf, x), y), "features hold inf in sample 3, channel 2"),
    "one class": (lambda x, y: (x, y * 0 + 2), "all 30 samples are of class 2: a probe needs two classes"),
    "other lengths": (lambda x, y: (x, y[:-1]), r"there are 30 samples, and answers \(29,\)"),
    "no samples": (lambda x, y: (x[:0], y[:0]), "neither of them 0"),
    "one sample": (lambda x, y: (x[:1], y[:1]), "needs 2 samples or more, not 1"),
    "maps": (lambda x, y: (x[None], y), r"\[samples, channels\]"),
    "a class too many": (lambda x, y: (x, y + 3), "classes lie between 0 and 4, not 7"),
    "a class below 0": (lambda x, y: (x, y - 1), "classes lie between 0 and 4, not -1"),
    "half a class": (lambda x, y: (x, y + 0.5), "whole numbers"),
    "labels of 2": (lambda x, y: (x, np.repeat(y[:, None], 5, 1)), "labels are 0 or 1, not 4"),
    "other labels": (lambda x, y: (x, np.eye(4, dtype=int)[y % 4]), r"labels are \(30, 4\), and there are 5"),
    "labels alike": (lambda x, y: (x, np.ones((len(y), 5), int)), "have the same labels"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_an_error_of_one_line(rng: np.random.Generator, name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(ValueError, match=message) as error:
        logistic(*change(*made(rng, samples=30)), [0.1], outputs=5)
    assert "\n" not in str(error.value)
