"""A file of an image, opened: what its header says, and any part of it as numbers `[bands, h, w]`."""

from __future__ import annotations

import math
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
CLOSE = 0.45
"""How much of a pixel a mask may be off."""


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

    def on(self, height: int, width: int) -> Place:
        """The same ground in another number of pixels."""
        a, b, c, d, e, f = self.transform
        across, down = self.width / width, self.height / height
        return Place((a * across, b * down, c, d * across, e * down, f), self.crs, height, width)

    def apart(self, other: Place, closely: bool = False) -> str | None:
        """Why two images do not lie on each other, corner on corner; None if they do.

        They may be off by half a pixel of the coarser one; `closely`, by less than half a pixel of the finer one, since
        half a pixel is what files are off that mix up corners and centres of pixels.
        """
        if self.crs is not None and other.crs is not None and not _same(self.crs, other.crs):
            return f"its reference system is {_crs(self.crs)}, not {_crs(other.crs)}"
        (a, b, _, d, e, _), (p, q, _, s, t, _) = self.transform, other.transform
        if a * p + d * s <= 0 or b * q + e * t <= 0:
            return "its rows or columns run the other way (it is flipped or turned)"
        between = [(x - u, y - v) for (x, y), (u, v) in zip(self._corners(), other._corners(), strict=True)]
        off = [max(place._pixels(x, y) for x, y in between) for place in (self, other)]
        if max(off) < CLOSE if closely else min(off) <= 0.5:
            return None
        return f"it covers {_box(self.bounds())}, not {_box(other.bounds())} (left, bottom, right, top)"

    def _corners(self) -> list[tuple[float, float]]:
        """Where the first row begins and ends, and where the last row begins."""
        a, b, c, d, e, f = self.transform
        ends = (0, 0), (self.width, 0), (0, self.height)
        return [(a * column + b * row + c, d * column + e * row + f) for column, row in ends]

    def _pixels(self, x: float, y: float) -> float:
        """A way on the ground in pixels of this image: along its rows or its columns, the longer."""
        a, b, _, d, e, _ = self.transform
        area = a * e - b * d
        return max(abs(e * x - b * y), abs(a * y - d * x)) / abs(area) if area else math.inf


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
    names: Sequence[tuple[str, ...]] = ()
    """What each band is called in the words of the file, none where it says nothing; of most kinds no file does."""

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
