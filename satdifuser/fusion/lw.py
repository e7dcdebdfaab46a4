"""Localized weighted fusion: every pixel chooses its own mixture of timesteps and taps."""

from __future__ import annotations

import torch
from torch import nn

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.fusion.base import Fused, Init, Norm, ProjectingHead, Width, key
from satdifuser.kinds import Positive, checked


class LocalizedWeighted(ProjectingHead):
    """Per stride, a 1x1 convolution on the mean map gives a logit for each (t, l) and pixel; softmax(logits / tau)."""

    @checked("fusion")
    def __init__(
        self,
        spec: BankSpec,
        projection_dim: Width = 384,
        norm: Norm = "group",
        init: Init = "default",
        tau: Positive = 1.0,
    ) -> None:
        super().__init__(spec, projection_dim, norm, init)
        self.tau = tau
        steps = len(spec.timesteps)
        self.score = nn.ModuleDict(
            {key(str(stride)): nn.Conv2d(projection_dim, steps * len(names), 1) for stride, names in self.names.items()}
        )

    def fuse(self, bank: FeatureBank) -> Fused:
        maps, weights, pixels = {}, {}, {}
        for stride, names in self.names.items():
            projected = self.projected(bank, stride)
            logits = self.score[key(str(stride))](projected.mean((0, 1)))
            weight = (logits / self.tau).softmax(1).unflatten(1, (len(self.spec.timesteps), len(names)))
            maps[stride] = torch.einsum("btlhw,tlbchw->bchw", weight, projected)
            weights[stride] = weight.detach().mean((0, 3, 4))
            pixels[stride] = weight.detach()
        return Fused(maps, weights, details={"pixel_weights": pixels})
