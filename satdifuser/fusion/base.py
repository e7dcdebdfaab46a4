"""What every fusion head is: built for a spec, it turns a bank into one map per stride, with its weights readable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from satdifuser.bank import BankError, BankSpec, FeatureBank
from satdifuser.kinds import check, checked


@dataclass
class Fused:
    """The fused pyramid of a batch.

    `maps`: stride -> `[batch, channels, height, width]`. `weights`: stride -> `[timesteps, taps of that stride]`, how
    much each map counted on this batch, summing to one over what the head's softmax runs over. `details`: what a head
    can show beyond that (lw's weight maps, moe's gate usage). `aux_loss`: to be added to the task's loss, or None.
    """

    maps: dict[int, Tensor]
    weights: dict[int, Tensor]
    aux_loss: Tensor | None = None
    details: dict[str, dict[int, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class PyramidSpec:
    """What a decoder is built for: channels of each stride (the same for all) and the size of the image."""

    strides: tuple[int, ...]
    channels: int
    image_size: tuple[int, int]


class Bottleneck(nn.Module):
    """ResNet bottleneck: 1x1, 3x3, 1x1, a quarter of the width in the middle, a projected shortcut.

    `norm` follows each convolution: "group" is GroupNorm, as published; "batch" is BatchNorm, which keeps how bright or
    strong a sample's map is beside those of others, where GroupNorm makes each sample its own measure. `init`: see
    `initialise`.
    """

    def __init__(self, channels: int, width: int, norm: str = "group", init: str = "default") -> None:
        super().__init__()
        middle, normed = max(width // 4, 1), normalisation(norm)
        self.reduce, self.norm1 = nn.Conv2d(channels, middle, 1, bias=False), normed(middle)
        self.spread, self.norm2 = nn.Conv2d(middle, middle, 3, padding=1, bias=False), normed(middle)
        self.expand, self.norm3 = nn.Conv2d(middle, width, 1, bias=False), normed(width)
        self.shortcut, self.norm4 = nn.Conv2d(channels, width, 1, bias=False), normed(width)
        initialise((self.reduce, self.spread, self.expand, self.shortcut), init)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.reduce(x)))
        y = F.relu(self.norm2(self.spread(y)))
        return F.relu(self.norm3(self.expand(y)) + self.norm4(self.shortcut(x)))


def group_norm(channels: int, groups: int = 32) -> nn.GroupNorm:
    """GroupNorm(32), with fewer groups only where 32 do not divide the channels or would leave single channels."""
    while groups > 1 and (channels % groups or channels // groups < 2):
        groups //= 2
    return nn.GroupNorm(groups, channels)


Norm = Literal["group", "batch"]
Init = Literal["default", "msra"]
Width = Annotated[int, Ge(8)]  # of the maps that a head gives


class BatchNorm(nn.BatchNorm2d):
    """Over the batch. A lone value, which deviates from nothing, is seen as in evaluation."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == self.num_features:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def normalisation(name: str) -> Callable[[int], nn.Module]:
    """The layer of that name for a number of channels."""
    layers: dict[str, Callable[[int], nn.Module]] = {"group": group_norm, "batch": BatchNorm}
    return layers[check(name, Norm, "fusion.norm")]


def initialise(convolutions: Iterable[nn.Conv2d], name: str) -> None:
    """The first weights of a bottleneck: "default" leaves torch's, "msra" draws them as the released code does.

    That is Kaiming's normal distribution by fan out (He et al. 2015), which keeps the size of gradients: a standard
    deviation of sqrt(2 / (outputs * k * k)).
    """
    if check(name, Init, "fusion.init") == "msra":
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")


class FusionHead(nn.Module):
    """Base of the heads. A head may skip parameters in a step (`sparse`) and may count training steps (`step_done`)."""

    sparse = False

    @checked("fusion")
    def __init__(self, spec: BankSpec, projection_dim: Width = 384) -> None:
        super().__init__()
        if not spec.is_grid():
            raise BankError(
                f"{type(self).__name__} needs every tap at every timestep: {', '.join(map(str, spec.taps))}"
            )
        if spec.dates is not None:
            raise BankError(f"{type(self).__name__} reads one map of each tap, not {spec.dates} dates: see temporal=")
        self.spec = spec
        self.names = {stride: spec.names(stride) for stride in spec.strides}
        self.pyramid = PyramidSpec(spec.strides, projection_dim, spec.image_size)

    def forward(self, bank: FeatureBank) -> Fused:
        bank.check(self.spec, type(self).__name__)
        return self.fuse(bank if bank.spec == self.spec else bank.select(self.spec))

    def fuse(self, bank: FeatureBank) -> Fused:
        raise NotImplementedError

    def step_done(self) -> None:
        """Told by the trainer after each optimiser step; evaluation never calls it."""


class ProjectingHead(FusionHead):
    """A head that first brings every tap to one width with a bottleneck of its own, shared over the timesteps."""

    def __init__(
        self, spec: BankSpec, projection_dim: Width = 384, norm: Norm = "group", init: Init = "default"
    ) -> None:
        super().__init__(spec, projection_dim)
        self.project = nn.ModuleDict(
            {key(name): Bottleneck(spec.channels(name), projection_dim, norm, init) for name in spec.names()}
        )

    def projected(self, bank: FeatureBank, stride: int) -> Tensor:
        """B_l(f[t, l]) of a stride: `[timesteps, taps, batch, channels, height, width]`, one call for each tap."""
        steps = len(self.spec.timesteps)
        maps = [self.project[key(name)](bank.stack(name)).unflatten(0, (steps, -1)) for name in self.names[stride]]
        return torch.stack(maps, dim=1)


def key(name: str) -> str:
    """A tap's name as a name inside a ModuleDict, which allows no dots."""
    return name.replace(".", "/")
