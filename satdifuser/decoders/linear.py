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
        total = summed(maps, self.pyramid)
        return self.classify(total if self.dense else total.mean((2, 3)))


def summed(maps: Mapping[int, Tensor], pyramid: PyramidSpec) -> Tensor:
    """The scales resized to the finest and added up."""
    total = maps[pyramid.strides[0]]
    size = (total.shape[-2], total.shape[-1])
    for stride in pyramid.strides[1:]:
        total = total + resize(maps[stride], size)
    return total
