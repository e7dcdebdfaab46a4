"""UPerNet (Xiao et al. 2018): pyramid pooling on the coarsest map, a feature pyramid, and one fused map to classify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Len
from torch import Tensor, nn

from satdifuser.decoders.base import Decoder, resize
from satdifuser.decoders.layers import conv
from satdifuser.decoders.pyramid import neck_of
from satdifuser.errors import UserError
from satdifuser.fusion.base import Norm, PyramidSpec
from satdifuser.kinds import Count, Rate, checked


class UPerNet(Decoder):
    """Dense only. PPM scales 1, 2, 3, 6; FPN and fusion of `channels` width; dropout before the classifier.

    `neck` makes a pyramid of a single scale, as a ViT's, before anything else; None is where there is a single one.
    `norm`: "group" is GroupNorm, with which batch size and number of processes do not change the result; "batch" is
    BatchNorm, as the released code has it.
    """

    @checked("decoder")
    def __init__(
        self,
        pyramid: PyramidSpec,
        outputs: int,
        dense: bool,
        channels: Count = 512,
        pool_scales: Annotated[Sequence[Count], Len(1)] = (1, 2, 3, 6),
        dropout: Rate = 0.1,
        neck: bool | None = None,
        norm: Norm = "group",
    ) -> None:
        if not dense:
            raise UserError(
                "decoder=upernet gives a map, but the task wants one answer for each image: use decoder=linear"
            )
        super().__init__(pyramid, outputs, dense)
        alone = len(pyramid.strides) == 1
        self.neck, there = neck_of(pyramid, norm, neck)
        last = pyramid.strides[-1]
        if not alone and last >= min(pyramid.image_size) and last > 2 * pyramid.strides[-2]:
            raise UserError(
                f"decoder=upernet needs maps, but stride {last} is one pixel (a class token): set"
                " encoder.class_token=false, or use decoder=linear"
            )
        self.pyramid = pyramid = there
        *finer, _ = pyramid.strides
        width = pyramid.channels
        self.pool_scales = tuple(pool_scales)
        self.pooled = nn.ModuleList(conv(width, channels, 1, norm) for _ in self.pool_scales)
        self.bottleneck = conv(width + len(self.pool_scales) * channels, channels, 3, norm)
        self.lateral = nn.ModuleDict({str(stride): conv(width, channels, 1, norm) for stride in finer})
        self.smooth = nn.ModuleDict({str(stride): conv(channels, channels, 3, norm) for stride in finer})
        self.fuse = conv(len(pyramid.strides) * channels, channels, 3, norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, outputs, 1)

    def decode(self, maps: Mapping[int, Tensor]) -> Tensor:
        maps = maps if self.neck is None else self.neck(maps)
        *finer, coarsest = self.pyramid.strides
        top = self._pyramid_pooling(maps[coarsest])
        levels = [top]
        for stride in reversed(finer):
            lateral = self.lateral[str(stride)](maps[stride])
            top = lateral + resize(top, (lateral.shape[-2], lateral.shape[-1]))
            levels.append(self.smooth[str(stride)](top))
        size = (levels[-1].shape[-2], levels[-1].shape[-1])
        return self.classify(self.dropout(self.fuse(torch.cat([resize(level, size) for level in levels], dim=1))))

    def _pyramid_pooling(self, x: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        parts = [
            resize(layer(F.adaptive_avg_pool2d(x, scale)), size)
            for scale, layer in zip(self.pool_scales, self.pooled, strict=True)
        ]
        return self.bottleneck(torch.cat([x, *parts], dim=1))
