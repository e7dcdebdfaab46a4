"""A map of classes: which there are and what they are called, and its numbers part by part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Place
from satdifuser.errors import UserError

Array = np.ndarray[Any, Any]
ROWS, COLUMNS = 512, 2048
MOST = 65536


@dataclass(frozen=True)
class Part:
    """Some rows and columns of a map: classes, and where there are any."""

    rows: slice
    columns: slice
    numbers: Array
    valid: Array


class ClassMap:
    """A raster of whole numbers, each a class."""

    def __init__(self, path: str, setting: str) -> None:
        import rasterio

        self.where = f"{setting} {shown(path)}"
        try:
            self._file = rasterio.open(path)
        except (rasterio.errors.RasterioIOError, ValueError) as error:
            reason = "it is not there" if "://" not in path and not Path(path).exists() else "it is no raster"
            raise UserError(f"{self.where} cannot be read: {reason}; give a GeoTIFF of classes") from error
        file = self._file
        if not np.issubdtype(np.dtype(file.dtypes[0]), np.integer):
            self.close()
            raise UserError(
                f"{self.where} has numbers of {file.dtypes[0]}, not classes: give a map of whole numbers, as"
                " satdifuser predict output=classes writes"
            )
        if file.count > 2 or (file.count == 2 and file.colorinterp[1].name != "alpha"):
            self.close()
            raise UserError(f"{self.where} has {file.count} bands: give a map of one band, whose numbers are classes")
        self.place = Place(tuple(file.transform)[:6], file.crs, file.height, file.width)
        self.tags = {**file.tags(1), **file.tags()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def names(self) -> dict[int, str]:
        """What the file calls its classes; empty where it says nothing."""
        said = self.tags.get("SATDIFUSER_CLASSES")
        if not said:
            return {}
        try:
            found = json.loads(said)
        except ValueError:
            found = said.split(",")
        if isinstance(found, dict):
            return {int(number): str(name) for number, name in found.items()}
        return {number: str(name).strip() for number, name in enumerate(found)}

    def part(self, rows: slice, columns: slice) -> Part:
        from rasterio.windows import Window

        window = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        numbers = self._file.read(1, window=window)
        valid = self._file.read_masks(1, window=window) > 0
        if numbers.size and valid.any():
            seen = numbers[valid]
            if seen.min() < 0 or int(seen.max()) >= MOST:
                raise UserError(
                    f"{self.where} has the number {int(seen.max() if seen.min() >= 0 else seen.min())}: classes are"
                    f" 0 to {MOST - 1}; set its no-data value if that is none"
                )
        return Part(rows, columns, np.where(valid, numbers, 0).astype(np.int64), valid)

    def parts(self) -> Iterator[Part]:
        """All of it, in rows of parts."""
        for top in range(0, self.place.height, ROWS):
            for left in range(0, self.place.width, COLUMNS):
                yield self.part(
                    slice(top, min(top + ROWS, self.place.height)), slice(left, min(left + COLUMNS, self.place.width))
                )

    def around(self, low: Sequence[float], high: Sequence[float]) -> tuple[slice, slice] | None:
        """The rows and columns that a box (x, y in pixels) touches; None of one that lies outside."""
        ends = [
            (max(int(np.floor(start)), 0), min(int(np.floor(stop)) + 1, most))
            for start, stop, most in zip(low, high, (self.place.width, self.place.height), strict=True)
        ]
        if any(stop <= start for start, stop in ends):
            return None
        return slice(*ends[1]), slice(*ends[0])


def check_same_ground(one: ClassMap, other: ClassMap) -> None:
    """Two maps must have the same pixels."""
    if (one.place.height, one.place.width) != (other.place.height, other.place.width):
        sizes = [f"{place.height} x {place.width}" for place in (other.place, one.place)]
        raise UserError(
            f"{other.where} has {sizes[0]} pixels, but {one.where} has {sizes[1]}: bring it onto the map's grid"
            " (gdalwarp, or QGIS: Raster > Projections > Warp), nearest neighbour"
        )
    why = one.place.apart(other.place, closely=True)
    if why:
        raise UserError(f"{other.where} does not lie on {one.where}, of which {why}: bring it onto the map's grid")
