"""Batches: how many of each source, which images for which step and process."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from satdifuser.errors import UserError
from satdifuser.pretrain.images import Images, Source, counts

CPU = torch.device("cpu")
Make = Callable[..., Source]


def first(images: Images, count: int, start: int = 0, workers: int = 0) -> list[Tensor]:
    return list(itertools.islice(images.batches(start, workers, CPU), count))


def numbers(batch: Tensor) -> list[int]:
    """Which image each is: its corner pixel says."""
    return ((batch[:, 0, 0, 0].double() + 1) * 0.15 * 1000).round().int().tolist()


def marks(batch: Tensor) -> list[float]:
    return [round(float(mark), 3) for mark in (batch[:, 1, 0, 0].double() + 1) * 0.15]


@pytest.mark.parametrize(
    ("size", "shares", "expected"),
    [
        (64, [1.0], [64]),
        (64, [0.875, 0.125], [56, 8]),
        (16, [3, 1], [12, 4]),
        (16, [0.999, 0.001], [15, 1]),
        (2, [0.2, 0.8], [1, 1]),
        (16, [0.001, 0.999], [1, 15]),
        (4, [0.01, 0.495, 0.495], [1, 2, 1]),
    ],
)
def test_shares_become_whole_numbers_of_images(size: int, shares: list[float], expected: list[int]) -> None:
    assert sorted(counts(size, shares)) == sorted(expected)


def test_whole_numbers_are_at_least_one_add_up_and_are_near_their_shares() -> None:
    dice = random.Random(5)
    for _ in range(500):
        shares = [dice.random() + 1e-3 for _ in range(dice.randint(1, 5))]
        size = dice.randint(len(shares), 70)
        found = counts(size, shares)
        assert sum(found) == size
        assert min(found) >= 1
        for count, share in zip(found, shares, strict=True):
            assert count == 1 or abs(count - size * share / sum(shares)) < len(shares)


@pytest.mark.parametrize(("size", "shares"), [(1, [0.5, 0.5]), (8, [1.0, 0.0]), (8, [1.2, -0.2])])
def test_shares_that_cannot_be_had_are_refused_in_one_line(size: int, shares: list[float]) -> None:
    with pytest.raises(UserError, match=rf"^a batch of {size} cannot be shared as [^\n]*$"):
        counts(size, shares)


def test_each_batch_has_each_sources_count_and_no_image_twice_in_an_epoch(source: Make) -> None:
    images = Images([source(24, share=0.75), source(10, share=0.25, mark=0.2)], 8)
    assert images.total == 8
    batches = first(images, 9)
    for batch in batches:
        assert batch.shape == (8, 3, 8, 8)
        assert marks(batch) == [0.0] * 6 + [0.2] * 2
    for epoch in (batches[:4], batches[4:8]):
        assert sorted(number for batch in epoch for number in numbers(batch[:6])) == list(range(24))
    assert [numbers(batch) for batch in batches[:4]] != [numbers(batch) for batch in batches[4:8]]
    assert sorted(number for batch in batches[:5] for number in numbers(batch[6:])) == list(range(10))


def test_images_are_prepared_for_the_network(source: Make) -> None:
    made = source(4)
    batch = first(Images([made], 4), 1)[0]
    for number, image in zip(numbers(batch), batch, strict=True):
        expected = (made.data[number]["image"].double() / 0.3 * 2 - 1).clamp(-1, 1)
        torch.testing.assert_close(image.double(), expected, atol=1e-6, rtol=1e-5)


def test_batches_depend_on_seed_and_step_alone(source: Make) -> None:
    sources = [source(24, share=0.75), source(10, share=0.25, mark=0.2)]
    whole = first(Images(sources, 8, seed=3), 8)
    for start in (1, 5):
        for a, b in zip(whole[start:], first(Images(sources, 8, seed=3), 8 - start, start=start), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(whole[0], first(Images(sources, 8, seed=4), 1)[0])


def test_workers_change_nothing(source: Make) -> None:
    images = Images([source(24, share=0.75), source(10, share=0.25, mark=0.2)], 8)
    for a, b in zip(first(images, 4, start=2), first(images, 4, start=2, workers=2), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_batches_of_one_as_they_share_its_draws(world: int, source: Make) -> None:
    sources = [source(24, share=0.5), source(10, share=0.5, mark=0.2)]
    alone = first(Images(sources, 8), 4)
    for rank in range(world):
        mine = first(Images(sources, 8, rank=rank, world=world), 4)
        for whole, part in zip(alone, mine, strict=True):
            assert torch.equal(part, whole[rank::world])


def test_a_share_that_processes_cannot_divide_is_refused_in_one_line(source: Make) -> None:
    with pytest.raises(UserError, match=r"^recipe\.batch_size gives 5 \+ 3 images[^\n]*2 processes[^\n]*$"):
        Images([source(24, share=5), source(24, share=3)], 8, world=2)


def test_a_data_set_too_small_for_its_share_is_refused_in_one_line(source: Make) -> None:
    with pytest.raises(UserError, match=r"^toy has 5 images, too few for 6 in a step$"):
        first(Images([source(5)], 6), 1)


def test_an_image_of_another_size_is_named(source: Make) -> None:
    with pytest.raises(UserError, match=r"^sample toy-\d+ is 16 x 16 px[^\n]*8 x 8[^\n]*$"):
        first(Images([source(5, size=16)], 2), 1)


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (99, list(range(10)))])
def test_some_images_are_spread_over_the_data_set(count: int, expected: list[int], source: Make) -> None:
    batch, ids = source(10).some(count)
    assert ids == [f"toy-{number}" for number in expected]
    assert numbers(batch) == expected
