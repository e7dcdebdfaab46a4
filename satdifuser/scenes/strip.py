"""A strip of a scene on its way through windows: each row of the scene is read once, and few are held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from satdifuser.scenes.scene import Scene
from satdifuser.scenes.units import Unit
from satdifuser.scenes.windows import Windows, folded

Array = np.ndarray[Any, Any]
BLOCK = 256  # rows that are read at once: files keep squares of 256 or 512, or lines
BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Batch:
    """Windows of one row of the lattice: `images` of the columns `numbers`. `passed` hold no data, beside these."""

    row: int
    numbers: tuple[int, ...]
    images: Array
    passed: int = 0


@dataclass(frozen=True)
class Whole:
    """All windows of a unit have gone by: where its pixels count."""

    unit: Unit
    valid: Array


def runs_of(units: Sequence[Unit]) -> list[list[Unit]]:
    """Units that follow each other in a strip."""
    found: list[list[Unit]] = []
    for unit in units:
        last = found[-1][-1] if found else None
        if last is not None and (last.strip, last.number + 1) == (unit.strip, unit.number):
            found[-1].append(unit)
        else:
            found.append([unit])
    return found


def batches(scene: Scene, windows: Windows, units: Sequence[Unit], batch_size: int) -> Iterator[Batch | Whole]:
    """All windows that these units need, row by row; no batch has windows of two rows.

    So what is in a batch does not depend on which units are asked for, nor do the numbers that come of it.
    """
    for run in runs_of(units):
        strip = _Strip(scene, windows, run)
        todo = windows.over(run[0].rows.start, run[-1].rows.stop).start
        for unit in run:
            rows = windows.over(unit.rows.start, unit.rows.stop)
            for row in range(todo, rows.stop):
                yield from strip.row(row, batch_size)
            todo = max(todo, rows.stop)
            yield Whole(unit, strip.valid(unit))


class _Strip:
    def __init__(self, scene: Scene, windows: Windows, run: Sequence[Unit]) -> None:
        self.scene, self.windows = scene, windows
        self.across = windows.over(run[0].columns.start, run[0].columns.stop)
        width, self.height, step = scene.place.width, scene.place.height, windows.step
        first, last = windows.start(self.across.start), windows.start(self.across.stop - 1) + windows.size
        reached = folded(first, last, width)
        self.columns = slice(int(reached.min()), int(reached.max()) + 1)
        self.reached, self.first = reached - self.columns.start, first
        self.cells, self.floor = run[0].columns, run[0].rows.start
        own = slice(self.cells.start * step - self.columns.start, min(self.cells.stop * step, width))
        self.own = slice(own.start, own.stop - self.columns.start)
        self.edges = np.arange(0, self.own.stop - self.own.start, step)
        self.bottom, self.counts = run[-1].rows.stop, dict[int, Array]()
        self.rows = slice(0, 0)
        self.image = np.zeros((len(scene.sensor), 0, self.columns.stop - self.columns.start), np.float32)
        self.blank = np.zeros((0, self.columns.stop - self.columns.start), bool)

    def row(self, row: int, batch_size: int) -> Iterator[Batch]:
        """The windows of a row of the lattice, in batches of about one size; those without any data are left out."""
        windows, size = self.windows, self.windows.size
        start = windows.start(row)
        lines = folded(start, start + size, self.height)
        self._need(int(lines.min()), int(lines.max()) + 1)
        image = self.image[:, lines - self.rows.start]
        blank = self.blank[self._core(start, self.height) - self.rows.start].all(0)
        full = np.array([not blank[self._inside(number)].all() for number in self.across], bool)
        numbers = np.array(self.across)[full]
        most = max(1, min(batch_size, BATCH_BYTES // (len(image) * size * size * 4)))
        parts = np.array_split(numbers, -(-len(numbers) // most)) if len(numbers) else [numbers]
        for place, part in enumerate(parts):
            images = np.empty((len(part), len(image), size, size), np.float32)
            for to, number in zip(images, part, strict=True):
                left = windows.start(int(number)) - self.first
                at = self.reached[left : left + size]
                to[:] = image[:, :, at[0] : at[-1] + 1] if at[-1] - at[0] == size - 1 else image[:, :, at]
            yield Batch(row, tuple(map(int, part)), images, 0 if place else int((~full).sum()))

    def _core(self, start: int, length: int) -> Array:
        """The lines (or columns) of the scene that a window has a say in."""
        low = start + self.windows.before
        return np.arange(max(low, 0), min(low + self.windows.core, length))

    def _inside(self, number: int) -> Array:
        return self._core(self.windows.start(number), self.scene.place.width) - self.columns.start

    def valid(self, unit: Unit) -> Array:
        """Where a unit's pixels count: those with any data."""
        self.floor = unit.rows.stop
        return np.stack([self.counts.pop(row) for row in range(unit.rows.start, unit.rows.stop)])

    def _need(self, low: int, high: int) -> None:
        """Have these rows of the scene, and let those before them go."""
        if low < self.rows.start or low >= self.rows.stop:  # the last windows may look back, at what is mirrored
            self.rows = slice(low, low)
            self.image, self.blank = self.image[:, :0], self.blank[:0]
        if high <= self.rows.stop:
            return
        stop = min(-(-high // BLOCK) * BLOCK, self.height)
        found = self.scene.read(slice(self.rows.stop, stop), self.columns)
        gone = low - self.rows.start
        self._count(~found.blank, self.rows.stop)
        self.image = np.concatenate([self.image[:, gone:], found.image], 1)
        self.blank = np.concatenate([self.blank[gone:], found.blank])
        self.rows = slice(low, stop)

    def _count(self, there: Array, top: int) -> None:
        cells = np.logical_or.reduceat(there[:, self.own], self.edges, axis=1)
        for number, line in enumerate(cells, top):
            row = number // self.windows.step
            if self.floor <= row < self.bottom:
                self.counts[row] = self.counts[row] | line if row in self.counts else line
