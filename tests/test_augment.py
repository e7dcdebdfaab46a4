"""Augmentation: what it does to pixels, against slow loops, NumPy and torchvision; and what its chance depends on."""

from __future__ import annotations

import colorsys
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from satdifuser.augment import RandomAugmentation
from satdifuser.augment.colour import jittered
from satdifuser.augment.draws import PLACES, TRIES, Draws, boxes, uniforms
from satdifuser.augment.geometry import Sources, moved
from satdifuser.data.bands import SENTINEL2, SENTINEL2_RGB, Band, Sensor
from satdifuser.errors import UserError

RECIPE: dict[str, Any] = {
    **{"probability": 0.5, "horizontal": 0.5, "vertical": 0.5, "rotation": 90.0, "interpolation": "nearest"},
    **{"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1, "unit": 0.4095},
}
ALL: dict[str, Any] = {**RECIPE, "probability": 0.8, "turn": 0.75, "crop": 0.7, "interpolation": "bilinear"}
WHOLE = np.array([[0.0, 0.0, 1.0, 1.0]])


def batch(count: int = 6, bands: int = 3, size: tuple[int, int] = (17, 17), seed: int = 0) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    return {
        "id": [f"tile-{seed}-{number}" for number in range(count)],
        "image": 0.01 + 0.35 * torch.rand(count, bands, *size, generator=g),
        "mask": torch.randint(5, (count, *size), generator=g),
        "label": torch.arange(count),
        "metadata": torch.rand(count, 7, generator=g),
    }


def made(**settings: Any) -> RandomAugmentation:
    return RandomAugmentation(**{"sensor": SENTINEL2_RGB, **settings})


def one_angle(degrees: float, size: tuple[int, int]) -> Sources:
    return Sources.of(size, np.array([degrees]), WHOLE, torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize(("horizontal", "vertical"), itertools.product([0, 1], repeat=2))
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_flips_and_quarter_turns_are_those_of_numpy_bit_for_bit(horizontal: int, vertical: int, turns: int) -> None:
    values = torch.rand(3, 2, 9, 9)
    found = moved(values, *(np.array([0, n, 1]) == 1 for n in (horizontal, vertical)), np.array([0, turns, 2]))
    for number, (h, v, t) in enumerate([(0, 0, 0), (horizontal, vertical, turns), (1, 1, 2)]):
        wanted = values[number].numpy()
        wanted = wanted[..., ::-1] if h else wanted
        wanted = wanted[..., ::-1, :] if v else wanted
        assert np.array_equal(found[number].numpy(), np.rot90(wanted, t, (-2, -1)))


@pytest.mark.parametrize("size", [(16, 16), (15, 15), (12, 21)])
def test_a_rotation_is_torchvisions_and_that_of_a_slow_loop(size: tuple[int, int]) -> None:
    from torchvision.transforms.v2 import functional as tv

    height, width = size
    for degrees in np.random.default_rng(1).uniform(-180, 180, 12):
        image = 0.1 + torch.rand(1, 3, height, width, dtype=torch.float64)
        sources = one_angle(degrees, size)
        found = sources.nearest(image, 0.0)
        assert torch.equal(found, tv.rotate(image, degrees))
        smooth = sources.bilinear(image)[0]
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        for row, column in itertools.product(range(height), range(width)):
            right, down = column - (width - 1) / 2, row - (height - 1) / 2
            x, y = cos * right - sin * down + (width - 1) / 2, sin * right + cos * down + (height - 1) / 2
            there = 0 <= round(x) < width and 0 <= round(y) < height
            wanted = image[0, :, round(y), round(x)] if there else torch.zeros(3, dtype=torch.float64)
            assert torch.equal(found[0, :, row, column], wanted)
            total, weights = torch.zeros(3, dtype=torch.float64), 0.0
            for i in (int(np.floor(y)), int(np.floor(y)) + 1):
                for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if there and 0 <= i < height and 0 <= j < width:
                        weight = (1 - abs(y - i)) * (1 - abs(x - j))
                        total, weights = total + weight * image[0, :, i, j], weights + weight
            torch.testing.assert_close(smooth[:, row, column], total / weights if there else total)


def test_a_resized_crop_is_torchvisions_and_its_mask_the_nearest_exact_one() -> None:
    from torchvision.transforms.v2 import functional as tv

    rng = np.random.default_rng(2)
    for _ in range(20):
        height, width = (int(n) for n in rng.integers(3, 30, 2))
        tall, wide = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        image = 0.1 + torch.rand(1, 3, height, width, dtype=torch.float64)
        mask = torch.randint(9, (1, 1, height, width))
        part = np.array([[top / height, left / width, tall / height, wide / width]])
        sources = Sources.of((height, width), np.zeros(1), part, image)
        wanted = tv.resized_crop(image, top, left, tall, wide, [height, width], antialias=True)
        torch.testing.assert_close(sources.bilinear(image), wanted)
        cut = mask[:, :, top : top + tall, left : left + wide]
        for row, column in itertools.product(range(height), range(width)):
            y, x = (2 * row + 1) * tall / (2 * height), (2 * column + 1) * wide / (2 * width)
            if min(abs(y - round(y)), abs(x - round(x))) > 1e-9:  # else two pixels are as near
                assert sources.nearest(mask, 255)[0, 0, row, column] == cut[0, 0, int(y), int(x)]
        near = F.interpolate(cut.double(), (height, width), mode="nearest-exact").long()
        assert (sources.nearest(mask, 255) != near).double().mean() < 0.2  # which take the one or the other at a tie


def test_a_pixel_without_data_is_neither_smeared_nor_filled() -> None:
    image = torch.full((1, 2, 12, 12), 0.3)
    image[:, :, 4:7, 5:9] = 0.0
    for degrees in (13.0, 45.0, 77.0):
        sources = one_angle(degrees, (12, 12))
        sources = Sources(sources.x.float(), sources.y.float())
        found = sources.bilinear(image)
        assert torch.equal(found == 0, sources.nearest(image, 0.0) == 0)
        torch.testing.assert_close(found[found != 0], torch.full_like(found[found != 0], 0.3))


@pytest.mark.parametrize("size", [(24, 24), (24, 40)])
@pytest.mark.parametrize("settings", [{"turn": 1.0, "horizontal": 0.5, "vertical": 0.5}, {"rotation": 180.0}, ALL])
def test_image_and_mask_move_together(settings: dict[str, Any], size: tuple[int, int]) -> None:
    """Both have the number of each pixel in them: wherever it goes in one, it goes in the other."""
    quiet = {name: value for name, value in settings.items() if name not in ("brightness", "contrast", "saturation")}
    quiet |= {"hue": 0.0, "unit": None, "interpolation": "nearest", "ignore_index": -1}
    given, count = batch(8, size=size), size[0] * size[1]
    number = torch.arange(count).view(size)
    given["mask"] = number.expand(8, *size).clone()
    given["image"] = ((number + 1.0) / count).expand(8, 3, *size).clone()
    found = made(**quiet)(given, step=3)
    back = (found["image"] * count).round().long() - 1
    assert torch.equal(back, found["mask"][:, None].expand_as(back))
    assert not torch.equal(found["mask"], given["mask"])
    assert ((found["mask"] == -1).any()) == ("rotation" in settings)


def test_a_mask_of_another_size_moves_with_its_image() -> None:
    given = batch(8, size=(48, 48))
    halves = torch.zeros(8, 48, 48, dtype=torch.long)
    halves[:, :20, 10:] = 1
    given["image"] = (0.1 + 0.2 * halves)[:, None].expand(-1, 3, -1, -1).clone()
    given["mask"] = halves[:, ::2, ::2].clone()
    found = made(rotation=90.0, turn=0.5, crop=0.5)(given, 0)
    seen = torch.where(found["image"][:, 0] == 0, 255, (found["image"][:, 0] > 0.2).long())
    wanted = found["mask"].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (seen != wanted).double().mean() < 0.08  # at the edges of halves, which are coarser in the mask
    assert (found["mask"] == 255).any()


def test_labels_and_metadata_stay_and_the_given_batch_is_not_changed() -> None:
    given = batch()
    before = {name: value.clone() for name, value in given.items() if isinstance(value, Tensor)}
    found = made(**ALL)(given, 0)
    assert all(torch.equal(given[name], value) for name, value in before.items())
    assert found["label"] is given["label"]
    assert found["metadata"] is given["metadata"]
    assert found["id"] == given["id"]
    assert found["mask"].dtype == torch.int64
    assert not torch.equal(found["image"], given["image"])


def test_a_sample_is_changed_the_same_way_in_any_batch_and_otherwise_at_another_step_or_seed() -> None:
    given, augment = batch(9, size=(20, 20)), made(**ALL, seed=3)
    whole = augment(given, 11)
    for index in ([4], [8, 0, 3], [2, 1], list(range(9))[::-1]):
        part = augment({name: [v[i] for i in index] if name == "id" else v[index] for name, v in given.items()}, 11)
        for name in ("image", "mask"):
            assert torch.equal(part[name], whole[name][index]), name
    assert torch.equal(made(**ALL, seed=3)(given, 11)["image"], whole["image"])
    for other in (augment(given, 12), made(**ALL, seed=4)(given, 11)):
        same = [bool(torch.equal(a, b)) for a, b in zip(other["image"], whole["image"], strict=True)]
        assert sum(same) < 4  # those that are left as they are, twice
    twins = {"id": [f"t{n}" for n in range(20)], "image": given["image"][:1].expand(20, -1, -1, -1).clone()}
    assert len({image.numpy().tobytes() for image in augment(twins, 0)["image"]}) > 12


def test_a_setting_does_not_change_what_others_draw() -> None:
    given = batch(8, size=(20, 20))
    flips = {"horizontal": 0.5, "vertical": 0.5, "turn": 0.5}
    plain, coloured = made(**flips)(given, 5), made(**flips, brightness=0.1)(given, 5)
    assert torch.equal(plain["mask"], coloured["mask"])


@pytest.mark.parametrize("settings", [{}, {**ALL, "probability": 0.0}, {"scale": [0.1, 0.2], "unit": 0.4}])
def test_where_nothing_is_asked_for_nothing_is_changed(settings: dict[str, Any]) -> None:
    given, augment = batch(), made(**settings)
    assert not augment.active
    assert augment(given, 0) is given


def share_within(share: float, wanted: float, count: int) -> None:
    assert abs(share - wanted) < 4.5 * np.sqrt(wanted * (1 - wanted) / count)


def test_decisions_are_taken_as_often_as_the_settings_say() -> None:
    count = 4000
    given = {"id": [str(n) for n in range(count)], "image": torch.zeros(count, 1, 3, 3), "mask": torch.zeros(count)}
    given["mask"] = torch.arange(9).view(3, 3).expand(count, 3, 3).clone()
    corner = made(probability=0.6, horizontal=0.3, vertical=0.5)(given, 0)["mask"][:, 0, 0]
    share_within(float((corner == 0).float().mean()), 0.4 + 0.6 * 0.7 * 0.5, count)
    share_within(float((corner == 2).float().mean()), 0.6 * 0.3 * 0.5, count)
    share_within(float((corner == 6).float().mean()), 0.6 * 0.7 * 0.5, count)
    share_within(float((corner == 8).float().mean()), 0.6 * 0.3 * 0.5, count)
    corner = made(turn=0.75)(given, 0)["mask"][:, 0, 0]
    for place in (0, 2, 6, 8):
        share_within(float((corner == place).float().mean()), 0.25, count)
    names = ("brightness", "contrast", "saturation", "hue")
    orders = [tuple(row) for row in Draws.of(0, 0, given["id"]).order(names)]
    for order in itertools.permutations(range(4)):
        share_within(orders.count(order) / count, 1 / 24, count)


def test_the_numbers_are_uniform_and_independent() -> None:
    found = uniforms(0, 0, [str(n) for n in range(3000)], 8)
    assert 0 <= found.min() < found.max() < 1
    assert np.abs(np.corrcoef(found.T) - np.eye(8)).max() < 0.1
    assert np.abs(np.sort(found, 0) - np.linspace(0, 1, 3000)[:, None]).max() < 0.04  # Kolmogorov and Smirnov
    assert found.ravel().tolist() != uniforms(0, 1, [str(n) for n in range(3000)], 8).ravel().tolist()


@pytest.mark.parametrize("size", [(40, 40), (30, 70), (200, 12), (12, 200)])
def test_crops_are_drawn_as_torchvisions_are(size: tuple[int, int]) -> None:
    from torchvision.transforms import RandomResizedCrop

    scale, ratio, count = (0.2, 0.9), (0.75, 1.3333), 2000
    found = boxes(Draws.of(5, 0, [str(n) for n in range(count)]), size, scale, ratio)
    image = torch.zeros(1, *size)
    wanted = np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(count)])
    top, left, tall, wide = found.T
    assert (found == np.rint(found)).all()
    assert (top.min(), left.min()) >= (0, 0)
    assert ((top + tall).max(), (left + wide).max()) <= size
    assert min(tall.min(), wide.min()) >= 1
    for column in range(4):
        ours, theirs = np.sort(found[:, column]), np.sort(wanted[:, column])
        grid = np.unique(np.concatenate([ours, theirs]))
        gap = np.abs(np.searchsorted(ours, grid, "right") - np.searchsorted(theirs, grid, "right")).max() / count
        assert gap < 2.0 * np.sqrt(2 / count)  # of two samples of one distribution once in 1500


def test_a_box_is_the_first_that_fits_else_the_middle() -> None:
    numbers = np.full((2, len(PLACES) + 2 * TRIES), 0.5)
    numbers[:, len(PLACES) : len(PLACES) + TRIES] = 0.999  # nearly the whole area, of which a long part does not fit
    numbers[:, len(PLACES) + TRIES :] = 0.999
    numbers[0, len(PLACES) + 3], numbers[0, len(PLACES) + TRIES + 3] = 0.0, 0.5  # but the fourth does
    found = boxes(Draws(numbers), (40, 40), (0.25, 1.0), (0.5, 2.0))
    assert found.tolist() == [[10, 10, 20, 20], [0, 0, 40, 40]]
    assert boxes(Draws(numbers[1:]), (40, 160), (0.9, 1.0), (0.5, 2.0)).tolist() == [[0, 40, 40, 80]]


@pytest.mark.parametrize("unit", [1.0, 0.4095])
def test_jitter_is_torchvisions_for_the_same_factors_in_any_order(unit: float) -> None:
    from torchvision.transforms.v2 import functional as tv

    names = ("brightness", "contrast", "saturation", "hue")
    orders = np.array(list(itertools.permutations(range(4))))
    rng = np.random.default_rng(4)
    factors = {name: rng.uniform(0.4, 1.6, 24) for name in names} | {"hue": rng.uniform(-0.5, 0.5, 24)}
    images = unit * torch.rand(24, 3, 11, 13, dtype=torch.float64) * 1.2
    images[:, :, :3] = 0.0  # a black strip counts in the mean, and stays
    found = jittered(images, factors, orders, (0, 1, 2), unit, [(-0.2, 7.0)])
    apply = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for number, order in enumerate(orders):
        wanted = (images[number] / unit).clamp(0, 1)
        for name in order:
            wanted = apply[name](wanted, factors[names[name]][number])
        # torchvision's own hue is 1e-6 from that of Python
        torch.testing.assert_close(found[number, :, 3:] / unit, wanted[:, 3:], rtol=0, atol=4e-6)
        assert not found[number, :, :3].any()


def test_a_turn_of_the_hue_is_that_of_pythons_own_colours() -> None:
    images, turns = torch.rand(3, 3, 8, 8, dtype=torch.float64), np.array([-0.4, 0.05, 0.3])
    found = jittered(images, {"hue": turns}, np.zeros((3, 1), int), (0, 1, 2), 1.0, [(-0.2, 7.0)])
    for number, row, column in itertools.product(range(3), range(8), range(8)):
        hue, saturation, value = colorsys.rgb_to_hsv(*images[number, :, row, column].tolist())
        wanted = colorsys.hsv_to_rgb((hue + turns[number]) % 1, saturation, value)
        np.testing.assert_allclose(found[number, :, row, column], wanted, atol=5e-8)


def test_jitter_of_many_bands_is_that_of_their_colours_and_a_factor_and_a_contrast_of_each_other_band() -> None:
    images = 0.05 + 0.3 * torch.rand(4, 13, 9, 9, dtype=torch.float64)
    rgb = SENTINEL2.index(["red", "green", "blue"])
    factors = {"brightness": np.array([0.7, 1.2, 1.1, 0.9]), "contrast": np.array([1.5, 0.6, 0.8, 1.2])}
    order = np.array([[0, 1], [1, 0], [0, 1], [1, 0]])
    found = jittered(images, factors, order, rgb, None, [(-0.2, 7.0)])
    picture = jittered(images[:, list(rgb)], factors, order, (0, 1, 2), None, [(-0.2, 7.0)])
    torch.testing.assert_close(found[:, list(rgb)], picture)
    for number, band in itertools.product(range(4), [0, 7, 12]):
        wanted = images[number, band].numpy()
        bright, contrast = factors["brightness"][number], factors["contrast"][number]
        for name in order[number]:
            wanted = wanted * bright if name == 0 else contrast * wanted + (1 - contrast) * wanted.mean()
        np.testing.assert_allclose(found[number, band].numpy(), wanted, rtol=1e-12)


def test_no_data_stays_no_data_and_reflectance_stays_in_the_range_of_its_sensor() -> None:
    sensor = Sensor("dim", SENTINEL2_RGB.bands, (0.0, 0.3))
    given = batch(16)
    given["image"] = given["image"].clamp(0.0, 0.3)
    given["image"][:, :, 5:9, 2:] = 0.0
    augment = made(brightness=0.9, contrast=0.9, saturation=0.9, sensor=sensor)
    found = augment(given, 0)["image"]
    assert not found[:, :, 5:9, 2:].any()
    assert not torch.equal(found, given["image"])
    assert (float(found.min()), float(found.max())) == (0.0, pytest.approx(0.3))
    rotated = made(**RECIPE)({**given, "image": torch.full_like(given["image"], 0.2)}, 1)
    outside = rotated["mask"] == 255
    assert outside.any()
    assert torch.equal(outside, (rotated["image"] == 0).all(1))


NO_COLOURS = Sensor("radar", (Band("VV", "vv", 0, 10), Band("VH", "vh", 0, 10)), (-50.0, 20.0))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"brightness": 0.1, "sensor": None}, "augmentation.brightness needs to know the bands: set data.sensor"),
        ({"hue": 0.1, "unit": 1.0, "sensor": NO_COLOURS}, "hue is of red, green and blue, and radar has the bands VV,"),
        ({"hue": 0.1}, "augmentation.hue needs the reflectance that is white: give augmentation.unit"),
        ({"scale": [0.5, 0.1]}, r"augmentation.scale is \[0.5, 0.1\]: give the lower end first"),
        ({"ratio": [0.0, 1.0]}, "augmentation.ratio is .*: it must be a list of 2, each a number above 0"),
        ({"rotation": 270.0}, r"augmentation.rotation is 270.0: it must be a number from 0 to 180 \(degrees\)"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        made(**settings)


def test_bands_of_a_sensor_without_colours_are_jittered_each_and_another_number_of_bands_is_refused() -> None:
    given = batch(4, bands=2)
    assert not torch.equal(made(brightness=0.1, sensor=NO_COLOURS)(given, 0)["image"], given["image"])
    with pytest.raises(UserError, match=r"sample tile-0-0 has 2 bands, but Sentinel-2 RGB has 3: set data\.sensor"):
        made(brightness=0.1)(given, 0)
