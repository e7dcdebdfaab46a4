"""One raster as a scene: every kind of file that people have, against rasterio; or one line of what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.shutil import copy
from rasterio.transform import Affine

from satdifuser.data.bands import find_sensor
from satdifuser.data.scaling import Scaling
from satdifuser.errors import UserError
from satdifuser.scenes.find import find_scenes
from satdifuser.scenes.scene import Reading
from satdifuser.scenes.source import open_scene

THREE = ("B04", "B03", "B02")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"interleave": "pixel", "compress": "deflate"},
        {"blockysize": 1, "interleave": "band"},
    ],
    ids=["striped", "tiled", "pixel", "rows"],
)
def test_a_geotiff_is_its_numbers_by_its_own_names_whatever_its_blocks(raster, opened, whole, tmp_path, options):
    pixels = raster(tmp_path / "a.tif", 4, names=["B08", "SR_red", "B3, central wavelength 560 nm", "B2"], **options)
    scene = opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02")
    found = whole(scene)
    assert np.allclose(found.image, pixels[1:].astype(float) / 10_000, rtol=0, atol=1e-7)
    assert not found.blank.any()
    assert scene.place.transform == (10, 0, 300_000, 0, -10, 5_000_000)
    assert scene.place.crs.to_epsg() == 32632


def test_bands_that_nobody_needs_are_neither_asked_for_nor_read(raster, opened, whole, tmp_path):
    pixels = raster(tmp_path / "a.tif", 2, names=["B04", "B02"])
    found = whole(opened(tmp_path / "a.tif", ["red"], sensor="SENTINEL2"))
    assert found.image.shape[0] == 13
    assert np.allclose(found.image[3], pixels[0] / 1e4, atol=1e-7)
    assert not found.image[[n for n in range(13) if n != 3]].any()


def test_bands_without_names_are_those_of_the_sensor_which_is_said(raster, opened, whole, tmp_path, said):
    pixels = raster(tmp_path / "a.tif", 3)
    found = whole(opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02"))
    assert np.allclose(found.image, pixels / 1e4, atol=1e-7)
    assert any("taken as B04, B03, B02" in line for line in said)


def test_names_that_a_user_gives_come_before_those_of_the_file(raster, opened, whole, tmp_path):
    pixels = raster(tmp_path / "a.tif", 3, names=["B04", "B03", "B02"])
    found = whole(opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02", bands=["blue", "B03", "B04"]))
    assert np.allclose(found.image, pixels[::-1] / 1e4, atol=1e-7)


@pytest.mark.parametrize(
    ("count", "names", "words"),
    [
        (4, None, ["has 4 bands without names", "has 3 (B04, B03, B02)", "reading.bands"]),
        (3, ["B04", "B03", "B08"], ["has no band B02 (blue)", "B04, B03, B08"]),
        (4, ["B04", "B03", "B02", "b2"], ["B02 and b2 could both be B02"]),
        (3, ["B04 and B03", "B03", "B02"], ["could be B04 and B03"]),
    ],
    ids=["as many", "missing", "twice", "ambiguous"],
)
def test_bands_that_cannot_be_told_are_one_line(raster, opened, tmp_path, count, names, words):
    raster(tmp_path / "a.tif", count, names=names)
    with pytest.raises(UserError) as caught:
        opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02")
    assert "\n" not in str(caught.value)
    for word in ["a.tif", *words]:
        assert word in str(caught.value), caught.value


@pytest.mark.parametrize("driver", ["VRT", "JP2OpenJPEG", "COG", "PNG"])
def test_other_kinds_of_files_have_the_same_numbers(raster, opened, whole, tmp_path, driver):
    pixels = raster(tmp_path / "inner/a.tif", 3, (64, 80), names=None, high=250)
    options = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    path = tmp_path / {"VRT": "b.vrt", "JP2OpenJPEG": "b.jp2", "COG": "b.tif", "PNG": "b.png"}[driver]
    copy(tmp_path / "inner/a.tif", path, driver=driver, **options)
    found = whole(opened(path, sensor="SENTINEL2:B04/B03/B02"))
    assert np.allclose(found.image, pixels / 1e4, atol=1e-7)


def test_a_rotated_grid_is_kept_to_the_last_digit(raster, opened, whole, tmp_path):
    turned = Affine(8.1234567891234, 2.3, 300_000.123456789, 2.4, -8.3, 5_000_000.1)
    pixels = raster(tmp_path / "a.tif", 3, transform=turned)
    scene = opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02")
    assert scene.place.transform == tuple(turned)[:6]
    assert np.allclose(whole(scene).image, pixels / 1e4, atol=1e-7)


def test_no_georeference_and_control_points_alone_are_said_and_read(raster, opened, whole, tmp_path, said):
    pixels = raster(tmp_path / "none.tif", 3, crs=None, transform=None)
    scene = opened(tmp_path / "none.tif", sensor="SENTINEL2:B04/B03/B02")
    assert scene.place.crs is None
    assert scene.place.transform == (1, 0, 0, 0, 1, 0)
    assert np.allclose(whole(scene).image, pixels / 1e4, atol=1e-7)
    assert any("no georeference" in line for line in said)
    points = [GroundControlPoint(r, c, 3e5 + 10 * c, 5e6 - 10 * r) for r, c in ((0, 0), (0, 30), (20, 0))]
    raster(tmp_path / "gcps.tif", 3, crs="EPSG:32632", transform=None, gcps=points)
    assert opened(tmp_path / "gcps.tif", sensor="SENTINEL2:B04/B03/B02").place.crs is None
    assert any("ground control points" in line for line in said)
    raster(tmp_path / "grid.tif", 3, crs=None)
    assert opened(tmp_path / "grid.tif", sensor="SENTINEL2:B04/B03/B02").place.transform[0] == 10
    assert any("grid.tif names no reference system" in line for line in said)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_a_line_of_pixels_is_a_scene_too(raster, opened, whole, tmp_path, size):
    pixels = raster(tmp_path / "a.tif", 3, size)
    found = whole(opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02"))
    assert np.allclose(found.image, pixels / 1e4, atol=1e-7)


def test_no_data_is_what_the_file_a_mask_an_alpha_or_the_user_says(raster, opened, whole, tmp_path):
    rng = np.random.default_rng()
    gone = rng.random((3, 20, 30)) < 0.3
    gone[:, :4] = True
    wanted = rng.integers(1, 5000, (3, 20, 30)).astype(np.uint16)

    def check(name, **reading):
        found = whole(opened(tmp_path / name, sensor="SENTINEL2:B04/B03/B02", **reading))
        assert np.allclose(found.image, np.where(gone, 0, wanted / 1e4), atol=1e-7), name
        assert np.array_equal(found.blank, gone.all(0)), name

    raster(tmp_path / "value.tif", pixels=np.where(gone, np.uint16(9999), wanted), nodata=9999)
    check("value.tif")
    raster(tmp_path / "user.tif", pixels=np.where(gone, np.uint16(7777), wanted))
    check("user.tif", nodata=7777)
    raster(tmp_path / "zero.tif", pixels=np.where(gone, np.uint16(0), wanted))
    check("zero.tif")
    gone[:] = gone[:1]
    raster(tmp_path / "mask.tif", pixels=wanted, after=lambda file: file.write_mask(~gone[0]))
    check("mask.tif")
    opaque = np.where(gone[0], 0, 65535).astype(np.uint16)
    raster(tmp_path / "alpha.tif", pixels=np.stack([*wanted, opaque]), alpha="yes", photometric="rgb")
    check("alpha.tif")
    with pytest.raises(UserError, match=r"its band 4 says that it is alpha.*gdal_edit.py -colorinterp_4 undefined"):
        opened(tmp_path / "alpha.tif", sensor="NAIP")


def test_a_scene_of_no_data_alone_is_blank_everywhere(raster, opened, whole, tmp_path):
    raster(tmp_path / "a.tif", pixels=np.full((3, 9, 7), 5, np.uint16), nodata=5)
    found = whole(opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02"))
    assert found.blank.all()
    assert not found.image.any()


def test_nan_is_an_error_or_no_data_as_the_run_has_it(raster, opened, whole, tmp_path):
    pixels = np.random.default_rng().random((3, 20, 30)).astype(np.float32) + 0.01
    pixels[:, 3:5, 6:9] = np.nan
    raster(tmp_path / "a.tif", pixels=pixels)
    scene = opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02")
    scene.read(slice(5, 20), slice(0, 30))
    with pytest.raises(UserError, match=r"a\.tif has NaN in B04: set reading\.nan=nodata"):
        scene.read(slice(0, 20), slice(0, 30))
    found = whole(opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02", nan="nodata"))
    assert np.array_equal(found.image, np.nan_to_num(pixels))
    assert np.array_equal(found.blank, np.isnan(pixels).all(0))


def test_scale_and_offset_tags_make_the_unit_and_zero_is_no_data_then(raster, opened, whole, tmp_path):
    pixels = np.random.default_rng().integers(0, 40, (3, 20, 30)).astype(np.uint16)

    def tags(file):
        file.scales, file.offsets = [2.75e-05] * 3, [-0.2] * 3

    raster(tmp_path / "a.tif", pixels=pixels, after=tags)
    found = whole(opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02"))
    assert np.allclose(found.image, np.where(pixels == 0, 0, pixels * 2.75e-05 - 0.2), atol=1e-7)


def test_tags_that_the_runs_own_scale_would_lose_are_refused(raster, opened, whole, tmp_path):
    def tags(file):
        file.scales, file.offsets = [2.75e-05] * 3, [-0.2] * 3

    pixels = raster(tmp_path / "a.tif", 3, after=tags)
    sensor = find_sensor("SENTINEL2:B04/B03/B02")
    (scene,) = find_scenes(str(tmp_path / "a.tif"))
    with pytest.raises(
        UserError, match=r"the file says that B04 is number \* 2.75e-05 - 0.2, but the run reads number"
    ):
        open_scene(scene, Reading(sensor, sensor.names, Scaling("dn")))
    open_scene(scene, Reading(sensor, sensor.names, Scaling("dn", unit=1 / 2.75e-05, offset=-0.2 / 2.75e-05))).close()
    found = whole(opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02", scaling="dn"))
    assert np.allclose(found.image, pixels / 1e4, atol=1e-7)


def test_pixels_of_another_size_than_the_sensors_are_said(raster, opened, tmp_path, said):
    raster(tmp_path / "a.tif", 3, transform=Affine(30, 0, 3e5, 0, -30, 5e6))
    opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02")
    assert any("pixels of 30 m, but the finest needed band has 10 m" in line for line in said)
    said.clear()
    raster(tmp_path / "b.tif", 3, crs="EPSG:4326", transform=Affine(9e-5, 0, 9, 0, -9e-5, 1))
    opened(tmp_path / "b.tif", sensor="SENTINEL2:B04/B03/B02")
    assert not any("pixels of" in line for line in said)


def test_whole_numbers_of_kelvin_and_pixels_without_a_size_are_one_line(raster, opened, tmp_path):
    raster(tmp_path / "a.tif")
    scene = opened(tmp_path / "a.tif", sensor="LANDSAT8:B10")
    with pytest.raises(UserError, match=r"a\.tif holds whole numbers.*kelvin: say .* reading\.scaling="):
        scene.read(slice(0, 5), slice(0, 5))
    raster(tmp_path / "b.tif", transform=Affine(0, 0, 3e5, 0, 0, 5e6))
    with pytest.raises(UserError, match=r"b\.tif has a transform that gives pixels no size"):
        opened(tmp_path / "b.tif", sensor="SENTINEL2:B04")


@pytest.mark.parametrize("kind", ["cut", "text", "palette", "complex", "vrt in disguise", "signed"])
def test_what_cannot_be_read_is_one_line_that_names_the_file(raster, opened, tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("a.tif")
    if kind == "cut":
        raster(path, 3, (200, 200))
        path.write_bytes(path.read_bytes()[:-60_000])
    elif kind == "text":
        path.write_text("no raster")
    elif kind == "palette":
        raster(path, 1, dtype="uint8", high=2, after=lambda file: file.write_colormap(1, {0: (1, 2, 3, 4)}))
    elif kind == "complex":
        raster(path, pixels=np.zeros((3, 9, 9), np.complex64))
    elif kind == "signed":
        raster(path, pixels=np.ones((3, 9, 9), np.int8))
    else:
        raster(tmp_path / "other.tif", 3)
        copy(tmp_path / "other.tif", tmp_path / "a.vrt", driver="VRT")
        (tmp_path / "a.vrt").rename(path)

    def read():
        scene = opened(path, sensor="SENTINEL2:B04/B03/B02" if kind != "palette" else "SENTINEL2:B04")
        scene.read(slice(0, scene.place.height), slice(0, scene.place.width))

    with pytest.raises(UserError) as caught:
        read()
    assert str(caught.value).startswith("a.tif ")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)  # GDAL says the whole path again


def test_a_block_that_would_fill_the_memory_is_refused_before_it_is_read(raster, opened, tmp_path, monkeypatch):
    raster(tmp_path / "a.tif", 3, (64, 64), blockysize=64, compress="deflate")
    monkeypatch.setattr("satdifuser.scenes.source.raster.LARGEST", 5000)
    with pytest.raises(UserError, match=r"blocks of 64 x 64 px.*gdal_translate -of COG"):
        opened(tmp_path / "a.tif", sensor="SENTINEL2:B04/B03/B02")


def test_a_raster_in_memory_is_reached_through_gdals_own_paths(raster, opened, whole, tmp_path):
    pixels = raster(tmp_path / "a.tif", 3)
    with rasterio.MemoryFile((tmp_path / "a.tif").read_bytes(), ext="tif") as memory:
        scene = opened(memory.name, sensor="SENTINEL2:B04/B03/B02")
        assert np.allclose(whole(scene).image, pixels / 1e4, atol=1e-7)
        scene.close()


def test_an_address_in_a_cloud_is_opened_through_gdal(raster, opened, whole, tmp_path, monkeypatch):
    pixels, asked, real = raster(tmp_path / "a.tif", 3), [], rasterio.open

    def fetch(path, *rest, **options):
        asked.append(path)
        return real(tmp_path / "a.tif", *rest, **options)

    monkeypatch.setattr(rasterio, "open", fetch)
    scene = opened("s3://bucket/deep/a.tif", sensor="SENTINEL2:B04/B03/B02")
    assert asked == ["/vsis3/bucket/deep/a.tif"]
    assert np.allclose(whole(scene).image, pixels / 1e4, atol=1e-7)
    opened("https://host/a.tif?sig=1", sensor="SENTINEL2:B04/B03/B02")
    assert asked[1:] == ["/vsicurl/https://host/a.tif?sig=1"]
    with pytest.raises(UserError, match="ftp:// is not read"):
        opened("ftp://host/a.tif", sensor="SENTINEL2:B04/B03/B02")


def test_what_a_scene_is_known_by_changes_with_what_decides_its_numbers(raster, opened, tmp_path):
    raster(tmp_path / "a.tif", 3)
    ask = {"sensor": "SENTINEL2:B04/B03/B02"}
    first = opened(tmp_path / "a.tif", **ask).identity
    assert opened(tmp_path / "a.tif", **ask).identity == first
    others = [
        opened(tmp_path / "a.tif", **ask, scaling={"numbers": "dn", "unit": 9000}).identity,
        opened(tmp_path / "a.tif", **ask, nodata=3).identity,
        opened(tmp_path / "a.tif", **ask, bands=["B03", "B04", "B02"]).identity,
    ]
    raster(tmp_path / "a.tif", 3, (20, 31))
    others.append(opened(tmp_path / "a.tif", **ask).identity)
    assert all(other != first for other in others)


@pytest.mark.parametrize(("name", "sensor"), [("landsat8_7bands", "LANDSAT8_SR"), ("sentinel2_13bands", "SENTINEL2")])
def test_a_real_scene_is_what_rasterio_reads_of_it(scenes_of_test_data, opened, whole, name, sensor):
    path = scenes_of_test_data / f"{name}.tif"
    scene = opened(path, sensor=sensor)
    with rasterio.open(path) as file:
        numbers, transform, crs = file.read().astype(np.float64), file.transform, file.crs
    found = whole(scene)
    assert np.abs(found.image - numbers / 1e4).max() < 2e-6
    assert np.array_equal(found.blank, (numbers == 0).all(0))
    assert (scene.place.transform, scene.place.crs) == (tuple(transform)[:6], crs)


def test_a_vrt_is_known_by_the_files_that_it_refers_to(raster, opened, tmp_path):
    raster(tmp_path / "a.tif", 3)
    copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    ask = {"sensor": "SENTINEL2:B04/B03/B02"}
    first = opened(tmp_path / "a.vrt", **ask).identity
    assert opened(tmp_path / "a.vrt", **ask).identity == first
    raster(tmp_path / "a.tif", 3)
    assert opened(tmp_path / "a.vrt", **ask).identity != first
