"""U-Net decoder (Ronneberger et al. 2015), segmentation_models_pytorch's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from satdifuser.decoders.base import Decoder
from satdifuser.decoders.layers import Classifier, renormed
from satdifuser.decoders.pyramid import Doubling
from satdifuser.fusion.base import Norm, PyramidSpec
from satdifuser.kinds import Count, Rate, checked

NARROWEST = 16


class UNetDecoder(Decoder):
    """From the coarsest scale up: twice the size (nearest), the scale that is there beside it, two 3x3 convolutions.

    A dense one goes on without scales beside it as long as the stride can be halved, to the image itself where it is a
    power of two. The first block has `channels`, each following one half of them, and none fewer than 16: smp's own
    256, 128, 64, 32, 16 for strides 2 to 32, or for a ViT of stride 16.
    """

    @checked("decoder")
    def __init__(
        self,
        pyramid: PyramidSpec,
        outputs: int,
        dense: bool,
        channels: Count = 256,
        dropout: Rate = 0.0,
        neck: bool | None = None,
        norm: Norm = "group",
    ) -> None:
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        super().__init__(pyramid, outputs, dense)
        self.levels = Doubling(pyramid, norm, neck, "unet")
        self.pyramid = self.levels.pyramid
        finest = self.pyramid.strides[0]
        self.beyond = ((finest & -finest).bit_length() - 1) if dense else 0  # as often as the stride can be halved
        scales = len(self.pyramid.strides)
        blocks = scales - 1 + self.beyond
        widths = [max(channels >> n, min(channels, NARROWEST)) for n in range(blocks)]
        inside = UnetDecoder(
            # smp leaves out the first, which is the image
            [0] * max(self.beyond, 1) + [pyramid.channels] * scales,
            widths,
            n_blocks=blocks,
            add_center_block=not blocks,
        )
        self.decoder = renormed(inside, norm)
        self.head = Classifier(widths[-1] if widths else pyramid.channels, outputs, dense, dropout)

    def decode(self, maps: Mapping[int, Tensor]) -> Tensor:
        levels = self.levels(maps)
        batch, _, height, width = levels[0].shape
        empty = [levels[0].new_empty(batch, 0, height << n, width << n) for n in range(max(self.beyond, 1), 0, -1)]
        return self.head(self.decoder([*empty, *levels]))
