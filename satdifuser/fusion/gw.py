"""Global weighted fusion: one learned scalar for each (timestep, tap), one softmax over all of them."""

from __future__ import annotations

import torch
from torch import nn

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.fusion.base import Fused, Init, Norm, ProjectingHead, Width


class GlobalWeighted(ProjectingHead):
    """Per stride, the sum over its taps and timesteps of w[t, l] * B_l(f[t, l]), with w = softmax over every (t, l)."""

    def __init__(
        self, spec: BankSpec, projection_dim: Width = 384, norm: Norm = "group", init: Init = "default"
    ) -> None:
        super().__init__(spec, projection_dim, norm, init)
        self.logits = nn.Parameter(torch.zeros(len(spec.timesteps), len(spec.names())))

    def fuse(self, bank: FeatureBank) -> Fused:
        weight = self.logits.flatten().softmax(0).view_as(self.logits)
        column = {name: i for i, name in enumerate(self.spec.names())}
        maps, weights = {}, {}
        for stride, names in self.names.items():
            mine = weight[:, [column[name] for name in names]]
            maps[stride] = torch.einsum("tl,tlbchw->bchw", mine, self.projected(bank, stride))
            weights[stride] = mine.detach()
        return Fused(maps, weights)
