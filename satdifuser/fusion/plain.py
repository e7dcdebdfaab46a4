"""Plain fusion: what pooling leaves of all maps side by side, with nothing that is learned by steps."""

from __future__ import annotations

import torch
from torch import Tensor

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.fusion.base import Fused, FusionHead, PyramidSpec
from satdifuser.pooling import Pooling


class Plain(FusionHead):
    """The mean of every f[t, l], or where `pool` says otherwise what that leaves of it, one after the other.

    It has no parameters, and is what fitted decoders (knn, logistic, ridge) read. Its readable weight of a (timestep,
    tap) is uniform, unless a fitted linear decoder has told what each number is to it: then it is the map's share of
    the squared coefficients of standardised features, over all maps.
    """

    shares: Tensor

    def __init__(self, spec: BankSpec) -> None:
        super().__init__(spec)
        pooled = dict(spec.settings).get("pooled") is not None
        self.pooling = None if pooled else Pooling("mean")
        left = spec if self.pooling is None else self.pooling.spec(spec)
        (stride,), self.channels = left.strides, [tap.channels for tap in left.taps]
        self.pyramid = PyramidSpec((stride,), sum(self.channels), left.image_size)
        maps = len(spec.timesteps) * len(spec.names())
        self.register_buffer("shares", torch.full((len(spec.timesteps), len(spec.names())), 1.0 / maps))

    def fuse(self, bank: FeatureBank) -> Fused:
        (stride,) = self.pyramid.strides
        maps = (bank if self.pooling is None else self.pooling.bank(bank)).values()
        column = {name: place for place, name in enumerate(self.spec.names())}
        weights = {s: self.shares[:, [column[name] for name in names]] for s, names in self.names.items()}
        return Fused({stride: torch.cat(list(maps), dim=1)}, weights)

    def weigh(self, importance: Tensor) -> None:
        """Told by a fitted decoder what each of its numbers is to it: `[channels * cells]`, none of them negative."""
        of_taps = [part.sum() for part in importance.view(sum(self.channels), -1).sum(1).split(self.channels)]
        total = torch.stack(of_taps).sum()
        if total <= 0:
            return
        row = {timestep: place for place, timestep in enumerate(self.spec.timesteps)}
        column = {name: place for place, name in enumerate(self.spec.names())}
        for tap, share in zip(self.spec.taps, of_taps, strict=True):
            self.shares[row[tap.timestep], column[tap.name]] = share / total
