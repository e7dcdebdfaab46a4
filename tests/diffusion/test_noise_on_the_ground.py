"""Noise of windows of a scene: a function of where on the ground it is, so that windows that overlap agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from satdifuser.diffusion.noise import Placed, batch_noise, sample_noise


@pytest.mark.parametrize("cell", [1, 8])
def test_windows_that_overlap_have_the_same_noise_on_the_same_ground(cell: int) -> None:
    chance = np.random.default_rng(7)
    side, cells = 16 * cell, 16
    for _ in range(20):
        row, column = (int(n) * cell for n in chance.integers(-60, 60, 2))
        down, across = (int(n) for n in chance.integers(-10, 10, 2))
        one = sample_noise(3, Placed("S2", row, column, side), 61, (2, cells, cells))
        two = sample_noise(3, Placed("S2", row + down * cell, column + across * cell, side), 61, (2, cells, cells))
        rows, columns = (slice(max(n, 0), cells + min(n, 0)) for n in (down, across))
        back_rows, back_columns = (slice(max(-n, 0), cells + min(-n, 0)) for n in (down, across))
        assert torch.equal(one[:, rows, columns], two[:, back_rows, back_columns])


def test_noise_on_the_ground_is_normal_and_other_for_each_seed_timestep_and_draw() -> None:
    window = Placed("S2", 5, 9, 128)
    shape = (4, 128, 128)
    base = sample_noise(0, window, 21, shape)
    assert abs(float(base.mean())) < 0.02
    assert abs(float(base.std()) - 1) < 0.02
    assert abs(float((base[:, :-1] * base[:, 1:]).mean())) < 0.02
    for other in (sample_noise(1, window, 21, shape), sample_noise(0, window, 61, shape)):
        assert abs(float((base * other).mean())) < 0.02
    assert abs(float((base * sample_noise(0, window, 21, shape, draw=1)).mean())) < 0.02


def test_ids_of_windows_reach_the_noise_of_a_batch_and_those_of_samples_are_as_they_were() -> None:
    windows = [Placed("S2", 0, 0, 8), Placed("S2", 0, 4, 8)]
    noise = batch_noise(0, windows, 61, torch.zeros(2, 3, 8, 8))
    assert torch.equal(noise[0, :, :, 4:], noise[1, :, :, :4])
    assert windows[0] == "S2 at 0, 0"
    plain = sample_noise(0, "S2 at 0, 0", 61, (3, 8, 8))
    assert not torch.equal(plain, noise[0])
