"""Single-level decoder: what one scale knows by itself."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from satdifuser.decoders.base import Decoder
from satdifuser.decoders.layers import Classifier, conv
from satdifuser.errors import UserError
from satdifuser.fusion.base import Norm, PyramidSpec
from satdifuser.kinds import Count, Rate, checked


class SingleLevel(Decoder):
    """The scale of one `stride` (None: the finest) through a 1x1 convolution, norm and ReLU, classified, upsampled.

    The classifier comes before the bilinear upsampling, which gives the same logits as after it: both are linear, and
    the shares of the neighbours sum to one. Other scales are not read, and what makes them does not learn.
    """

    @checked("decoder")
    def __init__(
        self,
        pyramid: PyramidSpec,
        outputs: int,
        dense: bool,
        stride: Count | None = None,
        channels: Count = 256,
        dropout: Rate = 0.1,
        norm: Norm = "group",
    ) -> None:
        super().__init__(pyramid, outputs, dense)
        self.stride = pyramid.strides[0] if stride is None else stride
        if self.stride not in pyramid.strides:
            there = ", ".join(map(str, pyramid.strides))
            raise UserError(f"decoder.stride is {stride}, but the features have {there}: choose one of them, or null")
        self.sparse = len(pyramid.strides) > 1
        self.project = conv(pyramid.channels, channels, 1, norm)
        self.head = Classifier(channels, outputs, dense, dropout)

    def read(self, maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {self.stride: maps[self.stride]}

    def decode(self, maps: Mapping[int, Tensor]) -> Tensor:
        return self.head(self.project(maps[self.stride]))
