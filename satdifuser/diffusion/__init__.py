"""Diffusion backbones as encoders: loading, noising, taps, and the encoder itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from satdifuser.lazily import lazily

if TYPE_CHECKING:
    from satdifuser.diffusion.encoder import DiffusionEncoder as DiffusionEncoder
    from satdifuser.diffusion.loading import diffusionsat as diffusionsat
    from satdifuser.diffusion.loading import stable_diffusion as stable_diffusion
    from satdifuser.diffusion.loading import unconditional as unconditional

ROOMS = {
    "DiffusionEncoder": "satdifuser.diffusion.encoder",
    **dict.fromkeys(("diffusionsat", "stable_diffusion", "unconditional"), "satdifuser.diffusion.loading"),
}
__all__ = ["DiffusionEncoder", "diffusionsat", "stable_diffusion", "unconditional"]

__getattr__, __dir__ = lazily(__name__, ROOMS)
