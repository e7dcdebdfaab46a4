"""A pyramid for encoders that have one scale: ViTDet's simple feature pyramid (Li et al. 2022), from one fused map."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from satdifuser.fusion.base import PyramidSpec
from satdifuser.fusion.scales import rescaled


class SimpleFeaturePyramid(nn.Module):
    """Maps at a quarter, half, one and two times the stride of the one there is, where these are whole numbers.

    Finer ones by transposed convolutions, the coarser by max pooling; widths stay as they are. With `even`, the coarser
    one is there only where it is just half as large: where both sides of the map are even numbers.
    """

    def __init__(self, pyramid: PyramidSpec, norm: str = "group", even: bool = False) -> None:
        super().__init__()
        (self.stride,), width = pyramid.strides, pyramid.channels
        sides = [side // self.stride for side in pyramid.image_size]
        finer = [self.stride // by for by in (4, 2) if self.stride % by == 0]
        room = all(side >= 2 and not (even and side % 2) for side in sides)
        strides = (*finer, self.stride, *([2 * self.stride] if room else []))
        self.levels = nn.ModuleDict({str(stride): rescaled(width, self.stride, stride, norm) for stride in strides})
        self.pyramid = PyramidSpec(strides, width, pyramid.image_size)

    def forward(self, maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {stride: self.levels[str(stride)](maps[self.stride]) for stride in self.pyramid.strides}
