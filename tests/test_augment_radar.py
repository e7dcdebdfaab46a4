"""Augmentation where radar, heat or heights lie beside light: what has no data has none, and jitter is of light."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from satdifuser.augment import RandomAugmentation
from satdifuser.augment.geometry import Sources
from satdifuser.data.bands import Band, Sensor, find_sensor
from satdifuser.errors import UserError

HEIGHT = Sensor("height", (Band("z", "height", 0, 30, unit="metres"),))
MANY = find_sensor("SENTINEL2:B04/B03/B02/B08+SENTINEL1:VV/VH+LANDSAT8:B10") + HEIGHT
LIGHT, ALONE, DATES = [0, 1, 2, 3], (4, 5, 6), 3
JITTER: dict[str, Any] = {"brightness": 0.3, "contrast": 0.5, "saturation": 0.3}
WARP: dict[str, Any] = {"rotation": 40.0, "crop": 0.5, "horizontal": 0.5}


def images(count: int = 6, side: int = 24) -> Tensor:
    """Each kind of bands has pixels without data where the others have some."""
    made = torch.rand(count, len(MANY), side, side)
    made[:, LIGHT] = 0.01 + 0.3 * made[:, LIGHT]
    made[:, 4:6] = -20 + 6 * made[:, 4:6]
    made[:, 6] = 280 + 20 * made[:, 6]
    made[:, 7] = torch.where(made[:, 7] < 0.3, 0.0, 900 * made[:, 7])  # 0 m is a height
    made[:, LIGHT, :5] = 0
    made[:, 7, :5] = 0
    made[:, 4, :, :9] = 0
    made[:, 5, :, -7:] = 0
    made[:, 6, -6:] = 0
    return made


def changed(given: Tensor, step: int, **settings: Any) -> Tensor:
    augment = RandomAugmentation(sensor=MANY, seed=2, **settings)
    found: Tensor = augment({"id": [f"tile-{n}" for n in range(len(given))], "image": given.clone()}, step)["image"]
    return found


@pytest.mark.parametrize("series", [False, True])
def test_jitter_leaves_other_units_and_what_has_no_data(series: bool) -> None:
    given = images(6 * DATES).unflatten(0, (6, DATES)) if series else images()
    for step in range(4):
        found = changed(given, step, **JITTER)
        assert torch.equal(found[..., 4:, :, :], given[..., 4:, :, :])
        assert not found[..., LIGHT, :, :][given[..., LIGHT, :, :] == 0].any()
        assert not torch.equal(found, given)


def test_light_beside_radar_is_jittered_as_it_is_alone() -> None:
    given = images()
    alone = RandomAugmentation(sensor=find_sensor("SENTINEL2:B04/B03/B02/B08"), seed=2, **JITTER)
    wanted = alone({"id": [f"tile-{n}" for n in range(6)], "image": given[:, LIGHT]}, 1)["image"]
    assert torch.equal(changed(given, 1, **JITTER)[:, LIGHT], wanted)


@pytest.mark.parametrize("series", [False, True])
def test_a_rotation_makes_no_halo_of_bright_radar(series: bool) -> None:
    given = images(6 * DATES).unflatten(0, (6, DATES)) if series else images()
    for step in range(4):
        found = changed(given, step, **WARP).movedim(-3, 0)
        for band, (low, high) in {4: (-20, -14), 5: (-20, -14), 6: (280, 300)}.items():
            there = found[band][found[band] != 0]
            assert there.numel()
            assert low - 1e-3 <= float(there.min()) <= float(there.max()) <= high + 1e-3
        light = found[LIGHT]
        assert float(light[light != 0].min()) >= 0.0099


def test_bilinear_of_a_band_that_is_alone_is_that_of_a_slow_loop_over_its_own_pixels() -> None:
    given, side = images(1).double(), 24
    sources = Sources.of((side, side), np.array([27.0]), np.array([[0.1, 0.05, 0.8, 0.9]]), given)
    found = sources.bilinear(given, ALONE)[0]
    for band, row, column in itertools.product(range(len(MANY)), range(side), range(side)):
        own = given[0, band] != 0 if band in ALONE else (given[0, [*LIGHT, 7]] != 0).any(0)
        x, y = float(sources.x[0, row, column]) - 0.5, float(sources.y[0, row, column]) - 0.5
        total = weights = 0.0
        for i, j in itertools.product(*([int(np.floor(at)), int(np.floor(at)) + 1] for at in (y, x))):
            if 0 <= i < side and 0 <= j < side and own[i, j]:
                weight = (1 - abs(y - i)) * (1 - abs(x - j))
                total, weights = total + weight * float(given[0, band, i, j]), weights + weight
        near = (int(np.floor(y + 0.5)), int(np.floor(x + 0.5)))
        there = all(0 <= at < side for at in near) and bool(own[near])
        assert float(found[band, row, column]) == pytest.approx(total / weights if there else 0.0, abs=1e-9)


def test_of_radar_alone_nothing_is_jittered_and_another_number_of_bands_is_refused() -> None:
    augment = RandomAugmentation(sensor=find_sensor("SENTINEL1"), brightness=0.1, contrast=0.1)
    assert not augment.active
    with pytest.raises(UserError, match=r"augmentation.saturation is of red, green and blue, and .* has the bands VV"):
        RandomAugmentation(sensor=find_sensor("SENTINEL1"), saturation=0.1)
    with pytest.raises(UserError, match=r"sample tile-0 has 2 bands, but .* has 8: set data\.sensor"):
        changed(images()[:, :2], 0, **WARP)
