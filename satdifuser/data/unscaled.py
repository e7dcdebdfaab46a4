"""The bands as they are, for encoders that know their own scale and are trained on values that nobody clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from annotated_types import Len
from torch import Tensor

from satdifuser.data.bands import SENTINEL2, SensorName
from satdifuser.data.inputs import ImageInput
from satdifuser.kinds import Side, checked


class UnscaledInput(ImageInput):
    """Choose bands by name and resize if a size is given; values stay in the bands' units, and nothing is clipped.

    Where a band in dB or kelvin has no data (0) is the low end of what is usual.
    """

    @checked("encoder.prepare")
    def __init__(
        self,
        bands: Annotated[Sequence[str], Len(1)] | None = None,
        *,
        size: Side | None = None,
        sensor: SensorName = SENTINEL2,
    ) -> None:
        super().__init__(bands, size=size, sensor=sensor)
        self.all_bands = bands is None

    @property
    def settings(self) -> Mapping[str, object]:
        return {"sensor": self.sensor.name, "bands": ",".join(self.bands)}

    @property
    def limit(self) -> float:
        return max(abs(edge) for band in self.sensor.of(self.bands) for edge in band.valid)

    def undo(self, inputs: Tensor) -> Tensor:
        low, high = self._lows.to(inputs), self._highs.to(inputs)
        return (inputs - low) / (high - low)

    def _scaled(self, chosen: Tensor) -> Tensor:
        return self._filled(chosen, chosen, self._lows.to(chosen))
