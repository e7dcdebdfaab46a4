"""Tiny scenes and drawings on them, for the tests of data=scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
from rasterio.transform import Affine

from satdifuser.data.readers.scenes.reader import SceneLabels

Array = np.ndarray[Any, Any]
LEFT, TOP, PIXEL = 600_000.0, 5_200_000.0, 10.0
UTM = "EPSG:32632"


def scene(path: Path, height: int = 64, width: int = 96, **given: Any) -> Array:
    """A GeoTIFF of three bands of random numbers, and these."""
    numbers = np.random.default_rng().integers(1, 3000, (3, height, width)).astype(np.uint16)
    for rows, columns in given.pop("blank", ()):
        numbers[:, rows, columns] = 0
    profile: dict[str, Any] = {"crs": UTM, "transform": Affine(PIXEL, 0, LEFT, 0, -PIXEL, TOP), "nodata": 0} | given
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=height, width=width, dtype="uint16", **profile
    ) as file:
        file.write(numbers)
    return numbers


def drawn(path: Path, shapes: Sequence[Any], words: Sequence[Any], crs: Any = UTM, **cells: Any) -> Path:
    """A file of labels, by the ending of its name."""
    table = geopandas.GeoDataFrame({"class": list(words), **cells}, geometry=list(shapes), crs=UTM)
    table = table if crs == UTM else table.to_crs(crs) if crs else table.set_crs(None, allow_override=True)
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_file(path)
    return path


def ground(row: float, column: float) -> tuple[float, float]:
    """Where a place in pixels lies."""
    return LEFT + column * PIXEL, TOP - row * PIXEL


def opened(folder: Path, split: str = "all", **given: Any) -> SceneLabels:
    known = {"labels": str(folder / "labels.gpkg"), "column": "class", "sensor": "SENTINEL2:B04/B03/B02", "size": 16}
    scenes = given.pop("scenes", str(folder / "scene.tif"))
    return SceneLabels(scenes, split, **(known | given))


TURNED = Affine(8.0, 6.0, LEFT, 6.0, -8.0, TOP)
