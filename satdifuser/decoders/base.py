"""What every decoder is: built for a fused pyramid, it gives logits for an image or for each of its pixels."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from satdifuser.fusion.base import PyramidSpec


class Decoder(nn.Module):
    """`forward(maps)` gives `[batch, outputs]`; with `dense`, `[batch, outputs, *size]` (the label's size).

    `sparse`: some of the maps are not read, so that what makes them learns nothing.
    """

    sparse = False

    def __init__(self, pyramid: PyramidSpec, outputs: int, dense: bool) -> None:
        super().__init__()
        self.pyramid, self.outputs, self.dense = pyramid, outputs, dense

    def forward(self, maps: Mapping[int, Tensor], size: tuple[int, int] | None = None) -> Tensor:
        logits = self.decode(maps)
        if self.dense and size is not None:
            return resize(logits, size)
        return logits

    def read(self, maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Those of the maps that `forward` makes use of."""
        return dict(maps)

    def decode(self, maps: Mapping[int, Tensor]) -> Tensor:
        raise NotImplementedError


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
