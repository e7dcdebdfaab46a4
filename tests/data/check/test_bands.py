"""Faults of the numbers and of the order of bands: each is found, and clean data have none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from satdifuser.data.bands import SENTINEL2, Band, Sensor, find_sensor
from satdifuser.data.check import Checked
from satdifuser.data.sensors import AERIAL_RGB, SENTINEL1, SENTINEL2_B8A_LAST


def image(change: Any) -> Any:
    """What is done to every image."""

    def changed(split: str, index: int, sample: Any) -> None:
        change(sample["image"])

    return changed


def one(found: Checked, names: Any, name: str, verdict: str = "warning") -> Any:
    """The only thing that is not fine."""
    there = names(found)
    assert set(there) == {name}, [f.line() for f in there.values()]
    assert there[name].verdict == verdict
    assert "\n" not in there[name].line()
    return there[name]


def test_clean_data_have_nothing_to_say(checked: Any, names: Any) -> None:
    found = checked()
    assert names(found) == {}
    assert found.verdict == "fine"
    lines = "\n".join(found.lines())
    for word in ("all 24 samples can be read", "13 bands of 32 x 32 px", "no image comes twice", "all 8 classes"):
        assert word in lines


def test_digital_numbers_are_out_of_range_with_the_scale_to_set(checked: Any, names: Any) -> None:
    found = checked(image(lambda x: x.mul_(10000)))
    there = names(found)
    assert set(there) >= {"range"}
    first = there["range"]
    assert first.verdict == "error"
    assert "digital numbers: data.scaling.numbers=dn" in first.todo
    assert "72 samples" in first.what


def test_one_sample_out_of_range_is_named(checked: Any, names: Any) -> None:
    def spoil(split: str, index: int, sample: Any) -> None:
        if (split, index) == ("val", 3):
            sample["image"][5, 1, 1] = -0.7

    found = one(checked(spoil), names, "range", "error")
    assert found.where == "val-3"
    assert "B06 has values from -0.7 to" in found.what


def test_nan_is_an_error_that_counts(checked: Any, names: Any) -> None:
    def spoil(split: str, index: int, sample: Any) -> None:
        if index in (2, 4) and split == "train":
            sample["image"][:, 0, :3] = float("nan")

    found = one(checked(spoil), names, "nan", "error")
    assert "78 values in 2 samples" in found.what
    assert found.samples == ["train-2", "train-4"]


def test_samples_without_data_are_named(checked: Any, names: Any) -> None:
    def spoil(split: str, index: int, sample: Any) -> None:
        if split == "test" and index < 2:
            sample["image"].zero_()

    found = one(checked(spoil), names, "blank")
    assert found.samples == ["test-0", "test-1"]


def test_a_band_of_one_value_is_found(checked: Any, names: Any) -> None:
    found = one(checked(image(lambda x: x[9].fill_(0.2))), names, "flat-band")
    assert "B09 (0.2) has one value everywhere" in found.what


def test_two_bands_that_are_the_same_are_found(checked: Any, names: Any) -> None:
    def twice(split: str, index: int, sample: Any) -> None:
        sample["image"][4] = sample["image"][3]

    found = names(checked(twice))["twin-bands"]
    assert found.verdict == "warning"
    assert "B04 and B05 are the same" in found.what


def test_what_was_divided_once_too_often_looks_dark(checked: Any, names: Any) -> None:
    found = one(checked(image(lambda x: x.div_(10000))), names, "dark")
    assert "divided once too often" in found.what


def test_8_bit_pictures_in_a_sensor_of_reflectance_are_found(checked: Any, names: Any) -> None:
    def bytes_of(split: str, index: int, sample: Any) -> None:
        sample["image"] = (sample["image"][[3, 2, 1]] / 0.3 * 255).clamp(0, 255).round() / 255

    found = one(checked(bytes_of, sensor=find_sensor("SENTINEL2_RGB")), names, "8-bit")
    assert "data.scaling.white" in found.todo
    assert names(checked(bytes_of, sensor=AERIAL_RGB)) == {}


def test_the_offset_of_new_baselines_is_found(checked: Any, names: Any) -> None:
    found = names(checked(image(lambda x: x.add_(0.1))))
    assert "offset" in found
    assert "offset: -1000" in found["offset"].todo


def test_radar_that_is_not_in_db_is_found(checked: Any, names: Any) -> None:
    def radar(split: str, index: int, sample: Any) -> None:
        power = sample["image"][[3, 2]].clamp_min(1e-3) * torch.tensor([1.0, 0.3])[:, None, None]
        sample["image"] = power

    found = names(checked(radar, sensor=SENTINEL1))
    assert set(found) == {"not-db"}

    def decibel(split: str, index: int, sample: Any) -> None:
        radar(split, index, sample)
        sample["image"] = 10 * sample["image"].log10()

    assert names(checked(decibel, sensor=SENTINEL1)) == {}

    def swapped(split: str, index: int, sample: Any) -> None:
        decibel(split, index, sample)
        sample["image"] = sample["image"].flip(0)

    assert "VH" in one(checked(swapped, sensor=SENTINEL1), names, "order-radar").what


def test_celsius_does_not_look_like_kelvin(checked: Any, names: Any) -> None:
    sensor = Sensor("thermal", (Band("B10", "lwir11", 10895.0, 100, unit="kelvin"),))

    def heat(split: str, index: int, sample: Any) -> None:
        sample["image"] = sample["image"][:1] * 50 + 5

    assert "kelvin" in one(checked(heat, sensor=sensor), names, "not-kelvin").what


@pytest.mark.parametrize("factor", [4.0, 1e-4])
def test_a_split_of_another_scale_is_found(checked: Any, names: Any, factor: float) -> None:
    def bright(split: str, index: int, sample: Any) -> None:
        if split == "test":
            sample["image"].mul_(factor)

    found = names(checked(bright))["drift"]
    assert found.verdict == "warning"
    assert found.where == "test"


@pytest.mark.parametrize("order", ["B8A last", "backwards", "nir and red"])
def test_bands_in_another_order_look_like_it(checked: Any, names: Any, order: str) -> None:
    files = {
        "B8A last": [SENTINEL2.names.index(band.name) for band in SENTINEL2_B8A_LAST],
        "backwards": list(range(13))[::-1],
        "nir and red": [0, 1, 2, 7, 4, 5, 6, 3, 8, 9, 10, 11, 12],
    }[order]

    def permuted(split: str, index: int, sample: Any) -> None:
        sample["image"] = sample["image"][files]

    found = names(checked(permuted))
    assert found
    assert all(name.startswith("order") for name in found)
    assert all(
        "looks as if the bands were in another order" in f.what and f.verdict == "warning" for f in found.values()
    )
    if order == "B8A last":
        assert names(checked(permuted, sensor=SENTINEL2_B8A_LAST)) == {}


def test_the_red_edge_climbs_over_vegetation(checked: Any, names: Any) -> None:
    def swapped(split: str, index: int, sample: Any) -> None:
        sample["image"][[4, 5]] = sample["image"][[5, 4]]

    assert "red edge climbs" in names(checked(swapped))["order-red-edge"].what


def test_another_scale_looks_bright(checked: Any, names: Any) -> None:
    found = one(checked(image(lambda x: x.mul_(7).clamp_(max=6.9))), names, "bright")
    assert "seldom above 1" in found.what
