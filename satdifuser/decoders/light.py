"""Light decoder: many scales, few parameters. SegFormer's all-MLP head (Xie et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from satdifuser.decoders.base import Decoder, resize
from satdifuser.decoders.layers import Classifier, conv
from satdifuser.decoders.pyramid import neck_of
from satdifuser.fusion.base import Norm, PyramidSpec
from satdifuser.kinds import Count, Rate, checked


class LightDecoder(Decoder):
    """A linear layer for each scale, all resized to the finest and side by side, one 1x1 convolution, the classifier.

    No convolution sees a neighbourhood. A `neck` would be most of its parameters, so that a single scale stays alone
    unless it is asked for; `fusion=levels` makes scales of the blocks of a ViT.
    """

    @checked("decoder")
    def __init__(
        self,
        pyramid: PyramidSpec,
        outputs: int,
        dense: bool,
        channels: Count = 256,
        dropout: Rate = 0.1,
        neck: bool | None = False,
        norm: Norm = "group",
    ) -> None:
        neck_made, pyramid = neck_of(pyramid, norm, neck)
        super().__init__(pyramid, outputs, dense)
        self.neck = neck_made
        self.project = nn.ModuleDict({str(s): nn.Conv2d(pyramid.channels, channels, 1) for s in pyramid.strides})
        self.fuse = conv(len(pyramid.strides) * channels, channels, 1, norm)
        self.head = Classifier(channels, outputs, dense, dropout)

    def decode(self, maps: Mapping[int, Tensor]) -> Tensor:
        maps = maps if self.neck is None else self.neck(maps)
        finest = maps[self.pyramid.strides[0]]
        size = (finest.shape[-2], finest.shape[-1])
        levels = [resize(self.project[str(stride)](maps[stride]), size) for stride in self.pyramid.strides]
        return self.head(self.fuse(torch.cat(levels, dim=1)))
