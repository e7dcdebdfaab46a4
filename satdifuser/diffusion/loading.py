"""Loading backbones from disk: strict, from safetensors, with one clear line when something is not there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from satdifuser.errors import UserError

SMALL = Path(__file__).parent / "weights" / "small"


@dataclass(frozen=True)
class Backbone:
    """A diffusers UNet with the noise schedule that it was trained on, and what names its weights."""

    unet: Any  # diffusers' models and schedulers carry no types
    scheduler: Any
    name: str
    fingerprint: str


def pixel_unet(weights: str = "small", *, name: str | None = None, seed: int = 0) -> Backbone:
    """An unconditional `UNet2DModel` in diffusers' layout (`unet/`, `scheduler/`).

    `weights` is a folder; `small` means the weights that the package ships, and `random` their architecture with fresh
    weights drawn from `seed` (the control that every claim about pretraining needs).
    """
    from diffusers import DDPMScheduler, UNet2DModel

    folder = SMALL if weights in ("small", "random") else Path(weights).expanduser()
    config = _read_config(folder / "unet" / "config.json", "UNet2DModel")
    schedule = _read_config(folder / "scheduler" / "scheduler_config.json", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DModel.from_config(config)
    if weights != "random":
        _load_weights(unet, folder / "unet" / "diffusion_pytorch_model.safetensors")
    return Backbone(
        unet=unet,
        scheduler=DDPMScheduler.from_config(schedule),
        name=name or (f"{weights}-diffusion" if weights in ("small", "random") else folder.name),
        fingerprint=fingerprint(unet),
    )


def fingerprint(network: nn.Module) -> str:
    """A short name for the exact weights: a hash of every tensor's name and bytes.

    >>> fingerprint(nn.Linear(2, 1)) == fingerprint(nn.Linear(2, 1))
    False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _read_config(path: Path, expected: str | None) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"no {path.name} at {path}: give a folder in diffusers' layout (unet/, scheduler/), or"
            " encoder.backbone.weights=small"
        )
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): fetch the file again") from None
    if expected and config.get("_class_name") != expected:
        raise UserError(f"{path} describes a {config.get('_class_name')}, but a {expected} is expected here")
    return config


def _load_weights(network: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"no weights at {path}: save them with save_pretrained (safetensors)")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or incomplete ({error}): fetch the file again") from None
    own = network.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is unknown" for name in state if name not in own]
    wrong += [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if wrong:
        raise UserError(f"{path} does not match its config ({len(wrong)} weights): {'; '.join(wrong[:3])}")
    network.load_state_dict({name: value.float() for name, value in state.items()})
