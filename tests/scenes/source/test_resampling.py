"""Bands of several resolutions on one grid, against a slow bilinear in float64, whatever part is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rasterio.transform import Affine

from satdifuser.errors import UserError

LEFT, TOP = 300_000, 5_000_000


def grid(size, left=LEFT, top=TOP):
    return Affine(size, 0, left, 0, -size, top)


def slow(pixels, there, target, shape):
    """Pixel by pixel: the four around its middle, those at the edge repeated."""
    found = np.zeros(shape)
    height, width = pixels.shape
    for row in range(shape[0]):
        for column in range(shape[1]):
            x, y = ~there @ (target @ (column + 0.5, row + 0.5))
            x, y = x - 0.5, y - 0.5
            left, top = int(np.floor(x)), int(np.floor(y))
            for down in (0, 1):
                for across in (0, 1):
                    share = (y - top if down else 1 - (y - top)) * (x - left if across else 1 - (x - left))
                    r, c = np.clip(top + down, 0, height - 1), np.clip(left + across, 0, width - 1)
                    found[row, column] += share * pixels[r, c]
    return found


def test_coarser_bands_are_bilinear_on_the_finest_grid_and_as_training_resizes_them(raster, opened, whole, tmp_path):
    fine = raster(tmp_path / "s_B04.tif", 1, (24, 36), transform=grid(10))
    twice = raster(tmp_path / "s_B05.tif", 1, (12, 18), transform=grid(20))
    six = raster(tmp_path / "s_B01.tif", 1, (4, 6), transform=grid(60))
    scene = opened(tmp_path, sensor="SENTINEL2:B01/B04/B05")
    assert scene.place.transform == tuple(grid(10))[:6]
    found = whole(scene).image
    assert np.allclose(found[1], fine[0] / 1e4, atol=1e-7)
    for place, pixels, size in ((2, twice, 20), (0, six, 60)):
        assert np.abs(found[place] - slow(pixels[0] / 1e4, grid(size), grid(10), (24, 36))).max() < 1e-6
        asked = torch.from_numpy(pixels.astype(np.float32) / 1e4)[None]
        trained = F.interpolate(asked, (24, 36), mode="bilinear", antialias=True)[0, 0].numpy()
        assert np.abs(found[place] - trained).max() < 1e-6


def test_a_grid_that_is_off_by_part_of_a_pixel_is_moved_onto_the_other(raster, opened, whole, tmp_path):
    raster(tmp_path / "s_B04.tif", 1, (20, 20), transform=grid(10))
    off = grid(30, LEFT - 7, TOP + 11)
    pixels = raster(tmp_path / "s_B05.tif", 1, (7, 7), transform=off)
    found = whole(opened(tmp_path, sensor="SENTINEL2:B04/B05")).image
    assert np.abs(found[1] - slow(pixels[0] / 1e4, off, grid(10), (20, 20))).max() < 1e-6


def test_grids_that_are_rotated_alike_are_resampled_and_others_refused(raster, opened, whole, tmp_path):
    turned = grid(10) @ Affine.rotation(30)
    coarse = turned @ Affine.scale(2)
    raster(tmp_path / "a/s_B04.tif", 1, (20, 20), transform=turned)
    pixels = raster(tmp_path / "a/s_B05.tif", 1, (10, 10), transform=coarse)
    found = whole(opened(tmp_path / "a", sensor="SENTINEL2:B04/B05")).image
    assert np.abs(found[1] - slow(pixels[0] / 1e4, coarse, turned, (20, 20))).max() < 1e-6
    raster(tmp_path / "b/s_B04.tif", 1, (20, 20), transform=turned)
    raster(tmp_path / "b/s_B05.tif", 1, (10, 10), transform=turned @ Affine.rotation(3) @ Affine.scale(2))
    with pytest.raises(UserError, match=r"turned to|does not lie on"):
        opened(tmp_path / "b", sensor="SENTINEL2:B04/B05")


def test_nearest_takes_the_pixel_below_the_middle(raster, opened, whole, tmp_path):
    raster(tmp_path / "s_B04.tif", 1, (12, 18), transform=grid(10))
    pixels = raster(tmp_path / "s_B01.tif", 1, (2, 3), transform=grid(60))
    found = whole(opened(tmp_path, sensor="SENTINEL2:B01/B04", resampling="nearest")).image
    assert np.allclose(found[0], np.kron(pixels[0], np.ones((6, 6))) / 1e4, atol=1e-7)


def test_what_is_made_from_a_pixel_without_data_has_none(raster, opened, whole, tmp_path):
    raster(tmp_path / "s_B04.tif", 1, (12, 12), transform=grid(10), nodata=0)
    pixels = np.random.default_rng().integers(1, 5000, (1, 6, 6)).astype(np.uint16)
    pixels[0, 2, 3] = 0
    raster(tmp_path / "s_B05.tif", pixels=pixels, transform=grid(20), nodata=0)
    found = whole(opened(tmp_path, sensor="SENTINEL2:B04/B05"))
    lost = slow((pixels[0] == 0).astype(float), grid(20), grid(10), (12, 12)) > 1e-6
    assert lost.sum() == 16
    assert np.array_equal(found.image[1] == 0, lost)
    assert not found.blank.any()
    whole_bands = slow(pixels[0] / 1e4, grid(20), grid(10), (12, 12))
    assert np.abs(found.image[1] - whole_bands)[~lost].max() < 1e-6


def test_the_grid_is_that_of_the_finest_band_that_is_needed(raster, opened, tmp_path):
    raster(tmp_path / "s_B04.tif", 1, (24, 36), transform=grid(10))
    raster(tmp_path / "s_B05.tif", 1, (12, 18), transform=grid(20))
    raster(tmp_path / "s_B01.tif", 1, (4, 6), transform=grid(60))
    scene = opened(tmp_path, ["B05", "B01"], sensor="SENTINEL2")
    assert (scene.place.height, scene.place.width) == (12, 18)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crs": "EPSG:32633", "transform": grid(20)}, "its reference system is EPSG:32633"),
        ({"transform": grid(20, LEFT + 500)}, "it covers"),
        ({"transform": Affine(20, 0, LEFT, 0, 20, TOP - 240)}, "flipped"),
    ],
    ids=["crs", "elsewhere", "flipped"],
)
def test_files_that_do_not_lie_on_each_other_are_one_line(raster, opened, tmp_path, options, words):
    raster(tmp_path / "s_B04.tif", 1, (24, 24), transform=grid(10))
    raster(tmp_path / "s_B05.tif", 1, (12, 12), **options)
    with pytest.raises(UserError, match=words) as caught:
        opened(tmp_path, sensor="SENTINEL2:B04/B05")
    assert "s_B05.tif does not lie on" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_without_a_georeference_cover_the_same_ground(raster, opened, whole, tmp_path):
    raster(tmp_path / "s_B04.tif", 1, (12, 18), crs=None, transform=None)
    pixels = raster(tmp_path / "s_B05.tif", 1, (6, 9), crs=None, transform=None)
    found = whole(opened(tmp_path, sensor="SENTINEL2:B04/B05")).image
    assert np.abs(found[1] - slow(pixels[0] / 1e4, grid(20), grid(10), (12, 18))).max() < 1e-6
