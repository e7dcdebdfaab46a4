"""Any convolutional net of timm as a trainable encoder, from scratch: its stages are the bank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Seed, Side, checked


class CNNEncoder(nn.Module):
    """timm's `model` as it gives features, trained with the head and decoder that follow it.

    `stages` numbers those that become taps, from 0, the finest, or from -1, the coarsest, back; null: all of them. Its
    normalisation is the model's own: where that is over batches (BatchNorm), so is what it learns.
    """

    @checked("encoder")
    def __init__(
        self,
        *,
        prepare: ImageInput,
        model: str = "resnet10t",
        image_size: Side = 64,
        stages: Sequence[int] | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.prepare = prepare
        self.net = _create(model, prepare.channels, seed)
        info = self.net.feature_info
        every = list(zip(info.module_name(), info.channels(), info.reduction(), strict=True))
        self.stages = _chosen(stages, len(every))
        coarsest = max(every[number][2] for number in self.stages)
        if image_size % coarsest:
            raise UserError(
                f"encoder.image_size is {image_size}: {model} has a stride of {coarsest}, so use a multiple of it"
            )
        self.spec = BankSpec(
            taps=tuple(
                Tap(every[number][0], None, depth, every[number][1], every[number][2])
                for depth, number in enumerate(self.stages)
            ),
            encoder=model,
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
        maps = self.net(self.prepare(images, sample_ids, expect=self.spec.image_size))
        return FeatureBank(
            self.spec, {tap: maps[number] for tap, number in zip(self.spec.taps, self.stages, strict=True)}
        )


def _create(model: str, channels: int, seed: int) -> Any:
    import timm

    if not timm.is_model(model):
        raise UserError(f"encoder.model is {model!r}: timm has none of this name{nearest(model, timm.list_models())}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return timm.create_model(model, pretrained=False, features_only=True, in_chans=channels)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())[:150]
            raise UserError(
                f"encoder.model is {model!r}: timm makes no convolutional features of it ({reason})"
                f"{nearest(model, timm.list_models())}"
            ) from error


def _chosen(stages: Sequence[int] | None, count: int) -> list[int]:
    if stages is None:
        return list(range(count))
    wrong = [stage for stage in stages if not -count <= stage < count]
    if wrong or not stages:
        raise UserError(
            f"encoder.stages is {list(stages)}: give numbers from 0 to {count - 1}, or from -1 back to -{count}"
        )
    return sorted({stage % count for stage in stages})
