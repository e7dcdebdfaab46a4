"""What every temporal head is: built for a spec with dates, it makes one map for each tap of those of all dates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.errors import UserError
from satdifuser.kinds import checked


class TemporalHead(nn.Module):
    """A bank of several dates and their days in, a bank of none out; `spec` is that of what comes out.

    A head of one's own inherits from this one, says with `about` all that decides what it gives, and implements
    `across`. A date of -1 is of an image that is not there: it must not count.
    """

    needs_dates: ClassVar[bool] = False

    @checked("temporal")
    def __init__(self, spec: BankSpec, about: str) -> None:
        super().__init__()
        if spec.dates is None:
            raise UserError(f"temporal={about.split()[0]} is for samples of several dates, and these have one image")
        self.reads = spec
        self.spec = replace(spec, dates=None, settings=(*spec.settings, ("temporal", about)))

    def forward(
        self, bank: FeatureBank, dates: Tensor | None = None, sample_ids: Sequence[str] | None = None
    ) -> FeatureBank:
        """`dates` are int64 `[batch, dates]`, days since 1970-01-01; without them all images are there."""
        bank.check(self.reads, type(self).__name__)
        if dates is None and self.needs_dates:
            raise UserError(f"{type(self).__name__} needs to know the dates of samples, and these have none")
        shape = tuple(bank[self.reads.taps[0]].shape[:2])
        if dates is not None and tuple(dates.shape) != shape:
            raise UserError(f"there are dates {tuple(dates.shape)} for images {shape}: give one for each image")
        here = torch.ones(shape, dtype=torch.bool, device=bank.device) if dates is None else dates >= 0
        self.look(here, sample_ids)
        with torch.autocast(bank.device.type, enabled=False):
            maps = {tap: self.across(tap, bank[tap], here, dates) for tap in self.reads.taps}
        return FeatureBank(self.spec, maps)

    def look(self, here: Tensor, sample_ids: Sequence[str] | None) -> None:
        """Raise where images that a head cannot do without are not there."""

    def across(self, tap: Tap, maps: Tensor, here: Tensor, dates: Tensor | None) -> Tensor:
        """`[batch, dates, channels, height, width]` -> `[batch, channels, height, width]`, in float32 or better.

        `here` is bool `[batch, dates]`. What maps hold where it is false is of no meaning.
        """
        raise NotImplementedError


def exact(values: Tensor) -> Tensor:
    """In float32, or in float64 where they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def of_each(values: Tensor) -> Tensor:
    """One number for each sample, to go with its maps: `[batch, 1, 1, 1]`."""
    return values[:, None, None, None]
