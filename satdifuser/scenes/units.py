"""The parts in which an output is computed, kept and shared out: rectangles in strips, from above to below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """Rows and columns of the output's grid. Units of one `strip` that follow each other share windows."""

    number: int
    strip: int
    rows: slice
    columns: slice


def units_of(height: int, width: int, *, rows: int, columns: int) -> list[Unit]:
    """All of them: strips of `columns` from left to right, in each the units of `rows` from above to below.

    >>> [(u.strip, u.rows.start, u.columns.start) for u in units_of(5, 7, rows=4, columns=4)]
    [(0, 0, 0), (0, 4, 0), (1, 0, 4), (1, 4, 4)]
    """
    found: list[Unit] = []
    for strip, left in enumerate(range(0, width, columns)):
        for top in range(0, height, rows):
            across, down = slice(left, min(left + columns, width)), slice(top, min(top + rows, height))
            found.append(Unit(len(found), strip, down, across))
    return found


def share(units: Sequence[Unit], part: int, parts: int) -> list[Unit]:
    """One process's units: a run of neighbours, so that few windows are computed twice.

    >>> [len(share(units_of(10, 1, rows=1, columns=1), part, 3)) for part in range(3)]
    [3, 3, 4]
    """
    return list(units[part * len(units) // parts : (part + 1) * len(units) // parts])
