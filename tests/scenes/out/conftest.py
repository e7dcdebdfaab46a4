"""Outputs that are written from random numbers, in any order."""

from __future__ import annotations

import numpy as np
import pytest
from rasterio.crs import CRS

from satdifuser.data.files.opened import Place
from satdifuser.scenes.out import open_output
from satdifuser.scenes.out.base import Form, Target
from satdifuser.scenes.units import units_of

UTM = CRS.from_epsg(32632)
TURNED = (30.1, 0.2, 123456.789012345, -0.3, -29.97, 5e6 + 1 / 3)
CLASSES = Form("classes", "uint8", ("open water", "b&<", "ö"), ("#ff0000", "#00ff00", "#0000ff"))


@pytest.fixture
def target():
    """Make a target; the identity has its size, which is what the numbers depend on."""

    def make(form=CLASSES, height=70, width=90, transform=TURNED, crs=UTM, **rest):
        place = Place(transform, crs, height, width)
        return Target(place, form, {"SATDIFUSER_RUN": "abc"}, {"run": "abc", "unit": 32, **rest})

    return make


@pytest.fixture
def numbers():
    """Random numbers of a target, and where they count."""

    def make(target, seed=0, share=0.8):
        draw = np.random.default_rng(seed)
        size = (target.place.height, target.place.width)
        return draw.normal(size=(len(target.form.names), *size)).astype(np.float32), draw.random(size) < share

    return make


@pytest.fixture
def write(numbers):
    """Write a whole output, its units in the order that `shuffle` makes of them."""

    def run(path, target, shuffle=None, overwrite=False, rows=32, columns=64, **how):
        values, valid = numbers(target, **how)
        output = open_output(str(path), target)
        output.begin(overwrite)
        units = output.todo(units_of(target.place.height, target.place.width, rows=rows, columns=columns))
        for unit in units if shuffle is None else [units[n] for n in shuffle.permutation(len(units))]:
            part = unit.rows, unit.columns
            output.write(unit, values[(slice(None), *part)], valid[part])
        assert output.finish() == [str(path)]
        return values, valid

    return run


def files_of(path):
    """All bytes of a file or a folder, and of what stands beside it."""
    near = [path, path.with_name(f"{path.name}.aux.xml")]
    found = [file for one in near for file in ([one] if one.is_file() else sorted(one.rglob("*"))) if file.is_file()]
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in found}
