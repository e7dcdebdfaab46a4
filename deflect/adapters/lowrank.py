"""Methods that put a small branch beside linear layers: LoRA and whatever else peft has, and scaled low rank."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deflect.adapters.base import Adapter
from deflect.backbones.base import Backbone
from deflect.bands import Band
from satdifuser.bank import BankError
from satdifuser.kinds import Count, Positive, Rate

QKV = r".*\.(qkv|to_qkv|to_q|to_k|to_v)"  # of timm and torchgeo, and of diffusers


NAMING = {"megatron_config", "megatron_core", "auto_mapping", "parent_library"}


def attach_peft(backbone: Backbone, config: Any) -> None:
    """peft's wrapper around the model, with what already trains left as it is (a new patch embedding)."""
    import peft

    before = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Unsupported layer type")  # timm's LayerNorm is a LayerNorm
            backbone.model = peft.get_peft_model(backbone.model, config)
    except Exception as error:  # each of its methods has errors of its own
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise BankError(f"peft cannot adapt {backbone.facts.name} with {config.peft_type.value}: {why}") from error
    for parameter in before:
        parameter.requires_grad_(True)


@dataclass(frozen=True)
class Lora(Adapter):
    """Low-rank updates of the projections to queries, keys and values (Hu et al. 2021), by peft."""

    name = "lora"
    r: Count = 16
    alpha: Positive = 16.0
    dropout: Rate = 0.0
    targets: str = QKV

    def attach(self, backbone: Backbone, bands: Sequence[Band]) -> None:
        import peft

        options: dict[str, Any] = {"r": self.r, "lora_alpha": self.alpha, "lora_dropout": self.dropout}
        attach_peft(backbone, peft.LoraConfig(target_modules=self.targets, **options))


@dataclass(frozen=True)
class Peft(Adapter):
    """Any method of peft by its name (vera, oft, loha, ...; dora is lora with use_dora), with its own options."""

    name = "peft"
    method: str = "vera"
    targets: str = QKV
    options: Mapping[str, Any] = field(default_factory=dict)

    def attach(self, backbone: Backbone, bands: Sequence[Band]) -> None:
        import peft

        kinds = {str(kind.value).lower(): config for kind, config in peft.PEFT_TYPE_TO_CONFIG_MAPPING.items()}
        options = dict(self.options)
        other = sorted(NAMING.intersection(options))
        if other:
            raise BankError(f"encoder.adapter.options cannot have {other[0]}: it names code to be imported")
        method = str(self.method).lower()
        if method == "dora":
            method, options = "lora", {"use_dora": True, **options}
        if method not in kinds:
            raise BankError(f"peft has no method {self.method!r}: it has dora, {', '.join(sorted(kinds))}")
        try:
            config = kinds[method](**{"target_modules": self.targets, **options})
        except (TypeError, ValueError) as error:
            raise BankError(f"peft's {method} does not take these options: {error}") from error
        attach_peft(backbone, config)


@dataclass(frozen=True)
class ScaledLowRank(Adapter):
    """Scaled low-rank adapters (Scheibenreif et al., CVPR 2024) beside every linear layer of the blocks."""

    name = "slr"
    vit_only = True
    rank: Count = 8

    def attach(self, backbone: Backbone, bands: Sequence[Band]) -> None:
        blocks = backbone.blocks
        for name, layer in list(blocks.named_modules()):
            if isinstance(layer, nn.Linear):
                blocks.set_submodule(name, ScaledLowRankLinear(layer, self.rank))


class ScaledLowRankLinear(nn.Module):
    """`y = s_out * (W (s_in * x) + b + B A (s_in * x))`: a frozen layer, a branch, and scales of features around both.

    At the start B is zero and the scales are one: the layer computes what it did.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base_layer = layer.requires_grad_(False)
        like: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        self.scale_in = nn.Parameter(torch.ones(layer.in_features, **like))
        self.scale_out = nn.Parameter(torch.ones(layer.out_features, **like))
        self.down = nn.Linear(layer.in_features, rank, bias=False, **like)
        self.up = nn.Linear(rank, layer.out_features, bias=False, **like)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale_in.to(x.dtype)
        y = self.base_layer(x) + self.up(self.down(x))
        return y * self.scale_out.to(y.dtype)
