"""From reflectance to a network's input: bands, range and size, declared once and recorded in the bank's spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satdifuser.data.bands import SENTINEL2, Sensor, find_sensor
from satdifuser.errors import UserError

RGB = ("B04", "B03", "B02")


class ImageInput(nn.Module):
    """Choose bands by name, map reflectance [low, high] to [-1, 1] (clipped), and resize if a size is given.

    >>> prepare = ImageInput(["red", "green", "blue"], high=0.3)
    >>> prepare(torch.full((1, 13, 8, 8), 0.15)).unique().tolist()
    [0.0]
    """

    def __init__(
        self,
        bands: Sequence[str] | None = None,
        *,
        low: float = 0.0,
        high: float = 0.3,
        size: int | None = None,
        sensor: Sensor | str = SENTINEL2,
    ) -> None:
        super().__init__()
        if not high > low:
            raise UserError(f"input range: high ({high}) must be above low ({low})")
        self.sensor, self.low, self.high, self.size = find_sensor(sensor), float(low), float(high), size
        self.bands = tuple(bands) if bands is not None else self.sensor.names
        self._index = list(self.sensor.index(self.bands))

    @property
    def channels(self) -> int:
        return len(self.bands)

    @property
    def settings(self) -> Mapping[str, object]:
        """What a bank's spec records of the input: two banks made from other bands or ranges are not exchangeable."""
        return {"sensor": self.sensor.name, "bands": ",".join(self.bands), "low": self.low, "high": self.high}

    def forward(
        self, images: Tensor, sample_ids: Sequence[str] | None = None, expect: tuple[int, int] | None = None
    ) -> Tensor:
        """The input of a network built for images of the size `expect`; ids are for naming a bad sample."""
        if images.ndim != 4 or images.shape[1] != len(self.sensor):
            raise UserError(
                f"images have the shape {tuple(images.shape)}, but {self.sensor.name} gives"
                f" [batch, {len(self.sensor)}, height, width] ({', '.join(self.sensor.names)})"
            )
        finite = torch.isfinite(images).flatten(1).all(1)
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0])
            name = sample_ids[first] if sample_ids is not None else f"number {first} of the batch"
            raise UserError(
                f"sample {name} has NaN or infinite pixels: mask them as no-data (0) or leave the sample out"
            )
        chosen = images[:, self._index]
        scaled = ((chosen - self.low) * (2.0 / (self.high - self.low)) - 1.0).clamp(-1.0, 1.0)
        if self.size is not None and tuple(scaled.shape[-2:]) != (self.size, self.size):
            scaled = F.interpolate(scaled, (self.size, self.size), mode="bilinear", antialias=True)
        if expect is not None and tuple(scaled.shape[-2:]) != expect:
            raise UserError(
                f"images are {scaled.shape[-2]} x {scaled.shape[-1]} px, but the encoder was built for"
                f" {expect[0]} x {expect[1]}: set encoder.image_size, or resize with encoder.prepare.size"
            )
        return scaled
