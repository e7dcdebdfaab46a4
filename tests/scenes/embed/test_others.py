"""Vectors that others have made, from drawn polygons to a map: AlphaEarth's raster is the scene."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from satdifuser.cli import main


@pytest.mark.slow
def test_polygons_on_a_raster_of_vectors_make_a_head_and_that_a_map(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("geopandas")
    drawn = np.random.default_rng(2)
    place = rasterio.Affine(10, 0, 399960, 0, -10, 5800020)
    half = np.arange(64)[:, None] // 8 + np.arange(64)[None] // 8  # fields of 80 m, of two kinds
    kind = half % 2
    centres = drawn.integers(-90, 91, (2, 8))
    numbers = (centres[kind].transpose(2, 0, 1) + drawn.integers(-20, 21, (8, 64, 64))).astype(np.int8)
    numbers[:, :4, :4] = -128
    with rasterio.open(
        tmp_path / "ae.tif",
        "w",
        driver="GTiff",
        height=64,
        width=64,
        count=8,
        dtype="int8",
        nodata=-128,
        crs="EPSG:32632",
        transform=place,
    ) as file:
        file.write(numbers)
    features = []
    for row in range(8):
        for column in range(8):
            corners = [(column * 8 + 1, row * 8 + 1), (column * 8 + 7, row * 8 + 1), (column * 8 + 7, row * 8 + 7)]
            ring = [
                [399960 + 10 * x, 5800020 - 10 * y] for x, y in [*corners, (column * 8 + 1, row * 8 + 7), corners[0]]
            ]
            features.append(
                {
                    "type": "Feature",
                    "properties": {"class": ["maize", "wheat"][(row + column) % 2]},
                    "geometry": {"type": "Polygon", "coordinates": [ring]},
                }
            )
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    text = json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})
    (tmp_path / "fields.geojson").write_text(text)
    data = ["data=scene", f"data.scenes={tmp_path / 'ae.tif'}", f"data.labels={tmp_path / 'fields.geojson'}"]
    data += ["data.column=class", "data.sensor=EMBEDDING:8", "data.scaling=alphaearth", "data.size=8"]
    head = ["encoder=embedding", "encoder.origin=alphaearth-2024", "fusion=mean", "decoder=single", "task=segmentation"]
    words = [*data, *head, "trainer=quick", "trainer.max_steps=80", f"run={tmp_path / 'run'}"]
    assert main(["train", *words]) == 0
    scene = [f"scene={tmp_path / 'ae.tif'}", f"out={tmp_path / 'map.tif'}"]
    assert main(["predict", f"run={tmp_path / 'run'}", *scene]) == 0, capsys.readouterr().err
    with rasterio.open(tmp_path / "map.tif") as file:
        found, names = file.read(1), json.loads(file.tags()["SATDIFUSER_CLASSES"])
        assert file.transform == place
    assert (found[:4, :4] == 255).all()
    valid = found != 255
    truth = np.array([names.index("maize"), names.index("wheat")])[kind]
    assert (found == truth)[valid].mean() > 0.95
