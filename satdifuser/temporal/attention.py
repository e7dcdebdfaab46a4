"""Lightweight temporal attention (L-TAE, Garnot & Landrieu 2020): each pixel learns which dates to listen to."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, Tap
from satdifuser.errors import UserError
from satdifuser.kinds import Count, Positive, checked
from satdifuser.temporal.base import TemporalHead, exact, of_each

YEAR = 365.2425  # days


class TemporalAttention(TemporalHead):
    """Each head has a group of channels of its own, a query that is learned, and at each pixel a weight for each date.

    A date's key is a linear map of its channels (standardised over all channels of the pixel) and of its day (as
    sinusoids); its value is the channels as they are, so that what comes out has the channels that went in. Weights of
    a date that is not there are 0. Parameters are shared by all taps of one width (`share=width`), or are each tap's.
    """

    needs_dates = True

    @checked("temporal")
    def __init__(
        self,
        spec: BankSpec,
        *,
        heads: Count = 16,
        key: Count = 8,
        days: Literal["first", "year"] = "first",
        period: Positive = 1000.0,
        share: Literal["width", "tap"] = "width",
    ) -> None:
        super().__init__(spec, f"attention heads={heads} key={key} days={days} period={period:g} share={share}")
        common = math.gcd(*(tap.channels for tap in spec.taps))
        for tap in spec.taps:
            if tap.channels % heads:
                fit = [str(count) for count in range(1, min(common, 64) + 1) if common % count == 0]
                raise UserError(
                    f"temporal.heads is {heads}, which does not divide the {tap.channels} channels of tap {tap}: for"
                    f" these features it can be {', '.join(fit)}"
                )
        self.days, self.period, self.share = days, period, share
        widths = {self._name(tap): tap.channels for tap in spec.taps}
        self.queries = nn.ModuleDict({name: MasterQueries(width, heads, key) for name, width in widths.items()})

    def _name(self, tap: Tap) -> str:
        return str(tap.channels) if self.share == "width" else str(tap).replace(".", "/")  # a ModuleDict allows no dots

    def across(self, tap: Tap, maps: Tensor, here: Tensor, dates: Tensor | None) -> Tensor:
        assert dates is not None
        queries: MasterQueries = self.queries[self._name(tap)]  # type: ignore[assignment]
        heads, width = queries.heads, queries.width
        listens = queries.listens()
        when = positions(self._since(dates, here), width, self.period).to(listens)
        scores = torch.stack(
            [
                (standardised(exact(maps[:, t])).unflatten(1, (heads, width)) * listens[:, :, None, None]).sum(2)
                + (when[:, t] @ listens.T)[:, :, None, None]
                for t in range(maps.shape[1])
            ],
            dim=1,
        )
        absent = ~here[:, :, None, None, None]
        weights = scores.masked_fill(absent, torch.finfo(scores.dtype).min).softmax(1).masked_fill(absent, 0.0)
        out = torch.zeros_like(exact(maps[:, 0]))
        for t in range(maps.shape[1]):
            values = torch.where(of_each(here[:, t]), exact(maps[:, t]), 0.0).unflatten(1, (heads, width))
            out = out + (weights[:, t, :, None] * values).flatten(1, 2)
        return out

    def _since(self, dates: Tensor, here: Tensor) -> Tensor:
        """Days since a sample's first date, or since the year's first day (less than two days off the calendar's)."""
        days = dates.double()
        if self.days == "year":
            return days.remainder(YEAR)
        first = days.masked_fill(~here, torch.inf).amin(1, keepdim=True)
        return torch.where(here, days - first, 0.0)


class MasterQueries(nn.Module):
    """What each head looks for: one query, and the linear map that makes keys of its channels.

    A query times the key of x is the map's transpose times the query, times x: so no key is ever made. (A bias of the
    map would add the same to all dates, which the softmax takes away again.)
    """

    def __init__(self, channels: int, heads: int, key: int) -> None:
        super().__init__()
        self.heads, self.width = heads, channels // heads
        self.query = nn.Parameter(torch.randn(heads, key) * math.sqrt(2 / key))
        self.key = nn.Parameter(torch.randn(heads, key, self.width) / math.sqrt(self.width))

    def listens(self) -> Tensor:
        """`[heads, width]`: how much each channel of a group counts for its head."""
        return torch.einsum("hk,hkc->hc", self.query, self.key) / math.sqrt(self.query.shape[1])


def standardised(maps: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the channels of each pixel, whatever the scale of an encoder's features."""
    centred = maps - maps.mean(1, keepdim=True)  # torch.var_mean takes far longer over channels on a CPU
    return centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + 1e-5)


def positions(days: Tensor, width: int, period: float) -> Tensor:
    """`[..., width]`: sines (even places i) and cosines (odd ones) of day / period^(2 floor(i / 2) / width).

    >>> positions(torch.tensor([0.0, 3.0]), 2, 1000.0)[1].tolist() == [math.sin(3), math.cos(3)]
    True
    """
    place = torch.arange(width, device=days.device)
    rate = period ** (-2.0 * place.div(2, rounding_mode="floor").double() / width)
    angle = days.double()[..., None] * rate
    return torch.where(place % 2 == 0, angle.sin(), angle.cos())
