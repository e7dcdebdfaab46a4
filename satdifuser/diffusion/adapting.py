"""What trains of a UNet: an adapter put on it, and of what that lets train, what the maps depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from satdifuser.diffusion.network import TappedUNet
from satdifuser.errors import UserError


class Adapter(Protocol):
    """What `deflect.adapters` has, of which those that need no vision transformer can adapt a UNet."""

    name: ClassVar[str]
    vit_only: ClassVar[bool]

    def attach(self, backbone: Any, bands: Sequence[Any]) -> None: ...

    def describe(self) -> str: ...


@dataclass(frozen=True)
class Facts:
    """What an adapter may ask about the model, for its errors."""

    name: str


class Adaptable(nn.Module):
    """A UNet with the names by which adapters know a model: `model`, `learnable`, `facts`."""

    def __init__(self, unet: Any, name: str) -> None:
        super().__init__()
        self.model, self.facts = unet, Facts(name)
        self.learnable = list(unet.parameters())


def adapt(network: TappedUNet, adapter: Adapter, name: str, mode: str, seed: int) -> bool:
    """Put the adapter on the network; gives whether anything of it trains now. Its first weights depend on the seed."""
    if adapter.vit_only:
        raise UserError(
            f"adapter={adapter.name} is for vision transformers: a UNet takes full, lora, bitfit, and methods of peft"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapter.attach(Adaptable(network.unet, name), ())
    network.unet.eval()
    trains = any(parameter.requires_grad for parameter in network.unet.parameters())
    if trains and mode != "noise":
        raise UserError(f"adapter={adapter.name} trains with encoder.mode=noise alone: {mode} is a path of many steps")
    if trains and network.dtype == torch.float16:
        raise UserError(f"adapter={adapter.name} cannot train in float16: set encoder.precision=float32, or bfloat16")
    return trains


def hold_unread(network: TappedUNet, side: int, metadata: int) -> None:
    """Freeze what would train although no map depends on it, as what comes after the last tap.

    Processes that share a step would wait for its gradients. `side` is that of the UNet's input, `metadata` how many
    numbers it is given beside it.
    """
    training = [parameter for parameter in network.unet.parameters() if parameter.requires_grad]
    noisy, numbers = torch.zeros(1, network.unet.config["in_channels"], side, side), torch.zeros(1, metadata)
    with torch.enable_grad():
        maps = network.read(noisy, torch.zeros(1, dtype=torch.long), numbers if metadata else None)
        total = torch.stack([value.float().sum() for value in maps.values()]).sum()
        gradients = torch.autograd.grad(total, training, allow_unused=True)
    for parameter, gradient in zip(training, gradients, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)
