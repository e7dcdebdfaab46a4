"""Statistics of an image's colours as an encoder: what a learned representation should beat before it is called one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.inputs import ImageInput
from satdifuser.kinds import Side, checked

DECILES = tuple(number / 10 for number in range(1, 10))


class ColourStatistics(nn.Module):
    """A few numbers of an image, one tap of a single pixel; nothing trains, and nothing has been pretrained.

    For each band its mean, deviation, nine deciles, and mean absolute difference between neighbours across and down;
    then the correlation of each two bands: 42 numbers of three bands.
    """

    @checked("encoder")
    def __init__(self, *, prepare: ImageInput, image_size: Side = 64) -> None:
        super().__init__()
        self.prepare = prepare
        bands = prepare.channels
        count = bands * (4 + len(DECILES)) + bands * (bands - 1) // 2
        self.spec = BankSpec(
            taps=(Tap("colours", None, 0, count, image_size),),
            encoder="colour-statistics",
            weights="none",
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
        pixels = x.flatten(2)
        centred = pixels - pixels.mean(2, keepdim=True)
        deviation = centred.square().mean(2).sqrt()
        deciles = pixels.quantile(pixels.new_tensor(DECILES), dim=2)
        unit = centred / deviation[..., None].clamp(min=1e-6)
        first, second = torch.triu_indices(x.shape[1], x.shape[1], 1, device=x.device)
        numbers = [
            pixels.mean(2),
            deviation,
            *deciles,
            x.diff(dim=3).abs().mean((2, 3)),
            x.diff(dim=2).abs().mean((2, 3)),
            (unit[:, first] * unit[:, second]).mean(2),
        ]
        return FeatureBank(self.spec, {self.spec.taps[0]: torch.cat(numbers, dim=1)[..., None, None]})
