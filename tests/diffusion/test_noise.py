"""Noise: a function of (seed, sample id, timestep) and of nothing else, and normal."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from satdifuser.diffusion.noise import batch_noise, sample_noise


def test_noise_depends_on_seed_id_and_timestep_and_on_each_of_them() -> None:
    keys = list(itertools.product((0, 1, 12), ("a", "b", "12", "tile-é"), (1, 2, 21)))
    draws = {key: sample_noise(*key, (3, 8, 8)) for key in keys}
    random.shuffle(keys)
    for key in keys:
        assert torch.equal(sample_noise(*key, (3, 8, 8)), draws[key])
    firsts = torch.stack(list(draws.values())).flatten(1)
    assert len(firsts.unique(dim=0)) == len(keys)


@pytest.mark.parametrize(("one", "other"), [((1, "1a", 2), (11, "a", 2)), ((0, "a1", 2), (0, "a", 12))])
def test_keys_that_read_alike_when_joined_have_different_noise(one: tuple, other: tuple) -> None:
    assert not torch.equal(sample_noise(*one, (4, 4)), sample_noise(*other, (4, 4)))


def test_a_samples_noise_is_the_same_in_any_batch_and_order() -> None:
    ids = [f"scene-{i}" for i in range(7)]
    like = torch.zeros(7, 3, 6, 5)
    whole = batch_noise(3, ids, 61, like)
    assert whole.shape == like.shape
    order = random.sample(range(7), 7)
    shuffled = batch_noise(3, [ids[i] for i in order], 61, like)
    assert torch.equal(shuffled, whole[order])
    for i, name in enumerate(ids):
        assert torch.equal(batch_noise(3, [name], 61, like[:1])[0], whole[i])


def test_global_random_state_neither_changes_the_noise_nor_is_changed_by_it() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = sample_noise(0, "a", 5, (64,))
    torch.manual_seed(2)
    np.random.seed(2)
    state = torch.random.get_rng_state()
    assert torch.equal(sample_noise(0, "a", 5, (64,)), first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_another_process_draws_the_same_noise() -> None:
    seed = random.randrange(10**6)
    code = f"from satdifuser.diffusion.noise import sample_noise; print(sample_noise({seed}, 'é-1', 9, (5,)).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(sample_noise(seed, "é-1", 9, (5,)).tolist())


def test_noise_has_the_type_and_place_of_the_images() -> None:
    like = torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16)
    noise = batch_noise(0, ["a", "b"], 1, like)
    assert noise.dtype == torch.bfloat16
    torch.testing.assert_close(noise.float()[1], sample_noise(0, "b", 1, (3, 4, 4)), atol=0, rtol=0.01)
    assert batch_noise(0, ["a", "b"], 1, like.to("meta")).device.type == "meta"


def test_noise_is_standard_normal() -> None:
    seed = random.randrange(10**9)
    draws = batch_noise(seed, [f"s{i}" for i in range(40)], 100, torch.zeros(40, 3, 32, 32)).double()
    assert stats.kstest(draws.flatten().numpy(), "norm").pvalue > 1e-5, seed
    firsts = torch.stack([sample_noise(seed, f"s{i}", 7, (1,)) for i in range(4000)]).flatten().numpy()
    assert stats.kstest(firsts, "norm").pvalue > 1e-5, seed  # across samples too, not only within one


def test_noise_of_different_samples_timesteps_and_seeds_is_uncorrelated() -> None:
    seed = random.randrange(10**9)
    keys = [*((seed, f"s{i}", 21) for i in range(8)), *((seed, "s0", t) for t in (22, 61, 161)), (seed + 1, "s0", 21)]
    draws = np.stack([sample_noise(*key, (20_000,)).numpy() for key in keys])
    correlation = np.corrcoef(draws) - np.eye(len(keys))
    assert np.abs(correlation).max() < 0.045, seed  # 6 standard deviations
