"""The small VAE of a latent diffusion model: trained first, on the same images, then frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.pretrain.draws import Draws


class Autoencoding(nn.Module):
    """Absolute error of the decoded image, and a little of the latents' distance from a standard normal."""

    def __init__(self, vae: Any, kl: float = 1e-6) -> None:
        super().__init__()
        self.vae, self.kl = vae, kl

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        posterior = self.vae.encode(images).latent_dist
        noise = draws.normal(tuple(posterior.mean.shape[1:]))
        decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample
        error = (decoded.float() - images).abs().mean((1, 2, 3))
        return error + self.kl * posterior.kl()

    @torch.no_grad()
    def error(self, images: Tensor, batch: int) -> float:
        """Mean absolute error of what the posterior's mean is decoded to."""
        parts = [part.to(self.vae.device) for part in images.split(batch)]
        return float(sum((self.vae(part).sample.float() - part).abs().sum() for part in parts) / images.numel())

    @torch.no_grad()
    def unit(self, images: Tensor, batch: int) -> float:
        """The factor that gives the latents of these images a standard deviation of 1."""
        encoded = (self.vae.encode(part.to(self.vae.device)).latent_dist.mean for part in images.split(batch))
        parts: Sequence[Tensor] = [part.float().cpu() for part in encoded]
        return float(1.0 / torch.cat(list(parts)).std())
