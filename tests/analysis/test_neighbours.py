"""The nearest samples against scikit-learn's brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors

from satdifuser.analysis.neighbours import Neighbours

DISTANCES: Any = ["cosine", "euclidean"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def made(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training features and others, not around 0, and classes, of which 2 does not occur."""
    x = rng.normal(size=(300, 7)) + 0.5
    return x, rng.normal(size=(50, 7)) + 0.5, rng.choice([0, 1, 3], 300)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("k", [1, 5, 300])
def test_shares_of_classes_are_those_of_scikit_learn(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, distance: Any, k: int
) -> None:
    monkeypatch.setattr("satdifuser.analysis.neighbours.BLOCK_BYTES", 8 * 300 * 17)  # 17 samples at once
    x, others, y = made(rng)
    found = Neighbours(x, y, outputs=5, k=k, distance=distance).shares(others)
    wanted = KNeighborsClassifier(k, metric=distance, algorithm="brute").fit(x, y)
    np.testing.assert_allclose(found[:, [0, 1, 3]], wanted.predict_proba(others), atol=1e-12)
    assert (found[:, [2, 4]] == 0).all()
    assert (found.argmax(1) == wanted.predict(others)).all()  # of as many votes the first class wins


@pytest.mark.parametrize("distance", DISTANCES)
def test_shares_of_labels_and_means_of_numbers_are_those_of_scikit_learn(
    rng: np.random.Generator, distance: Any
) -> None:
    x, others, _ = made(rng)
    labels, numbers = rng.integers(0, 2, (300, 4)), rng.normal(size=(300, 2))
    means = KNeighborsRegressor(5, metric=distance, algorithm="brute")
    found = Neighbours(x, labels, outputs=4, distance=distance).shares(others)
    np.testing.assert_allclose(found, means.fit(x, labels).predict(others), atol=1e-12)
    found = Neighbours(x, numbers, distance=distance).mean(others)
    np.testing.assert_allclose(found, means.fit(x, numbers).predict(others), atol=1e-12)
    found = Neighbours(x, numbers[:, 0], distance=distance).mean(others)
    np.testing.assert_allclose(found[:, 0], means.fit(x, numbers[:, 0]).predict(others), atol=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_of_samples_equally_far_the_first_count(rng: np.random.Generator, distance: Any) -> None:
    """A slow search in order of distance, then of place, among many samples that are the same."""
    kinds = rng.normal(size=(6, 9)).astype(np.float32)
    which, asked = rng.integers(0, 6, 200), rng.integers(0, 6, 30)
    x, others = kinds[which], kinds[asked] + rng.normal(size=(30, 9)).astype(np.float32) * 0.05
    search = Neighbours(x, np.zeros(200, int), k=50, distance=distance)
    found = np.concatenate([block.numpy() for _, block in search.nearest(others)])
    apart = NearestNeighbors(n_neighbors=6, metric=distance, algorithm="brute").fit(kinds)
    for one, order in zip(found, apart.kneighbors(others)[1], strict=True):
        wanted = np.concatenate([np.flatnonzero(which == kind) for kind in order])[:50]
        assert set(one) == set(wanted)


def test_far_from_0_distances_keep_their_order(rng: np.random.Generator) -> None:
    x = rng.normal(size=(400, 5)) + 1e3
    found = Neighbours(x, rng.integers(0, 2, 400), k=3, distance="euclidean")
    (_, block), *_ = found.nearest(x[:60])
    wanted = np.argsort(((x[:60, None] - x[None]) ** 2).sum(-1), axis=1)[:, :3]
    assert [set(row) for row in block.tolist()] == [set(row) for row in wanted.tolist()]


def test_bad_input_is_an_error_of_one_line(rng: np.random.Generator) -> None:
    x, others, y = made(rng)
    with pytest.raises(ValueError, match="there are 300 samples to choose 301 neighbours from: ask for 1 to 300"):
        Neighbours(x, y, outputs=4, k=301)
    with pytest.raises(ValueError, match="features hold nan in sample 0, channel 0"):
        Neighbours(np.where(x == x[0, 0], np.nan, x), y, outputs=4)
    with pytest.raises(ValueError, match=r"there are 300 samples, and answers \(299,\)"):
        Neighbours(x, y[1:], outputs=4)
    with pytest.raises(ValueError, match="classes lie between 0 and 2, not 3"):
        Neighbours(x, y, outputs=3).shares(others)
    with pytest.raises(ValueError, match=r"features are \(50, 6\), and those to compare with \[N, 7\]"):
        Neighbours(x, y, outputs=4).shares(others[:, :6])
