"""Pooling: what is left of each map where a head gets no maps. The same for live features and for those on disk."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.errors import UserError, nearest

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
# Over the whole map, and how many numbers of each channel: moments are its mean and its standard deviation, and
# quantiles have these first and then how its values are spread.
WHOLE = {"mean": 1, "max": 1, "moments": 2, "quantiles": 2 + len(QUANTILES)}
NAMES = (*WHOLE, "grid2", "grid4")  # and any other grid<n>: means of n x n cells


def is_pooling(name: object) -> bool:
    return name in WHOLE or re.fullmatch(r"grid[1-9]\d*", str(name)) is not None


@dataclass(frozen=True)
class Pooling:
    """
    >>> from satdifuser.bank import Tap
    >>> spec = BankSpec((Tap("mid", 21, 0, 4, 8),), "toy", "none", (32, 32))
    >>> [Pooling(name).spec(spec).shape(Pooling(name).spec(spec).taps[0]) for name in ("mean", "moments", "grid2")]
    [(4, 1, 1), (8, 1, 1), (4, 2, 2)]
    """

    name: str

    def __post_init__(self) -> None:
        if not is_pooling(self.name):
            raise UserError(f"pool is {self.name!r}: it can be {', '.join(NAMES)}{nearest(self.name, NAMES)}")

    @property
    def cells(self) -> int:
        """So many a side."""
        return 1 if self.name in WHOLE else int(self.name.removeprefix("grid"))

    def spec(self, spec: BankSpec) -> BankSpec:
        """The spec of what is left: all maps have one stride, in an image made square where it is not.

        Moments have twice the channels: the means, and then the deviations; of quantiles follow the lowest to the
        highest. Quantiles leave of a map of one pixel its value alone.
        """
        stride = -(-max(spec.image_size) // self.cells)
        alone = [tap.name for tap in spec.taps if self.numbers_of(spec, tap) == 1 < self.numbers]
        one_pixel = (("pooled_alone", ",".join(dict.fromkeys(alone))),) if alone else ()
        return replace(
            spec,
            taps=tuple(
                replace(tap, stride=stride, channels=self._times(spec, tap) * tap.channels) for tap in spec.taps
            ),
            image_size=(stride * self.cells, stride * self.cells),
            settings=(*spec.settings, ("pooled", self.name), ("pooled_from", spec.image_size), *one_pixel),
        )

    def maps(self, maps: Tensor) -> Tensor:
        """In float32, whatever the maps are in; of each date by itself."""
        if maps.ndim == 5:
            return self.maps(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
        if self.name == "quantiles" and maps.shape[-2:] == (1, 1):
            return maps.float()
        if self.name in ("moments", "quantiles"):
            deviation, mean = torch.std_mean(maps.float(), (2, 3), correction=0, keepdim=True)
            spread = _quantiles(maps.float()) if self.name == "quantiles" else []
            return torch.cat((mean, deviation, *spread), dim=1)
        pool: Callable[..., Any] = F.adaptive_max_pool2d if self.name == "max" else F.adaptive_avg_pool2d
        pooled: Tensor = pool(maps.float(), self.cells)
        return pooled

    @property
    def numbers(self) -> int:
        """How many are left of each channel of a map."""
        return WHOLE.get(self.name, 1) * self.cells**2

    def numbers_of(self, spec: BankSpec, tap: Tap) -> int:
        """How many are left of each channel of this tap of `spec`."""
        return self._times(spec, tap) * self.cells**2

    def _times(self, spec: BankSpec, tap: Tap) -> int:
        one_pixel = self.name == "quantiles" and spec.shape(tap)[-2:] == (1, 1)
        return 1 if one_pixel else WHOLE.get(self.name, 1)

    def bank(self, bank: FeatureBank) -> FeatureBank:
        """A bank of what is left, through which gradients pass."""
        spec = self.spec(bank.spec)
        return FeatureBank(spec, {spec.find(tap.name, tap.timestep): self.maps(maps) for tap, maps in bank.items()})


def _quantiles(maps: Tensor) -> list[Tensor]:
    """Of the values of each map `[batch, channels, height, width]`, between two of them in proportion."""
    values = maps.flatten(2).sort(dim=2).values  # torch.quantile does not take as many values as large maps have
    found = []
    for share in QUANTILES:
        place = share * (values.shape[2] - 1)
        below, above = values[:, :, math.floor(place)], values[:, :, math.ceil(place)]
        found.append(torch.lerp(below, above, place - math.floor(place))[:, :, None, None])
    return found


def held_of(spec: BankSpec, tap: Tap) -> str | None:
    """How a tap of `spec` is pooled already; a value that is alone is its own mean."""
    known = dict(spec.settings)
    alone = str(known.get("pooled_alone", "")).split(",")
    found = known.get("pooled")
    return "mean" if tap.name in alone else None if found is None else str(found)


def pooling_for(spec: BankSpec, name: str | None) -> Pooling | None:
    """What is still to be done to features of `spec` for a head that is to get them pooled, or not (None)."""
    if name is None:
        return None
    wanted, before = Pooling(str(name)), dict(spec.settings).get("pooled")
    if before is None:
        return wanted
    if before != name:
        raise UserError(
            f"pool={name} needs maps, and these features are pooled already (store.keep={before}): leave pool out, or"
            " extract them with store.keep=maps"
        )
    return None
