"""Levels: each depth of an encoder becomes a scale of its own, as DPT and ViTDet's users feed four blocks of a ViT."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from satdifuser.bank import BankError, BankSpec, FeatureBank
from satdifuser.fusion.base import Fused, FusionHead, Norm, PyramidSpec, Width, key, normalisation
from satdifuser.fusion.scales import rescaled

MOST = 4


class Levels(FusionHead):
    """Every f[t, l] through a 1x1 convolution (of its tap, shared over the timesteps) and a norm; nothing is mixed.

    Of one stride p, one to four maps are brought to a stride each, in the order of depth (within a depth, of the
    timesteps): the shallowest to p/4, the next to p/2, p and 2p. Fewer maps take the finest of these. Where p/4 or p/2
    is no whole number, the strides begin later and end later (stride 14: 7, 14, 28, 56). Finer ones are made by
    transposed convolutions, coarser ones by maxima.

    Of several strides, each is a level: the mean of its maps.

    The readable weights are uniform: of one stride 1 / (number of maps), which sums to one over all levels; of several,
    1 / (maps of the stride), which sums to one over each stride.
    """

    def __init__(self, spec: BankSpec, projection_dim: Width = 384, norm: Norm = "group") -> None:
        super().__init__(spec, projection_dim)
        tokens = [name for name in spec.names() if name.endswith(".class")]
        if tokens:
            raise BankError(
                f"fusion=levels makes a scale of each depth's map, and {tokens[0]} is a class token: set"
                " encoder.class_token=false, or choose the maps with select.taps"
            )
        self.project = nn.ModuleDict(
            {
                key(name): nn.Sequential(
                    nn.Conv2d(spec.channels(name), projection_dim, 1, bias=False), normalisation(norm)(projection_dim)
                )
                for name in spec.names()
            }
        )
        if len(spec.strides) > 1:
            self.scale = nn.ModuleList()
            return
        (stride,), count = spec.strides, len(spec.timesteps) * len(spec.names())
        strides = _strides(spec, stride, count)
        self.scale = nn.ModuleList(rescaled(projection_dim, stride, to, norm) for to in strides)
        self.pyramid = PyramidSpec(strides, projection_dim, spec.image_size)

    def fuse(self, bank: FeatureBank) -> Fused:
        maps, weights = {}, {}
        steps = len(self.spec.timesteps)
        for stride, names in self.names.items():
            projected = torch.stack([self._projected(bank, name, steps) for name in names])
            if self.scale:
                levels = zip(self.pyramid.strides, self.scale, projected.flatten(0, 1), strict=True)
                maps = {to: scale(level) for to, scale, level in levels}
            else:
                maps[stride] = projected.mean((0, 1))
            count = steps * len(names)
            weights[stride] = torch.full((steps, len(names)), 1.0 / count, device=projected.device)
        return Fused(maps, weights)

    def _projected(self, bank: FeatureBank, name: str, steps: int) -> Tensor:
        """`[timesteps, batch, channels, height, width]` of a tap."""
        return self.project[key(name)](bank.stack(name)).unflatten(0, (steps, -1))


def _strides(spec: BankSpec, stride: int, count: int) -> tuple[int, ...]:
    """The strides of so many levels of maps that have one, or what to choose where there are not so many."""
    finer = [stride // by for by in (4, 2) if stride % by == 0]
    coarser = [stride * by for by in (1, 2, 4) if all(side % (stride * by) == 0 for side in spec.image_size)]
    there = tuple([*finer, *coarser][:MOST])
    if count <= len(there):
        return there[:count]
    height, width = spec.image_size
    choose = f"choose at most {len(there)} (encoder.blocks, encoder.taps and encoder.timesteps, or select.*)"
    if count <= MOST:
        choose += f", or an image that can be divided by {2 * coarser[-1]}"
    raise BankError(
        f"fusion=levels gives each map a stride of its own, and an image of {height} x {width} with features of stride"
        f" {stride} has the strides {', '.join(map(str, there))}, but there are {count} maps: {choose}"
    )
