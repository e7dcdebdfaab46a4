"""A plain convolutional U-Net as a trainable encoder: the maps of its decoder path are the bank."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, MultipleOf
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError
from satdifuser.kinds import Seed, Side, checked

GROUPS = 8  # of a normalisation
Width = Annotated[int, Ge(GROUPS), MultipleOf(GROUPS)]
Levels = Annotated[int, Ge(1), Le(10)]


class Stage(nn.Sequential):
    """Twice: 3x3 convolution, GroupNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for source in (inputs, outputs):
            layers += [nn.Conv2d(source, outputs, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, outputs), nn.ReLU()]
        super().__init__(*layers)


class UNetEncoder(nn.Module):
    """Ronneberger's U-Net with `width * 2**level` channels, trained with the head and decoder that follow it."""

    @checked("encoder")
    def __init__(
        self, *, prepare: ImageInput, image_size: Side = 64, width: Width = 32, levels: Levels = 4, seed: Seed = 0
    ) -> None:
        super().__init__()
        self.prepare = prepare
        if image_size % 2 ** (levels - 1):
            raise UserError(
                f"encoder.image_size is {image_size}: {levels} levels need a multiple of {2 ** (levels - 1)}"
            )
        widths = [width * 2**level for level in range(levels)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.ModuleList(Stage(a, b) for a, b in zip([prepare.channels, *widths], widths, strict=False))
            self.up = nn.ModuleList(Stage(fine + coarse, fine) for fine, coarse in pairwise(widths))
        taps = tuple(Tap(f"level{i}", None, levels - 1 - i, widths[i], 2**i) for i in reversed(range(levels)))
        self.spec = BankSpec(
            taps=taps,
            encoder=f"unet-w{width}-l{levels}",
            weights=f"from-scratch-seed{seed}",
            image_size=(image_size, image_size),
            settings=tuple(sorted(prepare.settings.items())),
        )

    def forward(
        self,
        images: Tensor,
        *,
        sample_ids: Sequence[str] | None = None,
        metadata: Tensor | None = None,
    ) -> FeatureBank:
        x = self.prepare(images, sample_ids, expect=self.spec.image_size)
        skips = []
        for number, stage in enumerate(self.down):
            x = stage(x if number == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        maps = {self.spec.find(f"level{len(skips) - 1}"): x}
        for number in reversed(range(len(self.up))):
            x = self.up[number](torch.cat([skips[number], F.interpolate(x, scale_factor=2.0)], dim=1))
            maps[self.spec.find(f"level{number}")] = x
        return FeatureBank(self.spec, maps)
