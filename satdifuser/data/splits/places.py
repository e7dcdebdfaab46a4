"""Where samples lie on the earth: footprints in any coordinates, as tiles in metres and as squares of a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from satdifuser.data.files.names import shown
from satdifuser.data.files.quiet import quiet
from satdifuser.data.splits.near import Floats, Tiles
from satdifuser.errors import UserError

A, FLAT = 6378137.0, 1 / 298.257223563  # of WGS 84
RADIUS = 6371007.2  # of the sphere that has as much surface
TRUE = 0.005  # a map whose metres are off by less anywhere in the data is measured in as it is
LARGEST = 1e6  # metres from a tile's centre to its corner


class Footprint(NamedTuple):
    """The four corners of a sample, in order around it, in the coordinates that `crs` names."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    crs: str

    @classmethod
    def box(cls, left: float, bottom: float, right: float, top: float, crs: str) -> Footprint:
        return cls((left, right, right, left), (top, top, bottom, bottom), crs)

    @classmethod
    def point(cls, x: float, y: float, crs: str = "EPSG:4326") -> Footprint:
        return cls((x,) * 4, (y,) * 4, crs)

    def part(self, height: int, width: int, rows: slice, columns: slice) -> Footprint:
        """Of the rows and columns of an image of that size, whose corners begin with its first pixel and go clockwise.

        >>> Footprint.box(0, 0, 100, 50, "EPSG:32635").part(10, 20, slice(0, 5), slice(10, 20)).x
        (50.0, 100.0, 100.0, 50.0)
        """
        first, right, _, down = (np.array(corner) for corner in zip(self.x, self.y, strict=True))
        ends = [
            first + (right - first) * (column / width) + (down - first) * (row / height)
            for row, column in (
                (rows.start, columns.start),
                (rows.start, columns.stop),
                (rows.stop, columns.stop),
                (rows.stop, columns.start),
            )
        ]
        x, y = (tuple(float(value) for value in side) for side in zip(*ends, strict=True))
        return Footprint(x, y, self.crs)


def read_footprint(path: Path | str) -> Footprint | None:
    """Where a file of an image lies, by its header; None where it does not say."""
    import rasterio
    from rasterio.errors import RasterioIOError

    with quiet():
        try:
            with rasterio.open(path) as file:
                if file.crs is None or file.transform.is_identity:
                    return None
                corners = ((0, 0), (file.width, 0), (file.width, file.height), (0, file.height))
                grid = file.transform
                x = tuple(float(grid.c + column * grid.a + row * grid.b) for column, row in corners)
                y = tuple(float(grid.f + column * grid.d + row * grid.e) for column, row in corners)
                return Footprint(x, y, file.crs.to_string())
        except RasterioIOError as error:
            raise UserError(f"{shown(path)} cannot be read for where it lies ({error}): replace it") from error


class Places:
    """Samples in metres: in the plane of their map where all have one that is true, else on the ellipsoid.

    Maps of one zone (UTM and the like) are true to half a percent; Mercator's, or degrees, are not.
    """

    def __init__(self, names: Sequence[str], footprint: Callable[[str], Footprint | None]) -> None:
        found = [footprint(name) for name in names]
        lost = [name for name, place in zip(names, found, strict=True) if place is None]
        if lost:
            raise UserError(
                f"{len(lost)} of {len(names)} samples do not say where they lie, {shown(lost[0])} first: blocks in"
                " space need georeferenced files, or a table with their positions; split them by another rule"
            )
        given = [place for place in found if place is not None]
        corners = np.array([[place.x, place.y] for place in given], np.float64).swapaxes(1, 2).reshape(-1, 4, 2)
        self._check_finite(names, corners)
        self.degrees = np.empty((len(given), 2))
        """Longitude and latitude of the centres."""
        globe = np.empty((len(given), 4, 3))
        by_crs: dict[str, list[int]] = {}
        for number, place in enumerate(given):
            by_crs.setdefault(place.crs, []).append(number)
        for crs, rows in by_crs.items():
            globe[rows] = _on_earth(_degrees(corners[rows].reshape(-1, 2), crs, names[rows[0]])).reshape(-1, 4, 3)
            self.degrees[rows] = _degrees(corners[rows].mean(1), crs, names[rows[0]])
        unit = _metres_of(next(iter(by_crs))) if len(by_crs) == 1 else None
        self.tiles = Tiles(globe, flat=False)
        wide = int(self.tiles.outer.argmax()) if given else 0
        if given and self.tiles.outer[wide] > LARGEST:
            raise UserError(
                f"sample {shown(names[wide])} is {2 * self.tiles.outer[wide] / 1000:.0f} km across by its georeference"
                f" ({given[wide].crs}): correct it"
            )
        if unit is not None and _true(corners, next(iter(by_crs)), unit, names[0]):
            self.tiles = Tiles(np.concatenate([corners * unit, np.zeros((len(given), 4, 1))], -1), flat=True)

    @staticmethod
    def _check_finite(names: Sequence[str], corners: Floats) -> None:
        bad = np.flatnonzero(~np.isfinite(corners).all((1, 2)))
        if len(bad):
            raise UserError(f"{len(bad)} samples lie nowhere (NaN), {shown(names[bad[0]])} first: correct them")

    def blocks(self, side: float) -> NDArray[np.int64]:
        """The square of a grid `[n, 2]` that each centre is in: of the map, or of rows and columns around the earth."""
        if self.tiles.flat:
            return np.floor(self.tiles.centres[:, :2] / side).astype(np.int64)
        step = math.degrees(side / RADIUS)
        row = np.floor((self.degrees[:, 1] + 90) / step)
        middle = np.radians(np.minimum(row * step + step / 2 - 90, 90))
        around = np.maximum(1, np.round(np.cos(middle) * 2 * np.pi * RADIUS / side))  # so many squares in that row
        column = np.floor(((self.degrees[:, 0] + 180) % 360) / 360 * around)
        return np.stack([column, row], 1).astype(np.int64)


def _degrees(points: Floats, crs: str, name: str) -> Floats:
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    try:
        x, y = transform(crs, "EPSG:4326", points[:, 0], points[:, 1])
    except (CRSError, ValueError) as error:
        raise UserError(f"sample {shown(name)} has coordinates that are not known ({crs[:80]}): {error}") from error
    found = np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)], 1)
    if not np.isfinite(found).all() or np.abs(found[:, 1]).max(initial=0) > 90:
        raise UserError(f"samples such as {shown(name)} lie outside of their map ({crs[:80]}): correct their positions")
    return found


def _on_earth(degrees: Floats) -> Floats:
    """Metres from the earth's centre of points on the ellipsoid."""
    longitude, latitude = np.radians(degrees).T
    eccentricity = FLAT * (2 - FLAT)
    across = A / np.sqrt(1 - eccentricity * np.sin(latitude) ** 2)
    flat = across * np.cos(latitude)
    up = across * (1 - eccentricity) * np.sin(latitude)
    return np.stack([flat * np.cos(longitude), flat * np.sin(longitude), up], 1)


def _metres_of(crs: str) -> float | None:
    """How many metres a map's unit is; None of degrees."""
    from rasterio.crs import CRS

    known = CRS.from_user_input(crs)
    return float(known.linear_units_factor[1]) if known.is_projected else None


def _true(corners: Floats, crs: str, unit: float, name: str) -> bool:
    """Whether a kilometre of the map is one on the ground, at all samples and both ways."""
    centres, reach = corners.mean(1), 500 / unit
    for step in np.array([[reach, 0.0], [0.0, reach]]):
        try:
            ends: list[Any] = [_on_earth(_degrees(centres + sign * step, crs, name)) for sign in (-1, 1)]
        except UserError:  # at the edge of the map
            return False
        if np.abs(np.linalg.norm(ends[1] - ends[0], axis=1) / 1000 - 1).max() > TRUE:
            return False
    return True
