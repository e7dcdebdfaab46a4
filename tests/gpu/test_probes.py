"""Probes on the device: the answers of the CPU, and of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from satdifuser.analysis.logistic import logistic
from satdifuser.analysis.neighbours import Neighbours
from satdifuser.analysis.ridge import ridge

pytestmark = pytest.mark.gpu
STRENGTHS = [1e-3, 0.1, 10.0]


@pytest.fixture
def made() -> tuple[np.ndarray, np.ndarray]:
    """Correlated float32 features and classes that overlap."""
    rng = np.random.default_rng(torch.initial_seed() % 2**32)
    plain = rng.normal(size=(500, 20)) @ (rng.normal(size=(20, 20)) * 0.8 ** np.arange(20)[:, None])
    y = np.argmax(plain @ rng.normal(size=(20, 4)) / 2 + 2 * rng.gumbel(size=(500, 4)), 1)
    y[:4] = range(4)
    return (plain + 2).astype(np.float32), y


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_logistic_probabilities_are_those_of_scikit_learn(
    device: torch.device, made: tuple[np.ndarray, np.ndarray], kind: str
) -> None:
    x, y = made
    answers = y if kind == "classes" else np.eye(4, dtype=int)[y]
    told = softmax if kind == "classes" else (lambda logits, axis: expit(logits))
    found = logistic(x, answers, STRENGTHS, outputs=4, device=str(device))
    wanted = logistic(x, answers, STRENGTHS, outputs=4, solver="sklearn")
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(told(mine.logits(x), 1), told(theirs.logits(x), 1), atol=1e-4)


@pytest.mark.parametrize("channels", [20, 600])
def test_ridge_is_that_of_scikit_learn(
    device: torch.device, made: tuple[np.ndarray, np.ndarray], channels: int, agree: Callable[..., None]
) -> None:
    x, y = made
    x = np.tile(x, (1, channels // 20)) + np.random.default_rng(3).normal(size=(500, channels))
    for mine, theirs in zip(
        ridge(x, 1.0 * y, STRENGTHS, device=str(device)), ridge(x, 1.0 * y, STRENGTHS, solver="sklearn"), strict=True
    ):
        agree(torch.from_numpy(mine.logits(x)), torch.from_numpy(theirs.logits(x)), tolerance=1e-8)  # all float64


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_neighbours_are_those_of_the_cpu(
    device: torch.device, made: tuple[np.ndarray, np.ndarray], distance: str
) -> None:
    x, y = made
    x[100:150] = x[:50]  # equally far: the first count
    found, wanted = (
        Neighbours(x[:400], y[:400], 4, distance=distance, device=where).shares(x[350:])  # type: ignore[arg-type]
        for where in (str(device), "cpu")
    )
    np.testing.assert_array_equal(found, wanted)
