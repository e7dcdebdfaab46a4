"""Pictures of what a diffusion model makes of pure noise: a look at training, no measure of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from satdifuser.diffusion.latents import unscaled
from satdifuser.diffusion.noise import batch_noise
from satdifuser.pretrain.denoising import Denoising


@torch.no_grad()
def sample(objective: Denoising, count: int, steps: int = 50) -> Tensor:
    """Images as they enter the network or its VAE, by deterministic DDIM from noise of the objective's seed."""
    from diffusers import DDIMScheduler

    unet = objective.unet
    scheduler = DDIMScheduler.from_config(
        objective.scheduler.config, clip_sample=objective.vae is None, set_alpha_to_one=False, steps_offset=1
    )
    scheduler.set_timesteps(min(steps, len(objective.weight) - 1))  # of a short schedule, every level
    shape = (count, unet.config["in_channels"], unet.config["sample_size"], unet.config["sample_size"])
    like = torch.empty(shape, device=objective.weight.device)
    noisy = batch_noise(objective.seed, [f"sample-{number}" for number in range(count)], 0, like)
    for level in scheduler.timesteps:
        table = torch.full((count,), int(level), device=noisy.device)
        noisy = scheduler.step(unet(noisy, table, return_dict=False)[0].float(), level, noisy).prev_sample
    return noisy if objective.vae is None else _decoded(objective.vae, noisy)


def _decoded(vae: Any, latents: Tensor) -> Tensor:
    decoded: Tensor = vae.decode(unscaled(vae, latents)).sample
    return decoded.float()


def save_grid(images: Tensor, path: Path, scale: int = 2, gap: int = 2) -> Path:
    """First three channels (or the only one) of images in [0, 1], in rows, as a PNG; a little overexposed."""
    from PIL import Image

    shown = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    pixels = ((shown * 1.3).clamp(0, 1) * 255).round().byte().cpu()
    columns = math.ceil(math.sqrt(len(pixels)))
    rows, side = math.ceil(len(pixels) / columns), pixels.shape[-1]
    sheet = torch.full((3, rows * (side + gap) + gap, columns * (side + gap) + gap), 255, dtype=torch.uint8)
    for number, image in enumerate(pixels):
        top, left = gap + number // columns * (side + gap), gap + number % columns * (side + gap)
        sheet[:, top : top + side, left : left + side] = image
    picture = Image.fromarray(sheet.permute(1, 2, 0).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(partial, "PNG")
    return partial.replace(path)
