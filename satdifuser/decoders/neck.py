"""A pyramid for encoders that have one scale: ViTDet's simple feature pyramid (Li et al. 2022), from one fused map."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from satdifuser.fusion.base import PyramidSpec, normalisation


class SimpleFeaturePyramid(nn.Module):
    """Maps at a quarter, half, one and two times the stride of the one there is, where these are whole numbers.

    Finer ones by transposed convolutions, the coarser by max pooling; widths stay as they are.
    """

    def __init__(self, pyramid: PyramidSpec, norm: str = "group") -> None:
        super().__init__()
        (self.stride,), width = pyramid.strides, pyramid.channels
        finer = [self.stride // by for by in (4, 2) if self.stride % by == 0]
        coarser = [2 * self.stride] if all(side // self.stride >= 2 for side in pyramid.image_size) else []
        self.levels = nn.ModuleDict()
        for stride in finer:
            doublings = (self.stride // stride).bit_length() - 1
            self.levels[str(stride)] = nn.Sequential(
                *(_double(width, norm, last=n == 1) for n in range(doublings, 0, -1))
            )
        self.levels[str(self.stride)] = nn.Identity()
        self.levels.update({str(stride): nn.MaxPool2d(2) for stride in coarser})
        self.pyramid = PyramidSpec((*finer, self.stride, *coarser), width, pyramid.image_size)

    def forward(self, maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {stride: self.levels[str(stride)](maps[self.stride]) for stride in self.pyramid.strides}


def _double(width: int, norm: str, last: bool) -> nn.Module:
    """Twice the size; between two of them a norm and an activation."""
    up = nn.ConvTranspose2d(width, width, 2, stride=2)
    return up if last else nn.Sequential(up, normalisation(norm)(width), nn.GELU())
