"""Where an array of Zarr lies: coordinates, `grid_mapping`, GDAL's `_CRS`, and the words of `proj` and `spatial`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.files.opened import Place

ACROSS = ("x", "X", "lon", "longitude", "easting", "columns")
DOWN = ("y", "Y", "lat", "latitude", "northing", "rows")
EVEN = 1e-3  # of a pixel, by which a coordinate may be off
HALF = 0.51  # of a pixel, by which coordinates of corners are off


def dims_of(array: Any) -> tuple[str, ...] | None:
    """The names of its axes, as version 3 has them or as xarray writes them in version 2."""
    found = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if found is None or any(name is None for name in found) or len(found) != array.ndim:
        return None
    return tuple(map(str, found))


def place_of(array: Any, axes: str, groups: Sequence[Any], height: int, width: int) -> Place | None:
    """Its grid, by what it and the groups around it say; None where nobody does."""
    attributes = [dict(array.attrs), *(dict(group.attrs) for group in groups)]
    mapping = _mapping(attributes[0], groups)
    transform = _said_or_seen(_transform([mapping, *attributes]), array, axes, groups, height, width)
    if transform is None:
        return None
    crs = _crs([mapping, *attributes])
    if crs is None and _degrees(array, axes, groups):
        from rasterio.crs import CRS

        crs = CRS.from_epsg(4326)
    return Place(transform, crs, height, width)


def _mapping(attributes: Mapping[str, Any], groups: Sequence[Any]) -> Mapping[str, Any]:
    """The attributes of its `grid_mapping`, or of `spatial_ref` where it names none."""
    named = attributes.get("grid_mapping")
    for name in (str(named).split(":")[0].strip() if named else "", "spatial_ref", "crs"):
        for group in groups:
            if name and name in group and hasattr(group[name], "shape"):
                return dict(group[name].attrs)
    return {}


def _transform(said: Sequence[Mapping[str, Any]]) -> tuple[float, ...] | None:
    for one in said:
        text = one.get("GeoTransform")
        if text is not None:
            c, a, b, f, d, e = (float(n) for n in (text.split() if isinstance(text, str) else text))
            return a, b, c, d, e, f
        for key in ("spatial:transform", "proj:transform"):
            if isinstance(one.get(key), list | tuple) and len(one[key]) >= 6:
                return tuple(float(number) for number in one[key][:6])
    return None


def _said_or_seen(
    said: tuple[float, ...] | None, array: Any, axes: str, groups: Sequence[Any], height: int, width: int
) -> tuple[float, ...] | None:
    """The transform that is said, unless coordinates in its unit lie elsewhere: of a part it is often the whole's.

    Half a pixel is no such: that much are coordinates off that are corners.
    """
    if said is None:
        return _by_coordinates(array, axes, groups, height, width)
    if said[1] or said[3] or not _in_its_unit(array, axes, groups):
        return said
    try:
        seen = _by_coordinates(array, axes, groups, height, width)
    except BadImageError:
        return said
    if seen is None or (seen[0] == abs(seen[4]) == 1 and max(abs(seen[2]), abs(seen[5])) <= HALF):  # numbers of pixels
        return said
    ends = ((0, 2, width), (4, 5, height))
    found = list(seen)
    for scale, start, side in ends:
        if side == 1:  # a line has no steps
            found[scale], found[start] = said[scale], seen[start] + (seen[scale] - said[scale]) / 2
    seen = tuple(found)
    off = max(
        abs((seen[scale] - said[scale]) * end + seen[start] - said[start]) / min(abs(said[scale]), abs(seen[scale]))
        for scale, start, side in ends
        for end in (0, side)
    )
    return seen if off > HALF else said


def _in_its_unit(array: Any, axes: str, groups: Sequence[Any]) -> bool:
    """Whether coordinates are in metres or degrees, or say nothing: those of weather satellites are angles or km."""
    dims = dims_of(array) or ()
    lines = [_coordinate(name, groups) for name, axis in zip(dims, axes, strict=False) if axis in "xy"]
    units = [str(line.attrs.get("units", "")).lower() for line in lines if line is not None]
    return all(unit in ("", "m") or unit.startswith(("degree", "metre", "meter")) for unit in units)


def _coordinate(name: str, groups: Sequence[Any]) -> Any:
    near = groups[0] if groups else None
    return near[name] if near is not None and name in near and getattr(near[name], "ndim", 0) == 1 else None


def _by_coordinates(array: Any, axes: str, groups: Sequence[Any], height: int, width: int) -> tuple[float, ...] | None:
    """From the middles of pixels."""
    dims = dims_of(array)
    if dims is None:
        return None
    lines = [_coordinate(dims[axes.index(axis)], groups) for axis in "xy"]
    if any(line is None for line in lines):
        return None
    numbers = [np.asarray(line[:], np.float64) for line in lines]
    steps = [_step(line, name) for line, name in zip(numbers, "xy", strict=True)]
    across, down = steps
    if across is None or down is None:  # a single row or column has the other's size
        if across is None and down is None:
            return None
        across, down = across or abs(down or 0.0), down or -abs(across or 0.0)
    return across, 0.0, float(numbers[0][0]) - across / 2, 0.0, down, float(numbers[1][0]) - down / 2


def _step(line: np.ndarray[Any, Any], name: str) -> float | None:
    if len(line) < 2:
        return None
    step = float(line[-1] - line[0]) / (len(line) - 1)
    off = np.abs(line - (line[0] + step * np.arange(len(line)))).max()
    if not step or not off <= EVEN * abs(step) + 1e-6 * abs(step):
        raise BadImageError(f"has a coordinate {name} whose steps are not even: bring it to a regular grid")
    return step


def _degrees(array: Any, axes: str, groups: Sequence[Any]) -> bool:
    dims = dims_of(array)
    line = None if dims is None else _coordinate(dims[axes.index("y")], groups)
    return line is not None and str(line.attrs.get("units", "")).startswith("degree")


def _crs(said: Sequence[Mapping[str, Any]]) -> Any:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    for one in said:
        own = one.get("_CRS")
        texts = [
            one.get(key) for key in ("crs_wkt", "spatial_ref", "proj:code", "proj:wkt2", "proj:projjson", "proj:epsg")
        ]
        texts += [own.get(key) for key in ("wkt", "url", "projjson")] if isinstance(own, Mapping) else []
        for text in texts:
            if text in (None, ""):
                continue
            try:
                if isinstance(text, Mapping):
                    return CRS.from_user_input(json.dumps(text))
                return CRS.from_epsg(text) if isinstance(text, int) else CRS.from_user_input(str(text))
            except CRSError as error:
                raise BadImageError(
                    f"has a reference system that is not understood ({' '.join(str(error).split())})"
                ) from error
    return None
