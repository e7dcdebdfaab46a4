"""How much ground a pixel covers, whatever the reference system: planes stretch areas, degrees have none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from satdifuser.data.files.opened import Place

Array = np.ndarray[Any, Any]
KNOTS = 65
"""Along each side of a map, where the stretch of its plane is computed; between them it is interpolated."""


def pixel_areas(place: Place) -> Callable[[slice, slice], Array] | None:
    """Square metres of each pixel of these rows and columns; None without a reference system."""
    if place.crs is None:
        return None
    from pyproj import CRS

    crs = CRS.from_user_input(place.crs.to_wkt())
    a, b, _, d, e, _ = place.transform
    if crs.is_geographic:
        return _of_degrees(crs, place)
    flat = abs(a * e - b * d) * float(place.crs.linear_units_factor[1]) ** 2
    if not crs.is_projected:  # a plane of its own, as of a building site
        return lambda rows, columns: np.full((rows.stop - rows.start, columns.stop - columns.start), flat)
    return _of_plane(crs, place, flat)


def _of_degrees(crs: Any, place: Place) -> Callable[[slice, slice], Array]:
    """Of the ellipsoid: the area between two parallels is known, and a turned pixel is as its middle is."""
    a, b, _, d, e, f = place.transform
    unit, ellipsoid = crs.axis_info[0].unit_conversion_factor, crs.ellipsoid

    def found(rows: slice, columns: slice) -> Array:
        shape = rows.stop - rows.start, columns.stop - columns.start
        edges = np.arange(rows.start, rows.stop + 1)[:, None]
        if b == 0 and d == 0:
            zones = _zone(np.clip((f + e * edges) * unit, -math.pi / 2, math.pi / 2), ellipsoid)
            return np.broadcast_to(np.abs(np.diff(zones, axis=0)) * abs(a) * unit, shape)
        along = np.arange(columns.start, columns.stop)[None] + 0.5
        latitude = (f + d * along + e * (edges[:-1] + 0.5)) * unit
        return np.asarray(_density(latitude, ellipsoid) * abs(a * e - b * d) * unit**2)

    return found


def _zone(latitude: Array, ellipsoid: Any) -> Array:
    """The area from the equator to a parallel, for each radian of longitude."""
    minor, major = ellipsoid.semi_minor_metre, ellipsoid.semi_major_metre
    sine = np.sin(latitude)
    e = math.sqrt(max(1 - (minor / major) ** 2, 0.0))
    if e < 1e-9:
        return np.asarray(major**2 * sine)
    return np.asarray(minor**2 / 2 * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e))


def _of_plane(crs: Any, place: Place, flat: float) -> Callable[[slice, slice], Array]:
    """What a pixel spans in longitude and latitude, at knots, times the ellipsoid's area there."""
    from pyproj import Transformer
    from scipy.interpolate import RegularGridInterpolator

    a, b, c, d, e, f = place.transform
    rows = np.linspace(0, place.height, min(KNOTS, place.height + 1))
    columns = np.linspace(0, place.width, min(KNOTS, place.width + 1))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    over = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)

    def at(right: float, down: float) -> tuple[Array, Array]:
        u, v = x + right, y + down
        longitude, latitude = over.transform(a * u + b * v + c, d * u + e * v + f, radians=True)
        return np.asarray(longitude), np.asarray(latitude)

    def span(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        return (second[0] - first[0] + math.pi) % (2 * math.pi) - math.pi, second[1] - first[1]

    with np.errstate(invalid="ignore"):
        across, along = span(at(-0.5, 0), at(0.5, 0)), span(at(0, -0.5), at(0, 0.5))
        areas = np.abs(across[0] * along[1] - across[1] * along[0]) * _density(at(0, 0)[1], crs.ellipsoid)
    good = np.isfinite(areas) & (areas > 0)
    if not good.any():
        return lambda rows, columns: np.full((rows.stop - rows.start, columns.stop - columns.start), flat)
    between = RegularGridInterpolator((rows, columns), np.where(good, areas, np.median(areas[good])))

    def found(some: slice, others: slice) -> Array:
        middles = np.arange(some.start, some.stop) + 0.5, np.arange(others.start, others.stop) + 0.5
        return np.asarray(between(tuple(np.meshgrid(*middles, indexing="ij"))))

    return found


def _density(latitude: Array, ellipsoid: Any) -> Array:
    """Square metres for each square radian of longitude and latitude."""
    minor, major = ellipsoid.semi_minor_metre, ellipsoid.semi_major_metre
    flattened = 1 - (minor / major) ** 2
    return np.asarray(minor**2 * np.cos(latitude) / (1 - flattened * np.sin(latitude) ** 2) ** 2)
