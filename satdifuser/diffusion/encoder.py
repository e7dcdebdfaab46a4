"""The diffusion encoder: noise an image to several levels, run the UNet, and read its maps into a feature bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.data.inputs import ImageInput
from satdifuser.diffusion.loading import Backbone
from satdifuser.diffusion.noise import batch_noise
from satdifuser.diffusion.taps import recording, trace
from satdifuser.errors import UserError


class DiffusionEncoder(nn.Module):
    """A frozen pixel-space diffusion UNet as an encoder.

    For each timestep t the image x_0 is noised in closed form, x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps, with eps a
    function of (seed, sample id, t); all timesteps go through the UNet in one batch, which stops after the last tap.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        prepare: ImageInput,
        taps: Sequence[str],
        timesteps: Sequence[int],
        image_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.unet, self.scheduler = backbone.unet, backbone.scheduler
        self.prepare, self.seed = prepare, seed
        self.unet.requires_grad_(False).eval()
        channels = self.unet.config["in_channels"]
        if prepare.channels != channels:
            raise UserError(f"the UNet reads {channels} channels, but the input gives {', '.join(prepare.bands)}")
        self._check_timesteps(timesteps)
        self._check_size(image_size)
        if not taps:
            raise UserError("encoder.taps is empty: name at least one module (configs/encoder/small.yaml has a choice)")
        zeros = torch.zeros(1, channels, image_size, image_size, device=self.device)
        found = trace(self.unet, taps, lambda: self.unet(zeros, 0), image_size)
        self.last_tap = found[-1].name
        self.spec = BankSpec(
            taps=tuple(replace(tap, timestep=t) for t in timesteps for tap in found),
            encoder=backbone.name,
            weights=backbone.fingerprint,
            image_size=(image_size, image_size),
            mode="noise",
            settings=tuple(sorted({"seed": seed, **prepare.settings}.items())),
        )

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    def forward(
        self,
        images: Tensor,
        *,
        sample_ids: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> FeatureBank:
        if sample_ids is None or len(sample_ids) != len(images):
            raise UserError(f"the noise depends on each sample's id: give {len(images)} sample_ids")
        clean = self.prepare(images, sample_ids, expect=self.spec.image_size)
        timesteps = [int(t) for t in self.spec.timesteps if t is not None]
        noisy = torch.cat([self._noised(clean, sample_ids, t) for t in timesteps])
        level = torch.tensor(timesteps, device=noisy.device).repeat_interleave(len(clean))
        names = self.spec.names()
        with recording(self.unet, names, last=self.last_tap) as read:
            self.unet(noisy, level)
        split = {name: read[name].unflatten(0, (len(timesteps), len(clean))) for name in names}
        row = {t: i for i, t in enumerate(timesteps)}
        return FeatureBank(self.spec, {tap: split[tap.name][row[int(tap.timestep or 0)]] for tap in self.spec.taps})

    def _noised(self, clean: Tensor, sample_ids: Sequence[str], timestep: int) -> Tensor:
        noise = batch_noise(self.seed, sample_ids, timestep, clean)
        level = torch.full((len(clean),), timestep, device=clean.device)
        return self.scheduler.add_noise(clean, noise, level)

    def _check_timesteps(self, timesteps: Sequence[int]) -> None:
        total = self.scheduler.config["num_train_timesteps"]
        outside = [t for t in timesteps if not 0 <= t < total]
        if not timesteps or outside or len(set(timesteps)) != len(timesteps):
            raise UserError(
                f"encoder.timesteps is {list(timesteps)}: give distinct training timesteps, 0 (clean) to {total - 1}"
            )

    def _check_size(self, image_size: int) -> None:
        factor = 2 ** (len(self.unet.config["block_out_channels"]) - 1)
        if image_size < factor or image_size % factor:
            raise UserError(
                f"encoder.image_size is {image_size}: the UNet halves it to a {factor}th, so use a multiple of it"
            )
