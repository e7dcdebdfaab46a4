"""The networks of pretraining, from configuration: a UNet, the schedule of noise, and the VAE before it, if any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from satdifuser.diffusion.files import find_folder, find_unet, load_model, read_config
from satdifuser.diffusion.selection import latent_factor
from satdifuser.errors import UserError


def build_unet(blocks: Mapping[str, Any], channels: int, size: int, seed: int) -> Any:
    """An unconditional UNet of diffusers for inputs of `channels` and `size`, with weights drawn from a seed."""
    from diffusers import UNet2DModel

    _check_size(blocks["block_out_channels"], size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _made(
            UNet2DModel, "unet", {"sample_size": size, "in_channels": channels, "out_channels": channels, **blocks}
        )


def load_unet(weights: str, channels: int, size: int) -> Any:
    """The UNet of a folder in diffusers' layout, to be trained further, for inputs of a size of ours."""
    from diffusers import UNet2DModel

    folder = find_unet(find_folder(weights, "a UNet to train further", "give a folder with unet/ as init"))
    config = read_config(folder / "config.json", ("UNet2DModel",), "UNet")
    if config.get("in_channels") != channels:
        raise UserError(
            f"the UNet in {folder} reads {config.get('in_channels')} channels, and the images give {channels}"
        )
    _check_size(config["block_out_channels"], size)
    unet = load_model(UNet2DModel, folder, torch_dtype=torch.float32)
    unet.register_to_config(sample_size=size)
    return unet


def build_scheduler(settings: Mapping[str, Any]) -> Any:
    from diffusers import DDPMScheduler

    return _made(DDPMScheduler, "schedule", settings)


def build_vae(settings: Mapping[str, Any], channels: int, seed: int) -> Any:
    """A VAE of diffusers with as many halvings as it has widths, less one."""
    from diffusers import AutoencoderKL

    widths = list(settings["block_out_channels"])
    blocks = {
        "in_channels": channels,
        "out_channels": channels,
        "latent_channels": settings["latent_channels"],
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": 1,
        "norm_num_groups": 16,
        "mid_block_add_attention": False,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _made(AutoencoderKL, "vae", blocks)


def load_vae(weights: str) -> Any:
    """A VAE in diffusers' layout: its own folder, or one with `vae/` in it."""
    from diffusers import AutoencoderKL

    folder = Path(weights).expanduser()
    folder = folder / "vae" if (folder / "vae").is_dir() else folder
    if not folder.is_dir():
        raise UserError(
            f"vae.weights is {weights!r}: give null (pixels), small (trained first), or a folder with a VAE"
        )
    read_config(folder / "config.json", ("AutoencoderKL",), "VAE")
    return load_model(AutoencoderKL, folder, torch_dtype=torch.float32)


def latent_side(vae: Any, size: int) -> int:
    """How wide the VAE's latents of an image are."""
    factor = latent_factor(vae)
    if size % factor:
        raise UserError(f"the VAE makes one latent of {factor} x {factor} pixels: {size} px is no multiple of {factor}")
    return size // factor


def _check_size(widths: Sequence[int], size: int) -> None:
    factor = 2 ** (len(widths) - 1)
    if size % factor:
        raise UserError(f"the UNet halves its input {len(widths) - 1} times: {size} px is no multiple of {factor}")


def _made(cls: Any, name: str, settings: Mapping[str, Any]) -> Any:
    try:
        return cls(**settings)
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, NotImplementedError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: {cls.__name__} of diffusers does not take these settings: {reason}") from error
