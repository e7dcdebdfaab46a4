"""Embedding files of others as scenes: AlphaEarth's squares, TESSERA's scale for each pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from satdifuser.data.bands import find_sensor
from satdifuser.data.scaling import Scaling
from satdifuser.errors import UserError
from satdifuser.scenes.scene import Found, Pixels, Reading
from satdifuser.scenes.source import open_scene

PLACE = rasterio.Affine(10, 0, 399960.25, 0, -10, 5800020.5)


def reading(count: int, **more: Any) -> Reading:
    sensor = find_sensor(f"EMBEDDING:{count}")
    return Reading(sensor, sensor.names, Scaling.of(more.pop("scaling", "auto")), **more)


def raster(path: Path, numbers: Any, **more: Any) -> str:
    height, width = numbers.shape[-2:]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=len(numbers),
        dtype=numbers.dtype,
        crs="EPSG:32632",
        transform=PLACE,
        **more,
    ) as file:
        file.write(numbers)
    return str(path)


def read(path: str, how: Reading) -> tuple[Any, Pixels]:
    scene = open_scene(Found("it", path), how)
    whole = scene.read(slice(0, scene.place.height), slice(0, scene.place.width))
    part = scene.read(slice(2, 5), slice(1, 4))
    np.testing.assert_array_equal(part.image, whole.image[:, 2:5, 1:4])
    np.testing.assert_array_equal(part.blank, whole.blank[2:5, 1:4])
    scene.close()
    return scene.place, whole


def test_a_raster_of_alphaearth_is_a_scene_of_its_vectors(tmp_path: Path) -> None:
    numbers = np.random.default_rng().integers(-127, 128, (64, 7, 6)).astype(np.int8)
    numbers[:, 1, 2] = -128
    place, found = read(raster(tmp_path / "ae.tif", numbers, nodata=-128), reading(64, scaling="alphaearth"))
    expected = np.sign(numbers) * (np.abs(numbers.astype(np.float64)) / 127.5) ** 2
    expected[:, 1, 2] = 0
    np.testing.assert_allclose(found.image, expected, rtol=3e-7, atol=0)
    assert found.blank[1, 2]
    assert tuple(place.transform) == tuple(PLACE)[:6]


def tessera(folder: Path, per_channel: bool = False) -> tuple[Any, Any, Any]:
    drawn = np.random.default_rng()
    numbers = drawn.integers(-127, 128, (7, 6, 128)).astype(np.int8)
    scales = drawn.uniform(0.01, 0.2, (7, 6, 128) if per_channel else (7, 6)).astype(np.float32)
    scales[3, 4] = np.nan
    scales[0, 0] = 0
    np.save(folder / "grid_0.15_52.05.npy", numbers)
    np.save(folder / "grid_0.15_52.05_scales.npy", scales)
    each = (scales if per_channel else scales[..., None]).astype(np.float64)
    expected = np.nan_to_num(numbers.astype(np.float64) * each)
    return numbers, scales, np.moveaxis(expected, -1, 0)


@pytest.mark.parametrize("per_channel", [False, True])
def test_arrays_of_tessera_are_numbers_times_the_scale_of_their_pixel(tmp_path: Path, per_channel: bool) -> None:
    _, _, expected = tessera(tmp_path, per_channel)
    raster(tmp_path / "grid_0.15_52.05.tif", np.ones((1, 7, 6), np.uint8))  # the land mask: where the grid lies
    place, found = read(str(tmp_path / "grid_0.15_52.05.npy"), reading(128))
    np.testing.assert_allclose(found.image, expected, rtol=2e-7, atol=0)
    assert found.blank[3, 4]
    assert found.blank[0, 0]
    assert found.blank.sum() == 2
    assert tuple(place.transform) == tuple(PLACE)[:6]
    assert place.crs.to_epsg() == 32632


def test_so_are_rasters_with_a_raster_of_scales(tmp_path: Path) -> None:
    numbers, scales, expected = tessera(tmp_path)
    path = raster(tmp_path / "t.tif", np.moveaxis(numbers, -1, 0))
    raster(tmp_path / "t_scales.tif", scales[None])
    _, found = read(path, reading(128))
    np.testing.assert_allclose(found.image, expected, rtol=2e-7, atol=0)


def test_scales_of_another_grid_are_refused(tmp_path: Path) -> None:
    tessera(tmp_path)
    path = str(tmp_path / "grid_0.15_52.05.npy")
    np.save(tmp_path / "grid_0.15_52.05_scales.npy", np.ones((6, 7), np.float32))
    with pytest.raises(UserError, match=r"give the scales of this file"):
        open_scene(Found("it", path), reading(128))
    tessera(tmp_path)
    raster(tmp_path / "grid_0.15_52.05.tif", np.ones((1, 8, 6), np.uint8))
    with pytest.raises(UserError, match=r"GeoTIFF of this very grid"):
        open_scene(Found("it", path), reading(128))


def test_another_number_of_channels_is_refused_and_int8_without_a_scale(tmp_path: Path) -> None:
    tessera(tmp_path)
    with pytest.raises(UserError, match="128"):
        open_scene(Found("it", str(tmp_path / "grid_0.15_52.05.npy")), reading(64))
    path = raster(tmp_path / "plain.tif", np.full((2, 7, 6), 3, np.int8))
    scene = open_scene(Found("it", path), reading(2))
    with pytest.raises(UserError, match=r"scaling=alphaearth"):
        scene.read(slice(0, 7), slice(0, 6))


def test_minus_128_of_alphaearth_is_no_data_where_the_file_does_not_say_so(tmp_path: Path) -> None:
    numbers = np.random.default_rng().integers(-127, 128, (8, 7, 6)).astype(np.int8)
    numbers[:, 1, 2] = -128
    _, found = read(raster(tmp_path / "ae.tif", numbers), reading(8, scaling="alphaearth"))
    assert found.blank[1, 2]
    assert (found.image[:, 1, 2] == 0).all()
    assert found.blank.sum() == (numbers == 0).all(0).sum() + 1
