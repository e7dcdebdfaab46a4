"""DPT decoder (Ranftl et al. 2021), of segmentation_models_pytorch's blocks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from satdifuser.decoders.base import Decoder
from satdifuser.decoders.layers import Classifier, conv, renormed
from satdifuser.decoders.pyramid import Doubling
from satdifuser.fusion.base import Norm, PyramidSpec
from satdifuser.kinds import Count, Rate, checked


class DPTDecoder(Decoder):
    """A 3x3 convolution for each scale; from the coarsest down, residual blocks, the sum, and twice the size.

    The blocks are smp's `FusionBlock`, in its order. What its decoder reassembles of a ViT's tokens comes here as maps:
    with `fusion=levels` from four blocks of a ViT, as published, with other heads from one fused map. The result has
    twice the sides of the finest scale, if that is not as large as the image.
    """

    @checked("decoder")
    def __init__(
        self,
        pyramid: PyramidSpec,
        outputs: int,
        dense: bool,
        channels: Count = 256,
        dropout: Rate = 0.1,
        neck: bool | None = None,
        norm: Norm = "group",
    ) -> None:
        from segmentation_models_pytorch.decoders.dpt.decoder import FusionBlock

        super().__init__(pyramid, outputs, dense)
        self.levels = Doubling(pyramid, norm, neck, "dpt")
        self.pyramid = self.levels.pyramid
        strides = self.pyramid.strides
        self.project = nn.ModuleList(nn.Conv2d(pyramid.channels, channels, 3, padding=1, bias=False) for _ in strides)
        self.blocks = nn.ModuleList(renormed(FusionBlock(channels), norm) for _ in strides)
        self.smooth = conv(channels, channels, 3, norm)
        self.head = Classifier(channels, outputs, dense, dropout)

    def decode(self, maps: Mapping[int, Tensor]) -> Tensor:
        levels = [project(level) for project, level in zip(self.project, self.levels(maps), strict=True)]
        whole = self.pyramid.strides[0] == 1
        fused: Tensor | None = None
        for number, block in enumerate(self.blocks):
            level = levels[-1 - number]
            last = number == len(levels) - 1
            fused = _same_size(block, level, fused) if last and whole else block(level, fused)
        return self.head(self.smooth(fused))


def _same_size(block: nn.Module, level: Tensor, previous: Tensor | None) -> Tensor:
    """The block without its upsampling."""
    x = block.get_submodule("residual_conv_block1")(level)
    x = block.get_submodule("residual_conv_block2")(x if previous is None else x + previous)
    return block.get_submodule("project")(x)
