"""Temporal heads that learn nothing: the mean and the maximum over dates, and the difference between two."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from satdifuser.bank import BankSpec, Tap
from satdifuser.errors import UserError
from satdifuser.kinds import checked
from satdifuser.temporal.base import TemporalHead, exact, of_each


class TemporalMean(TemporalHead):
    """The mean over the dates that are there."""

    @checked("temporal")
    def __init__(self, spec: BankSpec) -> None:
        super().__init__(spec, "mean")

    def across(self, tap: Tap, maps: Tensor, here: Tensor, dates: Tensor | None) -> Tensor:
        total = torch.zeros_like(exact(maps[:, 0]))
        for number in range(maps.shape[1]):  # date by date: a copy of all in float32 would be large
            total = total + torch.where(of_each(here[:, number]), exact(maps[:, number]), 0.0)
        return total / of_each(here.sum(1).clamp_min(1))


class TemporalMax(TemporalHead):
    """The largest value over the dates that are there, for each channel and pixel."""

    @checked("temporal")
    def __init__(self, spec: BankSpec) -> None:
        super().__init__(spec, "max")

    def across(self, tap: Tap, maps: Tensor, here: Tensor, dates: Tensor | None) -> Tensor:
        largest = torch.full_like(exact(maps[:, 0]), -torch.inf)
        for number in range(maps.shape[1]):
            largest = torch.maximum(largest, torch.where(of_each(here[:, number]), exact(maps[:, number]), -torch.inf))
        return torch.where(of_each(here.any(1)), largest, 0.0)


class Difference(TemporalHead):
    """Change between two dates: the later one less the earlier, or how large that is (`absolute`).

    Where dates are not known, the second image is the later one.
    """

    @checked("temporal")
    def __init__(self, spec: BankSpec, *, absolute: bool = False) -> None:
        super().__init__(spec, "difference absolute" if absolute else "difference")
        if spec.dates != 2:
            raise UserError(
                f"temporal=difference is of two dates, and these samples have {spec.dates}: read two of each, or set"
                " temporal=mean, max or attention"
            )
        self.absolute = absolute

    def look(self, here: Tensor, sample_ids: Sequence[str] | None) -> None:
        lacks = (~here.all(1)).nonzero()
        if len(lacks):
            number = int(lacks[0])
            name = f"sample {sample_ids[number]}" if sample_ids is not None else f"number {number} of the batch"
            raise UserError(f"{name} lacks one of the two images that temporal=difference needs: leave it out")

    def across(self, tap: Tap, maps: Tensor, here: Tensor, dates: Tensor | None) -> Tensor:
        change = exact(maps[:, 1]) - exact(maps[:, 0])
        if self.absolute:
            return change.abs()
        return change if dates is None else torch.where(of_each(dates[:, 1] < dates[:, 0]), -change, change)
