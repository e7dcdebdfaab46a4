"""From images to what the UNet reads: the VAE's latents, or the pixels themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from satdifuser.diffusion.loading import cast
from satdifuser.diffusion.memory import MemoryBound
from satdifuser.diffusion.noise import batch_noise
from satdifuser.kinds import checked

Posterior = Literal["mean", "sample"]
POSTERIOR_DRAW = -1  # the posterior's noise, among the timesteps that key all noise


class LatentEncoder(nn.Module):
    """A frozen VAE's encoder: latents in float32, scaled to unit variance as the UNet was trained on.

    The posterior's mean by default; `posterior="sample"` draws from it by (seed, sample id).
    """

    @checked("encoder")
    def __init__(
        self, vae: Any, *, dtype: torch.dtype, posterior: Posterior = "mean", seed: int = 0, batch: int | None = None
    ) -> None:
        super().__init__()
        self.vae = cast(vae, dtype).eval().requires_grad_(False)
        self.dtype, self.posterior, self.seed = dtype, posterior, seed
        self.memory = MemoryBound("encoder.batch", batch)

    def forward(self, images: Tensor, sample_ids: Sequence[str]) -> Tensor:
        parts = self.memory.run(lambda part: self.vae.encode(images[part].to(self.dtype)).latent_dist, len(images))
        latents = torch.cat([part.mean.float() for part in parts])
        if self.posterior == "sample":
            spread = torch.cat([part.std.float() for part in parts])
            latents = latents + spread * batch_noise(self.seed, sample_ids, POSTERIOR_DRAW, latents)
        return scaled(self.vae, latents)


def scaled(vae: Any, latents: Tensor) -> Tensor:
    """The VAE's latents at the size that a UNet reads."""
    return (latents - (vae.config.get("shift_factor") or 0.0)) * vae.config["scaling_factor"]


def unscaled(vae: Any, latents: Tensor) -> Tensor:
    """A UNet's latents at the size that the VAE decodes."""
    return latents / vae.config["scaling_factor"] + (vae.config.get("shift_factor") or 0.0)
