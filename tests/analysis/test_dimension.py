"""Dimension: points of a known one, a slow loop over the definition, and NumPy's singular values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from satdifuser.analysis import dimension, rows
from satdifuser.analysis.dimension import effective_rank, two_nn


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(list(request.node.name.encode()))


def slow(points: np.ndarray) -> float:
    """Facco et al.'s recipe, point by point."""
    points = points.astype(np.float64)
    ratios = []
    for one in points:
        away = sorted(math.dist(one, other) for other in points)
        ratios.append(away[2] / away[1])  # the first is the point itself
    ratios.sort()
    across = above = 0.0
    for number, ratio in enumerate(ratios[: int(0.9 * len(ratios))], 1):
        across += math.log(ratio) ** 2
        above -= math.log(ratio) * math.log(1 - number / len(ratios))
    return above / across


@pytest.mark.parametrize("dimensions", [1, 2, 5, 9])
def test_points_of_a_known_dimension_have_it_in_more_channels(rng: np.random.Generator, dimensions: int) -> None:
    inside = rng.normal(size=(2500, dimensions))
    turned = inside @ np.linalg.qr(rng.normal(size=(40, dimensions)))[0].T + 3
    assert two_nn(turned) == pytest.approx(dimensions, rel=0.12)
    assert two_nn(torch.from_numpy(turned).float()) == pytest.approx(two_nn(turned), rel=1e-3)


def test_a_bent_surface_has_its_own_dimension_and_not_that_of_its_channels(rng: np.random.Generator) -> None:
    angles = rng.uniform(0, 2 * math.pi, (3000, 2))
    torus = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    assert two_nn(torus) == pytest.approx(2, rel=0.1)
    wavy = np.sin(torus @ rng.normal(size=(4, 30)))
    assert two_nn(wavy) == pytest.approx(2, rel=0.1)
    assert effective_rank(wavy) > 5


@pytest.mark.parametrize("channels", [3, 17])
def test_two_nn_is_a_slow_loop_over_the_definition(
    rng: np.random.Generator, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = rng.normal(size=(97, channels)).astype(np.float32) * 5 + 2
    wanted = slow(points)
    assert two_nn(points) == pytest.approx(wanted, rel=1e-9)
    monkeypatch.setattr(dimension, "BLOCK_ROWS", 10)
    monkeypatch.setattr(dimension, "BLOCK_CHANNELS", 4)
    monkeypatch.setattr(dimension, "GATHERED", 100)
    monkeypatch.setattr(rows, "BLOCK", 50)
    assert two_nn(points) == pytest.approx(wanted, rel=1e-9)


def test_neighbours_that_are_near_against_their_distance_from_zero_are_told_apart(rng: np.random.Generator) -> None:
    points = rng.normal(size=(80, 4))
    points[40:] += 1e6  # the mean lies far from all
    assert two_nn(points) == pytest.approx(slow(points), rel=1e-6)


def test_scale_turns_and_offsets_change_no_dimension(rng: np.random.Generator) -> None:
    points = rng.normal(size=(300, 6)) * [1, 2, 3, 1, 1, 0.5]
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    for other in (points * 1e-3, points @ turn, points + 50):
        assert two_nn(other) == pytest.approx(two_nn(points), rel=1e-8)
        assert effective_rank(other) == pytest.approx(effective_rank(points), rel=1e-8)


def test_equal_points_count_once(rng: np.random.Generator) -> None:
    points = rng.normal(size=(200, 5)).astype(np.float32)
    points[0, 2], points[1] = 0.0, points[0]
    points[1, 2] = -0.0
    alone = np.delete(points, 1, 0)
    many = np.concatenate([points, points[20:60], points[20:60], points[20:30]])
    assert two_nn(rng.permutation(many)) == pytest.approx(two_nn(alone), rel=1e-9)
    assert two_nn(alone) == pytest.approx(slow(alone), rel=1e-9)


def test_constant_channels_change_nothing(rng: np.random.Generator) -> None:
    points = rng.normal(size=(150, 3)).astype(np.float32)
    noise = 700 * (1 + 1e-7 * rng.choice([-1, 1], size=(150, 20)))
    with_noise = np.concatenate([points, noise.astype(np.float32)], 1)
    assert two_nn(with_noise) == pytest.approx(two_nn(points), rel=1e-6)
    assert effective_rank(with_noise) == pytest.approx(effective_rank(points), rel=1e-6)


def test_what_has_no_dimension_is_nan(rng: np.random.Generator) -> None:
    spoiled = rng.normal(size=(50, 3))
    spoiled[7, 1] = math.nan
    endless = spoiled.copy()
    endless[7, 1] = math.inf
    for points in (np.full((50, 3), 0.1, np.float32), np.zeros((50, 3)), spoiled, endless):
        assert math.isnan(two_nn(points))
        assert math.isnan(effective_rank(points))
    assert math.isnan(two_nn(np.repeat(rng.normal(size=(9, 3)), 9, 0)))
    assert math.isnan(two_nn(np.arange(100.0)[:, None]))  # both neighbours at distance 1: no ratio but 1
    assert not math.isnan(two_nn(rng.normal(size=(10, 3))))


@pytest.mark.parametrize("shape", [(80, 12), (12, 80), (40, 40)])
def test_the_effective_rank_is_the_entropy_of_numpys_singular_values(
    rng: np.random.Generator, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = rng.normal(size=shape) * np.geomspace(1, 1e-3, shape[1]) + 4
    values = np.linalg.svd(points - points.mean(0), compute_uv=False)
    shares = values[values > 1e-9] / values.sum()
    wanted = math.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(points) == pytest.approx(wanted, rel=1e-6)
    monkeypatch.setattr(rows, "BLOCK", 100)
    assert effective_rank(torch.from_numpy(points).float()) == pytest.approx(wanted, rel=1e-3)


def test_as_many_directions_as_are_equally_strong_are_the_rank(rng: np.random.Generator) -> None:
    base = rng.normal(size=(60, 7))
    even = np.linalg.qr(base - base.mean(0))[0]  # seven directions of one size
    wide = even @ np.linalg.qr(rng.normal(size=(30, 7)))[0].T
    assert effective_rank(wide + 9) == pytest.approx(7, rel=1e-6)
    assert effective_rank(even[:, :1] @ rng.normal(size=(1, 30))) == pytest.approx(1, rel=1e-6)
