"""Where windows lie over a scene, what of each counts and how much, and what lies beyond the scene's edge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from satdifuser.data.files.opened import Place
from satdifuser.errors import UserError

Array = np.ndarray[Any, Any]
EIGHTH = 8  # of a window's side: its margin, and its overlap


@dataclass(frozen=True)
class Windows:
    """Squares of `size` px of a scene, all of one lattice that begins in the scene's first corner.

    The `margin` px at a window's edge count for nothing. Over the next `overlap` px two neighbours are blended: their
    weights are a squared sine and add up to 1. `step` px of the scene are one pixel of the output. `single`: a window
    has one answer, for the one pixel of the output in its middle.
    """

    size: int
    margin: int = 0
    overlap: int = 0
    step: int = 1
    single: bool = False

    def __post_init__(self) -> None:
        if self.single:
            return
        for name, value in (("margin", self.margin), ("overlap", self.overlap)):
            if value % self.step:
                raise UserError(
                    f"window.{name} is {value}, and one pixel of the output is {self.step} px of the scene: give a"
                    " multiple of that"
                )
        if self.stride < self.step or self.overlap > self.stride:
            raise UserError(
                f"a window of {self.size} px has no middle left of a margin of {self.margin} px on each side and an"
                f" overlap of {self.overlap}: make window.margin or window.overlap smaller, or window.size larger"
            )

    @property
    def core(self) -> int:
        """Px that count along a side."""
        return self.step if self.single else self.size - 2 * self.margin

    @property
    def stride(self) -> int:
        """Px from one window to the next."""
        return self.core - self.overlap

    @property
    def before(self) -> int:
        """Px of a window before those that count."""
        return (self.size - self.core) // 2

    @property
    def cells(self) -> int:
        """Pixels of the output that a window has a say in, along a side."""
        return self.core // self.step

    @property
    def apart(self) -> int:
        """Pixels of the output from one window to the next."""
        return self.stride // self.step

    def to_dict(self) -> dict[str, int]:
        """What is said of them in a file that is made."""
        return {"size": self.size, "margin": self.before, "overlap": self.overlap, "step": self.step}

    def place(self, scene: Place) -> Place:
        """The output's grid: the scene's, each `step` px one; the last ones may reach over the scene's edge."""
        a, b, c, d, e, f = scene.transform
        step = self.step
        height, width = -(-scene.height // step), -(-scene.width // step)
        return replace(scene, transform=(a * step, b * step, c, d * step, e * step, f), height=height, width=width)

    def over(self, start: int, stop: int) -> range:
        """Numbers of the windows that have a say in these rows (or columns) of the output."""
        first = max(0, -(-(start - self.cells + 1) // self.apart))
        return range(first, (stop - 1) // self.apart + 1)

    def start(self, number: int) -> int:
        """The first px of a window in the scene; of the first it lies before the scene."""
        return number * self.stride - self.before

    def weights(self) -> Array:
        """Of a window's pixels of the output along one side, float64: their outer product is that of its area."""
        found, ramp = np.ones(self.cells), self.overlap // self.step
        rise = np.sin((np.arange(ramp) + 0.5) / max(ramp, 1) * (np.pi / 2)) ** 2
        found[:ramp] *= rise
        found[self.cells - ramp :] *= rise[::-1]
        return found

    def sums(self, start: int, stop: int) -> Array:
        """What the weights of all windows add up to at these rows (or columns) of the output, float64."""
        own, found = self.weights(), np.zeros(stop - start)
        for number in self.over(start, stop):
            left = number * self.apart - start
            low, high = max(left, 0), min(left + self.cells, stop - start)
            found[low:high] += own[low - left : high - left]
        return found


def folded(start: int, stop: int, length: int) -> Array:
    """Indices of a line whose ends are mirrors: right for any length, and however far beyond.

    >>> folded(-3, 6, 3).tolist(), folded(-1, 3, 1).tolist()
    ([1, 2, 1, 0, 1, 2, 1, 0, 1], [0, 0, 0, 0])
    """
    if length == 1:
        return np.zeros(stop - start, np.intp)
    around = np.arange(start, stop) % (2 * length - 2)
    return np.minimum(around, 2 * length - 2 - around)


def suited(
    size: int,
    step: int,
    grain: int,
    *,
    margin: int | None = None,
    overlap: int | None = None,
) -> Windows:
    """Windows with these margins, or usual ones: an eighth of the side, in multiples of `grain` where that can be.

    A network answers the same for the same ground only where it is moved by multiples of its coarsest stride (`grain`).
    """
    for unit in dict.fromkeys((max(grain, step), step)):
        usual = max(unit, size // EIGHTH // unit * unit)
        found = usual if margin is None else margin, usual if overlap is None else overlap
        if size - 2 * sum(found) >= unit and size % unit == 0:
            return Windows(size, *found, step)
    return Windows(size, margin or 0, overlap or 0, step)  # too small to give anything away
