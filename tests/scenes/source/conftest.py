"""Fresh random rasters in real layouts, and the shortest way to a scene of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from satdifuser.scenes.find import find_scenes
from satdifuser.scenes.source import open_scene, reading_of
from satdifuser.settings.scenes import ReadingSettings

UTM = Affine(10, 0, 300_000, 0, -10, 5_000_000)


@pytest.fixture
def raster():
    """Write a raster of fresh numbers, or of these; gives them."""

    def write(path, bands=1, size=(20, 30), *, pixels=None, names=None, after=None, low=1, high=5000, **options: Any):
        rng = np.random.default_rng()
        dtype = options.pop("dtype", "uint16")
        pixels = rng.integers(low, high, (bands, *size)).astype(dtype) if pixels is None else pixels
        made = {"driver": "GTiff", "crs": "EPSG:32632", "transform": UTM, **options}
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(action="ignore"):
            shape = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
            with rasterio.open(path, "w", **shape, **made) as file:
                file.write(pixels)
                for number, name in enumerate(names or (), 1):
                    file.set_band_description(number, name)
                if after is not None:
                    after(file)
        return pixels

    return write


@pytest.fixture
def opened():
    """A scene of these words, by the settings of `reading`."""
    scenes = []

    def make(words, needed=None, **reading: Any):
        (found,) = find_scenes(str(words), reading.get("bands"))
        scene = open_scene(found, reading_of(None, ReadingSettings(**reading), needed))
        scenes.append(scene)
        return scene

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture
def whole():
    """All pixels of a scene, read in parts of another size each time, which must be those read at once."""

    def read(scene):
        height, width = scene.place.height, scene.place.width
        once = scene.read(slice(0, height), slice(0, width))
        rng = np.random.default_rng()
        down, across = (int(rng.integers(1, side + 1)) for side in (height, width))
        for top in range(0, height, down):
            for left in range(0, width, across):
                rows, columns = slice(top, min(height, top + down)), slice(left, min(width, left + across))
                part = scene.read(rows, columns)
                assert part.image.dtype == np.float32
                assert np.array_equal(part.image, once.image[:, rows, columns])
                assert np.array_equal(part.blank, once.blank[rows, columns])
        return once

    return read


@pytest.fixture
def said(monkeypatch):
    """What users were told."""
    lines: list[str] = []
    monkeypatch.setattr("satdifuser.scenes.source.checks.say", lines.append)
    monkeypatch.setattr("satdifuser.scenes.source.checks._told", set())
    return lines


@pytest.fixture
def scenes_of_test_data():
    """The folder of real scenes, or a skip that says so."""
    import os

    root = os.environ.get("SATDIFUSER_TEST_DATA")
    if not root:
        pytest.skip("SATDIFUSER_TEST_DATA is not set: no real scenes")
    return Path(root) / "real/scenes"
