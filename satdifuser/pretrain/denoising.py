"""The diffusion objective: how well a UNet tells, at every level of noise, what of an image is noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.diffusion.latents import scaled
from satdifuser.diffusion.noise import batch_noise
from satdifuser.pretrain.draws import Draws


class Denoising(nn.Module):
    """A UNet, the noise schedule that it learns, and, in latent space, the frozen VAE before it.

    `forward` gives the loss of each image at a random level, weighted by min-SNR (Hang et al. 2023): the squared error
    counts as min(SNR, gamma) times that of the clean image, so that easy levels do not drown the others; `gamma` null
    leaves the plain error. `power` above 1 draws more of the levels with little noise.
    """

    signal: Tensor
    sigma: Tensor
    weight: Tensor

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        *,
        vae: Any = None,
        gamma: float | None = 5.0,
        power: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.unet, self.scheduler, self.seed, self.power = unet, scheduler, seed, power
        self.vae = None if vae is None else vae.eval().requires_grad_(False)
        self.prediction = scheduler.config.prediction_type
        kept = scheduler.alphas_cumprod.double()
        self.register_buffer("signal", kept.sqrt().float(), persistent=False)
        self.register_buffer("sigma", (1 - kept).sqrt().float(), persistent=False)
        self.register_buffer("weight", _min_snr(kept, self.prediction, gamma).float(), persistent=False)

    def train(self, mode: bool = True) -> Denoising:
        super().train(mode)
        if self.vae is not None:
            self.vae.eval()
        return self

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        clean = self.latents(images)
        levels = self.levels(draws)
        return self.error(clean, draws.normal(tuple(clean.shape[1:])), levels) * self.weight[levels]

    def levels(self, draws: Draws) -> Tensor:
        """A level of noise for each image."""
        return draws.levels(len(self.weight), self.power)

    def latents(self, images: Tensor) -> Tensor:
        """What the UNet denoises: the pixels, or what the VAE makes of them."""
        if self.vae is None:
            return images
        with torch.no_grad():
            return scaled(self.vae, self.vae.encode(images).latent_dist.mean.float())

    def error(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """Mean squared error of the prediction, for each image."""
        signal, sigma = self._parts(levels)
        target = {"epsilon": noise, "sample": clean}.get(self.prediction)
        if target is None:
            target = signal * noise - sigma * clean
        found = self.unet(self.noised(clean, noise, levels), levels, return_dict=False)[0]
        return (found.float() - target).square().mean((1, 2, 3))

    def noised(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """Images with the noise of their levels."""
        signal, sigma = self._parts(levels)
        return signal * clean + sigma * noise

    def _parts(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        return self.signal[levels].view(-1, 1, 1, 1), self.sigma[levels].view(-1, 1, 1, 1)

    @torch.no_grad()
    def by_level(self, images: Tensor, ids: Sequence[str], levels: Sequence[int], batch: int) -> dict[str, float]:
        """The unweighted error at some levels, with noise that depends on seed, id and level alone."""
        found = {}
        for level in levels:
            errors = []
            for first in range(0, len(images), batch):
                clean = self.latents(images[first : first + batch].to(self.weight.device))
                noise = batch_noise(self.seed, ids[first : first + batch], level, clean)
                table = torch.full((len(clean),), level, device=clean.device)
                errors.append(self.error(clean, noise, table).double())
            found[str(level)] = float(torch.cat(errors).mean())
        return found


def _min_snr(kept: Tensor, prediction: str, gamma: float | None) -> Tensor:
    """What the squared error of a level counts, by the kind of prediction."""
    snr = kept / (1 - kept)
    if gamma is None:
        return torch.ones_like(snr)
    capped = snr.clamp(max=gamma)
    if prediction == "epsilon":
        return (gamma / snr).clamp(max=1.0)  # also where nothing is left of the signal, and snr is 0
    return capped / (snr + 1) if prediction == "v_prediction" else capped
