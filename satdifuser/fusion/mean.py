"""Uniform fusion: the plain mean, which the adaptive heads must beat, and the neck of encoders with one timestep."""

from __future__ import annotations

import torch

from satdifuser.bank import FeatureBank
from satdifuser.fusion.base import Fused, ProjectingHead


class UniformMean(ProjectingHead):
    """Per stride, the mean of B_l(f[t, l]) over timesteps and taps. Nothing about the mixture is learned."""

    def fuse(self, bank: FeatureBank) -> Fused:
        maps, weights = {}, {}
        for stride, names in self.names.items():
            maps[stride] = self.projected(bank, stride).mean((0, 1))
            shape = (len(self.spec.timesteps), len(names))
            weights[stride] = torch.full(shape, 1.0 / (shape[0] * shape[1]), device=maps[stride].device)
        return Fused(maps, weights)
