"""Methods that train weights which the ViT has already: none of them, all, those of its norms, its biases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from deflect.adapters.base import Adapter
from deflect.adapters.lowrank import attach_peft
from deflect.backbones.base import Backbone
from deflect.bands import Band


@dataclass(frozen=True)
class Frozen(Adapter):
    """Nothing in the backbone: a linear or dense probe."""

    name = "frozen"

    def attach(self, backbone: Backbone, bands: Sequence[Band]) -> None:
        return


@dataclass(frozen=True)
class Full(Adapter):
    """Everything that the model's own library trains."""

    name = "full"

    def attach(self, backbone: Backbone, bands: Sequence[Band]) -> None:
        for parameter in backbone.learnable:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class NormTuning(Adapter):
    """The scale and shift of every LayerNorm, by peft's LN tuning."""

    name = "norm"
    vit_only = True

    def attach(self, backbone: Backbone, bands: Sequence[Band]) -> None:
        import peft

        norms = [name for name, module in backbone.model.named_modules() if isinstance(module, nn.LayerNorm)]
        attach_peft(backbone, peft.LNTuningConfig(target_modules=norms))
        if backbone.norm is not None:
            backbone.norm.requires_grad_(True)


@dataclass(frozen=True)
class BitFit(Adapter):
    """Every bias."""

    name = "bitfit"

    def attach(self, backbone: Backbone, bands: Sequence[Band]) -> None:
        learnable = {id(parameter) for parameter in backbone.learnable}
        for name, parameter in backbone.named_parameters():
            if name.endswith("bias") and id(parameter) in learnable:
                parameter.requires_grad_(True)
