"""Convolutional decoder: a probe that sees a neighbourhood."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from satdifuser.decoders.base import Decoder
from satdifuser.decoders.layers import Classifier, conv
from satdifuser.decoders.linear import summed
from satdifuser.fusion.base import Norm, PyramidSpec
from satdifuser.kinds import Count, Rate, checked


class ConvDecoder(Decoder):
    """The scales resized to the finest and summed, two 3x3 convolutions (each with norm and ReLU), the classifier.

    `channels` of both convolutions, `dropout` before the classifier; its form is that of the FCN head (Long et al.
    2015) as segmentation probes have it.
    """

    @checked("decoder")
    def __init__(
        self,
        pyramid: PyramidSpec,
        outputs: int,
        dense: bool,
        channels: Count = 256,
        dropout: Rate = 0.1,
        norm: Norm = "group",
    ) -> None:
        super().__init__(pyramid, outputs, dense)
        self.convolve = nn.Sequential(conv(pyramid.channels, channels, 3, norm), conv(channels, channels, 3, norm))
        self.head = Classifier(channels, outputs, dense, dropout)

    def decode(self, maps: Mapping[int, Tensor]) -> Tensor:
        return self.head(self.convolve(summed(maps, self.pyramid)))
