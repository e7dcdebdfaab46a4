"""Linear decoder: what the fused features know without further processing."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from satdifuser.decoders.base import Decoder, resize
from satdifuser.fusion.base import PyramidSpec


class LinearDecoder(Decoder):
    """The scales resized to the finest and summed, then one linear layer: on the average, or if dense on each pixel."""

    def __init__(self, pyramid: PyramidSpec, outputs: int, dense: bool) -> None:
        super().__init__(pyramid, outputs, dense)
        self.classify = nn.Conv2d(pyramid.channels, outputs, 1) if dense else nn.Linear(pyramid.channels, outputs)

    def decode(self, maps: Mapping[int, Tensor]) -> Tensor:
        finest = maps[self.pyramid.strides[0]]
        size = (finest.shape[-2], finest.shape[-1])
        total = finest
        for stride in self.pyramid.strides[1:]:
            total = total + resize(maps[stride], size)
        return self.classify(total if self.dense else total.mean((2, 3)))
