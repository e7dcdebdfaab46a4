"""Augmentation of series: all dates of a sample are changed as its one mask is, and as each would be alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.augment import RandomAugmentation
from satdifuser.data.bands import SENTINEL2

DATES, COUNT = 4, 6
WAYS: dict[str, dict[str, Any]] = {
    "flips and turns": {"horizontal": 0.5, "vertical": 0.5, "turn": 0.75},
    "crops": {"crop": 1.0},
    "rotation": {"rotation": 40.0, "crop": 0.5, "horizontal": 0.5},
    "nearest": {"rotation": 40.0, "interpolation": "nearest"},
    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2, "unit": 0.4, "probability": 0.7},
    "all": {"horizontal": 0.5, "turn": 0.5, "rotation": 30.0, "crop": 1.0, "brightness": 0.3, "contrast": 0.3},
}


def batch_of(size: tuple[int, int] = (16, 16)) -> dict[str, Any]:
    images = torch.rand(COUNT, DATES, 13, *size) * 0.4 + 0.001
    images *= torch.rand(COUNT, DATES, 1, *size) > 0.1  # each date has its own pixels without data
    dates = torch.randint(0, 20000, (COUNT, DATES))
    dates[::2, 2:] = -1
    images[dates < 0] = 0
    ids = [f"tile-{i}" for i in range(COUNT)]
    return {"id": ids, "image": images, "dates": dates, "mask": torch.randint(0, 5, (COUNT, *size))}


@pytest.mark.parametrize("way", WAYS)
def test_each_date_is_changed_as_it_would_be_alone(way: str) -> None:
    augment, batch = RandomAugmentation(**WAYS[way], seed=3, sensor=SENTINEL2), batch_of()
    for step in range(3):
        found = augment(batch, step)
        assert found["image"].shape == batch["image"].shape
        for date in range(DATES):
            alone = augment({**batch, "image": batch["image"][:, date]}, step)
            torch.testing.assert_close(found["image"][:, date], alone["image"], rtol=1e-6, atol=1e-7)
            assert torch.equal(found["mask"], alone["mask"])
    assert not torch.equal(found["image"], batch["image"])
    assert torch.equal(found["dates"], batch["dates"])


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_there_stays_blank_and_what_has_no_data_has_none(way: str) -> None:
    augment, batch = RandomAugmentation(**WAYS[way], seed=5, sensor=SENTINEL2), batch_of()
    found = augment(batch, 1)["image"]
    assert not found[batch["dates"] < 0].any()
    there = found[batch["dates"] >= 0]
    empty = (there == 0).all(1)
    assert 0.02 < float(empty.float().mean()) < 0.6
    assert float(there.amax(1)[~empty].min()) > 0


def test_places_are_the_same_in_all_dates_of_a_sample() -> None:
    """Each pixel carries its own number, in every date and in the mask: they must still agree."""
    size = 12
    numbers = torch.arange(1, size * size + 1).reshape(size, size)
    images = numbers.float().expand(COUNT, DATES, 13, size, size).clone() / 1000
    batch = {"id": [str(i) for i in range(COUNT)], "image": images, "mask": numbers.expand(COUNT, size, size).clone()}
    augment = RandomAugmentation(
        rotation=45.0, crop=1.0, horizontal=0.5, turn=0.75, interpolation="nearest", ignore_index=0, sensor=SENTINEL2
    )
    found = augment(batch, 0)
    wanted = found["mask"][:, None, None].expand_as(found["image"])
    assert torch.equal((found["image"] * 1000).round().long(), wanted)
    assert len({tuple(row.flatten().tolist()) for row in found["mask"]}) == COUNT


def test_colours_change_by_the_same_factors_in_all_dates() -> None:
    images = torch.rand(COUNT, 1, 13, 8, 8).mul(0.2).add(0.05).repeat(1, DATES, 1, 1, 1)
    images *= torch.tensor([1.0, 0.5, 1.5, 0.8])[None, :, None, None, None]
    augment = RandomAugmentation(brightness=0.5, sensor=SENTINEL2)
    ratio = augment({"id": [str(i) for i in range(COUNT)], "image": images}, 0)["image"] / images
    for sample in ratio:
        np.testing.assert_allclose(sample, float(sample.mean()), rtol=1e-4)
    assert float(ratio.mean((1, 2, 3, 4)).std()) > 0.05
