"""Images without some of the bands that an encoder was pretrained on: what it gets in their place is 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Len
from torch import Tensor

from satdifuser.data.bands import SENTINEL2, Band, SensorName, find_sensor
from satdifuser.data.inputs import ImageInput, Percentile
from satdifuser.data.sensors import SENTINEL1
from satdifuser.errors import UserError
from satdifuser.kinds import Positive, Side, checked


class FilledInput(ImageInput):
    """As `ImageInput`, for a sensor that lacks some of `bands`: the network gets 0 of those, after everything else.

    With `mean` and `std`, 0 is the mean of pretraining. `bands` are Sentinel-2's (null: all 13) or Sentinel-1's,
    by name or common name, in the order of the network; a sensor has one of them if it has a band of that common name.
    Numbers of `low`, `high`, `mean` and `std` are one for all bands, or one for each of `bands`, there or not.

    >>> prepare = FilledInput(["B02", "B09", "B04"], sensor="SENTINEL2:B04/B03/B02", low=0, high=1, mean=0, std=1)
    >>> prepare(torch.full((1, 3, 1, 1), 0.5)).flatten().tolist(), prepare.bands
    ([0.5, 0.0, 0.5], ('B02', 'B04'))
    """

    @checked("encoder.prepare")
    def __init__(
        self,
        bands: Annotated[Sequence[str], Len(1)] | None = None,
        *,
        low: float | Sequence[float] | None = None,
        high: float | Sequence[float] | None = None,
        size: Side | None = None,
        sensor: SensorName = SENTINEL2,
        mean: float | Sequence[float] = 0.5,
        std: Positive | Sequence[Positive] = 0.5,
        policy: Literal["declared"] = "declared",
        percentiles: Annotated[Sequence[Percentile], Len(2, 2)] = (1.0, 99.0),
    ) -> None:
        known = SENTINEL2 + SENTINEL1
        wanted = known.of(SENTINEL2.names if bands is None else bands).bands
        given = find_sensor(sensor)
        names = {band.common: band.name for band in reversed(given.bands)}
        there = [place for place, band in enumerate(wanted) if band.common in names]
        if not there:
            raise UserError(
                f"{given.name} has none of the bands {', '.join(band.name for band in wanted)}: choose an encoder for"
                " its bands, or set encoder.prepare.bands"
            )

        def of_those(name: str, values: float | Sequence[float] | None) -> float | list[float] | None:
            if values is None or isinstance(values, (int, float)):
                return values
            if len(values) != len(wanted):
                raise UserError(
                    f"input range: {len(values)} numbers of {name} for {len(wanted)} bands: give one for each"
                )
            return [values[place] for place in there]

        chosen = [names[wanted[place].common] for place in there]
        numbers = {"low": low, "high": high, "mean": mean, "std": std}
        kept: dict[str, object] = {name: of_those(name, values) for name, values in numbers.items()}
        super().__init__(chosen, size=size, sensor=given, policy=policy, percentiles=percentiles, **kept)  # type: ignore[arg-type]
        self._wanted, self._places = wanted, there

    @property
    def inputs(self) -> tuple[Band, ...]:
        return self._wanted

    @property
    def settings(self) -> Mapping[str, object]:
        absent = [band.name for place, band in enumerate(self._wanted) if place not in self._places]
        return {**super().settings, "inputs": ",".join(b.name for b in self._wanted), "absent": ",".join(absent)}

    def undo(self, inputs: Tensor) -> Tensor:
        return super().undo(inputs[:, self._places])

    def forward(
        self, images: Tensor, sample_ids: Sequence[str] | None = None, expect: tuple[int, int] | None = None
    ) -> Tensor:
        """The input of a network that reads `bands`, those of them that the images lack as 0."""
        found = super().forward(images, sample_ids, expect)
        whole = found.new_zeros(len(found), len(self._wanted), *found.shape[-2:])
        return whole.index_copy(1, torch.tensor(self._places, device=found.device), found)
