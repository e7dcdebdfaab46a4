"""Bands on grids of their own, brought to the scene's: the same ground gives the same numbers in whatever part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from satdifuser.data.files.opened import Place
from satdifuser.errors import UserError

Array = np.ndarray[Any, Any]
TURNED = 0.01  # px across the whole, by which two grids may be turned to each other or off
SAME = 1e-4  # of a pixel


@dataclass(frozen=True)
class Axis:
    """Where pixels of the scene lie in a band's own: at `first + scale * (number + 0.5)`, of `length`."""

    first: float
    scale: float
    length: int

    def taps(self, start: int, stop: int, nearest: bool) -> tuple[Array, Array, Array]:
        """For each pixel the band's two, and how much the second counts."""
        at = self.first + self.scale * (np.arange(start, stop, dtype=np.float64) + 0.5)
        if nearest:
            one = np.clip(np.floor(at + SAME), 0, self.length - 1).astype(np.int64)
            return one, one, np.zeros(len(one), np.float32)
        low = np.floor(at - 0.5)
        share = (at - 0.5 - low).astype(np.float32)
        share[share < SAME] = 0
        low[share > 1 - SAME] += 1
        share[share > 1 - SAME] = 0
        one, two = (np.clip(low + step, 0, self.length - 1).astype(np.int64) for step in (0, 1))
        return one, two, share


@dataclass(frozen=True)
class Onto:
    """From a band's grid to the scene's; None: they are one."""

    rows: Axis
    columns: Axis
    nearest: bool

    def window(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """What of the band is read for a part of the scene: what lies below it and one more on each side."""
        found = []
        for axis, part in ((self.rows, rows), (self.columns, columns)):
            one, two, _ = axis.taps(part.start, part.stop, self.nearest)
            found.append(slice(int(min(one.min(), two.min())), int(max(one.max(), two.max())) + 1))
        return found[0], found[1]

    def resampled(self, values: Array, blank: Array, rows: slice, columns: slice) -> tuple[Array, Array]:
        """`[h, w]` of the band's window as the scene's; what is made from a pixel without data has none."""
        window = self.window(rows, columns)
        top, below, down = self.rows.taps(rows.start, rows.stop, self.nearest)
        left, right, across = self.columns.taps(columns.start, columns.stop, self.nearest)
        top, below, left, right = (
            top - window[0].start,
            below - window[0].start,
            left - window[1].start,
            right - window[1].start,
        )
        values = np.where(blank, np.float32(0), values)
        upper, lower = values[top], values[below]
        mixed = upper * (1 - down)[:, None] + lower * down[:, None]
        found = mixed[:, left] * (1 - across) + mixed[:, right] * across
        lost = blank[top] | (blank[below] & (down > 0)[:, None])
        gone = lost[:, left] | (lost[:, right] & (across > 0))
        return found.astype(np.float32), gone


def onto(
    place: Place | None, size: tuple[int, int], target: Place, resampling: Literal["bilinear", "nearest"], where: str
) -> Onto | None:
    """How a band of `size` at `place` is brought to the scene's grid; without a place it covers the same ground."""
    nearest = resampling == "nearest"
    if place is None:
        if size == (target.height, target.width):
            return None
        rows = Axis(0.0, size[0] / target.height, size[0])
        return Onto(rows, Axis(0.0, size[1] / target.width, size[1]), nearest)
    a, b, c, d, e, f = place.transform
    p, q, r, s, t, u = target.transform
    area = a * e - b * d
    if not area:
        raise UserError(f"{where} has a transform that gives pixels no size: georeference it anew")
    # the inverse of the band's transform after the scene's
    across, skew, first = (e * p - b * s) / area, (e * q - b * t) / area, (e * (r - c) - b * (u - f)) / area
    slant, down, start = (a * s - d * p) / area, (a * t - d * q) / area, (a * (u - f) - d * (r - c)) / area
    if max(abs(skew) * target.height, abs(slant) * target.width) > TURNED:
        raise UserError(f"{where} is turned to the scene's other bands: bring them to one grid (gdalwarp)")
    same = (
        size == (target.height, target.width)
        and abs(across - 1) * size[1] < TURNED
        and abs(down - 1) * size[0] < TURNED
    )
    if same and max(abs(first), abs(start)) < TURNED:
        return None
    return Onto(Axis(start, down, size[0]), Axis(first, across, size[1]), nearest)
