"""Zarr as xarray, GDAL and EOPF write it: the same numbers and the same place as what was written."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from rasterio.crs import CRS
from rasterio.shutil import copy

from satdifuser.errors import UserError

WKT = CRS.from_epsg(32632).to_wkt()
TRANSFORM = (10.0, 0.0, 300_000.0, 0.0, -10.0, 5_000_000.0)


def numbers(bands=3, size=(20, 30), low=1, high=5000):
    return np.random.default_rng().integers(low, high, (bands, *size)).astype(np.uint16)


def labelled(pixels, names=("B04", "B03", "B02"), **attributes):
    """As rioxarray has a raster: coordinates of the middles, and `spatial_ref`."""
    height, width = pixels.shape[1:]
    return xr.DataArray(
        pixels,
        dims=("band", "y", "x"),
        coords={
            "band": list(names),
            "y": 5e6 - 10 * (np.arange(height) + 0.5),
            "x": 3e5 + 10 * (np.arange(width) + 0.5),
            "spatial_ref": xr.DataArray(0, attrs={"crs_wkt": WKT, "GeoTransform": "300000 10 0 5000000 0 -10"}),
        },
        attrs={"grid_mapping": "spatial_ref", **attributes},
        name="reflectance",
    )


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("transform", [True, False], ids=["GeoTransform", "coordinates"])
def test_what_xarray_writes_is_read_by_the_names_of_its_bands(opened, whole, tmp_path, version, transform):
    pixels = numbers()
    made = labelled(pixels)
    if not transform:
        del made.spatial_ref.attrs["GeoTransform"]
    made.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=version == 2)
    scene = opened(tmp_path / "a.zarr", sensor="SENTINEL2:B02/B03/B04")
    assert scene.name == "a"
    assert scene.place.transform == TRANSFORM
    assert scene.place.crs == CRS.from_epsg(32632)
    assert np.allclose(whole(scene).image, pixels[::-1] / 1e4, atol=1e-7)


@pytest.mark.parametrize("version", [2, 3])
def test_scale_offset_and_fill_value_of_cf_count(opened, whole, tmp_path, version):
    pixels = numbers(high=30)
    values = np.where(pixels == 9, np.nan, pixels * 2e-4 - 0.1)
    encoding = {"reflectance": {"dtype": "uint16", "scale_factor": 2e-4, "add_offset": -0.1, "_FillValue": 9}}
    made = labelled(values).to_dataset()
    made.to_zarr(tmp_path / "a.zarr", zarr_format=version, encoding=encoding, consolidated=False)
    found = whole(opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B03/B02"))
    assert np.abs(found.image - np.nan_to_num(values)).max() < 1e-6
    assert np.array_equal(found.blank, np.isnan(values).all(0))


@pytest.mark.parametrize("version", [2, 3])
def test_nan_as_fill_value_is_no_data_whatever_the_run_says_of_nan(opened, whole, tmp_path, version):
    values = np.random.default_rng().random((3, 20, 30)).astype(np.float32) + 0.01
    values[:, 2:4] = np.nan
    made = labelled(values).to_dataset()
    made.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False)  # xarray's fill value is NaN
    found = whole(opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B03/B02"))
    assert np.array_equal(found.image, np.nan_to_num(values))
    assert found.blank[2:4].all()
    assert not found.blank[4:].any()


def test_arrays_of_one_band_each_and_a_time_of_one(opened, whole, tmp_path):
    pixels = numbers(2)
    made = labelled(pixels, ("a", "b"))
    bands = {name: made[n].drop_vars("band").expand_dims("time") for n, name in enumerate(("red", "nir"))}
    xr.Dataset(bands).to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    found = whole(opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B08"))
    assert np.allclose(found.image, pixels / 1e4, atol=1e-7)


def test_sentinel_2_as_eopf_packs_it_is_read_from_its_measurements(opened, whole, tmp_path):
    fine, coarse = numbers(1, (20, 30)), numbers(1, (10, 15))
    root = zarr.open_group(tmp_path / "S2.zarr", mode="w", zarr_format=2)
    for place, pixels, size in (("r10m/b04", fine, 10), ("r20m/b05", coarse, 20)):
        for kind in ("measurements/reflectance", "quality/mask"):
            array = root.create_array(f"{kind}/{place}", data=pixels[0], chunks=(8, 8))
            array.attrs.update({"_ARRAY_DIMENSIONS": ["y", "x"], "scale_factor": 1e-4, "add_offset": -0.1})
            array.attrs.update({"proj:epsg": 32632, "proj:transform": [size, 0, 300_000, 0, -size, 5_000_000]})
    scene = opened(tmp_path / "S2.zarr", sensor="SENTINEL2:B04/B05", resampling="nearest")
    assert scene.place.transform == TRANSFORM
    assert scene.place.crs.to_epsg() == 32632
    found = whole(scene).image
    assert np.abs(found[0] - (fine[0] * 1e-4 - 0.1)).max() < 1e-6
    assert np.abs(found[1] - (np.kron(coarse[0], np.ones((2, 2))) * 1e-4 - 0.1)).max() < 1e-6


def test_gdals_own_words_for_the_reference_system(opened, whole, tmp_path):
    pixels = numbers()
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    array = root.create_array("image", data=pixels, chunks=(1, 8, 8))
    array.attrs.update({"_ARRAY_DIMENSIONS": ["band", "y", "x"], "_CRS": {"wkt": WKT}})
    for name, line in (("x", 3e5 + 10 * (np.arange(30) + 0.5)), ("y", 5e6 - 10 * (np.arange(20) + 0.5))):
        root.create_array(name, data=line).attrs["_ARRAY_DIMENSIONS"] = [name]
    scene = opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B03/B02")
    assert (scene.place.transform, scene.place.crs.to_epsg()) == (TRANSFORM, 32632)
    assert np.allclose(whole(scene).image, pixels / 1e4, atol=1e-7)


def test_bands_may_come_last_and_an_array_may_stand_alone(opened, whole, tmp_path, said):
    pixels = numbers()
    last = zarr.create_array(
        tmp_path / "last.zarr",
        data=pixels.transpose(1, 2, 0).copy(),
        chunks=(7, 9, 2),
        dimension_names=["y", "x", "band"],
    )
    last.attrs["long_name"] = ["B03", "B04", "B02"]
    found = whole(opened(tmp_path / "last.zarr", sensor="SENTINEL2:B04/B03/B02")).image
    assert np.allclose(found, pixels[[1, 0, 2]] / 1e4, atol=1e-7)
    assert any("no georeference" in line for line in said)
    zarr.create_array(tmp_path / "bare.zarr", data=pixels)
    found = whole(opened(tmp_path / "bare.zarr", sensor="SENTINEL2:B04/B03/B02")).image
    assert np.allclose(found, pixels / 1e4, atol=1e-7)


def test_vectors_of_8_bits_have_a_scale_for_each_channel(opened, whole, tmp_path):
    pixels = np.random.default_rng().integers(-127, 128, (5, 20, 30)).astype(np.int8)
    scales = np.random.default_rng().random(5) + 0.1
    made = labelled(pixels, [f"mid@21:{n}" for n in range(5)], scales=list(scales)).to_dataset(name="embedding")
    made.to_zarr(tmp_path / "a.zarr", zarr_format=3, encoding={"embedding": {"_FillValue": -128}}, consolidated=False)
    found = whole(opened(tmp_path / "a.zarr", sensor="EMBEDDING:5")).image
    assert np.abs(found - pixels * scales[:, None, None]).max() < 1e-5


def test_what_gdal_writes_is_read(raster, opened, whole, tmp_path):
    pixels = raster(tmp_path / "a.tif", 3)
    copy(tmp_path / "a.tif", tmp_path / "a.zarr", driver="Zarr")
    scene = opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B03/B02")
    with rasterio.open(tmp_path / "a.zarr") as file:
        assert (scene.place.transform, scene.place.crs) == (tuple(file.transform)[:6], file.crs)
    assert np.allclose(whole(scene).image, pixels / 1e4, atol=1e-7)


def test_sparse_bands_of_a_cube_are_read_alone(opened, whole, tmp_path):
    pixels = numbers(12)
    names = [f"B{n:02d}" for n in range(1, 10)] + ["B8A", "B11", "B12"]
    made = labelled(pixels, names)
    made.encoding = {"chunks": (1, 8, 8)}
    made.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    found = whole(opened(tmp_path / "a.zarr", sensor="SENTINEL2:B12/B02")).image
    assert np.allclose(found, pixels[[11, 1]] / 1e4, atol=1e-7)


@pytest.mark.parametrize("kind", ["times", "uneven", "no image", "damaged", "crs", "chunks"])
def test_what_is_no_image_is_one_line(opened, tmp_path, kind, monkeypatch):
    pixels, path = numbers(), tmp_path / "a.zarr"
    made = labelled(pixels)
    if kind == "times":
        made = xr.concat([made, made], "time")
    elif kind == "uneven":
        del made.spatial_ref.attrs["GeoTransform"]
        made = made.assign_coords(x=3e5 + np.arange(30.0) ** 2)
    elif kind == "crs":
        made.spatial_ref.attrs["crs_wkt"] = "no such system"
    elif kind == "chunks":
        monkeypatch.setattr("satdifuser.scenes.source.zarrs.LARGEST", 100)
    if kind == "no image":
        zarr.open_group(path, mode="w").create_array("line", data=np.arange(3))
    else:
        made.to_dataset(name="image").to_zarr(path, zarr_format=3, consolidated=False)
    if kind == "damaged":
        (path / "zarr.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.zarr") as caught:
        opened(path, sensor="SENTINEL2:B04/B03/B02")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["cut", "coarser", "upward"])
def test_coordinates_count_where_the_transform_is_still_that_of_the_whole(opened, whole, tmp_path, part):
    pixels = numbers()
    made = labelled(pixels)
    if part == "cut":
        made, wanted, kept = made[:, 3:, 5:25], (10, 0, 300_050, 0, -10, 4_999_970), pixels[:, 3:, 5:25]
    elif part == "coarser":
        made, wanted, kept = made[:, ::2, ::2], (20, 0, 299_995, 0, -20, 5_000_005), pixels[:, ::2, ::2]
    else:
        made, wanted, kept = made[:, ::-1], (10, 0, 300_000, 0, 10, 4_999_800), pixels[:, ::-1]
    made.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    scene = opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B03/B02")
    assert scene.place.transform == wanted
    assert np.allclose(whole(scene).image, kept / 1e4, atol=1e-7)


@pytest.mark.parametrize("lines", ["corners", "numbers of pixels", "kilometres"])
def test_the_transform_counts_where_coordinates_are_no_middles_in_its_unit(opened, tmp_path, lines):
    made = labelled(numbers())
    if lines == "corners":
        made = made.assign_coords(x=made.x - 5, y=made.y + 5)
    elif lines == "kilometres":
        made = made.assign_coords(x=made.x / 1000, y=made.y / 1000)
        made.x.attrs["units"] = made.y.attrs["units"] = "km"
    else:
        made = made.assign_coords(x=np.arange(30), y=np.arange(20))
    made.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    assert opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B03/B02").place.transform == TRANSFORM


def test_of_a_band_in_several_groups_of_eopf_the_finest_is_read(opened, whole, tmp_path):
    root = zarr.open_group(tmp_path / "S2.zarr", mode="w", zarr_format=2)
    fine = numbers(1, (20, 30))
    for level, size in (("r10m", 10), ("r20m", 20), ("r60m", 60)):
        pixels = fine[0] if size == 10 else numbers(1, (200 // size, 300 // size))[0]
        array = root.create_array(f"measurements/reflectance/{level}/b04", data=pixels)
        array.attrs.update({"_ARRAY_DIMENSIONS": ["y", "x"], "proj:epsg": 32632})
        array.attrs["proj:transform"] = [size, 0, 300_000, 0, -size, 5_000_000]
    found = whole(opened(tmp_path / "S2.zarr", sensor="SENTINEL2:B04")).image
    assert np.allclose(found, fine / 1e4, atol=1e-7)


def test_zero_is_no_data_and_not_the_offset_where_nobody_says_what_is(opened, whole, tmp_path):
    pixels = numbers()
    pixels[:, 4:6] = 0
    made = labelled(pixels, scale_factor=1e-4, add_offset=-0.1).to_dataset()
    made.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    found = whole(opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B03/B02"))
    assert np.abs(found.image - np.where(pixels == 0, 0, pixels * 1e-4 - 0.1)).max() < 1e-6
    assert found.blank[4:6].all()


@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_that_is_written_again_changes_what_a_scene_is_known_by(opened, tmp_path, version):
    made = labelled(numbers())
    made.encoding = {"chunks": (1, 8, 8)}
    made.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False)
    first = opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B03/B02").identity
    assert opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B03/B02").identity == first
    array = zarr.open(str(tmp_path / "a.zarr"), mode="r+")["reflectance"]
    array[1, 3, 4] = array[1, 3, 4] + 1
    assert opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B03/B02").identity != first


@pytest.mark.parametrize("height", [1, 4])
def test_the_transform_is_kept_to_the_last_digit_where_coordinates_agree(opened, tmp_path, height):
    across, down = np.random.default_rng().uniform(5, 30, 2)
    x, y = 3e5 + across * (np.arange(6) + 0.5), 5e6 - down * (np.arange(height) + 0.5)
    made = labelled(numbers(size=(height, 6))).assign_coords(x=x, y=y)
    made.spatial_ref.attrs["GeoTransform"] = f"300000 {float(across)!r} 0 5000000 0 {-float(down)!r}"
    made.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    place = opened(tmp_path / "a.zarr", sensor="SENTINEL2:B04/B03/B02").place
    assert place.transform == (across, 0, 300_000, 0, -down, 5_000_000)
