"""From reflectance to the network's input, against a slow formula."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from satdifuser.baselines.unet import UNetEncoder
from satdifuser.data.bands import SENTINEL2, Band, Sensor
from satdifuser.data.inputs import (
    RGB,
    ImageInput,
    SampleCheck,
    sample_check,
)
from satdifuser.data.trained import other_range, other_unit, range_overrides, warn_of_other_range
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import unconditional
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


def test_a_standardised_input_is_that_of_torchvision() -> None:
    from torchvision.transforms.v2.functional import normalize

    images = torch.rand(2, 13, 5, 4) * 0.5
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    prepare = ImageInput(["B04", "B03", "B02"], high=0.4, mean=mean, std=std)
    unit = images[:, [3, 2, 1]].div(0.4).clamp(0, 1)
    torch.testing.assert_close(prepare(images), normalize(unit, mean, std))
    torch.testing.assert_close(ImageInput(high=1.0, mean=0, std=1)(images), images)
    assert prepare.settings != ImageInput(["B04", "B03", "B02"], high=0.4).settings


@pytest.mark.parametrize(("side", "size"), [(64, 256), (120, 256), (500, 512)])
def test_the_released_loaders_input_is_ours_with_its_white_and_size(side: int, size: int) -> None:
    """Digital numbers by 4095, clipped, resized with antialiasing by torchvision, and to [-1, 1]; bands 04, 03, 02."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import normalize, resize

    numbers = torch.randint(0, 6000, (2, 13, side, side))
    unit = numbers[:, [3, 2, 1]].double().div(4095).clamp(0, 1)
    wanted = normalize(resize(unit, [size, size], InterpolationMode.BILINEAR, antialias=True), [0.5] * 3, [0.5] * 3)
    given = ImageInput(["B04", "B03", "B02"], high=0.4095, size=size)(numbers / 10000)
    torch.testing.assert_close(given.double(), wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize("given", [{}, {"mean": (0.2, 0.5, 0.6), "std": (0.25, 0.2, 0.1)}])
def test_inputs_can_be_undone_and_end_at_the_limit(given: dict[str, tuple[float, ...]]) -> None:
    prepare = ImageInput(["B04", "B03", "B02"], low=0.1, high=0.3, **given)
    images = torch.rand(2, 13, 4, 4) * 0.4
    inputs = prepare(images)
    shares = (images[:, list(prepare.sensor.index(prepare.bands))] - 0.1) / (0.3 - 0.1)
    torch.testing.assert_close(prepare.undo(inputs), shares.clamp(0, 1))
    ends = prepare(torch.stack([torch.zeros(13, 4, 4), torch.ones(13, 4, 4)]))
    assert prepare.limit == pytest.approx(float(ends.abs().max()))


@pytest.mark.parametrize(
    ("wrong", "message"), [({"mean": [0.5, 0.5]}, "2 numbers of mean for 3 bands"), ({"std": 0.0}, "std .* above 0")]
)
def test_a_standardisation_that_does_not_fit_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageInput(RGB, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trained", "given", "others"),
    [
        ({}, {}, []),
        ({"mean": 0.5, "std": [0.5, 0.5, 0.5], "low": 0, "high": 0.3}, {}, []),
        ({"mean": [0.2, 0.2, 0.2]}, {"mean": 0.2}, []),
        ({"mean": 0.2}, {"mean": (0.2, 0.2, 0.3)}, ["encoder.prepare.mean=0.2"]),
        ({"mean": [0.5, 0.6, 0.5], "high": 1}, {}, ["encoder.prepare.high=1", "encoder.prepare.mean=[0.5,0.6,0.5]"]),
        ({}, {"std": 0.1, "low": -0.1}, ["encoder.prepare.low=0.0", "encoder.prepare.std=0.5"]),
    ],
)
def test_the_range_that_weights_were_trained_on_is_given_as_overrides(
    trained: dict[str, object], given: dict[str, Any], others: list[str]
) -> None:
    assert range_overrides(trained, ImageInput(RGB, **given)) == others
    if not given:
        assert range_overrides(trained) == others


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"prepare": 3}', '{"prepare": {"mean": "x"}}', "\x00"])
def test_of_what_weights_were_trained_on_nothing_is_said_where_nothing_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    warn_of_other_range(ImageInput(RGB), tmp_path)
    (tmp_path / "provenance.json").write_text(text)
    warn_of_other_range(ImageInput(RGB), tmp_path)
    assert caplog.messages == []


def trained_on(folder: Path, **prepare: Any) -> Path:
    (folder / "provenance.json").write_text(json.dumps({"prepare": prepare}))
    return folder


def test_a_range_of_reflectance_is_no_advice_for_pictures_and_their_unit_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "satdifuser")
    trained_on(tmp_path, sensor="satdifuser.data.bands.SENTINEL2_RGB", bands=list(RGB), low=0.0, high=0.3)
    pictures = ImageInput(["red", "green", "blue"], sensor="AERIAL_RGB")
    assert other_range(pictures, tmp_path) == []
    for _ in range(3):
        warn_of_other_range(pictures, tmp_path)
    assert caplog.messages == [
        f"{tmp_path} was trained on reflectance from 0 to 0.3, and is given colour from 0 to 1:"
        " encoder.prepare.policy=percentiles brings the range of the training images"
    ]
    caplog.clear()
    warn_of_other_range(ImageInput(["red"] * 3, sensor="AERIAL_RGB", low=0.1, high=0.6), tmp_path)
    assert caplog.messages == []
    for _ in range(2):
        warn_of_other_range(ImageInput(RGB, high=0.5), tmp_path)
    assert caplog.messages == [f"{tmp_path} was trained on inputs of another range: give it encoder.prepare.high=0.3"]


def test_pictures_are_compared_with_a_training_on_pictures(tmp_path: Path) -> None:
    trained_on(tmp_path, sensor="AERIAL_RGB", low=0.0, high=0.9)
    pictures = ImageInput(sensor="AERIAL_RGB")
    assert other_range(pictures, tmp_path) == ["encoder.prepare.high=0.9"]
    assert other_unit(pictures, tmp_path) is None
    said = "was trained on colour from 0 to 0.9, and is given reflectance from 0 to 0.3"
    assert other_unit(ImageInput(RGB), tmp_path) == said


def test_bands_that_a_sensor_lacks_are_named_with_their_setting() -> None:
    with pytest.raises(
        UserError, match=r"its bands are B04, B03, B02; encoder\.prepare\.bands asks for them: choose an"
    ):
        ImageInput(["nir08", "swir16"], sensor="SENTINEL2_RGB")


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
    with pytest.raises(UserError, match=r"must be above|high is nan"):
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


RGN = Sensor("three", (Band("x", "red", 600, 10), Band("y", "green", 550, 10), Band("z", "nir", 800, 10)))
NUMBERS = Sensor("numbers", RGN.bands, valid=(0.0, 10000.0))


def test_a_good_image_has_no_fault_whatever_its_size() -> None:
    for shape in ((3, 4, 4), (3, 7, 2), (3, 1, 1)):
        assert ImageInput(sensor=RGN).fault(torch.rand(shape)) is None
    assert ImageInput(sensor=RGN).fault(torch.rand(3, 7, 2), expect=(7, 2)) is None


@pytest.mark.parametrize(
    ("sensor", "value", "good"),
    [
        (RGN, -0.2, True),  # in float32 it is a little below: Landsat's no-data, and dark water
        (RGN, -0.21, False),
        (RGN, 7.0, True),
        (RGN, 7.1, False),
        (NUMBERS, 3000.0, True),
        (NUMBERS, 10000.0, True),
        (NUMBERS, 10001.0, False),
        (NUMBERS, -0.2, False),
    ],
)
def test_values_beyond_what_the_sensor_is_declared_to_give_are_a_fault(
    sensor: Sensor, value: float, good: bool
) -> None:
    image = torch.full((3, 4, 5), 0.1)
    image[random.randrange(3), random.randrange(4), random.randrange(5)] = value
    fault = ImageInput(["red"], sensor=sensor).fault(image)
    if good:
        assert fault is None
        return
    assert fault is not None
    low, high = sensor.limits[0]
    for word in (f"{value:.4g}", f"declared as {low:g} to {high:g}", "scale digital numbers", "Sensor.valid"):
        assert word in fault


@pytest.mark.parametrize("shape", [(2, 4, 4), (4, 4, 4), (4, 4), (1, 3, 4, 4), (3, 0, 0), (3, 4, 0)])
def test_a_shape_that_is_no_image_of_the_sensor_is_a_fault_with_the_shape(shape: tuple[int, ...]) -> None:
    fault = ImageInput(["red"], sensor=RGN).fault(torch.zeros(shape))
    assert fault is not None
    assert str(shape) in fault


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_pixels_that_are_not_finite_are_counted_once_for_all_bands(bad: float) -> None:
    image = torch.rand(3, 5, 5)
    image[:, 2, 3] = bad
    image[1, 4, 4] = math.nan
    fault = ImageInput(["red"], sensor=RGN).fault(image)
    assert fault is not None
    assert "in 2 pixels" in fault
    assert "no-data" in fault


def test_the_size_that_counts_is_the_one_after_resizing() -> None:
    image = torch.rand(3, 8, 6)
    plain, resized = ImageInput(sensor=RGN), ImageInput(sensor=RGN, size=16)
    fault = plain.fault(image, expect=(16, 16))
    assert fault is not None
    for word in ("8 x 6 px", "16 x 16", "encoder.image_size", "encoder.prepare.size"):
        assert word in fault
    assert resized.fault(image, expect=(16, 16)) is None
    assert "16 x 16 px" in str(resized.fault(image, expect=(8, 6)))


def test_where_pixels_cannot_be_looked_at_shapes_are() -> None:
    images = torch.empty(2, 3, 8, 8, device="meta")
    assert ImageInput(["red"], sensor=RGN)(images, expect=(8, 8)).shape == (2, 1, 8, 8)
    with pytest.raises(UserError, match=r"sample a is 8 x 8 px.*16 x 16"):
        ImageInput(["red"], sensor=RGN)(images, ["a", "b"], expect=(16, 16))
    with pytest.raises(UserError, match=r"\(2, 3, 8, 8\)"):
        ImageInput(["red"])(images)


def test_a_samples_metadata_must_be_there_as_long_as_the_network_reads_and_known() -> None:
    check = SampleCheck(ImageInput(sensor=RGN), (4, 4), metadata=7)
    good = {"id": "a", "image": torch.rand(3, 4, 4), "metadata": torch.randn(7)}
    assert check(good) is None
    assert "has no metadata" in str(check({key: good[key] for key in ("id", "image")}))
    for metadata in (torch.randn(6), torch.randn(8), torch.tensor(1.0), torch.randn(7, 1)):
        said = str(check({**good, "metadata": metadata}))
        assert f"length {metadata.numel()}" in said
        assert "reads 7 numbers" in said
    for bad in (math.nan, math.inf):
        metadata = torch.zeros(7)
        metadata[random.randrange(7)] = bad
        said = str(check({**good, "metadata": metadata}))
        assert str(metadata.tolist()) in said
        assert "fill it in" in said
    assert "NaN" in str(check({**good, "image": torch.full((3, 4, 4), math.nan), "metadata": torch.randn(2)}))
    ignored = SampleCheck(ImageInput(sensor=RGN), (4, 4))
    assert ignored({**good, "metadata": torch.full((2,), math.nan)}) is None
    assert "4 x 4 px" in str(SampleCheck(ImageInput(sensor=RGN), (8, 8))(good))


def test_an_encoder_states_what_it_needs_or_its_declared_input_does() -> None:
    prepare = ImageInput(["B04", "B03", "B02"], size=16)
    diffusion = DiffusionEncoder(unconditional(), prepare=prepare, taps=["mid_block"], timesteps=[21], image_size=16)
    unet = UNetEncoder(prepare=prepare, image_size=16, width=8)
    for encoder in (diffusion, unet):
        check = sample_check(encoder)
        assert check == SampleCheck(prepare, (16, 16), 0)
        assert check({"id": "a", "image": torch.rand(13, 5, 5)}) is None
    assert sample_check(torch.nn.Linear(2, 2)) is None
    other = torch.nn.Linear(2, 2)
    other.prepare = torch.nn.Identity()  # of another kind
    assert sample_check(other) is None
