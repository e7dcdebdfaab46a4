"""The networks of pretraining, from configuration: a UNet, the schedule of noise, and the VAE before it, if any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from satdifuser.data.trained import trained_bands
from satdifuser.diffusion.files import find_folder, find_unet, load_model, read_config
from satdifuser.diffusion.selection import latent_factor
from satdifuser.errors import UserError
from satdifuser.pretrain.bands import onto_bands
from satdifuser.pretrain.blocks import check_blocks, check_size, runs
from satdifuser.pretrain.soundness import unsound
from satdifuser.settings.pretraining import Autoencoder


def build_unet(blocks: Mapping[str, Any], channels: int, size: int, seed: int) -> Any:
    """An unconditional UNet of diffusers for inputs of `channels` and `size`, with weights drawn from a seed."""
    from satdifuser.diffusion.patched import unet_class

    check_blocks(blocks, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = _made(
            unet_class(blocks),
            "unet",
            {"sample_size": size, "in_channels": channels, "out_channels": channels, **blocks},
        )
        runs("unet: a network of these settings", unet, channels, size)
    return unet


def load_unet(weights: str, size: int, channels: int, bands: Sequence[str] | None = None) -> Any:
    """The UNet of a folder in diffusers' layout, to be trained further, for inputs of a size of ours.

    Where the images have other `bands` than the folder says that it was trained on, it is put onto these; None: they
    are the latents of a VAE.
    """
    from satdifuser.diffusion.patched import UNCONDITIONAL, unet_class

    whole = find_folder(weights, "a UNet to train further", "give a folder with unet/ as init")
    folder, known = find_unet(whole), None if bands is None else trained_bands(whole)
    config = read_config(folder / "config.json", UNCONDITIONAL, "UNet")
    other = bands is not None and known is not None and tuple(known) != tuple(bands)
    other = other and config.get("in_channels") == len(known or ())  # else its channels are a VAE's, and no bands
    if config.get("in_channels") != channels and not other:
        raise UserError(
            f"the UNet in {folder} reads {config.get('in_channels')} channels, and the images give {channels}"
        )
    check_size(config["block_out_channels"], size, config.get("patch_size", 1))
    unet = _sound("init", load_model(unet_class(config), folder, torch_dtype=torch.float32), folder)
    if bands is not None and known is not None and other:
        unet = onto_bands(unet, known, bands, str(whole))
    unet.register_to_config(sample_size=size)
    runs(f"init: the UNet in {folder}", unet, channels, size)
    return unet


def build_scheduler(settings: Mapping[str, Any]) -> Any:
    from diffusers import DDPMScheduler

    scheduler = _made(DDPMScheduler, "schedule", settings)
    betas = scheduler.betas
    if not len(betas) or not bool(((betas >= 0) & (betas <= 1)).all()):  # false of NaN too
        shown = ", ".join(f"{name}={settings[name]}" for name in settings if "beta" in name or "steps" in name)
        raise UserError(f"schedule: {shown} gives betas that are not all from 0 to 1")
    return scheduler


def build_vae(settings: Autoencoder, channels: int, seed: int) -> Any:
    """A VAE of diffusers with as many halvings as it has widths, less one."""
    from diffusers import AutoencoderKL

    widths = list(settings.block_out_channels)
    blocks = {
        "in_channels": channels,
        "out_channels": channels,
        "latent_channels": settings.latent_channels,
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": 1,
        "norm_num_groups": 16,
        "mid_block_add_attention": False,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = _made(AutoencoderKL, "vae", blocks)
        runs("vae: a network of these settings", vae, channels, 2 ** (len(widths) - 1) * 4)
    return vae


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
    vae = _sound("vae.weights", load_model(AutoencoderKL, folder, torch_dtype=torch.float32), folder)
    factor = vae.config["scaling_factor"]
    if not math.isfinite(factor) or factor <= 0:
        raise UserError(f"vae.weights: the VAE in {folder} has a scaling_factor of {factor}: fetch the folder again")
    return vae


def latent_side(vae: Any, size: int) -> int:
    """How wide the VAE's latents of an image are."""
    factor = latent_factor(vae)
    if size % factor:
        raise UserError(f"the VAE makes one latent of {factor} x {factor} pixels: {size} px is no multiple of {factor}")
    return size // factor


def _sound(setting: str, model: Any, folder: Path) -> Any:
    """A model whose weights are all numbers."""
    name = unsound(model.state_dict())
    if name is not None:
        raise UserError(f"{setting}: the weights in {folder} are NaN or infinite ({name}): give others")
    return model


def _made(cls: Any, name: str, settings: Mapping[str, Any]) -> Any:
    try:
        return cls(**settings)
    except Exception as error:  # of whatever kind: diffusers looks at few settings before it uses them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: {cls.__name__} of diffusers does not take these settings: {reason}") from error
