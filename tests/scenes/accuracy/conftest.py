"""Maps and points of a ground that is known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CLASSES = ("forest", "bare soil", "water")
TRANSFORM = (30.0, 0.0, 500000.0, 0.0, -30.0, 5400000.0)


def write_map(path: Path, numbers: np.ndarray, **other: Any) -> Path:
    import rasterio

    given: dict[str, Any] = {"crs": "EPSG:32633", "transform": rasterio.Affine(*TRANSFORM), "nodata": 255} | other
    names = given.pop("names", CLASSES)
    height, width = numbers.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=numbers.dtype, **given
    ) as file:
        file.write(numbers, 1)
        if names:
            import json

            file.update_tags(SATDIFUSER_CLASSES=json.dumps(list(names)))
    return path


def write_objects(path: Path, geometries: Sequence[Any], words: Sequence[Any], crs: str | None = "EPSG:32633") -> Path:
    import geopandas

    geopandas.GeoDataFrame({"class": list(words)}, geometry=list(geometries), crs=crs).to_file(path)
    return path


def points_at(rows: np.ndarray, columns: np.ndarray) -> list[Any]:
    """The middles of pixels."""
    import shapely

    a, _, c, _, e, f = TRANSFORM
    return [shapely.Point(c + a * (x + 0.5), f + e * (y + 0.5)) for y, x in zip(rows, columns, strict=True)]


@pytest.fixture
def ground() -> tuple[np.ndarray, np.ndarray]:
    """What is so, and a map that is wrong in a fifth of it."""
    random = np.random.default_rng(3)
    truth = np.repeat(np.repeat(random.choice(3, (12, 15), p=(0.6, 0.3, 0.1)), 10, 0), 10, 1).astype(np.uint8)
    wrong = random.random(truth.shape) < 0.2
    mapped = np.where(wrong, random.integers(0, 3, truth.shape), truth).astype(np.uint8)
    return truth, mapped
