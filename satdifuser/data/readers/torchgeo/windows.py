"""Large images as samples of one size: windows of a file, and of a scene that torchgeo knows by coordinates alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from satdifuser.errors import UserError


class Window(NamedTuple):
    """A sample: which of the class's it is part of, and which rows and columns; all of it where `side` is None."""

    of: int
    row: int = 0
    column: int = 0
    side: int | None = None

    @property
    def rows(self) -> slice:
        return slice(None) if self.side is None else slice(self.row * self.side, (self.row + 1) * self.side)

    @property
    def columns(self) -> slice:
        return slice(None) if self.side is None else slice(self.column * self.side, (self.column + 1) * self.side)


def windows(index: int, height: int, width: int, side: int) -> Iterator[tuple[str, Window]]:
    """Squares side by side, from above left; the last ones of a row or column may be smaller.

    >>> [name for name, _ in windows(0, 100, 60, 50)]
    ['r0c0', 'r0c1', 'r1c0', 'r1c1']
    """
    for row in range(math.ceil(height / side)):
        for column in range(math.ceil(width / side)):
            yield f"r{row}c{column}", Window(index, row, column, side)


def size_of(path: Path | None) -> tuple[int, int]:
    """Height and width of an image, by its header."""
    if path is None or not path.is_file():
        raise UserError("data.tile=true needs a class that lists its images' files: set data.ids, or data.tile=false")
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pictures lie nowhere
        with rasterio.open(path) as file:
            return file.height, file.width


class Scenes:
    """A class of torchgeo that is asked by coordinates, as one that has a sample for each of its files."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, table = dataset, dataset.index
        columns = [name for name in table.columns if str(name).startswith("filepath")]
        if not columns:  # of an intersection, in torchgeo 0.10: the scenes are those of its images
            table, columns = dataset.datasets[0].index, ["filepath"]
        self.files = [str(path) for path in table[columns[0]]]
        self.places = [(tuple(shape.bounds), times) for shape, times in zip(table.geometry, table.index, strict=True)]

    def __len__(self) -> int:
        return len(self.files)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["dataset"], name)

    def size(self, index: int) -> tuple[int, int]:
        left, low, right, top = self.places[index][0]
        across, down = self._pixel
        return max(1, round((top - low) / down)), max(1, round((right - left) / across))

    @property
    def _pixel(self) -> tuple[float, float]:
        found = self.dataset.res
        across, down = found if isinstance(found, tuple) else (found, found)
        return float(across), float(down)

    def read(self, window: Window) -> dict[str, Any]:
        """What lies in a window, which ends where the scene does."""
        (left, low, right, top), times = self.places[window.of]
        height, width = self.size(window.of)
        across, down = self._pixel
        side = window.side or max(height, width)
        first, above = window.column * side, window.row * side
        x = slice(left + first * across, min(left + (first + side) * across, right))
        y = slice(max(top - (above + side) * down, low), top - above * down)
        found: dict[str, Any] = self.dataset[x, y, slice(times.left, times.right)]
        return found

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read(Window(index))


def by_coordinates(dataset: Any) -> bool:
    """Whether a class is asked by place and time, and not by number."""
    return hasattr(dataset, "index") and hasattr(dataset, "bounds") and hasattr(dataset, "res")
