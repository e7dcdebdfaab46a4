"""Concatenation: all maps side by side and one linear map, which the heads that weigh and gate must beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.fusion.base import BatchNorm, Fused, FusionHead, Norm, Width, normalisation


class Concatenated(FusionHead):
    """Per stride, one 1x1 convolution over all channels of all f[t, l], which are first brought to one level.

    `norm`: "group" divides each f[t, l] of a sample by its root mean square, "batch" standardises each channel over the
    batch, as linear probes are trained (He et al. 2022), and so keeps how strong a sample's map is. With a linear
    decoder the whole is a linear classifier of all features, or, if dense, of those at a pixel. Its readable weight of
    a (timestep, tap) is that map's share of the squared filters, over all strides.
    """

    def __init__(self, spec: BankSpec, projection_dim: Width = 384, norm: Norm = "group") -> None:
        super().__init__(spec, projection_dim)
        normalisation(norm)  # the names are the same
        self.over_batch = norm == "batch"
        width = {stride: sum(map(spec.channels, names)) for stride, names in self.names.items()}
        inputs = {stride: len(spec.timesteps) * count for stride, count in width.items()}
        self.standardise = nn.ModuleDict(
            {str(stride): BatchNorm(n, affine=False) for stride, n in inputs.items() if self.over_batch}
        )
        self.mix = nn.ModuleDict({str(stride): nn.Conv2d(n, projection_dim, 1) for stride, n in inputs.items()})

    def fuse(self, bank: FeatureBank) -> Fused:
        maps, shares = {}, {}
        steps = len(self.spec.timesteps)
        for stride, names in self.names.items():
            parts = [bank.stack(name).unflatten(0, (steps, -1)) for name in names]  # [timesteps, batch, c, h, w]
            if not self.over_batch:
                parts = [_level(part) for part in parts]
            x = torch.cat([part.transpose(0, 1).flatten(1, 2) for part in parts], dim=1)
            mix = self.mix[str(stride)]
            maps[stride] = mix(self.standardise[str(stride)](x) if self.over_batch else x)
            squares = mix.get_parameter("weight").detach().float().square().sum((0, 2, 3))
            own = squares.split([steps * self.spec.channels(name) for name in names])
            shares[stride] = torch.stack([part.view(steps, -1).sum(1) for part in own], dim=1)
        total = torch.stack([share.sum() for share in shares.values()]).sum()
        return Fused(maps, {stride: share / total for stride, share in shares.items()})


def _level(x: Tensor) -> Tensor:
    """Maps of very different sizes brought to one, each sample for itself."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    return x * (exact.square().mean((2, 3, 4), keepdim=True) + 1e-12).rsqrt().to(x.dtype)
