"""What windows say, added up by weight: the rows of a unit, and those that its windows have begun of the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from satdifuser.errors import UserError
from satdifuser.scenes.strip import Batch
from satdifuser.scenes.units import Unit
from satdifuser.scenes.windows import Windows

Array = np.ndarray[Any, Any]


class Blended:
    """Sums of weighted answers `[channels, rows, width]` in float32; they are added in the order of the windows."""

    def __init__(self, windows: Windows, channels: int) -> None:
        self.windows, self.channels = windows, channels
        side = windows.weights()
        self.weights = np.outer(side, side).astype(np.float32)
        self.sums = np.zeros((channels, 0, 0), np.float32)
        self.unit: Unit | None = None

    def begin(self, unit: Unit, rows: int) -> None:
        """Of the first of neighbouring units, of which the highest has so many rows."""
        width = unit.columns.stop - unit.columns.start
        shape = (self.channels, rows + self.windows.cells, width)
        if self.sums.shape != shape:
            self.sums = np.zeros(shape, np.float32)
        else:
            self.sums[:] = 0
        self.unit = unit

    def weighted(self, answers: Tensor, ids: int) -> Tensor:
        """What of a batch's answers counts, times its weights, on the device that made them."""
        windows, cells = self.windows, self.windows.cells
        given = tuple(answers.shape)
        if given == (ids, self.channels, windows.size // windows.step, windows.size // windows.step) and given[-1] > 1:
            first = windows.before // windows.step
            answers = answers[:, :, first : first + cells, first : first + cells]
        elif given != (ids, self.channels, 1, 1):
            raise UserError(f"answers for {ids} windows of {windows.size} px have the shape {list(given)}")
        return answers.float() * torch.from_numpy(self.weights).to(answers.device, non_blocking=True)

    def add(self, batch: Batch, weighted: Tensor) -> None:
        assert self.unit is not None
        numbers, cells, apart = weighted.cpu().numpy(), self.windows.cells, self.windows.apart
        top = batch.row * apart - self.unit.rows.start
        up = max(0, -top)
        width = self.sums.shape[2]
        for number, found in zip(batch.numbers, numbers, strict=True):
            left = number * apart - self.unit.columns.start
            low, high = max(left, 0), min(left + cells, width)
            self.sums[:, top + up : top + cells, low:high] += found[:, up:, low - left : high - left]

    def done(self, unit: Unit) -> Array:
        """A unit's mean, and make room for the next one's rows."""
        rows, across = unit.rows, unit.columns
        height = rows.stop - rows.start
        down, over = self.windows.sums(rows.start, rows.stop), self.windows.sums(across.start, across.stop)
        found = self.sums[:, :height] / np.outer(down, over).astype(np.float32)
        cells = self.windows.cells
        rest = self.sums[:, height : height + cells].copy()
        self.sums[:, : rest.shape[1]] = rest
        self.sums[:, rest.shape[1] :] = 0
        self.unit = Unit(unit.number + 1, unit.strip, slice(rows.stop, rows.stop), across)
        return np.asarray(found, np.float32)
