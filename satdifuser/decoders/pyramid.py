"""From the strides that an encoder has to those that a decoder wants."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from satdifuser.decoders.neck import SimpleFeaturePyramid
from satdifuser.errors import UserError
from satdifuser.fusion.base import PyramidSpec


def neck_of(
    pyramid: PyramidSpec, norm: str, neck: bool | None, even: bool = False
) -> tuple[SimpleFeaturePyramid | None, PyramidSpec]:
    """What makes a pyramid of a single stride (None: nothing does), and the pyramid that is there then.

    `neck` None is where there is a single one.
    """
    alone = len(pyramid.strides) == 1
    if neck and not alone:
        raise UserError(f"decoder.neck=true is for features of one stride, not {pyramid.strides}: leave it at null")
    if not alone or neck is False:
        return None, pyramid
    made = SimpleFeaturePyramid(pyramid, norm, even)
    return made, made.pyramid


class Doubling(nn.Module):
    """Maps of strides that double from one to the next, finest first, of whatever strides there are.

    A single one becomes a pyramid (`neck_of`); a stride that is missing between two others is pooled (maxima) from the
    next finer one. So every map is just twice as high and wide as the next. `decoder` is its name, for errors.
    """

    def __init__(self, pyramid: PyramidSpec, norm: str, neck: bool | None, decoder: str) -> None:
        super().__init__()
        self.neck, there = neck_of(pyramid, norm, neck, even=True)
        first, last = there.strides[0], there.strides[-1]
        strides = [first]
        while strides[-1] < last:
            strides.append(2 * strides[-1])
        odd = [stride for stride in there.strides if stride not in strides]
        if odd:
            token = " of one pixel (a class token): set encoder.class_token=false" if _pixel(there) else ""
            raise UserError(
                f"decoder={decoder} needs strides that are the finest one ({first}) times 2, 4, 8, ..., but there is"
                f" stride {odd[0]}{token or ': choose other taps'}, or use decoder=linear, conv, light or single"
            )
        self.pyramid = PyramidSpec(tuple(strides), there.channels, there.image_size)

    def forward(self, maps: Mapping[int, Tensor]) -> list[Tensor]:
        maps = maps if self.neck is None else self.neck(maps)
        levels: list[Tensor] = []
        for stride in self.pyramid.strides:
            levels.append(maps[stride] if stride in maps else F.max_pool2d(levels[-1], 2))
        return levels


def _pixel(pyramid: PyramidSpec) -> bool:
    return pyramid.strides[-1] >= min(pyramid.image_size)
