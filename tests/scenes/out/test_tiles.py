"""Tables of tiles, as geopandas reads them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rasterio.crs import CRS

from satdifuser.scenes.out.base import Form
from satdifuser.scenes.out.forms import encode
from tests.scenes.out.conftest import CLASSES, TURNED

parquet = pytest.importorskip("pyarrow.parquet")
geopandas = pytest.importorskip("geopandas")


@pytest.mark.parametrize("crs", [32632, 4326, None])
def test_geopandas_reads_footprints_and_their_reference_system(tmp_path, target, write, crs):
    known = None if crs is None else CRS.from_epsg(crs)
    values, valid = write(tmp_path / "a.parquet", target(height=7, width=9, crs=known))
    found = geopandas.read_parquet(tmp_path / "a.parquet")
    assert (found.crs is None) if crs is None else (found.crs.to_epsg() == crs)
    assert len(found) == valid.sum()
    a, b, c, d, e, f = TURNED
    for row in found.itertuples():
        assert valid[row.row, row.column]
        best = int(values[:, row.row, row.column].argmax())
        assert (row._4, row.class_number) == (CLASSES.names[best], best)
        corners = {(row.column + i, row.row + j) for i in (0, 1) for j in (0, 1)}
        wanted = {(a * x + b * y + c, d * x + e * y + f) for x, y in corners}
        ring = list(row.geometry.exterior.coords)
        assert ring[0] == ring[-1]
        np.testing.assert_allclose(sorted(set(ring)), sorted(wanted), rtol=1e-15)
        assert row.geometry.is_valid
        assert row.geometry.exterior.is_ccw


def test_boxes_choose_rows_without_reading_all(tmp_path, target, write):
    write(tmp_path / "a.parquet", target(height=70, width=90), share=1.0)
    whole = geopandas.read_parquet(tmp_path / "a.parquet")
    box = tuple(whole.geometry.iloc[100].buffer(40).bounds)
    near = geopandas.read_parquet(tmp_path / "a.parquet", bbox=box)
    assert sorted(near.id) == sorted(whole.id[whole.intersects(__import__("shapely").box(*box))])
    said = json.loads(parquet.read_schema(tmp_path / "a.parquet").metadata[b"geo"])
    assert said["version"] == "1.1.0"
    assert parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 6


@pytest.mark.parametrize(
    "form",
    [
        Form("probabilities", "uint8", ("a", "b")),
        Form("logits", "float32", ("a", "b")),
        Form("values", "float32", ("value",)),
        Form("embedding", "float16", ("t:0", "t:1", "t:2")),
        Form("embedding", "int8", ("t:0", "t:1"), scales=(0.5, 0.01)),
    ],
    ids=lambda form: f"{form.kind}-{form.dtype}",
)
def test_answers_are_columns_and_vectors_one(tmp_path, target, write, form):
    values, valid = write(tmp_path / "a.parquet", target(form, height=6, width=5))
    wanted, _ = encode(form, values, valid)
    found = geopandas.read_parquet(tmp_path / "a.parquet")
    kept = wanted[:, found.row, found.column]
    if form.kind == "embedding":
        np.testing.assert_array_equal(np.stack(found.embedding), kept.T)
        assert np.stack(found.embedding).dtype == form.dtype
        said = parquet.read_schema(tmp_path / "a.parquet").metadata
        assert json.loads(said[b"SATDIFUSER_CHANNELS"]) == list(form.names)
        assert json.loads(said.get(b"SATDIFUSER_SCALES", b"[]")) == list(form.scales)
        return
    before = {"probabilities": "p_", "logits": "logit_", "values": ""}[form.kind]
    scale = 1 / 254 if form.dtype == "uint8" else 1.0
    for number, name in enumerate(form.names):
        np.testing.assert_allclose(found[before + name], kept[number] * scale, rtol=1e-6)


def test_no_tile_with_data_is_a_table_without_rows(tmp_path, target, write):
    write(tmp_path / "a.parquet", target(height=3, width=3), share=0.0)
    assert len(geopandas.read_parquet(tmp_path / "a.parquet")) == 0
