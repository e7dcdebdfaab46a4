"""The chance in a step: a function of (seed, step), however many processes share it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from satdifuser.pretrain.draws import Draws, any_side_up


def all_kinds(draws: Draws) -> list[Tensor]:
    return [draws.normal((2, 3)), draws.integers(8), draws.uniform((4,)), draws.levels(1000), draws.normal(())]


def test_draws_are_a_function_of_seed_and_step() -> None:
    one, again = (all_kinds(Draws(3, 14, 12)) for _ in range(2))
    torch.randn(5)  # the global generator has no part in it
    for a, b in zip(one, again, strict=True):
        assert torch.equal(a, b)
    for other in (Draws(3, 15, 12), Draws(4, 14, 12)):
        for a, b in zip(one, all_kinds(other), strict=True):
            assert not torch.equal(a, b)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_together_see_what_one_sees(world: int) -> None:
    alone = all_kinds(Draws(0, 7, 12))
    shares = [all_kinds(Draws(0, 7, 12, rank=rank, world=world)) for rank in range(world)]
    for number, whole in enumerate(alone):
        for image, expected in enumerate(whole):
            assert torch.equal(shares[image % world][number][image // world], expected)


@pytest.mark.parametrize(("total", "below"), [(8, 1000), (7, 1000), (64, 1000), (100, 10), (13, 7), (1, 5), (3, 1)])
def test_levels_cover_the_range_evenly_and_lie_in_it(total: int, below: int) -> None:
    for step in range(40):
        levels = sorted(Draws(1, step, total).levels(below).tolist())
        assert 0 <= levels[0] <= levels[-1] < below
        for place, level in enumerate(levels):  # one in each of `total` equal parts
            assert place * below / total - 1 < level < (place + 1) * below / total + 1e-3


@pytest.mark.parametrize("power", [0.5, 2.0, 3.0])
def test_a_power_draws_levels_as_that_power_of_a_uniform_number(power: float) -> None:
    found = Draws(int(torch.randint(1 << 30, ())), 1, 5000).levels(1000, power)
    assert int(found.min()) >= 0
    assert int(found.max()) <= 999
    for share in (0.1, 0.25, 0.5, 0.8):  # P(u**power < x) is x**(1 / power), and the draws cover u evenly
        assert float((found < 1000 * share).float().mean()) == pytest.approx(share ** (1 / power), abs=0.002)
    assert torch.equal(Draws(1, 1, 8).levels(1000), Draws(1, 1, 8).levels(1000, 1.0))


def test_each_level_is_uniform_for_itself() -> None:
    found = torch.stack([Draws(0, step, 8).levels(10) for step in range(4000)])
    for image in range(8):
        share = found[:, image].bincount(minlength=10).double() / len(found)
        assert (share - 0.1).abs().max() < 0.025  # five standard deviations


def lying(image: np.ndarray) -> list[bytes]:
    """The eight ways in which a square can lie, by where each pixel comes from."""
    side = image.shape[1]
    last = side - 1
    ways = []
    for source in (
        *(
            lambda y, x: (y, x),
            lambda y, x: (y, last - x),
            lambda y, x: (last - y, x),
            lambda y, x: (last - y, last - x),
        ),
        *(
            lambda y, x: (x, y),
            lambda y, x: (x, last - y),
            lambda y, x: (last - x, y),
            lambda y, x: (last - x, last - y),
        ),
    ):
        turned = np.zeros_like(image)
        for y in range(side):
            for x in range(side):
                turned[:, y, x] = image[(slice(None), *source(y, x))]
        ways.append(turned.tobytes())
    return ways


def test_images_come_in_the_eight_positions_of_a_square_and_in_no_other() -> None:
    images = torch.randn(400, 2, 5, 5)
    kept = images.clone()
    turned = any_side_up(images, Draws(0, 0, 400))
    assert torch.equal(images, kept)  # the input is left alone
    used = np.zeros(8)
    for image, found in zip(images.numpy(), turned.numpy(), strict=True):
        used[lying(image).index(found.tobytes())] += 1
    assert used.min() > 400 / 8 - 5 * 400**0.5 / 8**0.5


def test_two_processes_turn_images_as_one_does() -> None:
    images = torch.randn(10, 3, 4, 4)
    alone = any_side_up(images, Draws(0, 3, 10))
    for rank in range(2):
        mine = any_side_up(images[rank::2], Draws(0, 3, 10, rank=rank, world=2))
        assert torch.equal(mine, alone[rank::2])
