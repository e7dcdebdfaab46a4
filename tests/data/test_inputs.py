"""From reflectance to the network's input, against a slow formula."""

from __future__ import annotations

import math
import random

import pytest
import torch
import torch.nn.functional as F

from satdifuser.data.bands import SENTINEL2, Band, Sensor
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError


def test_each_pixel_is_mapped_to_minus_one_to_one_and_clipped() -> None:
    low, high = -0.1, 0.25
    images = torch.rand(2, 13, 5, 4) * 0.7 - 0.2
    chosen = random.sample(SENTINEL2.names, 4)
    given = ImageInput(chosen, low=low, high=high)(images)
    assert given.shape == (2, 4, 5, 4)
    clipped = 0
    for n in range(2):
        for c, name in enumerate(chosen):
            for y in range(5):
                for x in range(4):
                    value = images[n, SENTINEL2.names.index(name), y, x].item()
                    wanted = -1 + 2 * (value - low) / (high - low)
                    clipped += int(abs(wanted) > 1)
                    assert given[n, c, y, x].item() == pytest.approx(min(max(wanted, -1), 1), abs=1e-5)
    assert clipped > 0


def test_bands_come_in_the_order_asked_for_by_either_name() -> None:
    images = torch.rand(1, 13, 3, 3) * 0.3
    by_name, by_common = ImageInput(["B04", "B03", "B02"]), ImageInput(["red", "green", "blue"])
    assert torch.equal(by_name(images), by_common(images))
    assert torch.equal(by_name(images).flip(1), ImageInput(["B02", "B03", "B04"])(images))
    assert by_name.settings["bands"] == "B04,B03,B02"


def test_without_a_choice_all_bands_go_in() -> None:
    assert ImageInput().bands == SENTINEL2.names
    assert ImageInput().channels == 13


def test_another_sensor_brings_its_own_bands() -> None:
    pair = Sensor("pair", (Band("x", "red", 600, 10), Band("y", "nir", 800, 10)))
    prepare = ImageInput(["nir"], high=1.0, sensor=pair)
    images = torch.rand(2, 2, 3, 3)
    torch.testing.assert_close(prepare(images), images[:, 1:] * 2 - 1)
    assert prepare.settings["sensor"] == "pair"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_pixel_that_is_not_finite_is_an_error_naming_its_sample(bad: float) -> None:
    images = torch.rand(3, 13, 4, 4)
    images[1, 9, 2, 3] = bad  # in a band that is not even chosen
    with pytest.raises(UserError, match="sample tile-b has NaN or infinite values in 1 pixels"):
        ImageInput(["red"])(images, ["tile-a", "tile-b", "tile-c"])
    with pytest.raises(UserError, match="number 1 of the batch"):
        ImageInput(["red"])(images)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 14, 4, 4), (13, 4, 4)])
def test_a_wrong_number_of_bands_is_an_error_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as caught:
        ImageInput(["red"])(torch.zeros(shape))
    assert str(shape) in str(caught.value)
    assert "[batch, 13, height, width]" in str(caught.value)


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.3), (0.4, 0.1), (0.0, math.nan)])
def test_an_empty_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(UserError, match="must be above"):
        ImageInput(low=low, high=high)


def test_resizing_gives_the_size_asked_for_and_leaves_images_of_that_size_alone() -> None:
    images = torch.rand(2, 13, 8, 8) * 0.3
    plain = ImageInput(["red", "nir"])(images)
    assert torch.equal(ImageInput(["red", "nir"], size=8)(images), plain)
    larger = ImageInput(["red", "nir"], size=16)(images)
    wanted = F.interpolate(plain.double(), (16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(larger.double(), wanted, atol=1e-5, rtol=0)
    assert ImageInput(["red"], size=12)(torch.zeros(1, 13, 20, 9)).shape == (1, 1, 12, 12)


def test_shrinking_averages_rather_than_drops_pixels() -> None:
    bright = torch.zeros(1, 13, 16, 16)
    bright[..., ::4, ::4] = 0.3  # a sixteenth of the pixels, all of them where sampling without averaging misses
    assert ImageInput(["red"], size=4)(bright).mean().item() == pytest.approx(-1 + 2 / 16, abs=0.05)


def test_the_input_is_not_changed_in_place() -> None:
    images = torch.rand(1, 13, 4, 4)
    before = images.clone()
    ImageInput()(images)
    assert torch.equal(images, before)
