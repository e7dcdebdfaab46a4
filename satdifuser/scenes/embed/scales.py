"""int8 numbers of an embedding: a scale for each channel, from a sample of the scene that every process draws alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from satdifuser.scenes.out.base import Array, Output
from satdifuser.scenes.out.forms import LEVELS
from satdifuser.scenes.units import Unit

SAMPLE = 64  # windows
ROOM = 1.05  # above the sample's largest number: the rest of a scene reaches a little beyond


def scales_of(values: Array) -> tuple[float, ...]:
    """Of numbers `[K, n]`: what one step of each channel is worth, in seven digits.

    >>> scales_of(np.array([[0.0, -2.54, 1.0], [0.0, 0.0, 0.0]]))
    (0.021, 0.007874016)
    """
    most = np.abs(values.astype(np.float64)).max(1, initial=0.0) * ROOM / LEVELS
    found = (float(f"{one if one > 0 else 1 / LEVELS:.7g}") for one in most)
    return tuple(1.000001 if one == 1.0 else one for one in found)  # 1 would be a band without a scale, beside others


def evenly_over(rows: int, columns: int, wanted: int = SAMPLE) -> list[tuple[int, int]]:
    """Places of a grid, spread evenly: all of them where there are no more.

    >>> evenly_over(2, 2), len(evenly_over(100, 7))
    ([(0, 0), (0, 1), (1, 0), (1, 1)], 64)
    """
    total = rows * columns
    if total <= wanted:
        return [divmod(number, columns) for number in range(total)]
    golden = (5**0.5 - 1) / 2  # along the columns, so that no pattern of the rows is met
    found: dict[tuple[int, int], None] = {}
    number = 0
    while len(found) < wanted:
        row = (number % wanted) * rows // wanted
        found[row, int(columns * ((number * golden) % 1.0))] = None
        number += 1
    return sorted(found)


class Counted(Output):
    """An output of int8 numbers that counts how many of those it is given lie beyond the ends of their scale."""

    def __init__(self, inner: Output, scales: Sequence[float]) -> None:
        self.inner, self.most = inner, np.asarray(scales, np.float64)[:, None] * (LEVELS + 0.5)
        self.clipped, self.count = 0, 0

    def begin(self, overwrite: bool) -> None:
        self.inner.begin(overwrite)

    def todo(self, units: Sequence[Unit]) -> list[Unit]:
        return self.inner.todo(units)

    def write(self, unit: Unit, values: Array, valid: Array) -> None:
        there: Any = values[:, valid]
        self.clipped += int((np.abs(there) > self.most).sum())
        self.count += there.size
        self.inner.write(unit, values, valid)

    def finish(self) -> list[str]:
        return self.inner.finish()
