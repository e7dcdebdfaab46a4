"""Descriptions of bands in a GeoTIFF are held against the order that the sensor, or data.bands, says."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from satdifuser.data.bands import SENTINEL2, find_sensor
from satdifuser.data.files.called import another_order, hits
from satdifuser.data.readers.folder import ImageFolder
from satdifuser.data.readers.rasters.reader import Rasters
from satdifuser.errors import UserError

Open = Callable[..., Any]
RGB = "SENTINEL2:B04/B03/B02"
B8A_LAST = find_sensor("SENTINEL2_B8A_LAST").names


@pytest.fixture(params=["rasters", "image_folder"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """A reader of one file whose bands are called so; None is no description."""

    def make(names: Sequence[str | None], sensor: str = RGB, **words: Any) -> Any:
        path = tmp_path / "images" / "a.tif"
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(path, "w", driver="GTiff", count=len(names), height=8, width=8, dtype="uint16") as file:
            file.write(np.random.default_rng().integers(1, 9000, (len(names), 8, 8)).astype(np.uint16))
            for number, name in enumerate(names, 1):
                if name is not None:
                    file.set_band_description(number, name)
        if request.param == "rasters":
            return Rasters(str(tmp_path), "all", images="images/*.tif", sensor=sensor, size=8, **words)
        return ImageFolder(str(tmp_path), "all", sensor=sensor, size=8, **words)

    return make


@pytest.mark.parametrize(
    ("names", "sensor"),
    [
        (["B02", "B03", "B04"], RGB),
        (["blue", "green", "Red"], RGB),
        (["SR_B2", "SR_B3", "SR_B4"], "LANDSAT8:B4/B3/B2"),
        (["B4, central wavelength 665 nm", "B2", "B3"], RGB),
        (B8A_LAST, "SENTINEL2"),
        (SENTINEL2.names, "SENTINEL2_B8A_LAST"),
    ],
)
def test_bands_in_another_order_are_refused_with_both_orders(opened: Open, names: list[str], sensor: str) -> None:
    with pytest.raises(UserError) as caught:
        opened(names, sensor)[0]
    said = str(caught.value)
    assert "\n" not in said
    for word in ("a.tif", ", ".join(names), ", ".join(find_sensor(sensor).names), "data.sensor", "descriptions=ignore"):
        assert word in said
    sample = opened(names, sensor, descriptions="ignore")[0]
    assert sample["image"].shape == (len(names), 8, 8)


@pytest.mark.parametrize(
    ("names", "sensor"),
    [
        (["B04", "B03", "B02"], RGB),
        (["Red", "band green", "B2"], RGB),
        (B8A_LAST, "SENTINEL2_B8A_LAST"),
        ([None, None, None], RGB),
        (["B02", None, "B04"], RGB),
        (["1", "2", "3"], RGB),
        (["B1", "B2", "B3"], RGB),  # the first, the second and the third, as likely as bands of Sentinel-2
        (["B08", "B04", "B03"], RGB),
        (["red or blue", "green", "red"], RGB),
    ],
)
def test_bands_in_order_and_names_that_say_nothing_are_read(opened: Open, names: list[str | None], sensor: str) -> None:
    assert opened(names, sensor)[0]["image"].shape == (len(names), 8, 8)


def write(path: Path, names: Sequence[str]) -> None:
    with rasterio.open(path, "w", driver="GTiff", count=len(names), height=8, width=8, dtype="uint16") as file:
        for number, name in enumerate(names, 1):
            file.write(np.full((8, 8), 100 * number, np.uint16), number)
            file.set_band_description(number, name)


def test_the_order_that_data_bands_says_is_held_against_the_file_too(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", ["B08", "B02", "B03", "B04"])
    words: dict[str, Any] = {"images": "*.tif", "sensor": RGB, "size": 8}
    sample = Rasters(str(tmp_path), "all", bands=["B08", "B02", "B03", "B04"], **words)[0]
    np.testing.assert_allclose(sample["image"][:, 0, 0].numpy(), [0.04, 0.03, 0.02], rtol=1e-6)
    with pytest.raises(UserError, match=r"bands are B02, B03, B04, but data\.bands has them as B04, B03, B02"):
        Rasters(str(tmp_path), "all", bands=["B08", "B04", "B03", "B02"], **words)[0]
    words["images"] = {"B08/B03/B02/B04": "*.tif"}
    with pytest.raises(UserError, match=r"B02, B03, B04, but data\.images\.B08/B03/B02/B04 has them as B03, B02, B04"):
        Rasters(str(tmp_path), "all", **words)[0]


def test_orders_are_told_apart_as_a_search_by_hand_does() -> None:
    rng = np.random.default_rng()
    for _ in range(50):
        places = tuple(int(one) for one in rng.permutation(13)[: rng.integers(2, 14)])
        called = tuple(int(one) for one in (rng.permutation(places) if rng.random() < 0.7 else places))
        words = tuple((SENTINEL2.names[place].lower(),) for place in called)
        assert all(hits(one, SENTINEL2) == (0, (place,)) for one, place in zip(words, called, strict=True))
        assert (another_order(words, SENTINEL2, places) is None) == (called == places)
        other = next(place for place in (*range(13), None) if place not in places)
        if other is not None:  # a band that is not read: another image than was thought, which others tell
            assert another_order(((SENTINEL2.names[other],), *words[1:]), SENTINEL2, places) is None


@pytest.mark.skipif("SATDIFUSER_TEST_DATA" not in os.environ, reason="SATDIFUSER_TEST_DATA is not set")
def test_real_files_are_read_in_their_order() -> None:
    root = Path(os.environ["SATDIFUSER_TEST_DATA"]) / "real"
    data = ImageFolder(str(root / "eurosat-ms"), "val", sensor="SENTINEL2_B8A_LAST", size=64)
    assert data[0]["image"].shape == (13, 64, 64)
    for path in sorted((root / "scenes").glob("*.tif")):
        with rasterio.open(path) as file:
            names, sensor = file.descriptions, "SENTINEL2" if file.count == 13 else "LANDSAT8_SR"
        if len(names) not in (7, 13):
            continue
        words: dict[str, Any] = {"images": path.name, "size": 64, "tile": {"size": 64, "stride": 64}}
        scene = Rasters(str(path.parent), "all", sensor=sensor, **words)
        assert scene[0]["image"].shape == (len(names), 64, 64)
