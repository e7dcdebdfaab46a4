"""FPN decoder (Kirillov et al. 2019), of segmentation_models_pytorch's blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from satdifuser.decoders.base import Decoder
from satdifuser.decoders.layers import Classifier, renormed
from satdifuser.decoders.pyramid import Doubling
from satdifuser.errors import UserError
from satdifuser.fusion.base import Norm, PyramidSpec
from satdifuser.kinds import Count, Rate, checked


class FPNDecoder(Decoder):
    """From the coarsest scale down: nearest upsampling and a lateral 1x1 convolution, added, of `channels` width.

    Each scale then goes through 3x3 convolutions of `segmentation_channels`, each with twice the size behind it, to the
    finest one, where all are summed. Four scales are smp's `FPNDecoder`; any other number has as many blocks.
    """

    @checked("decoder")
    def __init__(
        self,
        pyramid: PyramidSpec,
        outputs: int,
        dense: bool,
        channels: Count = 256,
        segmentation_channels: Annotated[int, Ge(32)] = 128,
        dropout: Rate = 0.2,
        neck: bool | None = None,
        norm: Norm = "group",
    ) -> None:
        from segmentation_models_pytorch.decoders.fpn.decoder import FPNBlock, SegmentationBlock

        if segmentation_channels % 32:
            raise UserError(
                f"decoder.segmentation_channels is {segmentation_channels}: it must be a multiple of 32, as smp has it"
            )
        super().__init__(pyramid, outputs, dense)
        self.levels = Doubling(pyramid, norm, neck, "fpn")
        self.pyramid = self.levels.pyramid
        width, scales = pyramid.channels, len(self.pyramid.strides)
        self.top = nn.Conv2d(width, channels, 1)
        self.down = nn.ModuleList(FPNBlock(channels, width) for _ in range(scales - 1))
        self.segment = nn.ModuleList(
            renormed(SegmentationBlock(channels, segmentation_channels, n_upsamples=n), norm)
            for n in reversed(range(scales))
        )
        self.head = Classifier(segmentation_channels, outputs, dense, dropout)

    def decode(self, maps: Mapping[int, Tensor]) -> Tensor:
        *finer, coarsest = self.levels(maps)
        scales = [self.top(coarsest)]
        for block, level in zip(self.down, reversed(finer), strict=True):
            scales.append(block(scales[-1], level))
        parts = [block(scale) for block, scale in zip(self.segment, scales, strict=True)]
        return self.head(torch.stack(parts).sum(0))
