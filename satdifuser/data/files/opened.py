"""A file of an image, opened: what its header says, and any part of it as numbers `[bands, h, w]`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from satdifuser.data.files.fitting import Fitting

Array = np.ndarray[Any, Any]
Alpha = Literal["mask", "data"]
Axes = Literal["bhw", "hwb"]
Own = tuple[float | None, float]
"""A band's scale and offset as its file says them; None and 0 where it says none."""


@dataclass(frozen=True)
class Ask:
    """How a file is meant, where it does not say so itself.

    `use`: an image of light; or a mask, as its numbers or as its colours (red, green and blue).
    `bands`: how many are expected, if that is known. `item`: which of the samples along the first axis of an array.
    """

    use: Literal["light", "numbers", "colours"] = "light"
    bands: int | None = None
    alpha: Alpha = "mask"
    axes: Axes | None = None
    item: int | None = None


@dataclass(frozen=True)
class Place:
    """Where an image lies: GDAL's affine transform as six numbers (a, b, c, d, e, f), and its reference system."""

    transform: tuple[float, ...]
    crs: Any
    height: int
    width: int

    def bounds(self, rows: slice | None = None, columns: slice | None = None) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of these pixels (all, unless some are given)."""
        a, b, c, d, e, f = self.transform
        ends = [(0, self.height) if rows is None else (rows.start, rows.stop)]
        ends += [(0, self.width) if columns is None else (columns.start, columns.stop)]
        x = [a * column + b * row + c for row in ends[0] for column in ends[1]]
        y = [d * column + e * row + f for row in ends[0] for column in ends[1]]
        return min(x), min(y), max(x), max(y)

    def apart(self, other: Place) -> str | None:
        """Why two images do not lie on each other (to half a pixel of the coarser one); None if they do."""
        if self.crs is not None and other.crs is not None and not _same(self.crs, other.crs):
            return f"its reference system is {_crs(self.crs)}, not {_crs(other.crs)}"
        mine, others = self.bounds(), other.bounds()
        reach = [
            max(abs(mine[i + 2] - mine[i]) / n, abs(others[i + 2] - others[i]) / m) / 2
            for i, n, m in (
                (0, self.width, other.width),
                (1, self.height, other.height),
            )
        ]
        if all(abs(one - two) <= reach[side % 2] for side, (one, two) in enumerate(zip(mine, others, strict=True))):
            return None
        return f"it covers {_box(mine)}, not {_box(others)} (left, bottom, right, top)"


@dataclass(frozen=True)
class Numbers:
    """Numbers as they are stored, where they are no data, and the scale and offset of each band if the file has one."""

    numbers: Array
    blank: Array | None = None
    own: tuple[Own, ...] | None = None


class Opened(ABC):
    """What all kinds of files answer."""

    count: int
    height: int
    width: int
    place: Place | None = None

    @abstractmethod
    def read(self, bands: Sequence[int], rows: slice, columns: slice) -> Numbers:
        """Some of the bands (from 0), some of the pixels."""

    def decoded(self, bands: Sequence[int], rows: slice, columns: slice) -> int:
        """How many numbers that decodes at once."""
        return len(bands) * (rows.stop - rows.start) * (columns.stop - columns.start)

    def whole(self) -> tuple[slice, slice]:
        return slice(0, self.height), slice(0, self.width)

    def part(self, bands: Sequence[int], fitting: Fitting, rows: slice, columns: slice) -> Numbers:
        """As `read`, refused where it would decode too much at once."""
        fitting.check_room(self.decoded(bands, rows, columns), self.height, self.width)
        return self.read(bands, rows, columns)


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (one.to_epsg() is not None and one.to_epsg() == other.to_epsg())


def _crs(crs: Any) -> str:
    return str(crs.to_string())[:60]


def _box(bounds: Sequence[float]) -> str:
    return ", ".join(f"{number:.10g}" for number in bounds)
