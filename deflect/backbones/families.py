"""How each family of ViTs is called, and what of it features do not use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deflect.backbones.base import Backbone
from satdifuser.bank import BankError


class TimmFamily(Backbone):
    """timm's VisionTransformer and what is built on it: SSL4EO's ViTs and Scale-MAE in torchgeo."""


class DofaFamily(Backbone):
    """DOFA: makes its patch embedding from the wavelengths of the bands."""

    spectral = True

    def run(self, x: Tensor) -> None:
        self.plain.forward_features(x, [band.wavelength / 1000 for band in self.bands])


class CopernicusFamily(Backbone):
    """Copernicus-FM: wavelengths and bandwidths; place, time and area are given as unknown."""

    spectral = True
    off = (*Backbone.off, "patch_embed_variable")

    def run(self, x: Tensor) -> None:
        missing = [band.name for band in self.bands if not band.bandwidth]
        if missing:
            raise BankError(f"Copernicus-FM needs the bandwidth of every band: the sensor has none for {missing[0]}")
        waves, widths = [band.wavelength for band in self.bands], [band.bandwidth for band in self.bands]
        unknown = x.new_full((len(x), 4), float("nan"))
        self.plain.forward_features(x, unknown, waves, widths, None, "spectral", self.facts.patch)


class PanopticonFamily(Backbone):
    """Panopticon: attention over channels named by their wavelengths."""

    spectral = True
    blocks_at = "model.blocks"
    norm_at = "model.norm"
    off = ("model.head", "model.fc_norm", "model.head_drop", "model.attn_pool")
    fixed = tuple(f"model.patch_embed.chnfus.chnemb.embed_{name}" for name in ("transmit", "receive", "orbit"))  # radar

    def run(self, x: Tensor) -> None:
        waves = torch.tensor([band.wavelength for band in self.bands], device=x.device)
        self.plain.model.forward_features({"imgs": x, "chn_ids": waves.repeat(len(x), 1)})


class CromaFamily(Backbone):
    """CROMA's optical encoder: 12 bands of Sentinel-2, no class token, distances instead of position embeddings."""

    blocks_at = "s2_encoder.transformer.layers"
    norm_at = "s2_encoder.transformer.norm_out"
    off = ("s2_GAP_FFN",)
    parts: ClassVar[Mapping[str, str]] = {
        **{"norm1": "0.input_norm", "qkv": "0.to_qkv", "attention": "0.to_out"},
        **{"norm2": "1.input_norm", "fc1": "1.net.0", "fc2": "1.net.3"},
    }

    def run(self, x: Tensor) -> None:
        self.plain.s2_encoder(imgs=x, attn_bias=self.plain.attn_bias)

    def last_of(self, block: Any) -> nn.Module:
        return block[1]  # attention, then a feed-forward layer; the sums are outside of both

    def after(self, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return given[0] + output
