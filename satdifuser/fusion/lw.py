"""Localized weighted fusion: every pixel chooses its own mixture of timesteps and taps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.fusion.base import Fused, Init, Norm, ProjectingHead, Width, key
from satdifuser.fusion.order import released_order
from satdifuser.kinds import Positive, checked


class LocalizedWeighted(ProjectingHead):
    """Per stride, a 1x1 convolution on the mean map gives a logit for each (t, l) and pixel; softmax(logits / tau).

    With `released` each bottleneck reads the channels that it reads in the released code, which lays a stride's taps
    side by side and starts at the first channel for every one: where taps are equally wide, all read the first alone.
    The readable weights are then of what is read, not of what reads it.
    """

    @checked("fusion")
    def __init__(
        self,
        spec: BankSpec,
        projection_dim: Width = 384,
        norm: Norm = "group",
        init: Init = "default",
        tau: Positive = 1.0,
        released: bool = False,
    ) -> None:
        super().__init__(spec, projection_dim, norm, init)
        self.tau, self.released = tau, released
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
            if self.released:
                weight = torch.einsum("btlhw,lm->btmhw", weight, weight.new_tensor(self._shares(stride)))
            weights[stride] = weight.detach().mean((0, 3, 4))
            pixels[stride] = weight.detach()
        return Fused(maps, weights, details={"pixel_weights": pixels})

    def projected(self, bank: FeatureBank, stride: int) -> Tensor:
        if not self.released:
            return super().projected(bank, stride)
        steps, names = len(self.spec.timesteps), self.names[stride]
        order, width = released_order(names), self.spec.channels
        widest = max(map(width, names))
        read = [name for place, name in enumerate(order) if sum(map(width, order[:place])) < widest]
        joined = torch.cat([bank.stack(name) for name in read], dim=1)
        maps = [self.project[key(name)](joined[:, : width(name)]) for name in names]
        return torch.stack([value.unflatten(0, (steps, -1)) for value in maps], dim=1)

    def _shares(self, stride: int) -> list[list[float]]:
        """Of the channels that each tap's bottleneck reads as released, which share is of which tap."""
        names = self.names[stride]
        shares = []
        for wanted in map(self.spec.channels, names):
            share, left = dict.fromkeys(names, 0.0), wanted
            for name in released_order(names):
                taken = min(self.spec.channels(name), left)
                share[name], left = taken / wanted, left - taken
            shares.append(list(share.values()))
        return shares
