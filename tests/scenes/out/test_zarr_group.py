"""Zarr groups, as xarray and rioxarray read them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import zarr
from rasterio.crs import CRS

from satdifuser.scenes.out.base import Form
from satdifuser.scenes.out.forms import encode
from tests.scenes.out.conftest import CLASSES, TURNED

xarray = pytest.importorskip("xarray")
NORTH = (1 / 3, 0.0, 1 / 7, 0.0, -1 / 9, 2 / 11)
FORMS = [
    CLASSES,
    Form("probabilities", "uint8", ("a", "b")),
    Form("values", "float32", ("value",)),
    Form("embedding", "float16", ("tap@1:0", "tap@1:1")),
    Form("embedding", "int8", ("tap@1:0", "tap@1:1"), scales=(0.012345, 3e-9)),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.kind}-{form.dtype}")
def test_xarray_reads_numbers_and_where_they_are(tmp_path, target, write, form):
    path = tmp_path / "map.zarr"
    values, valid = write(path, target(form, transform=NORTH, crs=CRS.from_epsg(4326)))
    wanted, nodata = encode(form, values, valid)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xarray.open_zarr(path)
    array = found["embedding" if form.kind == "embedding" else "map"]
    assert array.dims == ("band", "y", "x")
    number = wanted.astype(np.float64) * (1 / 254 if form.kind == "probabilities" else 1)
    number[:, ~valid] = np.nan
    np.testing.assert_allclose(array.to_numpy().astype(np.float64), number, rtol=1e-6)
    assert (~array.isnull().to_numpy().all(0) == valid).all()
    a, _, c, _, e, f = NORTH
    np.testing.assert_allclose(found.x, [c + a * (n + 0.5) for n in range(90)], rtol=1e-15)
    np.testing.assert_allclose(found.y, [f + e * (n + 0.5) for n in range(70)], rtol=1e-12)
    assert CRS.from_wkt(found.spatial_ref.attrs["crs_wkt"]) == CRS.from_epsg(4326)
    assert [float(n) for n in found.spatial_ref.attrs["GeoTransform"].split()] == [c, a, 0.0, f, 0.0, e]
    assert found.attrs["SATDIFUSER_RUN"] == "abc"
    raw = zarr.open_group(path, mode="r")[array.name]
    np.testing.assert_array_equal(raw[...], wanted)
    assert raw.dtype == form.dtype
    np.testing.assert_equal(float(raw.fill_value), float(nodata))
    if form.scales:
        np.testing.assert_array_equal(found["scale"], form.scales)


def test_grids_that_are_turned_or_nowhere_have_no_coordinates(tmp_path, target, write):
    write(tmp_path / "turned.zarr", target(transform=TURNED))
    write(tmp_path / "nowhere.zarr", target(transform=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), crs=None))
    turned, nowhere = (xarray.open_zarr(tmp_path / f"{name}.zarr") for name in ("turned", "nowhere"))
    a, b, c, d, e, f = TURNED
    assert [float(n) for n in turned.spatial_ref.attrs["GeoTransform"].split()] == [c, a, b, f, d, e]
    assert "x" not in turned.coords
    assert set(nowhere.coords) == {"band"}
    assert "spatial_ref" not in nowhere


def test_chunks_without_data_are_not_written(tmp_path, target, write):
    write(tmp_path / "map.zarr", target(), share=0.0)
    assert not (tmp_path / "map.zarr" / "map" / "c").exists()
    assert xarray.open_zarr(tmp_path / "map.zarr")["map"].isnull().all()


def test_rioxarray_reads_its_place(tmp_path, target, write):
    pytest.importorskip("rioxarray")
    whole = (10.0, 0.0, 399960.0, 0.0, -10.0, 5800020.0)
    for number, transform in enumerate((whole, NORTH)):
        write(tmp_path / f"{number}.zarr", target(transform=transform))
        found = xarray.open_zarr(tmp_path / f"{number}.zarr")["map"]
        # it works with the pixels' middles, which costs the last digit where they have as many as a number holds
        np.testing.assert_allclose(tuple(found.rio.transform())[:6], transform, rtol=1e-15 if number else 0)
        assert CRS.from_wkt(found.rio.crs.to_wkt()) == CRS.from_epsg(32632)
