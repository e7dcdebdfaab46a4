"""Statistics of bands in one pass, against numpy on all pixels in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.data.bands import SENTINEL2, Band, Sensor, find_sensor
from satdifuser.data.base import Labels
from satdifuser.data.splits.evenly import evenly
from satdifuser.data.statistics import ERROR, PERCENTILES, rows_of, tally_of
from satdifuser.errors import UserError

TWO = Sensor("two", (Band("B04", "red", 664.6, 10), Band("VV", "vv", 5e7, 10, unit="dB")))


class Images:
    """Samples as they are given."""

    name, labels = "images", Labels((), ())

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = [one if isinstance(one, dict) else {"image": one} for one in samples]
        self.identity: dict[str, Any] = {"name": "images"}

    def sample_id(self, index: int) -> str:
        return f"image-{index}"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        found = self.samples[index]
        if isinstance(found["image"], str):
            raise UserError(f"image-{index} {found['image']}")
        return {"id": self.sample_id(index), **found}


def images(count: int = 12, side: int = 16) -> list[torch.Tensor]:
    """Light of any size, radar on both sides of 0, an edge without data, and radar alone without data."""
    made = []
    for _ in range(count):
        image = torch.stack([torch.rand(side, side).pow(3) * 0.9 - 0.05, torch.randn(side, side) * 9 - 8])
        image[:, : side // 8] = 0
        image[1, -1] = 0
        made.append(image)
    return made


def pixels(given: Sequence[torch.Tensor]) -> list[np.ndarray[Any, Any]]:
    """All pixels of each band that have data, in float64, with loops."""
    found: list[list[float]] = [[], []]
    for image in given:
        for row in range(image.shape[1]):
            for column in range(image.shape[2]):
                values = image[:, row, column].tolist()
                if any(value != 0 for value in values):
                    found[0].append(values[0])
                    if values[1] != 0:
                        found[1].append(values[1])
    return [np.array(values) for values in found]


@pytest.mark.parametrize("workers", [0, 2])
def test_mean_deviation_extremes_and_percentiles_are_those_of_all_pixels(workers: int) -> None:
    given = images()
    tally, faults = tally_of(Images(given), TWO, None, workers)
    assert not faults
    assert tally.samples == 12
    for band, values in enumerate(pixels(given)):
        assert tally.count[band] == len(values)
        assert tally.mean[band] == pytest.approx(values.mean(), rel=1e-12)
        assert tally.std[band] == pytest.approx(values.std(), rel=1e-12)
        assert (tally.low[band], tally.high[band]) == (values.min(), values.max())
        for percent in (0, *PERCENTILES, 99.9, 100):
            wanted = np.percentile(values, percent)
            ranked = np.sort(np.abs(values - wanted))[0]  # between two values none of them is the percentile
            assert abs(tally.percentile(band, percent) - wanted) <= ERROR * abs(wanted) + 2 * ranked + 1e-9, percent


def test_the_stated_error_of_percentiles_holds_for_many_values() -> None:
    values = torch.cat([torch.rand(40000) * 0.3, torch.randn(20000) * 1e3, torch.rand(5000) * -1e-4]).view(1, 1, -1)
    sensor = Sensor("one", (Band("B04", "red", 664.6, 10),))
    tally, _ = tally_of(Images([values]), sensor)
    exact = np.sort(values.numpy().ravel().astype(np.float64))
    for percent in np.random.default_rng(0).uniform(0, 100, 200):
        place = (len(exact) - 1) * percent / 100
        low, high = exact[int(np.floor(place))], exact[int(np.ceil(place))]
        found = tally.percentile(0, float(percent))
        assert low - ERROR * abs(low) <= found <= high + ERROR * abs(high)


def test_numbers_do_not_depend_on_workers() -> None:
    given = images(20)
    one, two = (tally_of(Images(given), TWO, 11, workers)[0] for workers in (0, 2))
    assert (one.mean == two.mean).all()
    assert (one.squares == two.squares).all()
    assert rows_of(one, TWO) == rows_of(two, TWO)


def test_a_histogram_counts_every_value() -> None:
    given = images()
    tally, _ = tally_of(Images(given), TWO)
    values, edges = pixels(given)[0], np.linspace(-0.11, 1.01, 40)
    wanted, _ = np.histogram(values, edges)
    found = tally.histogram(0, edges)
    assert found.sum() == pytest.approx(len(values))
    np.testing.assert_allclose(found, wanted, atol=3)


def test_evenly_chosen_samples_are_other_ones_each_and_spread() -> None:
    assert evenly(range(7), None) == evenly(range(7), 7) == evenly(range(7), 100) == list(range(7))
    assert evenly(range(0), 5) == []
    chosen = evenly(range(1001), 13)
    assert len({*chosen}) == 13
    assert chosen[0] == 0
    assert max(np.diff(chosen)) - min(np.diff(chosen)) <= 1
    given = images(9)
    tally, _ = tally_of(Images(given), TWO, 3)
    assert tally.mean[0] == pytest.approx(pixels([given[0], given[3], given[6]])[0].mean(), rel=1e-12)


def test_nan_and_infinity_are_counted_and_stay_out() -> None:
    given = images(3)
    clean, _ = tally_of(Images(given), TWO)
    spoilt = [image.clone() for image in given]
    spoilt[1][0, 5, 5], spoilt[1][1, 6, 6] = float("nan"), float("inf")
    tally, _ = tally_of(Images(spoilt), TWO)
    assert tally.invalid.tolist() == [1, 1]
    assert (clean.count - tally.count).tolist() == [1, 1]
    assert np.isfinite(tally.mean).all()
    assert np.isfinite(tally.high).all()


def test_of_a_series_the_dates_that_are_not_there_do_not_count() -> None:
    given = images(3)
    series = torch.stack([*given, torch.zeros_like(given[0])])
    sample = {"image": series, "dates": torch.tensor([100, 110, 120, -1])}
    tally, _ = tally_of(Images([sample]), TWO)
    alone, _ = tally_of(Images(given), TWO)
    np.testing.assert_allclose(tally.mean, alone.mean, rtol=1e-12)
    assert (tally.blank == alone.blank).all()


@pytest.mark.parametrize(("other", "blank", "kept"), [("LANDSAT8:B10", 1, 0), ("SENTINEL1:VV", 0, 1), ("DEM", 1, 1)])
def test_0_is_no_data_in_kelvin_alone_and_in_light_beside_radar_and_a_height(other: str, blank: int, kept: int) -> None:
    heights = other == "DEM"
    extra = Sensor("dem", (Band("z", "height", 0, 30, unit="metres"),)) if heights else find_sensor(other)
    image = torch.rand(2, 8, 8).double() + 270.0 * torch.tensor([0.0, float(kept == 0)])[:, None, None]
    image[blank, :2] = 0
    tally, _ = tally_of(Images([{"image": image.float()}]), find_sensor("LANDSAT8:B4") + extra)  # type: ignore[arg-type]
    values = image[blank].float().double()
    values = values if heights else values[values != 0]
    assert tally.count[blank] == values.numel()
    assert tally.mean[blank] == pytest.approx(float(values.mean()))
    assert tally.std[blank] == pytest.approx(float(values.std(unbiased=False)))
    assert tally.percentile(blank, 1) == pytest.approx(np.percentile(values, 1), rel=1e-3)
    assert tally.count[1 - blank] == 64


def test_a_sample_that_cannot_be_read_is_left_out_and_named() -> None:
    given: list[Any] = images(4)
    tally, faults = tally_of(Images([given[0], "is damaged", *given[1:]]), TWO)
    assert tally.samples == 4
    assert faults == ["image-1 is damaged"]
    with pytest.raises(UserError, match="image-0 is damaged"):
        tally_of(Images(["is damaged"]), TWO)
    with pytest.raises(UserError, match=r"image-0 has 2 bands, but Sentinel-2 MSI has 13: set data\.sensor"):
        tally_of(Images(given), SENTINEL2)
