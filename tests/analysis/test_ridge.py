"""Ridge regression for many penalties at once against scikit-learn's, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from satdifuser.analysis.ridge import ridge

STRENGTHS = [1e2, 1e-6, 1e-3, 1.0]


def made(samples: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng()
    plain = rng.normal(size=(samples, channels)) @ rng.normal(size=(channels, channels))
    y = plain @ rng.normal(size=(channels, 3)) + rng.normal(size=(samples, 3)) * 5 + [0, 100, -3]
    return (plain + 5) * 10 ** rng.uniform(-2, 2, channels), y


@pytest.mark.parametrize("solver", ["torch", "sklearn"])
@pytest.mark.parametrize(("samples", "channels"), [(200, 12), (30, 90), (40, 40)])
def test_every_penalty_gives_what_scikit_learn_gives(samples: int, channels: int, solver: Any) -> None:
    x, y = made(samples, channels)
    x[:, 2] = 7.3  # says nothing
    scaler = StandardScaler().fit(x)
    for strength, found in zip(STRENGTHS, ridge(x, y, STRENGTHS, solver=solver), strict=True):
        wanted = Ridge(alpha=1 / strength, solver="svd").fit(scaler.transform(x), y)
        size = np.abs(wanted.coef_).max()
        np.testing.assert_allclose(found.weight * scaler.scale_, wanted.coef_, rtol=1e-6, atol=1e-6 * size)
        np.testing.assert_allclose(found.logits(x), wanted.predict(scaler.transform(x)), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("solver", ["torch", "sklearn"])
def test_one_number_for_each_sample_gives_one_output(solver: Any) -> None:
    x, y = made(50, 8)
    (alone,), (among,) = ridge(x, y[:, 1], [0.1], solver=solver), ridge(x, y, [0.1], solver=solver)
    assert alone.weight.shape == (1, 8)
    np.testing.assert_allclose(alone.logits(x)[:, 0], among.logits(x)[:, 1])


def test_float32_features_are_summed_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satdifuser.analysis.directions.CHUNK_BYTES", 8 * 10 * 7)  # seven rows at once
    x, y = made(100, 10)
    x = (x + 1e4).astype(np.float32)
    (found,), scaler = ridge(x, y, [10.0]), StandardScaler().fit(x.astype(np.float64))
    wanted = Ridge(alpha=0.1).fit(scaler.transform(x.astype(np.float64)), y)
    np.testing.assert_allclose(found.weight * scaler.scale_, wanted.coef_, rtol=1e-6, atol=1e-6)


def test_bad_input_is_an_error_of_one_line() -> None:
    x, y = made(20, 4)
    with pytest.raises(ValueError, match=r"there are 20 samples, and answers \(19, 3\): each needs one"):
        ridge(x, y[:-1], [1.0])
    with pytest.raises(ValueError, match="answers hold numbers that are not finite"):
        ridge(x, np.where(y == y[2, 1], np.nan, y), [1.0])
    with pytest.raises(ValueError, match="features hold nan in sample 5, channel 1"):
        ridge(np.where(x == x[5, 1], np.nan, x), y, [1.0])
